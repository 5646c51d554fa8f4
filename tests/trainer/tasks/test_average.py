"""Several runs become one."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import pytest
import torch
from rich.console import Console
from support.tiny_checkpoint import write_checkpoint
from typer.testing import CliRunner

from rvos_edge.cli import app
from rvos_edge.errors import UserError
from rvos_edge.trainer.card import training_history
from rvos_edge.trainer.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from rvos_edge.trainer.tasks.average import average_checkpoints


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    """Two descendants of one run: its weights moved by +1 and by -3."""
    parent = load_checkpoint(write_checkpoint(tmp_path / "parent"))
    before = {"name": "parent", "iterations": 100}
    paths = []
    for name, step in (("up", 1.0), ("down", -3.0)):
        weights = {k: v + step if v.is_floating_point() else v for k, v in parent.model.state_dict().items()}
        card = {"name": name, "iterations": 10, "history": [before]}
        save_checkpoint(tmp_path / name, Checkpoint(parent.model, parent.tokenizer, card), weights=weights)
        paths.append(tmp_path / name)
    return paths


def test_the_mean_lies_between_its_parents(runs: list[Path], tmp_path: Path) -> None:
    mean = load_checkpoint(average_checkpoints(runs, tmp_path / "mean")).model.state_dict()
    parent = load_checkpoint(tmp_path / "parent").model.state_dict()
    for name, tensor in mean.items():
        expected = parent[name] - 1 if tensor.is_floating_point() else parent[name]
        torch.testing.assert_close(tensor, expected)


def test_card_lists_the_averaged_runs(runs: list[Path], tmp_path: Path) -> None:
    card = load_checkpoint(average_checkpoints(runs, tmp_path / "mean")).card
    assert [part["name"] for part in training_history(card)] == ["parent", "up", "down", "up"]
    save = tmp_path / "again"
    again = load_checkpoint(average_checkpoints([tmp_path / "mean", runs[0]], save)).card
    assert [part["name"] for part in training_history(again)] == ["parent", "up", "down", "up", "up"]


def test_history_keeps_different_averages_of_equally_many_runs(runs: list[Path], tmp_path: Path) -> None:
    up, down = runs
    first = average_checkpoints([up, down], tmp_path / "first")
    second = average_checkpoints([up, first], tmp_path / "second")
    history = training_history(load_checkpoint(average_checkpoints([first, second], tmp_path / "both")).card)
    means = [part["of"] for part in history if "averaged" in part]
    assert len(means) == 3
    assert means[0][0] == means[1][0] == hashlib.sha256((up / "model.safetensors").read_bytes()).hexdigest()[:16]


def test_history_keeps_only_the_latest_snapshot_of_a_run() -> None:
    early, late = ({"name": "run", "planned": 30, "iterations": done, "interrupted": True} for done in (10, 20))
    other = {"name": "another", "iterations": 20}
    for order in ((early, late, other), (late, early, other)):
        assert training_history(*order) == [late, other]


def test_runs_with_different_starts_are_warned_of(runs: list[Path], tmp_path: Path) -> None:
    def said(paths: list[Path], name: str) -> str:
        console = Console(file=io.StringIO(), width=400)
        average_checkpoints(paths, tmp_path / name, console=console)
        return console.file.getvalue()  # type: ignore[attr-defined,no-any-return]

    assert said(runs, "related") == ""
    stranger = load_checkpoint(write_checkpoint(tmp_path / "other"))
    cards = {
        "alone": {"name": "alone", "iterations": 10},
        "a": {"start": "1"},
        "b": {"start": "2"},
        "c": {"start": "1"},
    }
    for name, card in cards.items():
        facts = {"name": "one run", "iterations": 10, **card}
        save_checkpoint(tmp_path / name, Checkpoint(stranger.model, stranger.tokenizer, facts))
    assert f"Warning: {tmp_path / 'alone'} did not start from the same weights" in said(
        [*runs, tmp_path / "alone"], "mixed"
    )
    assert "did not start" in said([tmp_path / "a", tmp_path / "b"], "seeds")
    assert said([tmp_path / "a", tmp_path / "c"], "twins") == ""


def test_different_networks_have_no_mean(tmp_path: Path) -> None:
    first, second = write_checkpoint(tmp_path / "a"), write_checkpoint(tmp_path / "b", flow="none")
    with pytest.raises(UserError, match="b is another network than"):
        average_checkpoints([first, second], tmp_path / "mean")
    paths = [str(path) for path in (first, tmp_path / "nothing")]
    done = CliRunner().invoke(app, ["average", *paths, "--output", str(tmp_path / "mean")])
    assert done.exit_code == 2
    assert "nothing is not a checkpoint" in done.output
    assert not (tmp_path / "mean").exists()


def test_runs_are_not_replaced_by_their_mean(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / "runs" / name).mkdir(parents=True)
    runs = [tmp_path / "runs/a", tmp_path / "runs/b"]
    with pytest.raises(UserError, match=r"runs holds the input .*runs/[ab]; choose another output"):
        average_checkpoints(runs, tmp_path / "runs")
    with pytest.raises(UserError, match="runs/b is the source itself, or another input"):
        average_checkpoints(runs, tmp_path / "runs/b")
