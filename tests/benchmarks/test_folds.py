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
from rvos_edge.benchmarks.folds import folds_of, run_folds, without
from rvos_edge.errors import UserError
from rvos_edge.trainer.config import TrainConfig
from rvos_edge.trainer.data.config import DavisSource


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
        assert isinstance(source, DavisSource)
        seen.append((set(source.videos), ""))
        return output / "checkpoint"

    def evaluate(options: Any, **_: Any) -> None:
        seen[-1] = (seen[-1][0], options.split)
        options.json.parent.mkdir(parents=True)
        videos = {options.split: {"j": 0.5, "shuffled": {"j": 0.1}}}
        options.json.write_text(json.dumps({"davis16": {"videos": videos}}))

    monkeypatch.setattr(folds, "train", train)
    monkeypatch.setattr(folds, "evaluate", evaluate)
    console = Console(file=io.StringIO())
    result = run_folds(_config(root), root, tmp_path / "folds", console=console)
    assert sorted(held for _, held in seen) == videos
    assert all(held not in trained and len(trained) == 4 for trained, held in seen)
    assert (result["j"], result["shuffled_j"]) == (0.5, pytest.approx(0.1))
    run_folds(_config(root), root, tmp_path / "folds", console=console)
    assert len(seen) == 5  # what is done is not done again


def test_a_run_without_videos_has_no_folds(tmp_path: Path) -> None:
    root = write_davis16(tmp_path / "DAVIS", {"a": ["a dog"], "b": ["a cat"]})
    with pytest.raises(UserError, match="no DAVIS videos"):
        without(_config(root, "synthetic"), ["a"], root, "runs/flow")
