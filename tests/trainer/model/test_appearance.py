"""Places that look and move like the first guess of an object join it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from rvos_edge.trainer.model.hinet import HINet
from rvos_edge.trainer.model.presets import model_config
from rvos_edge.trainer.model.refine.appearance import discriminant, fisher_logits


def _scene() -> tuple[Tensor, Tensor]:
    """An object of 8x8 with its guess, which has but its left half: bool [16,16], margin [1,1,16,16]."""
    object_ = torch.zeros(16, 16, dtype=torch.bool)
    object_[4:12, 4:12] = True
    guess = torch.full((1, 1, 16, 16), -1.0)
    guess[..., 4:12, 4:8] = 3.0
    return object_, guess


def _appearance(object_: Tensor) -> Tensor:
    """Six channels in which the object differs from what is around it, [1,6,16,16]."""
    torch.manual_seed(0)
    return 0.3 * torch.randn(1, 6, *object_.shape) + object_


def _flow(moving: Tensor) -> Tensor:
    """Three pixels to the right, and as many to the left for the camera, [1,2,16,16]."""
    return torch.stack([torch.where(moving, 3.0, -3.0), torch.zeros(moving.shape)]).unsqueeze(0)


def test_it_is_fishers() -> None:
    """Held against the definition: means and pooled variances of both classes, each computed by itself."""
    torch.manual_seed(0)
    features, inside = torch.randn(1, 5, 6, 7).double() + 4, torch.rand(1, 1, 6, 7).double()
    x, p = features.flatten(2)[0].numpy(), inside.flatten().numpy()
    own, other = (x * p).sum(1) / p.sum(), (x * (1 - p)).sum(1) / (1 - p).sum()
    variance = ((x - own[:, None]) ** 2 * p + (x - other[:, None]) ** 2 * (1 - p)).mean(1)
    variance = variance + 0.1 * variance.mean()
    direction = (own - other) / variance
    expected = (direction @ (x - (own + other)[:, None] / 2)) / (1 + direction @ (own - other)) ** 0.5
    got = discriminant(features, inside).flatten()
    torch.testing.assert_close(got, torch.from_numpy(expected).float(), rtol=1e-3, atol=1e-4)


def test_what_looks_the_same_joins_the_guess() -> None:
    object_, guess = _scene()
    margin = guess + fisher_logits(guess, [_appearance(object_)], None)
    assert torch.equal(margin[0, 0] > 0, object_)


def test_what_rests_beside_what_moves_leaves_the_guess() -> None:
    """A scooter that is parked beside one that drives, where both were guessed."""
    parked, driving = torch.zeros(2, 16, 16, dtype=torch.bool)
    parked[2:5, 2:6] = True
    driving[6:14, 6:14] = True
    guess = torch.where(parked | driving, 1.0, -4.0).view(1, 1, 16, 16)
    flat = [torch.zeros(1, 1, 16, 16)]
    still, live = (guess + fisher_logits(guess, flat, flow) for flow in (None, _flow(driving)))
    assert torch.equal(still[0, 0] > 0, parked | driving)
    assert torch.equal(live[0, 0] > 0, driving)


@pytest.mark.parametrize("flow", [None, torch.zeros(1, 2, 32, 32), torch.full((1, 2, 32, 32), 5.0)])
def test_where_nothing_differs_nothing_is_said(flow: Tensor | None) -> None:
    """A flat picture, no flow, none yet, or the camera's alone."""
    _, guess = _scene()
    assert fisher_logits(guess, [torch.ones(1, 3, 8, 8)], flow).abs().max() < 1e-3


def test_the_surer_the_less() -> None:
    object_, guess = _scene()
    unsure, sure = (fisher_logits(guess * by, [_appearance(object_)], None).abs().mean() for by in (0.5, 3.0))
    assert sure < 0.7 * unsure


def test_every_query_has_its_own() -> None:
    object_, guess = _scene()
    both = torch.cat([guess, -guess], dim=1)
    features, flow = [_appearance(object_)], _flow(object_)
    together = fisher_logits(both, features, flow)
    for query in range(2):
        alone = fisher_logits(both[:, query : query + 1], features, flow)
        torch.testing.assert_close(together[:, query : query + 1], alone)


@pytest.mark.parametrize("fusion", ["single", "hierarchical"])
@pytest.mark.parametrize("flow", ["none", "both"])
def test_the_network_decides_by_it_and_learns_without(fusion: str, flow: str) -> None:
    torch.manual_seed(0)
    plain, asking = (
        HINet(config=model_config("test", fusion=fusion, flow=flow, discriminant=on)).eval() for on in (False, True)
    )
    asking.load_state_dict(plain.state_dict())  # there is nothing to learn
    image, field = torch.randint(0, 256, (1, 3, 64, 96)).float(), 3 * torch.randn(1, 2, 64, 96)
    language = tuple(torch.randn(1, 2, channels) for channels in plain.language_channels)
    with torch.inference_mode():
        one, two = plain(image, field, language), asking(image, field, language)
        learns = asking.answer(*asking.condition(asking.encode_image(image), field), language)
    torch.testing.assert_close(learns, one)
    assert one.shape == two.shape
    assert not torch.allclose(one[:, :, 1] - one[:, :, 0], two[:, :, 1] - two[:, :, 0], atol=1e-3)
