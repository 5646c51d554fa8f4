"""Recordings that go on for months: cut into files with the time in their names, and rescued after a killed run."""

from __future__ import annotations

import itertools
import math
import os
import re
import struct
import threading
import time
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rvos_edge.atomic import leftovers
from rvos_edge.outputs import is_ours, mark_file, names_path
from rvos_edge.result import Result
from rvos_edge.streaming.sinks.base import Sink
from rvos_edge.streaming.sinks.events import EventSink
from rvos_edge.streaming.sources import Frame, SourceEvent

_STAMPED = r"[0-9]{8}T[0-9]{6}Z"
"""Pattern of `_stamp`."""
_CONTENT = frozenset({b"ftyp", b"moov", b"mdat"})


class SegmentedSink(Sink):
    """Cuts an output at every multiple of some seconds of UTC: door.mp4 becomes door-20261130T081000Z.mp4 and so on.

    Segments in which nothing came are left out.

    Args:
        make: Opens the output of one segment.
        seconds: Length of a segment.
        keep: Age in seconds at which a segment is removed; None for never.

    Raises:
        UserError: The first segment cannot be opened.
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
        self._segment = self._path.with_stem(f"{self._path.stem}-{_stamp(now)}")
        self._sink = self._make(self._segment)
        names = re.compile(rf"{re.escape(self._path.stem)}-{_STAMPED}(-[0-9]+)?{re.escape(self._path.suffix)}")
        oldest = time.time() - (math.inf if self._keep is None else self._keep)
        for path in self._path.parent.iterdir():
            if names.fullmatch(path.name) and path.stat().st_mtime < oldest and is_ours(path):
                path.unlink(missing_ok=True)


def rescue(path: Path) -> list[Path]:
    """Give a name to what killed runs recorded for an output or its segments: with their time, never an old one.

    ``door.mp4`` becomes ``door-20261130T081000Z.mp4`` by the time of its last change. What is not whole at the end, a
    line of JSON or a fragment of a video, is cut off.

    Raises:
        UserError: Another run writes the output, or the file system refuses.
    """
    rescued = []
    with names_path(path):
        for other, stem in leftovers(path, f"(?:-{_STAMPED})?"):
            changed = other.stat().st_mtime
            if (whole := _whole(other)) < other.stat().st_size:
                os.truncate(other, whole)
            if not whole:
                other.unlink()
                continue
            if stem == path.stem:
                stem = f"{stem}-{_stamp(changed)}"
            if not is_ours(other):
                mark_file(other)
            numbers = itertools.chain([""], (f"-{number}" for number in itertools.count(2)))
            named = (path.with_name(f"{stem}{number}{path.suffix}") for number in numbers)
            rescued.append(other.rename(next(name for name in named if not name.exists())))
    return rescued


def _whole(path: Path) -> int:
    """Bytes up to the end of the last whole line or fragment; 0 if there is nothing to be read or played."""
    size = path.stat().st_size
    if path.suffix == ".jsonl":
        return path.read_bytes().rfind(b"\n") + 1
    if path.suffix not in (".mp4", ".mov"):
        return size
    position, whole, found = 0, 0, set()
    with path.open("rb") as file:
        while position + 16 <= size:
            file.seek(position)
            length, kind, long = struct.unpack(">I4sQ", file.read(16))
            length = long if length == 1 else length
            if length < 8 or position + length > size:
                break
            position += length
            found.add(kind)
            if kind != b"moof":  # the head of a fragment
                whole = position
    return whole if found >= _CONTENT else 0


def _stamp(seconds: float) -> str:
    """Seconds since the epoch as UTC in the name of a file, such as 19700101T000000Z."""
    return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y%m%dT%H%M%SZ")
