"""The streaming loop: source -> segmenter -> sinks, with latencies that stay bounded on endless streams."""

from __future__ import annotations

import itertools
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, nullcontext, suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from rvos_edge.errors import UserError
from rvos_edge.result import Overlap, Result, resolve_overlap
from rvos_edge.streaming.overlay import OverlayView, draw_note, draw_view
from rvos_edge.streaming.pipeline import read_ahead, write_behind
from rvos_edge.streaming.signals import uninterrupted
from rvos_edge.streaming.sinks import Outputs, Screen, Sink
from rvos_edge.streaming.sources import Frame, Source, Tell, tell_stderr

_PAUSED_SECONDS = 0.01
"""Between two looks at the controls while a stream is paused."""
_RATE_SECONDS = 2.0
"""Window of the frame rate that is shown while a stream runs."""


class Stepper(Protocol):
    """The part of a segmenter that the loop uses."""

    @property
    def queries(self) -> tuple[str, ...]: ...

    def set_queries(self, queries: Sequence[str]) -> None: ...

    def step(self, frame: NDArray[np.uint8]) -> Result: ...


class StreamControls(Protocol):
    """Controls of a stream while it runs: keys in the window, a web page. The loop calls them from its own thread."""

    @property
    def view(self) -> OverlayView:
        """Settings of the next overlay; read once per frame, after `apply`."""

    @property
    def paused(self) -> bool:
        """True if the stream stands still after the current frame."""

    def apply(self, segmenter: Stepper) -> bool:
        """Carry out what was asked for, such as new queries; called before each frame and often during a pause.

        Returns:
            False to end the stream.
        """


OnResult = Callable[[Frame, Result], object]
"""Called with frame and result after the sinks."""


@dataclass(frozen=True)
class Percentiles:
    """Percentiles of latencies in milliseconds."""

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
        """Percentiles by name, in the order in which the names first came."""
        return {
            name: Percentiles(*(float(value) for value in np.percentile(values, (50, 95, 99))))
            for name, values in self._values.items()
        }


class Meter:
    """Counts and times the frames of a stream; `run_stream` feeds it, a status display reads it in between.

    Attributes:
        frames: Frames that every sink has.
        failures: Reasons for which single sinks ended before the stream.
    """

    def __init__(self) -> None:
        self.frames = 0
        self.failures: list[str] = []
        self._taken: deque[float] = deque()
        self._stages, self._recent, self._whole = Latencies(), Latencies(window=128), Latencies()
        self._finished: deque[float] = deque(maxlen=256)
        self._found: dict[str, tuple[int, int, float]] = {}
        self._started = self._ended = time.perf_counter()

    @property
    def fps(self) -> float:
        """Frames per second over the last two seconds, 0 before there are two frames."""
        now = self._ended
        recent = [moment for moment in self._finished if moment >= now - _RATE_SECONDS]
        span = now - recent[0] if recent else 0.0
        return (len(recent) - 1) / span if span > 0 else 0.0

    @property
    def latency(self) -> Percentiles | None:
        """Latency from capture to mask over the last 128 frames, milliseconds; None before the first."""
        return self._recent.percentiles().get("latency")

    def start(self) -> None:
        """Start the clock."""
        self._started = self._ended = time.perf_counter()

    @property
    def busy_seconds(self) -> float:
        """Seconds since a frame was taken that no sink has yet; 0 while the stream waits for one. From any thread."""
        with suppress(IndexError):
            return time.perf_counter() - self._taken[0]
        return 0.0

    def taken(self) -> None:
        """Note that work on a frame begins."""
        self._taken.append(time.perf_counter())

    def segmented(self, frame: Frame, result: Result, moment: float) -> None:
        """Record the latency and the stage times of a frame whose masks were there at a `moment` of `perf_counter`."""
        milliseconds = (moment - frame.captured) * 1000
        self._whole.add("latency", milliseconds)
        self._recent.add("latency", milliseconds)
        self._stages.add_all(result.timings)
        # Only queries that are set now are counted: a page may set a new one with every letter that is typed.
        before, shown = self._found, result.present & result.masks.any(axis=(1, 2))
        self._found = {}
        for query, seen, presence in zip(result.queries, shown, result.presence, strict=True):
            frames, found, total = before.get(query, (0, 0, 0.0))
            self._found[query] = frames + 1, found + int(seen), total + float(presence)

    def written(self) -> None:
        """Count a frame that every sink has written."""
        self._taken.popleft()
        self.frames += 1
        self._ended = time.perf_counter()
        self._finished.append(self._ended)

    def summary(self, *, dropped: int, interrupted: bool) -> Summary:
        """A summary of the stream until now."""
        seconds = self._ended - self._started
        return Summary(
            frames=self.frames,
            seconds=seconds,
            fps=self.frames / seconds if seconds > 0 else 0.0,
            dropped=dropped,
            stages=self._stages.percentiles(),
            latency=self._whole.percentiles().get("latency"),
            interrupted=interrupted,
            failures=tuple(self.failures),
            findings=tuple(
                QueryFinding(query, frames, found, total / frames)
                for query, (frames, found, total) in self._found.items()
            ),
        )


