"""The rearranged update is torchvision's."""

from __future__ import annotations

from typing import Literal

import pytest
import torch

from rvos_edge.export.flow_update import ContextShare, Update
from rvos_edge.trainer.model.flow import FlowNetwork
from rvos_edge.trainer.model.presets import RaftConfig


@pytest.mark.parametrize("variant", ["large", "small", "tiny"])
@torch.no_grad()
def test_an_update_with_the_context_taken_out_is_the_same_update(variant: Literal["large", "small", "tiny"]) -> None:
    torch.manual_seed(0)
    raft = FlowNetwork(config=RaftConfig(variant=variant)).eval().raft
    block, share, update = raft.update_block, ContextShare(raft), Update(raft)
    correlation = torch.randn(2, raft.corr_block.out_channels, 6, 8)
    flow, hidden = (torch.randn(2, 2, 6, 8), torch.tanh(torch.randn(2, block.hidden_state_size, 6, 8)))
    context = torch.relu(torch.randn(2, share.convs[0].in_channels, 6, 8))
    theirs, ours = hidden, hidden
    for _ in range(3):
        theirs, expected = block(theirs, context, correlation, flow)
        ours, delta = update(ours, share(context), correlation, flow)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(delta, expected, atol=1e-5, rtol=1e-4)
