"""The line between object and background moves with how sure the network is."""

from __future__ import annotations

import torch
from torch import Tensor

from rvos_edge.trainer.model.hinet import HINet
from rvos_edge.trainer.model.presets import model_config
from rvos_edge.trainer.model.refine.confidence import shift_threshold


def _hill(height: float) -> Tensor:
    """A cone on a plain: [48,64], ``height`` at its top and -4 far from it."""
    y, x = torch.meshgrid(torch.arange(48.0), torch.arange(64.0), indexing="ij")
    return (height - 0.4 * torch.hypot(y - 24, x - 32)).clamp(min=-4)


def _area(margin: Tensor) -> int:
    return int((margin > 0).sum())


def test_a_sure_object_shrinks_and_an_unsure_one_grows() -> None:
    sure, unsure = _hill(12.0), _hill(2.0)
    assert _area(shift_threshold(sure)) < 0.9 * _area(sure)
    assert _area(shift_threshold(unsure)) > 1.2 * _area(unsure)


def test_the_line_has_its_limits() -> None:
    for height in (1000.0, 0.5):
        moved = _hill(height) - shift_threshold(_hill(height))
        assert -1 <= float(moved.min()) <= float(moved.max()) <= 2


def test_nothing_stays_nothing() -> None:
    nothing = torch.full((2, 8, 8), -0.5)
    assert torch.equal(shift_threshold(nothing), nothing)


def test_every_query_has_its_own_line() -> None:
    margins = torch.stack([_hill(12.0), _hill(2.0), torch.full((48, 64), -3.0)]).unsqueeze(0)
    together = shift_threshold(margins)
    for query in range(3):
        torch.testing.assert_close(together[:, query], shift_threshold(margins[:, query]))


def test_the_network_decides_by_it_and_learns_without() -> None:
    torch.manual_seed(0)
    plain, moving = (HINet(config=model_config("test", sureness=sureness)).eval() for sureness in (False, True))
    moving.load_state_dict(plain.state_dict())  # there is nothing to learn
    image, flow = torch.randint(0, 256, (1, 3, 64, 96)).float(), torch.zeros(1, 2, 64, 96)
    language = tuple(torch.randn(1, 2, channels) for channels in plain.language_channels)
    with torch.inference_mode():
        one, two = plain(image, flow, language), moving(image, flow, language)
        learns = moving.answer(*moving.condition(moving.encode_image(image), flow), language)
    torch.testing.assert_close(two[:, :, 1] - two[:, :, 0], shift_threshold(one[:, :, 1] - one[:, :, 0]))
    torch.testing.assert_close(learns, one)