@dataclass(frozen=True)
class QueryFinding:
    """A query, the frames that it was asked in, those in which it has a mask, and its mean presence over all."""

    query: str
    frames: int
    found: int
    presence: float


@dataclass(frozen=True)
class Summary:
    """The summary of a stream.

    Attributes:
        frames: Frames that every sink has.
        dropped: Live frames that were overtaken by newer ones.
        latency: From capture to mask, milliseconds; None without frames. Overlay and sinks come after the mask.
        failures: Reasons for which single sinks ended before the stream.
    """

    frames: int
    seconds: float
    fps: float
    dropped: int
    stages: dict[str, Percentiles]
    latency: Percentiles | None
    interrupted: bool
    failures: tuple[str, ...] = ()
    findings: tuple[QueryFinding, ...] = ()


def run_stream(
    segmenter: Stepper,
    source: Source,
    sinks: Sequence[Sink],
    *,
    frames: int | None = None,
    on_result: OnResult | None = None,
    opacity: float = 0.5,
    keep_partial: bool = True,
    overlap: Overlap = Overlap.KEEP,
    tell: Tell = tell_stderr,
    controls: StreamControls | None = None,
    meter: Meter | None = None,
    pipelined: bool = False,
) -> Summary:
    """Segment a source until it ends and give every result to every sink.

    Ctrl-C ends the stream like its last frame: the outputs are finished and the summary says `interrupted`. After
    another error the outputs of the frames so far are finished too, and the error goes on; but when it comes before
    the first frame is written, all sinks are aborted and nothing is left behind. A sink that cannot go on later (a full
    disk) is closed with what it has while the others go on; the last one that is left ends the stream.

    Args:
        keep_partial: False aborts the sinks after any error, also of one of them, or Ctrl-C, which then goes on to the
            caller.
        pipelined: Read and write in threads of their own, which call the sinks and `on_result`; for files, without
            controls.

    Raises:
        UserError: From the source, the segmenter or a sink, or `frames` is less than 1.
    """
    meter = meter or Meter()
    meter.start()
    outputs = Outputs(sinks, together=not keep_partial, tell=tell, failures=meter.failures)
    view, interrupted = OverlayView(opacity=opacity), False

    def write(frame: Frame, result: Result, moment: float) -> None:
        meter.segmented(frame, result, moment)
        overlay = draw_view(frame.image, result, view) if outputs.wants_overlay else None
        noted = _noted(overlay, view) if overlay is not None and outputs.screens else overlay
        outputs.write(frame, result, overlay, noted=noted)
        meter.written()
        if on_result is not None:
            on_result(frame, result)

    try:
        check_frames(frames)
        with ExitStack() as stack:
            taken: Iterator[Frame] = itertools.islice(source, frames)
            if pipelined:
                read = stack.enter_context(read_ahead(taken))
                taken = (replace(frame, captured=time.perf_counter()) for frame in read)
            do = stack.enter_context(write_behind()) if pipelined else _call
            for frame in taken:
                meter.taken()
                if controls is not None:
                    if not controls.apply(segmenter):
                        break
                    view = controls.view
                result = resolve_overlap(segmenter.step(frame.image), overlap)
                with uninterrupted():
                    do(partial(write, frame, result, time.perf_counter()))
                if controls is not None and not _wait_while_paused(controls, segmenter, frame, result, outputs.screens):
                    break
    except KeyboardInterrupt:
        if not (meter.frames and keep_partial):
            outputs.abort()
            raise
        interrupted = True
    except BaseException:
        if meter.frames and keep_partial:
            with suppress(Exception), uninterrupted():  # the first error is the one to tell
                outputs.close()
        else:
            outputs.abort()
        raise
    # A second Ctrl-C while the outputs are finished changes nothing.
    with suppress(KeyboardInterrupt) if interrupted else nullcontext(), uninterrupted():
        outputs.close()
    return meter.summary(dropped=source.dropped, interrupted=interrupted)


def _call(work: Callable[[], object]) -> None:
    work()


def check_frames(frames: int | None) -> None:
    """Refuse a number of frames that is less than 1, or beyond what a machine counts."""
    if frames is not None and not 1 <= frames <= sys.maxsize:
        raise UserError(f"{frames} frames cannot be segmented; ask for at least 1, or leave the number out for all")


def _noted(overlay: NDArray[np.uint8], view: OverlayView) -> NDArray[np.uint8]:
    return draw_note(overlay, view.note) if view.note else overlay


def _wait_while_paused(
    controls: StreamControls, segmenter: Stepper, frame: Frame, result: Result, screens: Sequence[Screen]
) -> bool:
    """Keep the screens alive, and drawn as asked for, until the stream goes on; False to end it."""
    shown: tuple[OverlayView, NDArray[np.uint8]] | None = None
    while controls.paused:
        view = controls.view
        if screens and (shown is None or shown[0] != view):
            shown = view, _noted(draw_view(frame.image, result, view), view)
        for screen in screens:
            if shown is not None:
                screen.show(shown[1])
        time.sleep(_PAUSED_SECONDS)
        if not controls.apply(segmenter):
            return False
    return True
