"""The demo on a tiny bundle, and on a segmenter that knows the answers."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from rich.console import Console
from support.tiny_bundle import write_tiny_bundle

import rvos_edge
from rvos_edge import Result, UserError
from rvos_edge.self_test import run_self_test
from rvos_edge.streaming.sources import SyntheticSource

SIZE = (96, 160)


class Knowing:
    """Answers every query with the exact mask of the object it named when it was set, or with nothing."""

    def __init__(self, *, seed: int, right: bool = True) -> None:
        self._camera = SyntheticSource(seed=seed, size=SIZE, objects=4).camera
        self._right = right
        self._index = 0
        self._objects: list[int] = []
        self.queries: tuple[str, ...] = ()
        self.history: list[tuple[int, tuple[str, ...]]] = []

    def set_queries(self, queries: Sequence[str]) -> None:
        said = self._camera.expressions(self._index)
        kept = dict(zip(self.queries, self._objects, strict=True))
        self._objects = [
            kept[query] if query in kept else next(n for n, words in enumerate(said) if query in words)
            for query in queries
        ]
        self.queries = tuple(queries)
        self.history.append((self._index, self.queries))

    def step(self, frame: NDArray[np.uint8]) -> Result:
        truth = self._camera.render(self._index)
        np.testing.assert_array_equal(frame, truth.image)
        masks = truth.masks[self._objects] if self._right else np.zeros((len(self.queries), *SIZE), np.bool_)
        count = len(self.queries)
        index, self._index = self._index, self._index + 1
        margins = np.zeros((count, 24, 40), np.float32)
        return Result(self.queries, masks, margins, np.ones(count, np.float32), {"backbone": 1.0}, False, None, index)


def test_exact_masks_score_one_and_a_query_changes_half_way(tmp_path: Path) -> None:
    segmenter, text = Knowing(seed=1), io.StringIO()
    report = run_self_test(
        segmenter, tmp_path / "demo", frames=10, seed=1, size=SIZE, console=Console(file=text, width=120)
    )
    assert report.mean_iou == 1.0
    assert [(score.start, score.stop) for score in report.scores] == [(0, 10), (0, 10), (0, 5), (5, 10)]
    (_, before), (_, after) = segmenter.history
    assert before[:2] == after[:2]
    assert before[2] != after[2]
    assert report.scores[3].query == after[2]
    assert all(score.query in text.getvalue() for score in report.scores)
    assert sorted(path.name for path in (tmp_path / "demo").iterdir()) == ["demo.mp4", "demo.png"]


def test_empty_masks_score_zero(tmp_path: Path) -> None:
    segmenter = Knowing(seed=1, right=False)
    assert run_self_test(segmenter, tmp_path, frames=4, seed=1, size=SIZE, console=Console(quiet=True)).mean_iou == 0.0


def test_files_hold_what_they_should(tmp_path: Path) -> None:
    segmenter = rvos_edge.open(write_tiny_bundle(tmp_path / "tiny"), device="cpu", threads=1)
    # The tiny tokenizer does not know every word, which does not matter: unknown ones share a vector.
    report = run_self_test(segmenter, tmp_path / "out", frames=6, size=SIZE, console=Console(quiet=True))
    capture, frames = cv2.VideoCapture(str(report.video)), 0
    while (read := capture.read())[0]:
        assert read[1].shape == (*SIZE, 3)
        frames += 1
    assert frames == report.summary.frames == 6
    sheet = cv2.imread(str(report.sheet))
    assert sheet is not None
    assert sheet.shape[1] >= 4 * SIZE[1]
    assert report.fps > 0
    assert next(iter(report.summary.stages)) == "preprocess"


def test_too_few_frames_leave_nothing(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="at least 2"):
        run_self_test(Knowing(seed=1), tmp_path / "out", frames=1, size=SIZE)
    assert not (tmp_path / "out").exists()


def test_an_error_on_the_way_leaves_nothing(tmp_path: Path) -> None:
    class Failing(Knowing):
        def step(self, frame: NDArray[np.uint8]) -> Result:
            if self._index == 3:
                raise UserError("the device is gone")
            return super().step(frame)

    with pytest.raises(UserError, match="gone"):
        run_self_test(Failing(seed=1), tmp_path / "out", frames=6, seed=1, size=SIZE, console=Console(quiet=True))
    assert not (tmp_path / "out").exists()
