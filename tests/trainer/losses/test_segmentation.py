"""The loss, by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from rvos_edge.trainer.losses.segmentation import LossConfig, segmentation_loss

_PLAIN = LossConfig(background=1, object=1, hardest=1)


def _logits(margin: Tensor) -> Tensor:
    """[B,Q,H,W] object minus background -> [B,Q,2,H,W]."""
    return torch.stack([torch.zeros_like(margin), margin], dim=2)


def _softplus(x: float) -> float:
    return math.log1p(math.exp(x))


def test_four_pixels_by_hand() -> None:
    logits = _logits(torch.tensor([[[[2.0, -1.0], [0.5, 0.0]]]]))
    masks = torch.tensor([[[[1, 1], [0, 0]]]], dtype=torch.uint8)
    expected = (1.1 * _softplus(-2) + 1.1 * _softplus(1) + 0.9 * _softplus(0.5) + 0.9 * _softplus(0)) / 4
    loss = segmentation_loss(logits, masks, LossConfig(hardest=1))
    assert float(loss) == pytest.approx(expected, abs=1e-6)
    # Equal weights and all pixels: ordinary cross-entropy, as in pre-training.
    plain = torch.nn.functional.cross_entropy(logits.flatten(0, 1), masks.flatten(0, 1).long())
    assert float(segmentation_loss(logits, masks, _PLAIN)) == pytest.approx(float(plain), abs=1e-6)


def test_the_hardest_share_takes_the_largest_of_each_pair() -> None:
    margin = torch.tensor([[[[5.0, 4.0], [-3.0, -9.0]], [[0.0, 0.0], [0.0, 1.0]]]])
    masks = torch.zeros(1, 2, 2, 2, dtype=torch.uint8)
    config = LossConfig(background=1, hardest=0.25)
    assert float(segmentation_loss(_logits(margin), masks, config)) == pytest.approx((_softplus(5) + _softplus(1)) / 2)
    # A share of less than one pixel is one pixel.
    assert float(segmentation_loss(_logits(margin), masks, LossConfig(background=1, hardest=0.01))) == pytest.approx(
        (_softplus(5) + _softplus(1)) / 2
    )


@pytest.mark.parametrize("config", [_PLAIN, LossConfig(hardest=0.5), LossConfig(dice=1.0)])
def test_ignored_pixels_count_for_nothing(config: LossConfig) -> None:
    torch.manual_seed(0)
    masks = (torch.rand(2, 2, 8, 8) > 0.5).to(torch.uint8)
    masks[:, :, :4] = 255
    logits = torch.randn(2, 2, 2, 8, 8, requires_grad=True)
    segmentation_loss(logits, masks, config).backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None
    assert not logits.grad[..., :4, :].any()
    assert logits.grad[..., 4:, :].any()


@pytest.mark.parametrize("hardest", [1.0, 0.25])
def test_the_mean_is_over_the_counted_pixels(hardest: float) -> None:
    torch.manual_seed(0)
    margin = torch.randn(2, 1, 8, 8)
    masks = (torch.rand(2, 1, 8, 8) > 0.5).to(torch.uint8)
    config = LossConfig(hardest=hardest)
    left = segmentation_loss(_logits(margin[..., :4]), masks[..., :4], config)
    masks[..., 4:] = 255
    assert float(segmentation_loss(_logits(margin), masks, config)) == pytest.approx(float(left), rel=1e-6)
    if hardest == 1:
        plain = torch.nn.functional.cross_entropy(
            _logits(margin).flatten(0, 1), masks.flatten(0, 1).long(), ignore_index=255
        )
        assert float(segmentation_loss(_logits(margin), masks, _PLAIN)) == pytest.approx(float(plain), rel=1e-6)


def test_pairs_count_by_their_pixels_and_one_without_any_counts_for_nothing() -> None:
    margin = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]], [[5.0, 6.0], [7.0, 8.0]], [[9.0, 9.0], [9.0, 9.0]]]])
    masks = torch.zeros(1, 3, 2, 2, dtype=torch.uint8)
    masks[0, 1, 0] = 255
    masks[0, 2] = 255
    half = segmentation_loss(_logits(margin), masks, LossConfig(background=1, hardest=0.5))
    assert float(half) == pytest.approx((_softplus(3) + _softplus(4) + _softplus(8)) / 3, rel=1e-6)
    masks[:] = 255
    assert float(segmentation_loss(_logits(margin), masks, LossConfig(dice=1.0))) == 0


def test_dice_is_zero_for_a_perfect_mask_and_skips_absent_objects() -> None:
    masks = torch.zeros(1, 2, 8, 8, dtype=torch.uint8)
    masks[0, 0, 2:6, 2:6] = 1
    perfect = _logits(40.0 * (2.0 * masks - 1))
    config = LossConfig(dice=1.0)
    assert float(segmentation_loss(perfect, masks, config)) == pytest.approx(0, abs=1e-6)
    nothing = _logits(torch.full((1, 2, 8, 8), -40.0))
    dice = segmentation_loss(nothing, masks, config) - segmentation_loss(nothing, masks, LossConfig())
    assert float(dice) == pytest.approx(1 - 1 / 17, abs=1e-4)
    absent = masks[:, 1:]
    assert float(segmentation_loss(nothing[:, 1:], absent, config)) == pytest.approx(0, abs=1e-6)


def test_a_false_alarm_on_an_absent_object_costs() -> None:
    absent = torch.zeros(1, 1, 8, 8, dtype=torch.uint8)
    margin = torch.full((1, 1, 8, 8), -40.0)
    margin[0, 0, 0, :4] = 5
    assert float(segmentation_loss(_logits(margin), absent, LossConfig(dice=1.0))) > 1


def test_logits_are_upsampled_to_the_masks() -> None:
    logits = torch.randn(1, 2, 2, 4, 6, dtype=torch.float16)
    loss = segmentation_loss(logits, torch.zeros(1, 2, 16, 24, dtype=torch.uint8), LossConfig())
    assert loss.dtype == torch.float32
    with pytest.raises(ValueError, match="differ in batch or queries"):
        segmentation_loss(logits, torch.zeros(1, 3, 16, 24, dtype=torch.uint8), LossConfig())
