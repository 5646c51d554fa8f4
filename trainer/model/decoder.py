"""The top-down decoder (supplement, section 1)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rvos_edge.trainer.model.layers import conv3x3_bn_relu


class Decoder(nn.Module):
    """D_4 = M_4; D_i = conv3x3(cat(up(D_{i+1}), M_i)); two conv3x3 and a 1x1 to background and object.

    Args:
        channels: c_i of the levels, finest first; a single level (``fusion: single``) is decoded at its own stride.
        widths: Channels of D_i, finest first, one fewer than the levels; for a single level the width of the head.
        separable_levels: Number of finest levels that use depthwise-separable convolutions; the head does if any does.
    """

    def __init__(self, *, channels: Sequence[int], widths: Sequence[int], separable_levels: int) -> None:
        super().__init__()
        self.merges = nn.ModuleList()
        width = channels[-1]
        for index in reversed(range(len(channels) - 1)):
            separable = index < separable_levels
            self.merges.append(conv3x3_bn_relu(width + channels[index], widths[index], separable=separable))
            width = widths[index]
        separable = separable_levels > 0
        head = widths[0]
        self.head = nn.Sequential(
            conv3x3_bn_relu(width, head, separable=separable),
            conv3x3_bn_relu(head, head, separable=separable),
            nn.Conv2d(head, 2, 1),
        )

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        """M_1..M_4 [N,c_i,h_i,w_i], finest first -> logits [N,2,h_1,w_1]: background, object."""
        features = levels[-1]
        for merge, level in zip(self.merges, reversed(levels[:-1]), strict=True):
            features = F.interpolate(features, size=level.shape[-2:], mode="bilinear", align_corners=False)
            features = merge(torch.cat([features, level], dim=1))
        logits: Tensor = self.head(features)
        return logits
