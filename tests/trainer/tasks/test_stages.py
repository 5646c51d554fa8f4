"""One configuration, several trainings: each goes on from an earlier one, and an interrupted run goes on."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

from rvos_edge.errors import UserError
from rvos_edge.trainer.checkpoint import load_checkpoint
from rvos_edge.trainer.config import StagesConfig, load_config
from rvos_edge.trainer.distributed import ranks
from rvos_edge.trainer.tasks import stages
from rvos_edge.trainer.tasks.stages import train_stages

_SYNTHETIC = {"sources": [{"kind": "synthetic", "share": 1.0}], "queries": 2}


def _stage(name: str, **changes: Any) -> dict[str, Any]:
    return {"name": name, "model": {"preset": "test"}, "data": _SYNTHETIC, "iterations": 2, "batch": 2, **changes}


def _config(folder: Path, *more: dict[str, Any]) -> StagesConfig:
    document = {"name": "chain", "stages": [_stage("first", keep_every=1), *more]}
    path = folder / "chain.yaml"
    path.write_text(yaml.safe_dump(document))
    config = load_config(path)
    assert isinstance(config, StagesConfig)
    return config


def _run(config: StagesConfig, output: Path) -> tuple[Path, str]:
    console = Console(file=io.StringIO(), width=200)
    path = train_stages(config, output, console=console)
    assert isinstance(console.file, io.StringIO)
    return path, console.file.getvalue()


def test_stages_follow_one_another_and_are_not_done_twice(tmp_path: Path) -> None:
    held_out = {**_SYNTHETIC, "absent_share": 0.5}
    config = _config(
        tmp_path,
        _stage("second", init_from="stage:first"),
        {"name": "mean", "task": "average", "of": ["stage:first/000001", "stage:second"]},
        {"name": "head", "task": "presence", "init_from": "stage:mean", "data": held_out, "held_out": held_out,
         "samples": 8, "batch": 2, "rows": 4, "epochs": 1},
    )  # fmt: skip
    path, said = _run(config, tmp_path / "run")
    assert path == tmp_path / "run" / "head" / "checkpoint"
    last = load_checkpoint(path)
    assert last.model.presence is not None
    assert last.card["name"] == "chain"
    for name in ("first", "second", "mean", "head"):
        assert f"stage {name}: 0." in said
    _, again = _run(config, tmp_path / "run")
    assert again.count("done before") == 4


@pytest.mark.slow
def test_an_interrupted_stage_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = _config(tmp_path, _stage("second", init_from="stage:first"))
    resumed: list[bool] = []
    train = stages.train

    def stopped(run: Any, output: Path, *, resume: bool = False, console: Console | None = None) -> Path:
        resumed.append(resume)
        if output.name == "second" and not resume:
            train(run.model_copy(update={"iterations": 1}), output, console=console)
            raise KeyboardInterrupt
        return train(run.model_copy(update={"iterations": 1 if resume else 2}), output, resume=resume, console=console)

    monkeypatch.setattr(stages, "train", stopped)
    with pytest.raises(KeyboardInterrupt):
        _run(config, tmp_path / "run")
    _run(config, tmp_path / "run")
    assert resumed == [False, False, True]


def test_a_refused_first_stage_leaves_nothing_and_a_later_one_all_before(tmp_path: Path) -> None:
    missing = {"sources": [{"kind": "davis", "root": "nowhere", "share": 1.0}]}
    output = tmp_path / "runs" / "chain"
    refused = StagesConfig.model_validate({"name": "chain", "stages": [_stage("first", data=missing)]})
    with pytest.raises(UserError, match="The davis folder nowhere does not exist"):
        train_stages(refused, output)
    assert not output.parent.exists()
    with pytest.raises(UserError, match="The davis folder nowhere does not exist"):
        train_stages(_config(tmp_path, _stage("second", data=missing)), output)
    assert {path.name for path in output.iterdir()} == {"config.json", "first"}


def test_of_several_processes_the_first_alone_averages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    monkeypatch.setattr(stages, "train", lambda *_, **__: done.append(f"train in {ranks.world()}"))
    monkeypatch.setattr(stages, "average_checkpoints", lambda *_, **__: done.append(f"average in {ranks.world()}"))
    monkeypatch.setattr(ranks.dist, "is_initialized", lambda: True)
    monkeypatch.setattr(ranks.dist, "get_world_size", lambda: 2)
    monkeypatch.setattr(ranks.dist, "get_rank", lambda: 0)
    monkeypatch.setattr(ranks.dist, "all_reduce", lambda *_, **__: None)
    config = _config(tmp_path, {"name": "mean", "task": "average", "of": ["stage:first"]})
    train_stages(config, tmp_path / "run")
    monkeypatch.setattr(ranks.dist, "get_rank", lambda: 1)
    train_stages(config, tmp_path / "run")
    assert done == ["train in 2", "average in 1", "train in 2"]


def test_only_earlier_stages_can_be_named(tmp_path: Path) -> None:
    config = _config(tmp_path, _stage("second", init_from="stage:third"), _stage("third"))
    with pytest.raises(UserError, match="no earlier stage 'third'; the stages before are first"):
        _run(config, tmp_path / "run")


def test_two_stages_of_one_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="a name of its own"):
        _config(tmp_path, _stage("first"))
