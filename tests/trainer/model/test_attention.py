"""Self-attention over the coarsest level."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rvos_edge.trainer.model.attention import Attention
from rvos_edge.trainer.model.hinet import HINet
from rvos_edge.trainer.model.interaction import positions
from rvos_edge.trainer.model.presets import model_config


def _random_output(block: Attention) -> Attention:
    nn.init.normal_(block.output.weight)
    return block


def test_a_new_block_changes_nothing() -> None:
    features = torch.randn(2, 8, 4, 6)
    torch.testing.assert_close(Attention(channels=8, heads=2)(features), features)


def test_it_is_pytorchs_attention_over_means_of_four_places() -> None:
    torch.manual_seed(0)
    block = _random_output(Attention(channels=8, heads=2))
    features = torch.randn(2, 8, 4, 6)
    placed = torch.cat([features, positions(features)], dim=1)
    cells = F.avg_pool2d(placed, 2)

    def heads(part: nn.Conv2d, given: Tensor) -> Tensor:
        return part(given).flatten(2).unflatten(1, (2, 4)).transpose(2, 3)

    attended = F.scaled_dot_product_attention(
        heads(block.query, placed), heads(block.key, cells), heads(block.value, cells)
    )
    expected = features + block.output(attended.transpose(2, 3).reshape(2, 8, 4, 6))
    torch.testing.assert_close(block(features), expected)


def test_every_place_sees_every_other() -> None:
    torch.manual_seed(0)
    block = _random_output(Attention(channels=8, heads=2))
    features = torch.randn(1, 8, 4, 6, requires_grad=True)
    block(features)[0, :, 0, 0].sum().backward()
    assert features.grad is not None
    assert bool((features.grad != 0).any(dim=1).all())


def test_heads_divide_the_channels() -> None:
    with pytest.raises(ValueError, match="heads must divide the 8 channels, got 3"):
        Attention(channels=8, heads=3)


def test_a_network_with_it_takes_images_of_even_cells() -> None:
    network = HINet(config=model_config("test", attention_heads=2))
    assert network.size_multiple == 2 * network.backbone.strides[-1]
    assert network.size_above((70, 130)) == (128, 192)
