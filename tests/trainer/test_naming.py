"""The naming loss: the encoder's own classifier gives words to what it sees, and stays as it is."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rvos_edge.trainer.naming import Naming

_NAMES = ("drake", "Arabian camel", "moped")


def _teacher() -> nn.Conv2d:
    """Channel n of C5 is class n."""
    classifier = nn.Conv2d(3, 3, 1)
    with torch.no_grad():
        classifier.weight.copy_(5 * torch.eye(3)[:, :, None, None])
        classifier.bias.zero_()
    return classifier


def _features() -> Tensor:
    """A picture whose left, middle and right thirds show the three classes."""
    features = torch.zeros(1, 3, 4, 6)
    for n in range(3):
        features[0, n, :, 2 * n : 2 * n + 2] = 1
    return features


def test_it_asks_for_every_class_as_people_do() -> None:
    assert Naming(_teacher(), _NAMES).sentences == ["a drake", "an Arabian camel", "a moped"]


def test_it_is_minimised_by_sentences_that_find_their_class() -> None:
    torch.manual_seed(0)
    naming = Naming(_teacher(), _NAMES)
    vision, language = torch.randn(1, 8, 4, 6).requires_grad_(), torch.randn(3, 8).requires_grad_()
    optimizer = torch.optim.Adam([vision, language], 0.1)
    for _ in range(100):
        optimizer.zero_grad()
        naming(_features(), vision, language).backward()
        optimizer.step()
    best = torch.einsum("bchw,nc->bnhw", vision, language).argmax(1)[0]
    assert torch.equal(best, torch.tensor([0, 0, 1, 1, 2, 2]).expand(4, 6))


def test_places_where_the_teacher_is_unsure_count_less() -> None:
    naming = Naming(_teacher(), _NAMES)
    language = torch.eye(3)

    def loss(seen: Tensor, vision: Tensor) -> float:
        return float(naming(seen, vision, language).detach())

    right, wrong = _features(), _features().roll(2, dims=3)
    half_wrong = torch.where(torch.arange(6) < 3, right, wrong)
    doubtful = torch.where(torch.arange(6) < 3, right, torch.zeros(1))
    assert loss(right, 9 * right) < loss(doubtful, 9 * half_wrong) < loss(right, 9 * half_wrong)


def test_neither_the_teacher_nor_what_it_reads_learns() -> None:
    naming = Naming(nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)), _NAMES).train()
    features = _features().requires_grad_()
    before = {name: value.clone() for name, value in naming.classifier.state_dict().items()}
    naming(features, torch.randn(1, 8, 4, 6), torch.randn(3, 8)).backward()
    assert features.grad is None
    assert [name for name, parameter in naming.named_parameters() if parameter.requires_grad] == ["sharpness"]
    assert all(torch.equal(value, before[name]) for name, value in naming.classifier.state_dict().items())
