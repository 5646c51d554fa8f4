"""The motion image and its encoder (supplement, section 5)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

_MEAN_MULTIPLE = 3.0
"""The motion image saturates at this multiple of the mean magnitude (our reading)."""
_FLOOR_PIXELS = 1.0
"""Smallest magnitude, in pixels, at which it saturates: a frame without motion stays dark (our reading)."""


def relative_magnitude(flow: Tensor, camera: Tensor | None = None) -> Tensor:
    """Magnitude of the flow [B,2,h,w] minus its mean over the frame, which stands for the camera's motion: float32
    [B,1,h,w] in the same pixels. ``camera`` is as in ``motion_image``.
    """
    flow = flow.float()
    mean = flow.mean(dim=(2, 3), keepdim=True) if camera is None else camera[:, :2, None, None]
    relative = flow - mean
    # The constant keeps the gradient of the square root finite at zero flow.
    return torch.sqrt(relative.square().sum(dim=1, keepdim=True) + 1e-12)


def motion_image(flow: Tensor, camera: Tensor | None = None) -> Tensor:
    """The relative magnitude of the flow [B,2,h,w] in pixels of the input image, scaled to 0..1: float32 [B,1,h,w].

    Args:
        camera: Mean flow (x, y) of the whole frame and mean relative magnitude, float32 [B,3], where the flow is that
            of a crop (training): the same region has the same motion image whatever is cropped around it.
    """
    magnitude = relative_magnitude(flow, camera)
    average = magnitude.mean(dim=(2, 3), keepdim=True) if camera is None else camera[:, 2:, None, None]
    scale = (_MEAN_MULTIPLE * average).clamp(min=_FLOOR_PIXELS)
    return (magnitude / scale).clamp(max=1.0)


class MotionEncoder(nn.Module):
    """Strided convolutions on the motion image: U_1..U_4 at the strides of the four levels."""

    def __init__(self, *, in_stride: int, strides: tuple[int, ...], channels: tuple[int, ...], width: int) -> None:
        super().__init__()
        if strides[0] % in_stride:
            raise ValueError(f"the flow's stride must divide {strides[0]}, got {in_stride}")
        self.steps = nn.ModuleList()
        self.heads = nn.ModuleList()
        stride, in_channels = in_stride, 1
        for target, out_channels in zip(strides, channels, strict=True):
            step = nn.Sequential()
            while stride < target or not len(step):
                reduce = 2 if stride < target else 1
                step.append(nn.Conv2d(in_channels, width, 3, stride=reduce, padding=1, bias=False))
                step.append(nn.BatchNorm2d(width))
                step.append(nn.ReLU(inplace=True))
                stride, in_channels = stride * reduce, width
            self.steps.append(step)
            self.heads.append(nn.Conv2d(width, out_channels, 1))

    def forward(self, motion: Tensor) -> tuple[Tensor, ...]:
        """Motion image [B,1,h,w] -> U_1..U_4, [B,c_i,h_i,w_i]."""
        features = []
        for step, head in zip(self.steps, self.heads, strict=True):
            motion = step(motion)
            features.append(head(motion))
        return tuple(features)
