"""Self-attention over the coarsest level: candidates that lie far from each other are compared."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from rvos_edge.trainer.model.interaction import positions

POOL = 2
"""Side of the square of places whose mean a key or a value is, in cells of M."""


class Attention(nn.Module):
    """M + W(softmax(q k / sqrt(d)) v), with the coordinates beside M, and keys and values at half of the resolution.

    A non-local block with its subsampling trick (Wang et al., "Non-local Neural Networks", CVPR 2018, section 3.3);
    beyond the paper. Convolutions see a neighbourhood, but "the third from the left" and "the largest" compare all that
    is there. W starts at zero, so that a network without the block can go on with it.

    Args:
        channels: c of M, a multiple of ``heads``.
        heads: Number of attention maps.

    Raises:
        ValueError: ``channels`` is no multiple of ``heads``.
    """

    def __init__(self, *, channels: int, heads: int) -> None:
        super().__init__()
        if heads < 1 or channels % heads:
            raise ValueError(f"heads must divide the {channels} channels, got {heads}")
        self.heads = heads
        self.query = nn.Conv2d(channels + 2, channels, 1)
        self.key = nn.Conv2d(channels + 2, channels, 1)
        self.value = nn.Conv2d(channels + 2, channels, 1)
        self.output = nn.Conv2d(channels, channels, 1)
        nn.init.zeros_(self.output.weight)
        assert self.output.bias is not None
        nn.init.zeros_(self.output.bias)

    def forward(self, features: Tensor) -> Tensor:
        """M [N,c,h,w], h and w even -> [N,c,h,w]."""
        batch, channels, height, width = features.shape
        placed = torch.cat([features, positions(features)], dim=1)
        # No pooling layer: its gradient is no operation of ONNX (export/teach.py).
        cells = placed.reshape(batch, channels + 2, height // POOL, POOL, width // POOL, POOL).mean(dim=(3, 5))
        queries, keys, values = (
            part(given).flatten(2).unflatten(1, (self.heads, channels // self.heads))
            for part, given in ((self.query, placed), (self.key, cells), (self.value, cells))
        )
        scores = queries.transpose(2, 3) @ keys / math.sqrt(channels // self.heads)
        weights = scores.float().softmax(dim=-1).to(values.dtype)
        attended = (values @ weights.transpose(2, 3)).reshape(batch, channels, height, width)
        out: Tensor = features + self.output(attended)
        return out
