"""C++ against Python runtime, end to end, in turns on the same frames; prints one Markdown table.

Example:
    python -m rvos_edge.benchmarks.runtimes --frames 200
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from rvos_edge.benchmarks.frames import make_queries, read_clip
from rvos_edge.benchmarks.stats import paired_ratio
from rvos_edge.bundle import Bundle, shipped_bundle
from rvos_edge.errors import UserError
from rvos_edge.opening import open_segmenter
from rvos_edge.protocol import SegmenterProtocol

RUNTIMES = ("python", "cpp")
_AROUND = ("preprocess", "postprocess")
"""Stages outside the engines."""


@dataclass
class RuntimeTimes:
    """Times of a runtime in milliseconds per frame.

    Attributes:
        frame: The whole call of ``step``.
        outside: ``frame`` less the engines: resizing, flow policy, binding, masks and scores, interpreter.
    """

    frame: list[float] = field(default_factory=list)
    outside: list[float] = field(default_factory=list)

    def step(self, segmenter: SegmenterProtocol, image: NDArray[np.uint8]) -> None:
        """Segment a frame, uint8 [H,W,3], and keep its times."""
        start = time.perf_counter()
        timings = segmenter.step(image).timings
        took = 1e3 * (time.perf_counter() - start)
        self.frame.append(took)
        self.outside.append(took - sum(value for name, value in timings.items() if name not in _AROUND))


def measure(
    *,
    backend: str,
    queries: int,
    frames: int,
    warmup: int,
    size: tuple[int, int] | None,
    source: str,
    threads: int | None,
) -> dict[str, RuntimeTimes]:
    """Measured times by runtime; the options are those of the command line.

    Raises:
        UserError: A runtime or the backend is not installed, or the source cannot be read.
    """
    bundle = Bundle.open(shipped_bundle())
    clip = read_clip(source, frames=frames + warmup, size=size or bundle.manifest.size)
    segmenters = {name: open_segmenter(backend=backend, threads=threads, runtime=name) for name in RUNTIMES}
    times = {name: RuntimeTimes() for name in RUNTIMES}
    for segmenter in segmenters.values():
        segmenter.set_queries(make_queries(queries))
    for index in range(warmup + frames):
        if index == warmup:
            times = {name: RuntimeTimes() for name in RUNTIMES}
        # The second one finds warmer caches: alternate.
        for name in RUNTIMES[:: 1 if index % 2 else -1]:
            times[name].step(segmenters[name], clip.at(index))
    return times


def row(label: str, times: dict[str, RuntimeTimes]) -> str:
    """A line of the table."""
    ratio = paired_ratio(times["python"].frame, times["cpp"].frame)
    between = "" if ratio.low is None or ratio.high is None else f" ({ratio.low:.3f} to {ratio.high:.3f})"
    frame, outside = (
        [f"{statistics.median(getattr(times[name], kind)):.2f}" for name in RUNTIMES] for kind in ("frame", "outside")
    )
    return f"| {label} | {frame[0]} | {frame[1]} | {ratio.value:.3f}{between} | {outside[0]} | {outside[1]} |"


HEAD = """| frames | Python, ms | C++, ms | Python / C++ | outside the engines: Python, ms | C++, ms |
|---|---|---|---|---|---|"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and print the table; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--backend", default="openvino")
    parser.add_argument("--frames", type=int, default=200, help="measured frames of each row")
    parser.add_argument("--warmup", type=int, default=20)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--source", default="synthetic", help="as for rvos-edge run")
    given = parser.parse_args(arguments)
    print(HEAD)
    try:
        for size, queries in ((None, 1), (None, 4), ((720, 1280), 1)):
            times = measure(
                backend=given.backend,
                queries=queries,
                frames=given.frames,
                warmup=given.warmup,
                size=size,
                source=given.source,
                threads=given.threads,
            )
            height, width = size or Bundle.open(shipped_bundle()).manifest.size
            queries_text = f"{queries} {'query' if queries == 1 else 'queries'}"
            print(row(f"{height} x {width}, {queries_text}", times), flush=True)
    except UserError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
