"""HINet: the motion image, and how queries and flow meet vision."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from rvos_edge.trainer.model.hinet import HINet
from rvos_edge.trainer.model.motion import motion_image
from rvos_edge.trainer.model.presets import model_config


def _model(**changes: object) -> HINet:
    torch.manual_seed(0)
    return HINet(config=model_config("test", **changes)).eval()


def _inputs(model: HINet, queries: int) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
    generator = torch.Generator().manual_seed(3)
    image = torch.randint(0, 256, (2, 3, 64, 96), generator=generator, dtype=torch.uint8)
    flow = torch.randn(2, 2, 64, 96, generator=generator) * 5
    language = tuple(torch.randn(2, queries, channels, generator=generator) for channels in model.config.channels)
    return image, flow, language


def test_a_moving_camera_is_dark_and_a_moving_object_is_bright() -> None:
    flow = torch.full((1, 2, 64, 96), 7.5)
    assert float(motion_image(flow).max()) < 1e-3
    flow[:, 0, 20:40, 30:60] += 8
    motion = motion_image(flow)
    assert motion.shape == (1, 1, 64, 96)
    assert float(motion[..., 20:40, 30:60].min()) > 0.9
    assert float(motion[..., :20, :].max()) < 0.5


def test_noise_below_a_pixel_stays_dark() -> None:
    torch.manual_seed(0)
    assert float(motion_image(0.02 * torch.randn(1, 2, 64, 96)).max()) < 0.15


def test_zero_flow_is_black_and_has_a_gradient() -> None:
    flow = torch.zeros(1, 2, 8, 8, requires_grad=True)
    motion = motion_image(flow)
    assert float(motion.detach().abs().max()) < 1e-5
    motion.sum().backward()  # type: ignore[no-untyped-call]
    assert flow.grad is not None
    assert flow.grad.isfinite().all()


@pytest.mark.parametrize("fusion", ["single", "hierarchical"])
def test_queries_together_equal_queries_one_by_one(fusion: str) -> None:
    model = _model(fusion=fusion)
    image, flow, language = _inputs(model, 3)
    with torch.inference_mode():
        together = model(image, flow, language)
        for query in range(3):
            alone = model(image, flow, tuple(level[:, query : query + 1] for level in language))
            assert torch.allclose(together[:, query], alone[:, 0], atol=1e-5)
    assert not torch.allclose(together[:, 0], together[:, 1], atol=1e-3)


def test_frames_of_a_batch_do_not_see_each_other() -> None:
    model = _model()
    image, flow, language = _inputs(model, 2)
    with torch.inference_mode():
        both = model(image, flow, language)
        second = model(image[1:], flow[1:], tuple(level[1:] for level in language))
    assert torch.allclose(both[1:], second, atol=1e-5)


@pytest.mark.parametrize("use", ["vision", "gate", "both"])
def test_flow_is_required_and_changes_the_result(use: str) -> None:
    model = _model(flow=use)
    image, flow, language = _inputs(model, 1)
    with torch.inference_mode():
        assert not torch.allclose(model(image, flow, language), model(image, torch.zeros_like(flow), language))
        with pytest.raises(ValueError, match="pass zeros to skip it"):
            model(image, None, language)


def test_the_static_model_ignores_flow() -> None:
    model = _model(flow="none")
    image, flow, language = _inputs(model, 1)
    with torch.inference_mode():
        assert torch.equal(model(image, flow, language), model(image, None, language))


def test_place_is_visible_with_position_only() -> None:
    """On even features only the coordinates tell left from right."""
    spread = {}
    for position in (False, True):
        model = _model(position=position)
        even = torch.ones(1, model.config.aspp_channels, 2, 3)
        with torch.inference_mode():
            spread[position] = float(model.vision[3](even, None).std(dim=3).max())
    assert spread[False] < 1e-6
    assert spread[True] > 1e-3
