"""Accuracy and time of flow settings over a data set, as one Markdown table.

Every frame goes through all settings before the next frame is read, in a rotating order: load on the machine affects
all settings alike, and ratios of times are paired by frame.

Example:
    python -m rvos_edge.benchmarks.flow_table --root DAVIS --with quarter=my-bundle-with-flow-scale-4
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from rvos_edge.errors import UserError
from rvos_edge.flow.policy import FlowOptions
from rvos_edge.opening import open_segmenter
from rvos_edge.protocol import SegmenterProtocol
from rvos_edge.trainer.data.datasets import DATASETS, open_clips
from rvos_edge.trainer.data.readers.base import AnnotatedClips
from rvos_edge.trainer.metrics import region_similarity

DEFAULT = "default"
REFERENCE = "12 iterations"
"""The setting whose flow is the reference of the flow error: RAFT's own number of iterations."""


@dataclass(frozen=True)
class Setting:
    """A row of the table: name, flow options, and the bundle's directory (None: the bundle under test)."""

    label: str
    options: FlowOptions
    bundle: Path | None = None


@dataclass
class SettingRow:
    """Measurements of one setting.

    Attributes:
        error: Mean end-point error against the reference flow, per frame, in pixels of the network's input.
    """

    j: dict[tuple[str, str], list[float]] = field(default_factory=dict)
    times: list[float] = field(default_factory=list)
    error: list[float] = field(default_factory=list)
    ran: int = 0

    def mean_j(self) -> float:
        """Mean J: the mean over frames, then over the queries of a video, then over videos."""
        videos: dict[str, list[float]] = {}
        for (video, _), values in self.j.items():
            videos.setdefault(video, []).append(statistics.fmean(values))
        return statistics.fmean(map(statistics.fmean, videos.values()))


def settings(bundles: Iterable[tuple[str, Path]] = ()) -> list[Setting]:
    """The fixed settings: the default first, further bundles (name, directory) last."""
    counts = (1, 2, 3, 6, 12)
    return [
        Setting(DEFAULT, FlowOptions()),
        Setting("no flow", FlowOptions(enabled=False)),
        *(Setting(_iterations(n), FlowOptions(iterations=n)) for n in counts),
        *(Setting(f"every {n} frames", FlowOptions(every=n)) for n in (2, 3, 4)),
        Setting("1 iteration, every 3 frames", FlowOptions(iterations=1, every=3)),
        Setting("still at 12 grey levels", FlowOptions(still=12)),
        *(Setting(name, FlowOptions(), path) for name, path in bundles),
    ]


def measure(
    chosen: Sequence[Setting],
    clips: AnnotatedClips,
    bundle: Path | None = None,
    *,
    every_frame: int = 1,
    limit: int | None = None,
    console: Console | None = None,
) -> dict[str, SettingRow]:
    """Run all settings frame by frame; every n-th frame is scored.

    Raises:
        UserError: A bundle or file is missing or damaged, or no frame is annotated.
    """
    videos = [video for video in clips.videos if clips.queries(video) and clips.annotated(video)]
    if not videos:
        raise UserError(f"{clips.root}: this split has no annotations to score against; choose another --split.")
    runs = {setting.label: _Run(setting, bundle) for setting in chosen}
    order, turn = list(runs.values()), 0
    for video in videos:
        for run in order:
            run.start(clips, video)
        frames, scored = range(len(clips.frames(video)))[:limit], set(clips.annotated(video))
        hidden = console is None or not console.is_terminal
        for index in track(frames, video, console=console, disable=hidden):
            image = clips.image(video, index)
            truth = clips.masks(video, index) if index in scored and index % every_frame == 0 else None
            turn += 1
            for run in order[turn % len(order) :] + order[: turn % len(order)]:
                run.step(image, truth)
            _compare_flow(runs)
        if console is not None:
            console.print(f"{video}: {len(frames)} frames")
    return {label: run.row for label, run in runs.items()}


