"""The alignment loss: sentences tied to regions, without punishing a sentence that may be true of another frame."""

from __future__ import annotations

import torch
from torch import Tensor

from rvos_edge.trainer.data.sample import IGNORE
from rvos_edge.trainer.losses.alignment import Alignment

_C, _H, _W = 6, 4, 8


def _halves() -> Tensor:
    """uint8 [2,2,16,32]: in each of two frames the left and the right half."""
    masks = torch.zeros(2, 2, 16, 32, dtype=torch.uint8)
    masks[:, 0, :, :16] = 1
    masks[:, 1, :, 16:] = 1
    return masks


def _loss(
    vision: Tensor, language: Tensor, masks: Tensor, expressions: list[list[str]], *, seed: int = 0
) -> tuple[Tensor, Alignment]:
    torch.manual_seed(seed)
    head = Alignment(channels=_C)
    return head(vision, language, masks, expressions), head


def test_it_is_minimised_by_features_that_tell_the_sentences_apart() -> None:
    expressions = [["a dog", "a car"], ["a horse", "a boat"]]
    torch.manual_seed(0)
    vision = torch.randn(2, _C, _H, _W).requires_grad_()
    language = torch.randn(2, 2, _C).requires_grad_()
    head = Alignment(channels=_C)
    optimizer = torch.optim.Adam([vision, language, *head.parameters()], 0.1)
    first = float(head(vision, language, _halves(), expressions).detach())
    for _ in range(150):
        optimizer.zero_grad()
        loss = head(vision, language, _halves(), expressions)
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 0.1 * first
    scores = torch.einsum("bchw,bqc->bqhw", vision, language * head.weight) + head.bias
    assert (scores[:, 0, :, :4] > 0).all()
    assert (scores[:, 0, :, 4:] < 0).all()
    assert (scores[:, 1, :, 4:] > 0).all()
    assert (scores[:, 1, :, :4] < 0).all()


def test_ignored_pixels_do_not_count() -> None:
    vision, language, masks = torch.randn(2, _C, _H, _W), torch.randn(2, 2, _C), _halves()
    masks[:, :, :, 24:] = IGNORE
    other = vision.clone()
    other[..., 6:] += 5.0
    expressions = [["a dog", "a car"], ["a horse", "a boat"]]
    assert torch.allclose(_loss(vision, language, masks, expressions)[0], _loss(other, language, masks, expressions)[0])


def test_a_sentence_that_may_be_true_elsewhere_is_no_rival() -> None:
    """Only where the words surely name different things is the other frame's sentence pushed away."""
    vision, language, masks = torch.randn(2, _C, _H, _W), torch.randn(2, 2, _C), _halves()
    masks[1] = 0  # the second frame has sentences but no region: it lends rivals only

    def through_ranks(expressions: list[list[str]]) -> bool:
        """True if the second frame's vision matters to what its sentences learn from the first frame's regions."""
        spoken = language.clone().requires_grad_()
        torch.manual_seed(0)
        head = Alignment(channels=_C)
        # A frame that is all zero gives its own sentences no gradient from where: only the ranks are left.
        seen = vision.clone()
        seen[1] = 0
        head(seen, spoken, masks, expressions).backward()
        assert spoken.grad is not None
        return bool(spoken.grad[1].abs().max() > 0)

    assert through_ranks([["a dog", "a car"], ["a horse", "a boat"]])
    assert not through_ranks([["a dog", "a puppy"], ["the brown dog", "the thing on the left"]])
