"""RAFT on streams: torchvision's modules, run one by one so that successive frames can share their work.

Flow points from the current frame to the previous one: it is aligned with the current frame and needs no future frame.
The correlation pyramid is looked up by small matrix products, or by gathering integer windows and blending once. Both
equal grid_sample, export to plain ONNX and are faster there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import zip_longest
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.optical_flow import RAFT, raft, raft_large, raft_small

from rvos_edge.errors import UserError
from rvos_edge.trainer.model.presets import RaftConfig
from rvos_edge.trainer.model.state_file import load_state_file

FLOW_STRIDE = 8
"""Stride of RAFT's feature maps."""
FLOW_SCALES = (1, 2, 4)
"""Factors by which the image may be reduced for the flow."""


class FlowNetwork(nn.Module):
    """RAFT, frozen.

    Attributes:
        scale: Factor by which the image is reduced before flow is computed; ``HINet.set_flow_scale`` changes it.
        field_scale: Factor by which the flow field is smaller than the image, fixed by the motion encoder.
    """

    def __init__(self, *, config: RaftConfig) -> None:
        super().__init__()
        self.scale: int = config.scale
        self.field_scale: int = config.scale
        self.iterations = config.iterations
        self.raft = _build_raft(config.variant)
        self.levels: int = self.raft.corr_block.num_levels
        self.radius: int = self.raft.corr_block.radius
        # The official weights are not trained (supplement, section 1).
        self.requires_grad_(False)

    @property
    def least_size(self) -> int:
        """Smallest height and width of the image: at less the coarsest correlation level would be empty."""
        return int(FLOW_STRIDE * self.scale * 2 ** (self.levels - 1))

    def prepare(self, image: Tensor) -> Tensor:
        """Image float [B,3,H,W], RGB 0..255 -> input of both encoders, [B,3,H/scale,W/scale] in -1..1."""
        if self.scale > 1:
            image = F.avg_pool2d(image, self.scale)
        return self.normalise(image)

    def normalise(self, image: Tensor) -> Tensor:
        """0..255 -> -1..1, in the type of the encoders."""
        return (image / 127.5 - 1.0).to(next(self.raft.parameters()).dtype)

    def encode(self, prepared: Tensor) -> Tensor:
        """Prepared image [B,3,H',W'] -> feature map [B,C,h,w], h = H' / 8."""
        features: Tensor = self.raft.feature_encoder(prepared)
        return features

    def context(self, prepared: Tensor) -> tuple[Tensor, Tensor]:
        """The current image, prepared [B,3,H',W'] -> initial hidden state and context, each [B,.,h,w]."""
        both = self.raft.context_encoder(prepared)
        size = self.raft.update_block.hidden_state_size
        hidden, context = torch.split(both, [size, both.shape[1] - size], dim=1)
        return torch.tanh(hidden), torch.relu(context)

    def correlate(self, fmap: Tensor, fmap_prev: Tensor) -> tuple[Tensor, ...]:
        """Feature maps [B,C,h,w] of the current and the previous frame -> pyramid of [B*h*w,h_l,w_l]."""
        channels = fmap.shape[1]
        # Each factor takes half of 1/sqrt(C), so that the product cannot overflow in float16.
        left = (fmap * channels**-0.25).flatten(2).transpose(1, 2)
        right = fmap_prev * channels**-0.25
        pyramid = []
        for _ in range(self.levels):
            level = torch.matmul(left, right.flatten(2))
            pyramid.append(level.view(-1, *right.shape[2:]))
            # Pooling the features equals pooling the correlation volume, at a fraction of the cost.
            right = F.avg_pool2d(right, 2) if len(pyramid) < self.levels else right
        return tuple(pyramid)

    def step(
        self, pyramid: tuple[Tensor, ...], hidden: Tensor, context: Tensor, coords: Tensor
    ) -> tuple[Tensor, Tensor]:
        """One lookup and update -> hidden [B,.,h,w] and coords [B,2,h,w], x and y positions in the previous frame."""
        correlation, flow = self.look_up(pyramid, coords)
        hidden, delta = self.raft.update_block(hidden, context, correlation, flow)
        return hidden, coords + delta.to(coords.dtype)

    def look_up(self, pyramid: tuple[Tensor, ...], coords: Tensor) -> tuple[Tensor, Tensor]:
        """Inputs of an update: correlations [B,levels*(2r+1)^2,h,w] around coords, and the flow [B,2,h,w] so far."""
        batch, _, height, width = coords.shape
        # In float32 even in narrower networks: positions reach hundreds of pixels and need their fractions.
        flow = coords - identity_grid(coords)
        levels = [lookup(level, flow, 2**index, self.radius) for index, level in enumerate(pyramid)]
        correlation = torch.cat(levels, dim=1).view(batch, height, width, -1).permute(0, 3, 1, 2)
        return correlation, flow.to(correlation.dtype)

    def upsample(self, hidden: Tensor, coords: Tensor) -> Tensor:
        """Upsampled flow [B,2,H/field_scale,W/field_scale] in pixels of the full image.

        RAFT-large upsamples by convex combination, RAFT-small bilinearly. A field that was computed at another scale is
        resampled to its size.
        """
        flow = coords - identity_grid(coords)
        if self.raft.mask_predictor is None:
            up = _stretch(flow.to(next(self.raft.parameters()).dtype)).to(flow.dtype)
        else:
            up = _convex_upsample(flow, self.raft.mask_predictor(hidden))
        if self.scale > self.field_scale:
            factor = float(self.scale // self.field_scale)
            up = F.interpolate(up, scale_factor=factor, mode="bilinear", align_corners=False)
        elif self.scale < self.field_scale:
            up = F.avg_pool2d(up, self.field_scale // self.scale)
        return up * float(FLOW_STRIDE * self.scale)

    def forward(
        self, image: Tensor, image_prev: Tensor, *, iterations: int | None = None, coords: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Flow from ``image`` to ``image_prev``, both float [B,3,H,W] RGB 0..255: [B,2,H/field_scale,W/field_scale] in
        pixels of the image, and the final coords for a warm start; ``coords`` are those to start from, the identity
        grid by default.
        """
        prepared = self.prepare(image)
        fmap, fmap_prev = self.encode(prepared), self.encode(self.prepare(image_prev))
        coords = identity_grid(fmap) if coords is None else coords
        return self._estimate(prepared, fmap, fmap_prev, coords, iterations or self.iterations)

    @torch.inference_mode()
    def stream(self, *videos: Iterable[NDArray[np.uint8]]) -> Iterator[NDArray[np.float32]]:
        """Flow of each frame to the one before, of videos side by side, as the runtime computes it.

        Args:
            videos: Frames uint8 [H,W,3] BGR, all of one size; of a video that has ended the last frame is repeated.

        Yields:
            float32 [N,2,H/field_scale,W/field_scale] in pixels, a row for each video; zeros for the first frames.
        """
        stream, device = FlowStream(self), next(self.parameters()).device
        last: list[NDArray[np.uint8]] = []
        for frames in zip_longest(*videos):
            last = [old if new is None else new for new, old in zip_longest(frames, last)]
            images = torch.from_numpy(np.stack(last)[..., ::-1].copy()).permute(0, 3, 1, 2).float()
            yield stream.step(images.to(device)).cpu().numpy()

    def _estimate(
        self, prepared: Tensor, fmap: Tensor, fmap_prev: Tensor, coords: Tensor, iterations: int
    ) -> tuple[Tensor, Tensor]:
        pyramid = self.correlate(fmap, fmap_prev)
        hidden, context = self.context(prepared)
        for _ in range(iterations):
            hidden, coords = self.step(pyramid, hidden, context, coords)
        return self.upsample(hidden, coords), coords


class FlowStream:
    """Flow between successive frames: the previous frame's features are reused, and the last flow is the warm start."""

    def __init__(self, network: FlowNetwork) -> None:
        self.network = network
        self._previous: tuple[Tensor, Tensor] | None = None

    def step(self, image: Tensor) -> Tensor:
        """Flow to the previous frame of float [B,3,H,W] RGB 0..255, in pixels of the image; zeros on the first
        frame.
        """
        network = self.network
        prepared = network.prepare(image)
        fmap = network.encode(prepared)
        if self._previous is None:
            coords = identity_grid(fmap)
            height, width = (extent // network.field_scale for extent in image.shape[2:])
            flow = image.new_zeros(len(image), 2, height, width)
        else:
            flow, coords = network._estimate(prepared, fmap, *self._previous, network.iterations)
        self._previous = fmap, coords
        return flow


def identity_grid(like: Tensor) -> Tensor:
    """Column and row index of every position, float32 [B,2,h,w], for a tensor [B,.,h,w]."""
    batch, _, height, width = like.shape
    rows = torch.arange(height, dtype=torch.float32, device=like.device)
    columns = torch.arange(width, dtype=torch.float32, device=like.device)
    grid = torch.stack([columns.expand(height, width), rows.unsqueeze(1).expand(height, width)])
    return grid.unsqueeze(0).expand(batch, -1, -1, -1)


_SMALL_LEVEL = 1024
"""Size of a correlation map, in positions, up to which products with all of it are cheaper than gathering."""


def lookup(level: Tensor, flow: Tensor, reduction: int, radius: int) -> Tensor:
    """Bilinear samples of a correlation level in a window around the flow's target; zero outside (RAFT, section 3.2).

    Args:
        level: [B*h*w,h_l,w_l], one correlation map for every position of the current frame.
        flow: float32 [B,2,h,w] in pixels of the finest level.
        reduction: Pixels of the finest level per pixel of this level.
        radius: r.

    Returns:
        [B*h*w,(2r+1)^2], x offset major, as RAFT's weights expect.
    """
    read = _look_up_by_products if level[0].numel() <= _SMALL_LEVEL else _look_up_by_gathering
    y, x = (torch.arange(extent, dtype=flow.dtype, device=flow.device) / reduction for extent in flow.shape[2:])
    return read(level, flow / reduction, x, y, radius)


def _look_up_by_products(level: Tensor, flow: Tensor, x: Tensor, y: Tensor, radius: int) -> Tensor:
    """Lookup as products with hat functions: bilinear sampling is linear in rows and in columns."""
    rows = torch.matmul(_hats(y.unsqueeze(1), flow[:, 1], level.shape[1], radius).to(level.dtype), level)
    columns = _hats(x, flow[:, 0], level.shape[2], radius).to(level.dtype)
    return torch.matmul(columns, rows.transpose(1, 2)).flatten(1)


def _hats(start: Tensor, flow: Tensor, extent: int, radius: int) -> Tensor:
    """Bilinear weights of ``extent`` pixels at each offset from start + flow: [B,h,w] -> [B*h*w,2r+1,extent].

    The flow is added last. Where a hat is not zero, the other summand is a small multiple of 1/8, which bfloat16
    represents exactly; a position itself would be off by up to a pixel.
    """
    offsets = torch.arange(2 * radius + 1, dtype=flow.dtype, device=flow.device) - radius
    pixels = torch.arange(extent, dtype=flow.dtype, device=flow.device)
    apart = (start[..., None, None] + offsets.unsqueeze(1)) - pixels
    return torch.relu(1 - (apart + flow[..., None, None]).abs()).flatten(0, 2)


def _look_up_by_gathering(level: Tensor, flow: Tensor, x: Tensor, y: Tensor, radius: int) -> Tensor:
    """Lookup by (2r+2)^2 integer gathers and one blend: the (2r+1)^2 samples of a window share their fraction."""
    count, height, width = level.shape
    columns, right = _corners(x, flow[:, 0], width, radius)
    rows, lower = _corners(y.unsqueeze(1), flow[:, 1], height, radius)
    index = rows.clamp(0, height - 1).unsqueeze(1) * width + columns.clamp(0, width - 1).unsqueeze(2)
    side = columns.shape[1]
    window = torch.gather(level.flatten(1), 1, index.flatten(1)).view(count, side, side)
    left, right = (part.to(level.dtype).unsqueeze(2) for part in _shares(right, columns, width))
    upper, lower = (part.to(level.dtype).unsqueeze(1) for part in _shares(lower, rows, height))
    window = window[:, :-1] * left + window[:, 1:] * right
    return (window[:, :, :-1] * upper + window[:, :, 1:] * lower).flatten(1)


def _corners(start: Tensor, flow: Tensor, extent: int, radius: int) -> tuple[Tensor, Tensor]:
    """Pixels around start + flow, int64 [B*h*w,2r+2], and its fraction beyond the middle pixel, [B*h*w,1].

    The integer part of the start stays apart, because bfloat16 would round the sum.
    """
    side = 2 * radius + 2
    whole = start.floor()
    ahead = (start - whole) + flow
    steps = ahead.floor()
    # Samples far outside are zero; the bound keeps the conversion to integers defined.
    middle = steps.clamp(-extent - side, extent + side).long() + whole.long()
    places = middle.view(-1, 1) + (torch.arange(side, device=flow.device) - radius)
    return places, (ahead - steps).view(-1, 1)


def _shares(fraction: Tensor, places: Tensor, extent: int) -> tuple[Tensor, Tensor]:
    """Weights of the two neighbours of each sample along an axis, zero outside the map: [n,2r+1] each."""
    inside = ((places >= 0) & (places < extent)).to(fraction.dtype)
    return (1 - fraction) * inside[:, :-1], fraction * inside[:, 1:]


def load_raft_weights(network: FlowNetwork, path: Path) -> None:
    """Load an official RAFT checkpoint (names of princeton-vl, small or large) or torchvision's, strictly.

    Raises:
        UserError: The file is missing or holds another variant.
    """
    state = load_state_file(path)
    try:
        network.raft.load_state_dict(torchvision_raft_names(state), strict=True)
    except (RuntimeError, KeyError, IndexError) as error:
        detail = str(error).splitlines()[-1].strip()
        message = f"{path} does not hold the RAFT variant of this preset ({detail}); pick the other one."
        raise UserError(message) from error


def torchvision_raft_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename official weights (``module.fnet.layer1.0.conv1.weight``) to torchvision's names."""
    state = {key.removeprefix("module."): value for key, value in state.items()}
    if not any(key.startswith(("fnet.", "cnet.")) for key in state):
        return dict(state)
    renamed = {}
    for key, value in state.items():
        # The norm of a block's projection is stored twice: as norm3 and inside ``downsample``.
        if ".norm3." in key or ".norm4." in key:
            continue
        head, *rest = key.split(".")
        if head in ("fnet", "cnet"):
            encoder = {"fnet": "feature_encoder", "cnet": "context_encoder"}[head]
            renamed[".".join([encoder, *_encoder_names(rest)])] = value
        else:
            renamed[_update_name(rest)] = value
    return renamed


def _encoder_names(parts: list[str]) -> list[str]:
    kind, index = parts[-2][:-1], parts[-2][-1]
    if parts[0].startswith("layer"):
        if parts[2] == "downsample":
            return parts
        return [*parts[:2], f"convnormrelu{index}", "0" if kind == "conv" else "1", parts[-1]]
    if parts[0] == "conv2":
        return ["conv", parts[-1]]
    return ["convnormrelu", "0" if kind == "conv" else "1", parts[-1]]


_UPDATE_NAMES = {
    "encoder.convc1": "motion_encoder.convcorr1.0",
    "encoder.convc2": "motion_encoder.convcorr2.0",
    "encoder.convf1": "motion_encoder.convflow1.0",
    "encoder.convf2": "motion_encoder.convflow2.0",
    "encoder.conv": "motion_encoder.conv.0",
    "flow_head.conv1": "flow_head.conv1",
    "flow_head.conv2": "flow_head.conv2",
    **{f"gru.conv{gate}": f"recurrent_block.convgru1.conv{gate}" for gate in "zrq"},
    **{f"gru.conv{gate}{n}": f"recurrent_block.convgru{n}.conv{gate}" for gate in "zrq" for n in (1, 2)},
}


def _update_name(parts: list[str]) -> str:
    if parts[0] == "mask":
        return {"0": "mask_predictor.convrelu.0.", "2": "mask_predictor.conv."}[parts[1]] + parts[-1]
    return f"update_block.{_UPDATE_NAMES['.'.join(parts[:-1])]}.{parts[-1]}"


def _stretch(flow: Tensor) -> Tensor:
    """Bilinear upsampling by 8 with aligned corners, [B,2,h,w] -> [B,2,8h,8w].

    Two small matrix products; OpenVINO's Interpolate takes fifteen times as long.
    """
    height, width = (_linear(extent, flow) for extent in flow.shape[2:])
    return height @ (flow @ width.T)


def _linear(extent: int, like: Tensor) -> Tensor:
    """Matrix of linear interpolation from n to 8n points with aligned ends: [8n,n]."""
    points = torch.linspace(0, extent - 1, extent * FLOW_STRIDE, dtype=torch.float32, device=like.device)
    places = torch.arange(extent, dtype=torch.float32, device=like.device)
    return torch.relu(1 - (points.unsqueeze(1) - places).abs()).to(like.dtype)


def _convex_upsample(flow: Tensor, mask: Tensor) -> Tensor:
    """Convex combination of the 3x3 neighbours (RAFT, section 3.3), in the flow's own units, float32."""
    batch, _, height, width = flow.shape
    factor = FLOW_STRIDE
    weights = torch.softmax(mask.float().view(batch, 1, 9, factor, factor, height, width), dim=2)
    padded = F.pad(flow, (1, 1, 1, 1))
    shifts = [padded[:, :, y : y + height, x : x + width] for y in range(3) for x in range(3)]
    neighbours = torch.stack(shifts, dim=2).view(batch, 2, 9, 1, 1, height, width)
    up = (weights * neighbours).sum(dim=2)
    return up.permute(0, 1, 4, 2, 5, 3).reshape(batch, 2, height * factor, width * factor)


def _build_raft(variant: str) -> RAFT:
    if variant == "large":
        return raft_large(weights=None)
    if variant == "small":
        return raft_small(weights=None)
    # "tiny": the parts of raft_small with few channels and two pyramid levels, for tests on 64x96 frames.
    layers = (8, 8, 12, 16)
    corr = raft.CorrBlock(num_levels=2, radius=2)
    motion = raft.MotionEncoder(
        in_channels_corr=corr.out_channels, corr_layers=(16,), flow_layers=(16, 8), out_channels=16
    )
    recurrent = raft.RecurrentBlock(input_size=16 + 8, hidden_size=16, kernel_size=(3,), padding=(1,))
    block = {"block": raft.BottleneckBlock, "strides": (2, 1, 2, 2)}
    return RAFT(
        feature_encoder=raft.FeatureEncoder(layers=(*layers, 16), norm_layer=nn.InstanceNorm2d, **block),
        context_encoder=raft.FeatureEncoder(layers=(*layers, 16 + 8), norm_layer=None, **block),
        corr_block=corr,
        update_block=raft.UpdateBlock(
            motion_encoder=motion, recurrent_block=recurrent, flow_head=raft.FlowHead(in_channels=16, hidden_size=16)
        ),
    )
