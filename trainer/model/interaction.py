"""One level of the hierarchical interaction of language, vision and motion (supplement, section 1)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rvos_edge.trainer.model.layers import conv3x3, conv3x3_bn_relu, for_each_query


class VisionBranch(nn.Module):
    """V = ReLU(BN(proj(C)) + U)."""

    def __init__(self, *, in_channels: int, channels: int, position: bool = False) -> None:
        super().__init__()
        self.position = position
        self.projection = nn.Conv2d(in_channels + 2 * position, channels, 1, bias=False)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, features: Tensor, motion: Tensor | None) -> Tensor:
        """C [B,in,h,w] and U [B,c,h,w] or None -> V [B,c,h,w]."""
        if self.position:
            features = torch.cat([features, positions(features)], dim=1)
        vision: Tensor = self.norm(self.projection(features))
        return torch.relu(vision if motion is None else vision + motion)


class Interaction(nn.Module):
    """M = ReLU(BN(conv3x3(V * l))), times the motion gate G = sigmoid(conv3x3(U))."""

    def __init__(self, *, channels: int, gated: bool, separable: bool) -> None:
        super().__init__()
        self.mix = conv3x3_bn_relu(channels, channels, separable=separable)
        self.gate = conv3x3(channels, channels, separable=separable, bias=True) if gated else None

    def forward(self, vision: Tensor, language: Tensor, motion: Tensor | None) -> Tensor:
        """V [B,c,h,w], l [B,Q,c] and U [B,c,h,w] or None -> M [B*Q,c,h,w]; V and G are shared by the queries."""
        queries = language.shape[1]
        conv, norm, relu = self.mix
        if isinstance(conv, nn.Sequential):
            # A depthwise convolution commutes with scaling the channels: it runs once for all queries.
            depthwise, conv = conv
            vision = depthwise(vision)
        scaled = for_each_query(vision, queries) * language.flatten(0, 1).unsqueeze(-1).unsqueeze(-1)
        mixed: Tensor = relu(norm(conv(scaled)))
        if self.gate is None or motion is None:
            return mixed
        return mixed * for_each_query(torch.sigmoid(self.gate(motion)), queries)


def positions(features: Tensor) -> Tensor:
    """Column and row coordinates in -1..1, [B,2,h,w]."""
    batch, _, height, width = features.shape
    rows = torch.linspace(-1, 1, height, dtype=features.dtype, device=features.device)
    columns = torch.linspace(-1, 1, width, dtype=features.dtype, device=features.device)
    grid = torch.stack([columns.expand(height, width), rows.unsqueeze(1).expand(height, width)])
    return grid.unsqueeze(0).expand(batch, -1, -1, -1)
