"""Training from Python."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from rvos_edge.cli import app
from rvos_edge.errors import UserError
from rvos_edge.trainer import train

_DOCUMENT: dict[str, Any] = {
    "name": "small",
    "model": {"preset": "test"},
    "data": {"sources": [{"kind": "synthetic", "share": 1.0}], "queries": 2},
    "iterations": 1,
    "batch": 2,
}


def test_a_file_and_a_mapping_are_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "small.yaml"
    file.write_text(yaml.safe_dump(_DOCUMENT), encoding="utf-8")
    checkpoint = train(file, tmp_path / "run", changes=["seed=4"])
    assert checkpoint == tmp_path / "run/checkpoint"
    assert json.loads((checkpoint / "card.json").read_text())["config"]["seed"] == 4
    monkeypatch.chdir(tmp_path)
    assert train(_DOCUMENT) == Path("runs/small/checkpoint")
    assert train({**_DOCUMENT, "iterations": 2}, resume=True) == Path("runs/small/checkpoint")
    with pytest.raises(UserError, match="change the mapping itself"):
        train(_DOCUMENT, changes=["seed=4"])
    with pytest.raises(UserError, match="the configuration: unknown key 'colour'"):
        train({**_DOCUMENT, "colour": "red"})


def test_weights_and_biases_gets_every_value_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []

    def init(**options: Any) -> Any:
        calls.append(options)
        return SimpleNamespace(log=log, finish=lambda: calls.append("finished"))

    def log(scalars: dict[str, float], step: int) -> None:
        calls.append((step, set(scalars)))

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=init))  # type: ignore[arg-type]
    train({**_DOCUMENT, "wandb": "project"}, tmp_path / "run")
    options, (step, names), end = calls
    assert (options["project"], options["config"]["batch"], end) == ("project", 2, "finished")
    assert step == _DOCUMENT["iterations"]
    assert {"loss", "lr", "gradient", "samples_per_second"} <= names
    monkeypatch.setitem(sys.modules, "wandb", None)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="pip install wandb, or leave the key out"):
        train({**_DOCUMENT, "wandb": "project"}, tmp_path / "without")
    assert not (tmp_path / "without").exists()


def test_a_refused_run_leaves_nothing_of_its_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def restore(bundle: Path, output: Path) -> None:
        output.mkdir(parents=True)
        (output / "model.safetensors").write_bytes(b"")

    monkeypatch.setattr("rvos_edge.export.restore.restore_checkpoint", restore)
    monkeypatch.chdir(tmp_path)
    Path("own.yaml").write_text(yaml.safe_dump({**_DOCUMENT, "init_from": "edge"}), encoding="utf-8")
    result = CliRunner().invoke(app, ["train", "own.yaml", "--output", "runs/own"])
    assert result.exit_code == 2
    assert "is not a checkpoint" in " ".join(result.output.split())
    assert [path.name for path in tmp_path.iterdir()] == ["own.yaml"]
    monkeypatch.setenv("WORLD_SIZE", "2")
    result = CliRunner().invoke(app, ["train", "own.yaml"])
    assert "edge is a bundle, which one process makes a checkpoint of" in " ".join(result.output.split())
