"""The streaming loop: source -> segmenter -> sinks, with latencies that stay bounded on endless streams."""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from rvos_edge.errors import UserError
from rvos_edge.stream.overlap import Overlap, resolve_overlap
from rvos_edge.stream.overlay import draw_overlay
from rvos_edge.stream.signals import uninterrupted
from rvos_edge.stream.sinks import Outputs, Sink
from rvos_edge.stream.sources import Frame, Source, Tell, tell_stderr

if TYPE_CHECKING:
    from rvos_edge.segmenter import Result


class Stepper(Protocol):
    """What the loop needs of a segmenter."""

    @property
    def queries(self) -> tuple[str, ...]: ...

    def set_queries(self, queries: Sequence[str]) -> None: ...

    def step(self, frame: NDArray[np.uint8]) -> Result: ...


OnResult = Callable[[Frame, "Result", "NDArray[np.uint8] | None"], "bool | None"]
"""Called with frame, result and overlay after the sinks; returning False ends the stream."""


@dataclass(frozen=True)
class Percentiles:
    """Milliseconds over the latencies' window."""

    p50: float
    p95: float
    p99: float


class Latencies:
    """The last `window` measurements per name.

    Example:
        >>> latencies = Latencies()
        >>> latencies.add("backbone", 7.0)
        >>> latencies.percentiles()["backbone"].p50
        7.0
    """

    def __init__(self, *, window: int = 4096) -> None:
        self._window = window
        self._values: dict[str, deque[float]] = {}

    def add(self, name: str, milliseconds: float) -> None:
        """Keep one measurement; the oldest goes when the window is full."""
        self._values.setdefault(name, deque(maxlen=self._window)).append(milliseconds)

    def add_all(self, timings: Mapping[str, float]) -> None:
        """Keep one measurement per name."""
        for name, milliseconds in timings.items():
            self.add(name, milliseconds)

    def percentiles(self) -> dict[str, Percentiles]:
        """By name, in the order in which the names first came."""
        return {
            name: Percentiles(*(float(value) for value in np.percentile(values, (50, 95, 99))))
            for name, values in self._values.items()
        }


@dataclass(frozen=True)
class Summary:
    """What a stream did.

    Attributes:
        frames: Frames that every sink has.
        seconds: Wall time from the start of the loop to its last frame.
        fps: frames / seconds.
        dropped: Live frames that were overtaken by newer ones.
        stages: Per stage of the segmenter, milliseconds.
        latency: From capture to mask, milliseconds; None without frames. Overlay and sinks come after the mask.
        interrupted: Whether Ctrl-C or SIGTERM ended it.
        failures: What made single sinks end before the stream.
    """

    frames: int
    seconds: float
    fps: float
    dropped: int
    stages: dict[str, Percentiles]
    latency: Percentiles | None
    interrupted: bool
    failures: tuple[str, ...] = ()


def run_stream(
    segmenter: Stepper,
    source: Source,
    sinks: Sequence[Sink],
    *,
    frames: int | None = None,
    on_result: OnResult | None = None,
    needs_overlay: bool | None = None,
    opacity: float = 0.5,
    keep_partial: bool = True,
    overlap: Overlap = Overlap.HIGHER,
    tell: Tell = tell_stderr,
) -> Summary:
    """Segment a source until it ends and give every result to every sink.

    Ctrl-C ends the stream like its last frame: the outputs are finished and the summary says `interrupted`. After
    another error the outputs of the frames so far are finished too, and the error goes on; but when it comes before
    the first frame is written, all sinks are aborted and nothing is left behind. A sink that cannot go on later (a full
    disk) is closed with what it has while the others go on; the last one that is left ends the stream.

    Args:
        segmenter: With its queries set.
        source: Opened; closing it stays with the caller.
        sinks: Closed or aborted here.
        frames: Stop after so many, None for all.
        on_result: See `OnResult`.
        needs_overlay: Whether to draw; None: if a sink wants it.
        opacity: Of the masks in the overlay, 0 to 1.
        keep_partial: False aborts the sinks after any error, also of one of them, or Ctrl-C, which then goes on to the
            caller.
        overlap: What becomes of pixels that several queries claim, in everything that comes after the segmenter.
        tell: Takes a sentence when a sink had to end before the stream.

    Raises:
        UserError: Of the source, the segmenter or a sink, or `frames` is less than 1.
    """
    latencies, end_to_end = Latencies(), Latencies()
    done, interrupted = 0, False
    started = ended = time.perf_counter()
    outputs = Outputs(sinks, together=not keep_partial, tell=tell)
    draws = outputs.wants_overlay if needs_overlay is None else needs_overlay
    try:
        if frames is not None and frames < 1:
            raise UserError(f"{frames} frames cannot be segmented; ask for at least 1, or leave the number out for all")
        for frame in itertools.islice(source, frames):
            result = resolve_overlap(segmenter.step(frame.image), overlap)
            end_to_end.add("latency", (time.perf_counter() - frame.captured) * 1000)
            latencies.add_all(result.timings)
            overlay = draw_overlay(frame.image, result, opacity=opacity) if draws else None
            with uninterrupted():
                outputs.write(frame, result, overlay)
                done += 1
                ended = time.perf_counter()
            if on_result is not None and on_result(frame, result, overlay) is False:
                break
    except KeyboardInterrupt:
        if not (done and keep_partial):
            outputs.abort()
            raise
        interrupted = True
    except BaseException:
        if done and keep_partial:
            with suppress(Exception), uninterrupted():  # the first error is the one to tell
                outputs.close()
        else:
            outputs.abort()
        raise
    # Who pressed Ctrl-C again while the outputs are finished has what they wanted.
    with suppress(KeyboardInterrupt) if interrupted else nullcontext(), uninterrupted():
        outputs.close()
    seconds = ended - started
    return Summary(
        frames=done,
        seconds=seconds,
        fps=done / seconds if seconds > 0 else 0.0,
        dropped=source.dropped,
        stages=latencies.percentiles(),
        latency=end_to_end.percentiles().get("latency"),
        interrupted=interrupted,
        failures=tuple(outputs.failures),
    )
