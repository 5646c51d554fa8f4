"""The presence head: what it reads, and that it learns to tell true sentences from absent ones."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import torch
from rich.console import Console

from rvos_edge.errors import UserError
from rvos_edge.trainer.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from rvos_edge.trainer.config import PresenceConfig
from rvos_edge.trainer.model.hinet import HINet
from rvos_edge.trainer.model.language import small_tokenizer
from rvos_edge.trainer.model.presence import Presence
from rvos_edge.trainer.model.presets import model_config
from rvos_edge.trainer.tasks.presence import Rows, calibrate, fit, presence_metrics, train_presence

_SYNTHETIC = {"sources": [{"kind": "synthetic", "share": 1.0}], "queries": 4, "absent_share": 0.5}


def _config(checkpoint: Path, **changes: object) -> PresenceConfig:
    document = {
        "name": "head",
        "task": "presence",
        "init_from": str(checkpoint),
        "data": _SYNTHETIC,
        "held_out": _SYNTHETIC,
        "samples": 16,
        "batch": 4,
        "rows": 8,
        **changes,
    }
    return PresenceConfig.model_validate(document)


def _checkpoint(path: Path) -> Path:
    torch.manual_seed(0)
    save_checkpoint(path, Checkpoint(HINet(config=model_config("test")), small_tokenizer(512)))
    return path


def _head() -> Presence:
    torch.manual_seed(0)
    return Presence(channels=6).eval()


def _rows(count: int = 600) -> Rows:
    """Sentences that are true exactly where they match the inside of the mask better than its outside."""
    generator = torch.Generator().manual_seed(3)
    inside, outside = torch.randn(2, count, 6, generator=generator)
    return Rows(inside, outside, torch.zeros(count, 8), (inside[:, 0] > outside[:, 0]).float())


def test_it_reads_how_the_sentence_matches_inside_and_outside_of_the_mask() -> None:
    margin = torch.full((1, 1, 8, 8), -9.0)
    margin[..., :4] = 9.0
    vision = torch.zeros(1, 6, 4, 4)
    vision[..., :2] = 5.0
    inside, outside, facts = _head().pool(margin, vision, torch.full((1, 1, 6), 2.0), None)
    assert torch.allclose(inside, torch.tensor(10.0), atol=0.02)
    assert torch.allclose(outside, torch.tensor(0.0), atol=0.01)
    sure, area = facts[0, 0, :2]
    assert float(sure) == pytest.approx(1.0, abs=1e-3)
    assert float(area) == pytest.approx(0.5)


def test_an_empty_mask_gives_numbers() -> None:
    found = _head()(
        torch.full((1, 2, 8, 8), -300.0), torch.ones(1, 6, 4, 4), torch.ones(1, 2, 6), torch.zeros(1, 2, 8, 8)
    )
    assert torch.isfinite(found).all()


def test_a_query_does_not_depend_on_the_others() -> None:
    head, vision = _head(), torch.randn(1, 6, 4, 4)
    margin, language = torch.randn(1, 3, 8, 8), torch.randn(1, 3, 6)
    together = head(margin, vision, language, None)
    alone = head(margin[:, 1:2], vision, language[:, 1:2], None)
    assert torch.allclose(together[:, 1:2], alone, atol=1e-5)


def test_what_moves_is_read_from_the_flow() -> None:
    margin = torch.full((1, 1, 8, 8), -9.0)
    margin[..., :4] = 9.0
    flow = torch.zeros(1, 2, 8, 8)
    flow[..., :4] = 6.0
    vision, language = torch.ones(1, 6, 4, 4), torch.ones(1, 1, 6)
    still, moving = (_head().pool(margin, vision, language, field)[2][0, 0] for field in (0 * flow, flow))
    assert float(moving[6]) > float(still[6]) + 0.5
    camera = torch.tensor([[0.0, 0.0, 1.0]])
    crop = _head().pool(margin, vision, language, torch.full_like(flow, 6.0), camera)[2][0, 0]
    assert float(crop[6]) > float(still[6]) + 0.5, "all of a crop moves, in a frame that stands still"


def test_it_learns_which_sentences_are_true_and_how_sure_it_may_be() -> None:
    head, rows = _head(), _rows()
    config = _config(Path("unused"), rows=64, epochs=60, lr=0.003, weight_decay=0.01)
    before = presence_metrics(head, rows)
    fit(head, rows, config)
    with torch.no_grad():  # far too sure of itself
        head.decide[-1].weight.mul_(8)  # type: ignore[operator]
        head.decide[-1].bias.mul_(8)  # type: ignore[operator]
    calibrate(head, rows)
    after = presence_metrics(head, rows)
    assert before["auc"] < 0.7 < 0.9 < after["auc"]
    assert after["ece"] < 0.05


@pytest.mark.slow
def test_the_network_itself_stays_as_it_is(tmp_path: Path) -> None:
    start = _checkpoint(tmp_path / "start")
    path = train_presence(_config(start), tmp_path / "run", console=Console(file=io.StringIO()))
    before, after = load_checkpoint(start).model, load_checkpoint(path).model
    assert after.presence is not None
    assert all(torch.equal(value, after.state_dict()[name]) for name, value in before.state_dict().items())
    assert set(load_checkpoint(path).card["presence"]) >= {"auc", "ece"}
    image, flow = torch.rand(1, 3, 64, 96) * 255, torch.zeros(1, 2, 64, 96)
    language = tuple(torch.randn(1, 2, width) for width in after.language_channels)
    visions, motions = after.condition(after.encode_image(image), flow)
    logits = after.answer(visions, motions, language)
    assert torch.equal(
        logits,
        before.decode(before.encode_image(image), flow, language),
    )
    found = after.present(visions, flow, language, logits)
    assert found.shape == (1, 2)
    assert ((found >= 0) & (found <= 1)).all()


def test_a_run_that_is_there_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "run" / "checkpoint").mkdir(parents=True)
    with pytest.raises(UserError, match="already holds a checkpoint"):
        train_presence(_config(tmp_path), tmp_path / "run")
