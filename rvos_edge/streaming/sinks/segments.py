"""Recordings that go on for months, cut into files with the time in their names."""

from __future__ import annotations

import math
import re
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rvos_edge.outputs import is_ours
from rvos_edge.result import Result
from rvos_edge.streaming.sinks.base import Sink
from rvos_edge.streaming.sinks.events import EventSink
from rvos_edge.streaming.sinks.rescue import STAMPED, stamp
from rvos_edge.streaming.sources import Frame, SourceEvent


class SegmentedSink(Sink):
    """Cuts an output at every multiple of some seconds of UTC: door.mp4 becomes door-20261130T081000Z.mp4 and so on.

    Segments in which nothing came are left out.

    Args:
        make: Opens the output of one segment.
        seconds: Length of a segment.
        keep: Age in seconds at which a segment is removed; None for never.
    """

    def __init__(self, path: Path, make: Callable[[Path], Sink], *, seconds: float, keep: float | None = None) -> None:
        self._path, self._make, self._seconds, self._keep = path, make, seconds, keep
        self._started = time.time()
        self._lock = threading.Lock()
        self._open(self._started)
        self.wants_overlay = self._sink.wants_overlay

    def write(self, frame: Frame, result: Result, overlay: NDArray[np.uint8] | None) -> None:
        now = self._started + frame.timestamp if frame.time is None else frame.time
        if now // self._seconds != self._opened // self._seconds:
            with self._lock:
                self.close()
                self._open(now)
        self._sink.write(frame, result, overlay)

    def write_source(self, event: SourceEvent) -> None:
        """Pass an event of the camera on to a sink of events; from any thread."""
        with self._lock:
            if isinstance(self._sink, EventSink):
                self._sink.write_source(event)

    def close(self) -> None:
        self._sink.close()
        if self._segment.is_file() and not self._segment.stat().st_size:
            self._segment.unlink()

    def abort(self) -> None:
        self._sink.abort()

    def _open(self, now: float) -> None:
        self._opened = now
        self._segment = self._path.with_stem(f"{self._path.stem}-{stamp(now)}")
        self._sink = self._make(self._segment)
        names = re.compile(rf"{re.escape(self._path.stem)}-{STAMPED}(-[0-9]+)?{re.escape(self._path.suffix)}")
        oldest = time.time() - (math.inf if self._keep is None else self._keep)
        for path in self._path.parent.iterdir():
            if names.fullmatch(path.name) and path.stat().st_mtime < oldest and is_ours(path):
                path.unlink(missing_ok=True)
