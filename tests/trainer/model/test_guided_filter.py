"""The guided filter: masks follow the image's edges, and small or unsure answers are not averaged away."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from rvos_edge.trainer.metrics import region_similarity
from rvos_edge.trainer.model import guided_filter as boundary
from rvos_edge.trainer.model.guided_filter import GuidedFilter
from rvos_edge.trainer.model.hinet import HINet
from rvos_edge.trainer.model.presets import model_config

_HEIGHT, _WIDTH = 128, 192


def _disc(radius: float, *, x: float = 97.0, y: float = 61.0) -> Tensor:
    rows, columns = torch.meshgrid(torch.arange(_HEIGHT) + 0.5, torch.arange(_WIDTH) + 0.5, indexing="ij")
    return (columns - x).square() + (rows - y).square() < radius**2


def _image(mask: Tensor) -> Tensor:
    """An orange thing on green with some grain, RGB 0..255."""
    thing, ground = torch.tensor([220.0, 120.0, 40.0]), torch.tensor([60.0, 110.0, 70.0])
    flat = torch.where(mask[..., None], thing, ground).permute(2, 0, 1)[None]
    return flat + 4 * torch.randn(flat.shape, generator=torch.Generator().manual_seed(0))


def _coarse(mask: Tensor, *, sure: float = 4.0) -> Tensor:
    """Logits of a decoder at stride 4 that has learnt the mask but no detail: [1,1,2,h,w]."""
    blurred = F.avg_pool2d(mask.float()[None, None], 12, stride=4, padding=4)
    margin = sure * (2 * blurred - 1)
    return torch.cat([-margin / 2, margin / 2], dim=1).unsqueeze(1)


def _guide(mask: Tensor) -> Tensor:
    return F.avg_pool2d(_image(mask) / 255, 2)


def _margin(logits: Tensor) -> Tensor:
    return logits[:, :, 1] - logits[:, :, 0]


def _score(logits: Tensor, mask: Tensor) -> float:
    up = F.interpolate(_margin(logits), size=(_HEIGHT, _WIDTH), mode="bilinear", align_corners=False)
    return float(region_similarity((up[0, 0] > 0).numpy(), mask.numpy()))


def _ring() -> Tensor:
    """Thinner than the decoder can draw."""
    return _disc(40) & ~_disc(34)


@pytest.mark.parametrize("mask", [_disc(50), _disc(30), _disc(30) | _ring()], ids=["large", "middle", "thin"])
def test_masks_follow_the_edges_of_the_image(mask: Tensor) -> None:
    coarse = _coarse(mask)
    refined = GuidedFilter()(_guide(mask), coarse)
    assert refined.shape == (1, 1, 2, _HEIGHT // 2, _WIDTH // 2)
    before, after = _score(coarse, mask), _score(refined, mask)
    assert 1 - after < 0.6 * (1 - before)


def test_where_the_image_shows_nothing_the_answer_stays() -> None:
    mask = _disc(30)
    grey = torch.full((1, 3, _HEIGHT // 2, _WIDTH // 2), 0.5)
    assert _score(GuidedFilter()(grey, _coarse(mask)), mask) > 0.93
    assert _score(_coarse(mask), mask) > 0.93


def test_small_and_unsure_things_are_not_averaged_away() -> None:
    for radius, sure in ((6.0, 4.0), (8.0, 4.0), (25.0, 0.4)):
        mask = _disc(radius)
        coarse = _coarse(mask, sure=sure)
        before, after = _score(coarse, mask), _score(GuidedFilter()(_guide(mask), coarse), mask)
        assert after >= before > 0.3


def test_the_fit_is_least_squares_in_its_window() -> None:
    """Against torch's own solver, with the regularisation as further rows."""
    generator = torch.Generator().manual_seed(1)
    guide, probability = (torch.rand(1, 3, 11, 13, generator=generator), torch.rand(1, 1, 11, 13, generator=generator))
    radius, at = boundary._RADIUS, (5, 6)
    *ours, explained = boundary._fit(guide, probability, 1, boundary._wide)[0, :, at[0], at[1]].double()
    window = (slice(at[0] - radius, at[0] + radius + 1), slice(at[1] - radius, at[1] + radius + 1))
    colours = torch.stack([channel[window].flatten() for channel in guide[0]], dim=1).double()
    wanted = probability[0, 0][window].flatten().double()
    centred = colours - colours.mean(0)
    ridge = (boundary._EPSILON * len(wanted)) ** 0.5 * torch.eye(3, dtype=torch.float64)
    rows = torch.cat([centred, ridge])
    slope = torch.linalg.lstsq(rows, torch.cat([wanted - wanted.mean(), torch.zeros(3).double()])[:, None]).solution
    torch.testing.assert_close(torch.stack(ours[:3]) / explained, slope[:, 0], rtol=1e-3, atol=1e-4)
    offset = wanted.mean() - (slope[:, 0] * colours.mean(0)).sum()
    torch.testing.assert_close(ours[3] / explained, offset, rtol=1e-3, atol=1e-4)
    left = (wanted - offset - colours @ slope[:, 0]).var(correction=0)
    assert float(explained) == pytest.approx(float(1 - left / wanted.var(correction=0)), abs=0.02)


def test_frames_and_queries_do_not_mix() -> None:
    masks = [_disc(50), _disc(20), _disc(8), _disc(30)]
    guides = torch.cat([_guide(masks[0]), _guide(masks[1])])
    logits = torch.cat([torch.cat([_coarse(masks[i]), _coarse(masks[j])], dim=1) for i, j in ((0, 2), (1, 3))])
    together = GuidedFilter()(guides, logits)
    for frame in range(2):
        for query in range(2):
            alone = GuidedFilter()(guides[frame : frame + 1], logits[frame : frame + 1, query : query + 1])
            torch.testing.assert_close(together[frame, query], alone[0, 0], rtol=1e-4, atol=1e-3)


def test_it_computes_in_float32_and_stays_finite() -> None:
    guide = torch.rand(1, 3, 64, 96).half()
    refined = GuidedFilter()(guide, 60 * torch.randn(1, 2, 2, 32, 48).half())
    assert refined.dtype == torch.float32
    assert bool(refined.isfinite().all())


def test_a_guide_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match=r"twice the size of the logits, \(32, 48\), got \(32, 96\)"):
        GuidedFilter()(torch.zeros(1, 3, 32, 96), torch.zeros(1, 1, 2, 32, 48))


def test_the_network_answers_at_half_the_stride() -> None:
    torch.manual_seed(0)
    plain, guided = (HINet(config=model_config("test", boundary=kind)).eval() for kind in ("none", "guided"))
    guided.load_state_dict(plain.state_dict())  # there is nothing to learn
    image = _image(_disc(30))
    language = tuple(torch.randn(1, 2, channels) for channels in plain.config.channels)
    flow = torch.zeros(1, 2, _HEIGHT, _WIDTH)
    with torch.inference_mode():
        coarse, fine = plain(image, flow, language), guided(image, flow, language)
    assert (plain.stride, guided.stride) == (4, 2)
    assert coarse.shape[-2:] == (_HEIGHT // plain.stride, _WIDTH // plain.stride)
    assert fine.shape[-2:] == (_HEIGHT // guided.stride, _WIDTH // guided.stride)
    torch.testing.assert_close(fine, guided.refine(image, coarse))
    guided.set_boundary("none")
    assert guided.config == plain.config
    with torch.inference_mode():
        assert torch.equal(guided(image, flow, language), coarse)
