"""The self-test: segments the synthetic camera, changes a query half way, and scores masks against the exact ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from rvos_edge.demo import SheetSink
from rvos_edge.errors import UserError
from rvos_edge.result import Overlap, Result
from rvos_edge.streaming.loop import Stepper, Summary, check_frames, run_stream
from rvos_edge.streaming.sinks import VideoSink, open_sinks
from rvos_edge.streaming.sources import SYNTHETIC_FPS, Frame, SyntheticSource
from rvos_edge.streaming.status import stage_table
from rvos_edge.synthetic.camera import SyntheticCamera

_OBJECTS = 4
_QUERIES = 3


@dataclass
class QueryScore:
    """A query of the self-test and its score.

    Attributes:
        slot: Its place among the queries.
        object: The object that it names.
        start: First frame of the query.
        stop: Frame after its last.
        ious: IoU on each frame in which the object is visible and the query names it alone (objects move, so that the
            leftmost one may change).
    """

    query: str
    slot: int
    object: int
    start: int
    stop: int
    ious: list[float] = field(default_factory=list)

    @property
    def iou(self) -> float | None:
        """Mean IoU, 0 to 1; None without frames."""
        return float(np.mean(self.ious)) if self.ious else None

    def add(self, mask: NDArray[np.bool_], truth: NDArray[np.bool_]) -> None:
        """Score a frame, by masks bool [H,W]."""
        if truth.any():
            self.ious.append(float(np.count_nonzero(mask & truth) / np.count_nonzero(mask | truth)))


@dataclass(frozen=True)
class SelfTestReport:
    """Result of `run_self_test`.

    Attributes:
        fps: Frames per second of segmentation alone, from the median time from frame to mask.
        summary: Summary of the whole loop, including drawing and encoding.
    """

    scores: Sequence[QueryScore]
    fps: float
    summary: Summary
    video: Path
    sheet: Path

    @property
    def mean_iou(self) -> float:
        """Mean over the queries that were scored."""
        return float(np.mean([score.iou for score in self.scores if score.iou is not None] or [0.0]))


def run_self_test(
    segmenter: Stepper,
    output_dir: str | Path,
    *,
    frames: int = 100,
    seed: int = 0,
    size: tuple[int, int] | None = None,
    console: Console | None = None,
) -> SelfTestReport:
    """Segment a synthetic clip with three queries, one of which is replaced half way while the clip runs.

    Writes `demo.mp4` and `demo.png` into `output_dir`, both or neither, and prints tables of IoU and stage times.

    Args:
        segmenter: The segmenter; its queries are replaced.
        frames: Length of the clip, at least 2.

    Raises:
        UserError: `frames` is less than 2, or the folder cannot be written.
    """
    if frames < 2:
        raise UserError(f"{frames} frames are too few for a demo whose query changes half way; ask for at least 2")
    check_frames(frames)
    folder = Path(output_dir)
    source = SyntheticSource(seed=seed, size=size, objects=_OBJECTS)
    plan = _plan(source.camera, frames)
    first = [query for query in plan if query.start == 0]
    changed = next(query for query in plan if query.start > 0)

    def score(frame: Frame, result: Result) -> None:
        assert source.current is not None
        truth, said = source.current.masks, source.camera.expressions(frame.index)
        for task in plan:
            if task.start <= frame.index < task.stop and task.query in said[task.object]:
                task.add(result.masks[task.slot], truth[task.object])
        if frame.index + 1 == changed.start:
            segmenter.set_queries([*(task.query for task in first[:-1]), changed.query])

    sheet, video = folder / "demo.png", folder / "demo.mp4"
    with open_sinks([lambda: SheetSink(sheet, frames), lambda: VideoSink(video, SYNTHETIC_FPS)]) as sinks:
        segmenter.set_queries([task.query for task in first])
        summary = run_stream(
            segmenter, source, sinks, frames=frames, on_result=score, keep_partial=False, overlap=Overlap.KEEP
        )
    fps = 1000 / summary.latency.p50 if summary.latency else 0.0
    report = SelfTestReport(plan, fps, summary, video, sheet)
    _print(report, console or Console())
    return report


def _plan(camera: SyntheticCamera, frames: int) -> list[QueryScore]:
    """Plan three queries for different objects, the last of which is replaced by that of another object half way."""
    half = frames // 2
    whole, early, late = (_lasting(camera, span) for span in (range(frames), range(half), range(half, frames)))
    objects = sorted((number for number, said in enumerate(whole) if said), key=lambda number: -whole[number][0][0])
    if not objects:
        raise UserError("this synthetic scene has no object that words can single out; choose another seed")
    chosen, spare = objects[:_QUERIES], objects[_QUERIES:]
    tasks = [QueryScore(whole[number][0][1], slot, number, 0, frames) for slot, number in enumerate(chosen[:-1])]
    tasks.append(QueryScore(early[chosen[-1]][0][1], len(tasks), chosen[-1], 0, half))
    taken = {task.query for task in tasks}
    for number in [*spare, *chosen]:
        for _, expression in late[number]:
            if expression not in taken:
                return [*tasks, QueryScore(expression, tasks[-1].slot, number, half, frames)]
    raise UserError("this synthetic scene has no second expression to change to; choose another seed")


def _lasting(camera: SyntheticCamera, span: range) -> list[list[tuple[int, str]]]:
    """List, per object, the expressions true at the start of `span`, each with the number of probes that keep it."""
    probes = [[frozenset(said) for said in camera.expressions(index)] for index in span[:: max(1, len(span) // 8)]]
    return [
        sorted(
            ((sum(expression in probe[number] for probe in probes), expression) for expression in said),
            key=lambda found: (-found[0], found[1]),
        )
        for number, said in enumerate(probes[0])
    ]


def _print(report: SelfTestReport, console: Console) -> None:
    table = Table(title="Queries against the exact masks")
    table.add_column("query")
    table.add_column("frames", justify="right")
    table.add_column("IoU", justify="right")
    for score in report.scores:
        iou = "not seen" if score.iou is None else f"{score.iou:.3f}"
        table.add_row(escape(score.query), f"{score.start} to {score.stop - 1}", iou)
    table.add_row("mean", "", f"{report.mean_iou:.3f}", style="bold")
    console.print(table)
    console.print(stage_table(report.summary))
    console.print(
        f"{report.fps:.1f} frames per second of segmentation, "
        f"{report.summary.fps:.1f} with rendering, drawing and encoding."
    )
    console.print(f"Wrote {escape(str(report.video))} and {escape(str(report.sheet))}.", soft_wrap=True)
