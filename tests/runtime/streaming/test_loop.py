from __future__ import annotations

import io
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from rich.console import Console
from support.fake_stream import FakeSegmenter, FakeSource

from rvos_edge.errors import UserError
from rvos_edge.result import Result
from rvos_edge.self_test import run_self_test
from rvos_edge.streaming.loop import Latencies, Summary, run_stream
from rvos_edge.streaming.sinks import JsonSink, MaskSink, Sink, VideoSink
from rvos_edge.streaming.sources import Frame


def make_sinks(folder: Path) -> list[Sink]:
    return [VideoSink(folder / "o.mp4", 25), MaskSink(folder / "masks"), JsonSink(folder / "o.jsonl")]


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_every_frame_reaches_every_sink(tmp_path: Path) -> None:
    seen: list[int] = []
    summary = run_stream(
        FakeSegmenter(),
        FakeSource(),
        make_sinks(tmp_path),
        on_result=lambda frame, result: seen.append(frame.index),
    )
    assert seen == [0, 1, 2, 3, 4]
    assert files(tmp_path / "masks") == [f"{index:05d}.png" for index in range(5)]
    assert len((tmp_path / "o.jsonl").read_text().splitlines()) == 5
    assert cv2.VideoCapture(str(tmp_path / "o.mp4")).get(cv2.CAP_PROP_FRAME_COUNT) == 5
    assert (summary.frames, summary.dropped, summary.interrupted) == (5, 0, False)
    assert summary.fps == pytest.approx(5 / summary.seconds)
    assert list(summary.stages) == ["preprocess", "backbone"]
    assert summary.stages["backbone"].p50 == 6.0
    assert summary.stages["backbone"].p99 == pytest.approx(9.92)
    assert summary.latency is not None
    assert 0 < summary.latency.p50 < 1000


def test_real_clip(shared: Path, tmp_path: Path) -> None:
    from rvos_edge.streaming.sources import open_source

    with open_source(str(shared / "data/clips/dog.mp4")) as source:
        summary = run_stream(FakeSegmenter(), source, make_sinks(tmp_path), frames=3)
    assert summary.frames == 3
    assert json.loads((tmp_path / "o.jsonl").read_text().splitlines()[2])["size"] == [720, 1280]


def test_frames_limits_what_is_taken(tmp_path: Path) -> None:
    source = FakeSource()
    assert run_stream(FakeSegmenter(), source, [], frames=2).frames == 2
    assert source.handed_out == 2
    with pytest.raises(UserError, match="at least 1"):
        run_stream(FakeSegmenter(), source, make_sinks(tmp_path), frames=0)
    assert files(tmp_path) == []


@pytest.mark.parametrize("wanted", [False, True])
def test_overlay_is_drawn_only_when_wanted(wanted: bool) -> None:
    overlays: list[object] = []

    class Collector(Sink):
        wants_overlay = wanted

        def write(self, frame: Frame, result: Result, overlay: NDArray[np.uint8] | None) -> None:
            overlays.append(overlay)

    run_stream(FakeSegmenter(), FakeSource(1), [Collector()])
    assert (overlays[0] is not None) is wanted


@pytest.fixture(params=[False, True], ids=["in turn", "pipelined"])
def run(request: pytest.FixtureRequest) -> Callable[..., Summary]:
    return partial(run_stream, pipelined=request.param)


def test_ctrl_c_finishes_the_outputs(tmp_path: Path, run: Callable[..., Summary]) -> None:
    summary = run(FakeSegmenter(fail_at=3, error=KeyboardInterrupt()), FakeSource(), make_sinks(tmp_path))
    assert (summary.frames, summary.interrupted) == (3, True)
    assert cv2.VideoCapture(str(tmp_path / "o.mp4")).get(cv2.CAP_PROP_FRAME_COUNT) == 3
    assert len((tmp_path / "o.jsonl").read_text().splitlines()) == 3


@pytest.mark.parametrize("error", [UserError("no queries are set"), RuntimeError("bug"), KeyboardInterrupt()])
def test_error_before_the_first_frame_leaves_nothing(
    tmp_path: Path, error: BaseException, run: Callable[..., Summary]
) -> None:
    with pytest.raises(type(error)):
        run(FakeSegmenter(fail_at=0, error=error), FakeSource(), make_sinks(tmp_path / "new"))
    assert files(tmp_path) == []