def as_markdown(rows: dict[str, SettingRow]) -> str:
    """The rows as a Markdown table: J in percent, median times, medians of the ratios per frame."""
    base = rows[DEFAULT]
    lines = [
        "| setting | J | to the default | ms | of the default's | flow on | flow error, px |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for label, row in rows.items():
        ratio = statistics.median(own / other for own, other in zip(row.times, base.times, strict=True))
        j, more = 100 * row.mean_j(), 100 * (row.mean_j() - base.mean_j())
        ran, error = (row.ran / len(row.times), f"{statistics.fmean(row.error):.2f}" if row.error else "")
        median = statistics.median(row.times)
        lines.append(f"| {label} | {j:.1f} | {more:+.2f} | {median:.1f} | {ratio:.2f} | {ran:.0%} | {error} |")
    return "\n".join(lines)


class _Run:
    def __init__(self, setting: Setting, bundle: Path | None) -> None:
        options = setting.options.model_copy(update={"keep_flow": True})
        path = setting.bundle or bundle
        self.segmenter: SegmenterProtocol = open_segmenter(path, device="cpu", flow=options)
        self.row = SettingRow()
        self.flow: NDArray[np.float32] | None = None
        self._keys: list[tuple[str, str]] = []

    def start(self, clips: AnnotatedClips, video: str) -> None:
        queries = clips.queries(video)
        different = list(dict.fromkeys(query.expression for query in queries))
        self.segmenter.reset()
        self.segmenter.set_queries(different)
        self._keys = [(video, query.key) for query in queries]
        self._places = [different.index(query.expression) for query in queries]

    def step(self, image: NDArray[np.uint8], truth: NDArray[np.bool_] | None) -> None:
        result = self.segmenter.step(image)
        self.row.times.append(sum(result.timings.values()))
        self.row.ran += result.flow_used
        self.flow = result.flow
        if truth is not None:
            for key, true, mask in zip(self._keys, truth, result.masks[self._places], strict=True):
                self.row.j.setdefault(key, []).append(float(region_similarity(true, mask)))


def _compare_flow(runs: dict[str, _Run]) -> None:
    reference = runs[REFERENCE].flow if REFERENCE in runs else None
    for run in runs.values():
        if reference is not None and run.flow is not None:
            run.row.error.append(float(np.hypot(*(run.flow - reference)).mean()))


def _named(text: str) -> tuple[str, Path]:
    name, _, path = text.partition("=")
    if not name or not path:
        raise UserError(f"--with {text}: write NAME=BUNDLE, such as 'flow at a quarter=my-bundle'.")
    return name, Path(path)


def _iterations(count: int) -> str:
    return f"{count} iteration{'s' if count > 1 else ''}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m rvos_edge.benchmarks.flow_table", description=__doc__)
    parser.add_argument("--root", type=Path, required=True, help="the data set's folder")
    parser.add_argument("--dataset", default="davis16", choices=[name for name in DATASETS if name != "davis17"])
    parser.add_argument("--split", help="a split, or names of videos with commas; the usual one if left out")
    parser.add_argument("--bundle", type=Path, help="the bundle under test; the shipped one if left out")
    parser.add_argument("--with", dest="more", action="append", default=[], help="NAME=BUNDLE: a row of another bundle")
    parser.add_argument("--every-frame", type=int, default=1, help="score every n-th frame; all are seen")
    parser.add_argument("--frames", type=int, help="of each video; all if left out")
    options = parser.parse_args(arguments)
    try:
        if options.every_frame < 1 or (options.frames is not None and options.frames < 1):
            raise UserError("--every-frame and --frames must be at least 1.")
        chosen = settings([_named(text) for text in options.more])
        clips = open_clips(options.dataset, options.root, options.split)
        rows = measure(
            chosen,
            clips,
            options.bundle,
            every_frame=options.every_frame,
            limit=options.frames,
            console=Console(stderr=True),
        )
    except UserError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2
    print(as_markdown(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
