"""Convolution blocks and query broadcasting, shared by interaction, decoder and refinement."""

from __future__ import annotations

from torch import Tensor, nn


def conv3x3(in_channels: int, out_channels: int, *, separable: bool = False, bias: bool = False) -> nn.Module:
    """A 3x3 convolution, plain or depthwise separable."""
    if not separable:
        return nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=bias)
    return nn.Sequential(
        nn.Conv2d(in_channels, in_channels, 3, padding=1, groups=in_channels, bias=False),
        nn.Conv2d(in_channels, out_channels, 1, bias=bias),
    )


def conv3x3_bn_relu(in_channels: int, out_channels: int, *, separable: bool = False) -> nn.Sequential:
    """ReLU(BN(conv3x3(x)))."""
    return nn.Sequential(
        conv3x3(in_channels, out_channels, separable=separable), nn.BatchNorm2d(out_channels), nn.ReLU(inplace=True)
    )


def for_each_query(shared: Tensor, queries: int) -> Tensor:
    """Repeat features for Q queries, [B,c,h,w] -> [B*Q,c,h,w]; a batch of one is left to broadcasting."""
    return shared if shared.shape[0] == 1 else shared.repeat_interleave(queries, dim=0)
