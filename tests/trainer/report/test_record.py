"""Recordings, and what the rules of the figures choose of them."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from support.reports import quiet, recording, run

from rvos_edge.streaming.overlay import query_colour
from rvos_edge.trainer.data.readers.base import Query
from rvos_edge.trainer.metrics import region_similarity
from rvos_edge.trainer.report import plots, record
from rvos_edge.trainer.report.choose import Frames, evenly, most_changed, rows_of_queries, still_stretches
from rvos_edge.trainer.report.record import Recording, object_motion, record_run
from rvos_edge.trainer.report.tables import read_published, report_tables


class Boxes:
    """Two videos of five frames; the third frame has no annotation, and of two objects one lies left, one right."""

    root = Path("boxes")
    videos = ("one", "two")

    def frames(self, video: str) -> list[str]:
        return [f"{index}" for index in range(5)]

    def queries(self, video: str) -> tuple[Query, ...]:
        return (Query("a", "left", 1), Query("b", "right", 2))

    def annotated(self, video: str) -> list[int]:
        return [0, 1, 3, 4]

    def image_path(self, video: str, index: int) -> Path:
        return self.root

    def image(self, video: str, index: int) -> NDArray[np.uint8]:
        return np.full((16, 32, 3), 50 * index, np.uint8)

    def masks(self, video: str, index: int) -> NDArray[np.bool_] | None:
        left = np.zeros((16, 32), np.bool_)
        left[:, :16] = True
        return None if index == 2 else np.stack([left, ~left])


class AlwaysLeft:
    """Answers every query with the left half, and counts the frames it is shown."""

    seen = 0

    def reset(self) -> None: ...

    def set_queries(self, queries: Sequence[str]) -> None:
        self.queries = list(queries)

    def masks(self, frame: NDArray[np.uint8]) -> NDArray[np.bool_]:
        self.seen += 1
        left = np.zeros((len(self.queries), *frame.shape[:2]), np.bool_)
        left[..., :16] = True
        return left


@pytest.fixture
def always_left(monkeypatch: pytest.MonkeyPatch) -> AlwaysLeft:
    """Stands for the network of every run."""
    predictor = AlwaysLeft()

    @contextlib.contextmanager
    def opened(*_: object, **__: object) -> Iterator[AlwaysLeft]:
        yield predictor

    monkeypatch.setattr(record, "open_predictor", opened)
    monkeypatch.setattr(record, "model_hash", lambda *_: "left")
    return predictor


def recorded(tmp_path: Path, dataset: str) -> Recording:
    return record_run(run(), Boxes(), dataset, every=1, cache=tmp_path / "cache", console=quiet(tmp_path))


def test_a_recording_keeps_what_was_answered(tmp_path: Path, always_left: AlwaysLeft) -> None:
    clips = Boxes()
    for _ in range(2):
        kept = recorded(tmp_path, "davis17")
        assert always_left.seen == 10, "all frames are seen, and once"
    assert kept.videos["one"].frames == [0, 1, 3, 4]
    for video, frames in kept.videos.items():
        for index in frames.frames:
            truth = clips.masks(video, index)
            assert truth is not None
            assert np.array_equal(frames.mask(index, 1), truth[0])
            scores = [frames.j(index, query) for query in (0, 1)]
            assert scores == region_similarity(truth, np.stack([truth[0], truth[0]])).tolist()
            assert frames.motion_image(index) is None
            assert math.isnan(frames.motion(index, 0))
    assert (kept.results["binary"]["j"], kept.videos["one"].mean_j(0), kept.videos["one"].mean_j(1)) == (0.5, 1.0, 0.0)


def test_davis17_is_scored_in_both_settings_and_drawn_by_the_standard_rule(
    tmp_path: Path, always_left: AlwaysLeft
) -> None:
    kept = recorded(tmp_path, "davis17")
    tables, _ = report_tables([kept], "davis17", tmp_path, read_published("davis17"))
    row, *published = tables["results"].rows
    results = dict(zip(tables["results"].heads, row, strict=True))
    assert ("URVOS, first-frame sentences", "51.6") in [other[:2] for other in published]
    assert (results["J, standard"], results["J, binary"]) == ("0.0", "50.0"), "object 2 covers object 1"
    (shown,) = plots._video_rows([kept], Boxes(), "one", [4], 3)
    left = shown.cells[0].image[100, 100]
    assert np.abs(left - (100 + np.array(query_colour(1)) / 2)).max() <= 1, "the colour of object 2"
    assert [number for _, number in shown.captions] == [0, 1]


def test_overlap_is_measured_as_in_a2d_with_the_rows_of_the_paper(tmp_path: Path, always_left: AlwaysLeft) -> None:
    tables, notes = report_tables([recorded(tmp_path, "a2d")], "a2d", tmp_path, read_published("a2d"))
    assert notes == []
    assert tables["results"].heads[1:4] == ("overall IoU", "mean IoU", "P@0.5")
    rows = {row[0]: row for row in tables["results"].rows}
    assert rows["run"][2:4] == ("50.0", "50.0")
    assert rows["HINet (paper)"][1] == "67.9"
    assert [row[0] for row in tables["videos-mean-iou"].rows] == ["one", "two", "mean over videos"]


def test_motion_is_what_remains_after_the_cameras() -> None:
    y, x = np.mgrid[:36, :64].astype(np.float32)
    flow = np.stack([3 + 0.1 * x - 0.05 * y, 0.1 * y - 1])  # a camera that turns and zooms
    objects = np.zeros((3, 72, 128), np.bool_)
    objects[0, 20:40, 10:40] = objects[1, 30:60, 80:110] = True
    flow[:, 15:30, 40:55] += np.array([2, 0], np.float32)[:, None, None]
    flow[:, :4, :30] -= 5  # a passer-by that no query names
    assert object_motion(flow, objects) == pytest.approx([0, 2, math.nan], abs=0.05, nan_ok=True)


def test_examples_are_the_largest_changes_one_of_each_video(tmp_path: Path) -> None:
    base = recording(tmp_path / "b", {"a": [[0.0], [0.5], [0.5]], "b": [[0.5, 0.5]] * 3, "c": [[0.5]] * 3})
    better = recording(
        tmp_path / "c", {"a": [[1.0], [0.6], [0.7]], "b": [[0.5, 0.5], [0.2, 0.9], [0.5, 0.5]], "c": [[0.5]] * 3}
    )
    chosen = most_changed(better, base, gains=2, losses=1)
    assert [(e.video, e.index, e.query) for e in chosen] == [("b", 1, 1), ("a", 2, 0), ("b", 1, 0)], (
        "the first frame of a gains most, but has no flow; c does not change"
    )
    assert [round(e.change, 1) for e in chosen] == [0.4, 0.2, -0.3]
    same = most_changed(base, base, gains=3, losses=1)
    assert [(e.video, e.index, e.change) for e in same] == [("a", 1, 0), ("b", 1, 0), ("c", 1, 0)], "still a figure"


def test_still_objects_stay_below_a_quarter_of_a_pixel_throughout(tmp_path: Path) -> None:
    motion = {
        "walk": [math.nan, 0.2, 0.3, 0.2, 0.2],
        "stand": [math.nan, 0.3, 0.05, 0.1, 0.15],
        "go": [math.nan, *[2] * 4],
    }
    full = recording(tmp_path / "a", {video: [[0.5]] * 5 for video in motion}, motion)
    (stretch,) = still_stretches(full, least=3)
    assert (stretch.video, stretch.frames) == ("stand", [2, 3, 4])
    assert stretch.motion == pytest.approx(0.1)
    assert [s.video for s in still_stretches(full, least=2)] == ["stand", "walk"]


def test_frames_are_spread_evenly_or_named_and_queries_of_one_object_stand_below_each_other() -> None:
    assert evenly([0, 2, 4, 6, 8, 10, 12], 4) == [0, 4, 8, 12]
    assert evenly([3], 5) == [3]
    assert Frames.parse("3").count == 3
    assert Frames.parse("a:00001, b:7:annot1/3").named == [("a", "00001", None), ("b", "7", "annot1/3")]
    one = [Query(str(i), "a dog", None) for i in range(4)]
    assert rows_of_queries(one, most=3) == [[0], [1], [2]]
    several = [Query("0", "a dog", 1), Query("1", "a cat", 2), Query("2", "the dog", 1), Query("3", "a cow", 3)]
    assert rows_of_queries(several, most=3) == [[0, 1, 3], [2]]
