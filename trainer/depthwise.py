"""Depthwise convolutions whose gradients are fast on a CPU.

oneDNN computes the gradients of a dilated depthwise convolution 10 to 50 times slower than the convolution itself, in
bfloat16 above all, although the gradient in the input *is* such a convolution.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def speed_up_depthwise(model: nn.Module) -> None:
    """Give the depthwise convolutions of a network, which must be on the CPU, gradients by ``DepthwiseConv``."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d) and 1 < module.groups == module.in_channels == module.out_channels:
            _replace(module)


def _replace(conv: nn.Conv2d) -> None:
    usual = conv._conv_forward

    def forward(image: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if not torch.is_grad_enabled():
            return cast("Tensor", usual(image, weight, bias))
        if torch.is_autocast_enabled("cpu"):
            precision = torch.get_autocast_dtype("cpu")
            image, weight = image.to(precision), weight.to(precision)
            bias = None if bias is None else bias.to(precision)
        result = cast("Tensor", DepthwiseConv.apply(image, weight, conv.stride, conv.padding, conv.dilation))
        return result if bias is None else result + bias[:, None, None]

    if conv.padding_mode == "zeros" and isinstance(conv.padding, tuple):
        conv._conv_forward = forward  # type: ignore[assignment, method-assign]


class DepthwiseConv(torch.autograd.Function):
    """``conv2d`` with one group per channel: image [B,C,H,W], weight [C,1,k,k].

    The gradient in the image is the convolution of the gradient with the mirrored weight (stride 1); that in the weight
    is computed in float32.
    """

    @staticmethod
    def forward(
        ctx: Any,
        image: Tensor,
        weight: Tensor,
        stride: tuple[int, int],
        padding: tuple[int, int],
        dilation: tuple[int, int],
    ) -> Tensor:
        ctx.save_for_backward(image, weight)
        ctx.shape = stride, padding, dilation
        return F.conv2d(image, weight, None, stride, padding, dilation, len(weight))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None]:
        (gradient,) = gradients
        image, weight = ctx.saved_tensors
        stride, padding, dilation = ctx.shape
        extents = weight.shape[2:]
        rest = [d * (k - 1) - p for d, k, p in zip(dilation, extents, padding, strict=True)]
        mirrored = stride == (1, 1) and min(rest) >= 0
        in_image = None
        if ctx.needs_input_grad[0] and mirrored:
            in_image = F.conv2d(gradient, weight.flip(2, 3), None, 1, rest, dilation, len(weight))
        wanted = [ctx.needs_input_grad[0] and not mirrored, ctx.needs_input_grad[1], False]
        wide = torch.promote_types(image.dtype, torch.float32)
        left, in_weight, _ = torch.ops.aten.convolution_backward(
            gradient.to(wide),
            image.to(wide),
            weight.to(wide),
            None,
            stride,
            padding,
            dilation,
            False,
            [0, 0],
            len(weight),
            wanted,
        )
        in_image = in_image if left is None else left.to(image.dtype)
        return in_image, None if in_weight is None else in_weight.to(weight.dtype), None, None, None
