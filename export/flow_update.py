"""RAFT's update block, rearranged for export: the part that depends on the context alone runs once per frame.

A gate of the recurrent unit is a convolution of cat(hidden, context, motion). Convolution is linear, so the context's
share moves out of the iterations, and the two gates with equal inputs become one convolution. The result equals
torchvision's up to rounding.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torchvision.models.optical_flow import RAFT
from torchvision.models.optical_flow.raft import ConvGRU


class ContextShare(nn.Module):
    """The context's contribution to the gates of all recurrent units, biases included."""

    def __init__(self, raft: RAFT) -> None:
        super().__init__()
        hidden, context = _extents(raft)
        columns = slice(hidden, hidden + context)
        self.convs = nn.ModuleList(
            _joined([unit.convz, unit.convr, unit.convq], [columns], bias=True) for unit in _units(raft)
        )

    def forward(self, context: Tensor) -> Tensor:
        """Context [B,c,h,w] -> [B,3*hidden*units,h,w]: z, r and q of each unit."""
        return torch.cat([conv(context) for conv in self.convs], dim=1)


class Update(nn.Module):
    """One update of the hidden state from correlation and flow, given the context's contribution."""

    def __init__(self, raft: RAFT) -> None:
        super().__init__()
        self.hidden, context = _extents(raft)
        inputs = [slice(0, self.hidden), slice(self.hidden + context, None)]
        self.motion_encoder = raft.update_block.motion_encoder
        self.flow_head = raft.update_block.flow_head
        self.zr = nn.ModuleList(_joined([unit.convz, unit.convr], inputs) for unit in _units(raft))
        self.q = nn.ModuleList(_joined([unit.convq], inputs) for unit in _units(raft))

    def forward(self, hidden: Tensor, share: Tensor, correlation: Tensor, flow: Tensor) -> tuple[Tensor, Tensor]:
        """Hidden state, context share, correlation and flow -> hidden [B,.,h,w] and the flow's change [B,2,h,w]."""
        motion = self.motion_encoder(flow, correlation)
        size = self.hidden
        for index, (zr, q) in enumerate(zip(self.zr, self.q, strict=True)):
            ours = share[:, 3 * size * index : 3 * size * (index + 1)]
            gates = torch.sigmoid(zr(torch.cat([hidden, motion], dim=1)) + ours[:, : 2 * size])
            update, reset = gates[:, :size], gates[:, size:]
            new = torch.tanh(q(torch.cat([reset * hidden, motion], dim=1)) + ours[:, 2 * size :])
            hidden = hidden + update * (new - hidden)
        return hidden, self.flow_head(hidden)


def split_update(raft: RAFT, joined: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Recover the weights of RAFT's update block from those of ``ContextShare`` and ``Update``, by their names there.

    Names in ``joined`` begin with ``share.`` and ``update.``; others are ignored.
    """
    size, _ = _extents(raft)
    split: dict[str, Tensor] = {}
    for name, tensor in joined.items():
        if name.startswith(("update.motion_encoder.", "update.flow_head.")):
            split[name.removeprefix("update.")] = tensor
    names = [name for name, unit in raft.update_block.recurrent_block.named_children() if isinstance(unit, ConvGRU)]
    for index, unit in enumerate(names):
        parts = [f"update.zr.{index}.weight", f"update.q.{index}.weight", f"share.convs.{index}.weight"]
        bias = joined.get(f"share.convs.{index}.bias")
        if bias is None or any(part not in joined for part in parts):
            continue
        zr, q, share = (joined[part] for part in parts)
        for order, gate in enumerate("zrq"):
            rows = slice(order * size, (order + 1) * size)
            ours = torch.cat([zr, q])[rows]
            weight = torch.cat([ours[:, :size], share[rows], ours[:, size:]], dim=1)
            split[f"recurrent_block.{unit}.conv{gate}.weight"] = weight
            split[f"recurrent_block.{unit}.conv{gate}.bias"] = bias[rows]
    return split


def _units(raft: RAFT) -> list[ConvGRU]:
    block = raft.update_block.recurrent_block
    return [unit for unit in (block.convgru1, block.convgru2) if isinstance(unit, ConvGRU)]


def _extents(raft: RAFT) -> tuple[int, int]:
    """Channel counts of the hidden state and of the context."""
    hidden = raft.update_block.hidden_state_size
    gate = _units(raft)[0].convz
    return hidden, gate.in_channels - hidden - raft.update_block.motion_encoder.out_channels


def _joined(convs: Sequence[nn.Conv2d], columns: Sequence[slice], *, bias: bool = False) -> nn.Conv2d:
    """One convolution with the outputs of several, restricted to some of their input channels."""
    weight = torch.cat([torch.cat([conv.weight[:, part] for part in columns], dim=1) for conv in convs])
    # All gates of RAFT preserve the spatial size.
    height, width = weight.shape[2:]
    joined = nn.Conv2d(
        weight.shape[1],
        weight.shape[0],
        (height, width),
        padding=(height // 2, width // 2),
        bias=bias,
        dtype=weight.dtype,
    )
    joined.weight = nn.Parameter(weight.detach(), requires_grad=False)
    if bias:
        biases = [conv.bias for conv in convs if conv.bias is not None]
        joined.bias = nn.Parameter(torch.cat(biases).detach(), requires_grad=False)
    return joined
