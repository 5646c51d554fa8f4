"""The loop of docs/specialist.md on a clip: label, look, correct, train, export, run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from support.tiny_checkpoint import write_checkpoint
from typer.testing import CliRunner

import rvos_edge
from rvos_edge.cli import app
from rvos_edge.trainer import teachers
from rvos_edge.trainer.checkpoint import load_checkpoint
from rvos_edge.trainer.metrics import region_similarity
from rvos_edge.trainer.predictor import TorchSegmenter
from rvos_edge.trainer.teachers import Labels

QUERY, FRAMES = "a blorb", 20


def run(*arguments: object) -> None:
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert done.exit_code == 0, done.output


def scene() -> list[tuple[NDArray[np.uint8], NDArray[np.bool_]]]:
    """A white box that wanders over noise, and its masks."""
    frames = []
    for index, rng in enumerate(map(np.random.default_rng, range(FRAMES))):
        image, mask = rng.integers(40, 120, (64, 96, 3), dtype=np.uint8), np.zeros((64, 96), np.bool_)
        mask[16:48, 2 * index + 8 : 2 * index + 40] = True
        image[mask] = 255
        frames.append((image, mask))
    return frames


def write_clip(folder: Path, count: int) -> Path:
    folder.mkdir()
    for index, (image, _) in enumerate(scene()[:count]):
        cv2.imwrite(str(folder / f"{index:05d}.png"), image)
    return folder


def truth(frames: Sequence[NDArray[np.uint8]]) -> Iterator[Labels]:
    for _, mask in scene()[: len(frames)]:
        yield Labels(mask[None], np.ones(1, np.float32))


def score(checkpoint: Path) -> float:
    """J on the second half of the scene."""
    predictor = TorchSegmenter(load_checkpoint(checkpoint))
    predictor.set_queries([QUERY])
    pairs = [(mask, predictor.masks(image)[0]) for image, mask in scene()[FRAMES // 2 :]]
    return float(np.mean([region_similarity(mask, answer) for mask, answer in pairs]))


@pytest.mark.slow
@pytest.mark.usefixtures("equal_graphs_are_traced_once")
def test_a_specialist_learns_what_its_teacher_knows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(teachers, "open_teacher", lambda *_, **__: truth)
    clip = write_clip(tmp_path / "clip", FRAMES // 2)
    data, drawn = tmp_path / "data", tmp_path / "clip.xml"
    run("label", clip, "--query", QUERY, "--output", data)
    assert (data / "labels/clip.png").is_file()
    run("data", "convert", data / "labels/clip.json", drawn)
    run("data", "convert", drawn, data / "labels/clip.json")
    start = write_checkpoint(tmp_path / "start")
    small = ["model={preset: test}", f"init_from={start}", "data.size=null", "iterations=20", "validation.every=20"]
    small += ["optimizer.lr=0.003", "freeze_norm=false", "threads=1", "loss.distillation=0.1", "batch=4"]
    changes = [argument for change in small for argument in ("--set", change)]
    run("train", "specialist", "--data", data, "--output", tmp_path / "run", *changes)
    assert score(tmp_path / "run/best") > score(start) + 0.2
    run("export", tmp_path / "run/best", "--output", tmp_path / "bundle")
    with rvos_edge.open(tmp_path / "bundle", device="cpu") as segmenter:
        segmenter.set_queries(QUERY)
        assert segmenter.step(scene()[0][0]).masks.any()