def test_error_later_finishes_what_there_is_and_is_told(tmp_path: Path, run: Callable[..., Summary]) -> None:
    with pytest.raises(UserError, match="unplugged"):
        run(FakeSegmenter(fail_at=2, error=UserError("unplugged")), FakeSource(), make_sinks(tmp_path))
    assert files(tmp_path / "masks") == ["00000.png", "00001.png"]
    assert cv2.VideoCapture(str(tmp_path / "o.mp4")).get(cv2.CAP_PROP_FRAME_COUNT) == 2


@pytest.mark.parametrize("error", [UserError("unplugged"), KeyboardInterrupt()])
def test_all_or_nothing(tmp_path: Path, error: BaseException, run: Callable[..., Summary]) -> None:
    segmenter = FakeSegmenter(fail_at=2, error=error)
    with pytest.raises(type(error)):
        run(segmenter, FakeSource(), make_sinks(tmp_path), keep_partial=False)
    assert files(tmp_path) == []


def test_one_sink_that_cannot_close_does_not_cost_the_others(tmp_path: Path) -> None:
    class Broken(JsonSink):
        def close(self) -> None:
            raise UserError("disk full")

    with pytest.raises(UserError, match="disk full"):
        run_stream(FakeSegmenter(), FakeSource(), [Broken(tmp_path / "b.jsonl"), JsonSink(tmp_path / "o.jsonl")])
    assert files(tmp_path) == ["o.jsonl"]


def test_latencies_keep_a_bounded_window() -> None:
    latencies = Latencies(window=10)
    for value in range(1000):
        latencies.add("stage", value)
    assert latencies.percentiles()["stage"].p50 == 994.5


def test_demo_scores_its_queries_and_changes_one_half_way(tmp_path: Path) -> None:
    segmenter, said = FakeSegmenter(), io.StringIO()
    report = run_self_test(segmenter, tmp_path / "new", frames=12, size=(64, 96), console=Console(file=said, width=200))
    (at_start, first), (at_half, second) = segmenter.history
    assert (at_start, at_half) == (0, 6)
    assert len(first) == 3
    assert [a == b for a, b in zip(first, second, strict=True)] == [True, True, False]
    assert [score.query for score in report.scores] == [*first, second[2]]
    assert len({score.object for score in report.scores[:3]}) == 3
    assert [(score.start, score.stop) for score in report.scores] == [(0, 12), (0, 12), (0, 6), (6, 12)]
    assert all(score.iou is None or 0 <= score.iou <= 1 for score in report.scores)
    assert files(tmp_path / "new") == ["demo.mp4", "demo.png"]
    sheet = cv2.imread(str(report.sheet))
    assert sheet is not None
    assert sheet.shape[1] > 4 * 96
    assert cv2.VideoCapture(str(report.video)).get(cv2.CAP_PROP_FRAME_COUNT) == 12
    assert all(query in said.getvalue() for query in (*first, second[2], "backbone"))


def test_demo_scores_exact_masks_with_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A segmenter that is handed the truth must get an IoU of 1: queries and objects are paired rightly."""
    from rvos_edge.streaming.sources import SyntheticSource

    sources: list[SyntheticSource] = []
    original = SyntheticSource.__init__

    def remember(self: SyntheticSource, **options: object) -> None:
        original(self, **options)  # type: ignore[arg-type]
        sources.append(self)

    class Oracle(FakeSegmenter):
        def step(self, frame: NDArray[np.uint8]) -> Result:
            result = super().step(frame)
            current, camera = sources[0].current, sources[0].camera
            assert current is not None
            start = self.history[-1][0]
            spoken_of = [camera.expressions(0 if query in self.history[0][1] else start) for query in self.queries]
            for mask, query, expressions in zip(result.masks, self.queries, spoken_of, strict=True):
                mask[:] = current.masks[next(i for i, texts in enumerate(expressions) if query in texts)]
            return result

    monkeypatch.setattr(SyntheticSource, "__init__", remember)
    report = run_self_test(Oracle(), tmp_path, frames=8, size=(64, 96), console=Console(file=io.StringIO()))
    assert report.mean_iou == 1.0


def test_failed_demo_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError):
        run_self_test(FakeSegmenter(fail_at=3, error=RuntimeError()), tmp_path / "new", frames=8, size=(64, 96))
    assert files(tmp_path) == []
    with pytest.raises(UserError, match="at least 2"):
        run_self_test(FakeSegmenter(), tmp_path / "new", frames=1)
