"""Five folds: every video is evaluated once, by a network that was not trained on it."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from support.layouts import write_davis16

from rvos_edge.benchmarks import folds
from rvos_edge.benchmarks.folds import compare_learning, folds_of, run_folds, without
from rvos_edge.errors import UserError
from rvos_edge.trainer.config import PresenceConfig, TrainConfig
from rvos_edge.trainer.data.config import CocoSource, VideoSource


def _config(root: Path, kind: str = "davis") -> TrainConfig:
    source: dict[str, Any] = {"kind": kind, "share": 1.0}
    if kind == "davis":
        source["root"] = str(root)
    document = {"name": "short", "model": {"preset": "test"}, "data": {"sources": [source]}, "iterations": 1}
    return TrainConfig.model_validate(document)


def test_every_video_is_in_one_fold() -> None:
    videos = [f"video-{number:02}" for number in range(30)]
    dealt = folds_of(videos)
    assert [len(fold) for fold in dealt] == [6] * 5
    assert sorted(video for fold in dealt for video in fold) == videos


def test_a_fold_is_judged_by_what_never_saw_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    videos = [f"v{number}" for number in range(5)]
    root = write_davis16(tmp_path / "DAVIS", {video: ["a dog"] for video in videos})
    seen: list[tuple[set[str], str]] = []

    def train(config: TrainConfig, output: Path, **_: Any) -> Path:
        (source,) = config.data.sources
        assert isinstance(source, VideoSource)
        seen.append((set(source.videos), ""))
        return output / "checkpoint"

    def evaluate(options: Any, **_: Any) -> None:
        seen[-1] = (seen[-1][0], options.split)
        options.json.parent.mkdir(parents=True)
        videos = {options.split: {"j": 0.5, "f": 0.25, "shuffled": {"j": 0.1}}}
        options.json.write_text(json.dumps({"davis16": {"videos": videos}}))

    monkeypatch.setattr(folds, "train", train)
    monkeypatch.setattr(folds, "evaluate", evaluate)
    console = Console(file=io.StringIO())
    result = run_folds(_config(root), root, tmp_path / "folds", console=console)
    assert sorted(held for _, held in seen) == videos
    assert all(held not in trained and len(trained) == 4 for trained, held in seen)
    assert (result["j"], result["f"], result["shuffled_j"]) == (0.5, 0.25, pytest.approx(0.1))
    run_folds(_config(root), root, tmp_path / "folds", console=console)
    assert len(seen) == 5  # what is done is not done again


def test_finished_folds_are_judged_by_queries_that_learn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_davis16(tmp_path / "DAVIS", {f"v{number}": ["a dog"] for number in range(5)})
    config = _config(root)
    coco = CocoSource.model_validate({"kind": "coco", "share": 1.0, "root": str(tmp_path)})
    config.data.sources.append(coco)
    for number in (1, 3):
        (tmp_path / f"folds/fold-{number}").mkdir(parents=True)
        (tmp_path / f"folds/fold-{number}/figures.json").write_text("{}")
    heads: list[PresenceConfig] = []
    scores = {"v0": {0: 0.5, 1: 0.75}, "v2": {0: 0.5, 1: 0.25}}

    def evaluate(options: Any, **_: Any) -> None:
        assert options.bundle == options.json.parent / "bundle"
        row = {"j": scores[options.split][options.teach], "f": 0.5, "drift": None, "shuffled": {"j": 0.25}}
        options.json.write_text(json.dumps({"davis16": {"videos": {options.split: row}}}))

    monkeypatch.setattr(folds, "train_presence", lambda config, output, **_: heads.append(config))
    monkeypatch.setattr(folds, "export_bundle", lambda _, output, options, **__: output if options.teach else None)
    monkeypatch.setattr(folds, "evaluate", evaluate)
    result = compare_learning(config, root, tmp_path / "folds", teach=[1], adapt=["once"], console=Console())
    assert list(result) == ["sentence", "1 shown", "adapt once"]
    assert (result["sentence"]["videos"], result["1 shown"]["videos"]) == (
        {"v0": 0.5, "v2": 0.5},
        {"v0": 0.75, "v2": 0.25},
    )
    assert result["1 shown"]["worst"] == ["v2", -0.25]
    held = [one.data.sources[0] for one in heads]
    assert ["v0" in one.videos for one in held if isinstance(one, VideoSource)] == [False, True]
    with pytest.raises(UserError, match="holds no finished fold"):
        compare_learning(config, root, tmp_path / "other", console=Console())


def test_a_run_without_videos_has_no_folds(tmp_path: Path) -> None:
    root = write_davis16(tmp_path / "DAVIS", {"a": ["a dog"], "b": ["a cat"]})
    with pytest.raises(UserError, match="no DAVIS videos"):
        without(_config(root, "synthetic"), ["a"], root, "runs/flow")
