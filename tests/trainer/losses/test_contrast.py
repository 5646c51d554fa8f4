"""The loss that compares the masks of a frame's expressions."""

from __future__ import annotations

import torch
from torch import Tensor

from rvos_edge.trainer.data.sample import IGNORE
from rvos_edge.trainer.losses.contrast import contrast


def _halves(*regions: slice) -> Tensor:
    """uint8 [1,Q,16,32]: regions given by their columns."""
    masks = torch.zeros(1, len(regions), 16, 32, dtype=torch.uint8)
    for index, columns in enumerate(regions):
        masks[0, index, :, columns] = 1
    return masks


def _logits(margins: Tensor) -> Tensor:
    """Margins [Q,w] over columns -> logits [1,Q,2,4,w]."""
    margin = margins[:, None, :].expand(-1, 4, -1)[None]
    return torch.stack([torch.zeros_like(margin), margin], dim=2)


_LEFT, _RIGHT = slice(0, 16), slice(16, 32)


def _columns(left: float, right: float) -> list[float]:
    return [left] * 4 + [right] * 4


def test_masks_that_cover_both_objects_pay_and_masks_of_their_own_do_not() -> None:
    masks = _halves(_LEFT, _RIGHT)
    both = contrast(_logits(torch.tensor([_columns(5, 5), _columns(5, 5)])), masks)
    own = contrast(_logits(torch.tensor([_columns(5, -5), _columns(-5, 5)])), masks)
    swapped = contrast(_logits(torch.tensor([_columns(-5, 5), _columns(5, -5)])), masks)
    assert torch.isclose(both, 2 * torch.tensor(2.0).log())
    assert own < 1e-3
    assert torch.isclose(swapped, torch.tensor(20.0), atol=1e-3)


def test_descent_takes_the_masks_apart() -> None:
    margins = torch.zeros(2, 8).requires_grad_()
    contrast(_logits(margins), _halves(_LEFT, _RIGHT)).backward()  # type: ignore[no-untyped-call]
    assert margins.grad is not None
    assert (margins.grad[0, :4] < 0).all()
    assert (margins.grad[0, 4:] > 0).all()
    assert (margins.grad[1, :4] > 0).all()
    assert (margins.grad[1, 4:] < 0).all()


def test_expressions_of_one_object_are_not_compared() -> None:
    logits = torch.randn(1, 2, 2, 4, 8, generator=torch.Generator().manual_seed(0))
    assert contrast(logits, _halves(_LEFT, _LEFT)) == 0


def test_an_absent_expression_is_a_rival_in_the_regions_of_others_alone() -> None:
    masks = _halves(_LEFT, slice(0, 0))
    quiet = contrast(_logits(torch.tensor([_columns(5, -5), _columns(-5, 9)])), masks)
    loud = contrast(_logits(torch.tensor([_columns(5, -5), _columns(5, 9)])), masks)
    assert quiet < 1e-3
    assert torch.isclose(loud, torch.tensor(2.0).log())


def test_large_regions_stay_finite_in_float16() -> None:
    masks = torch.zeros(1, 2, 72, 128, dtype=torch.uint8)
    masks[0, 0, :, :90], masks[0, 1, :, 90:] = 1, 1
    margin = torch.where(masks == 1, 20.0, -20.0).half()
    with torch.autocast("cpu", dtype=torch.float16):
        loss = contrast(torch.stack([torch.zeros_like(margin), margin], dim=2), masks)
    assert loss < 1e-3


def test_ignored_pixels_do_not_count() -> None:
    masks = _halves(_LEFT, _RIGHT)
    masks[..., 24:] = IGNORE
    first = torch.tensor([_columns(5, -5), _columns(-5, 5)])
    second = first.clone()
    second[:, 6:] = 30
    assert torch.isclose(contrast(_logits(first), masks), contrast(_logits(second), masks))
