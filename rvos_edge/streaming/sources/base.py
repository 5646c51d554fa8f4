"""Frames, the base class of sources, and what several of them share."""

from __future__ import annotations

import re
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from typing_extensions import Self

from rvos_edge.errors import UserError
from rvos_edge.secrets import hide_secrets
from rvos_edge.streaming.sources.raw_format import RawFormat

_LOGGING: Any = cv2 if hasattr(cv2, "setLogLevel") else cv2.utils.logging  # moved in OpenCV 4.13

Tell = Callable[[str], object]
"""Takes a sentence for the user about something that did not end the stream."""


def tell_stderr(message: str) -> None:
    """Print a sentence to stderr, without the secrets of URLs."""
    print(hide_secrets(message), file=sys.stderr, flush=True)


@dataclass(frozen=True)
class Frame:
    """One picture of a source.

    Attributes:
        image: uint8 [H,W,3], BGR.
        index: 0, 1, 2, ... over the frames that were handed out (dropped ones have no number).
        timestamp: Seconds since the start of the source.
        name: Stem of the image file, number of the frame in a video file, or the index; numbers have five digits.
        captured: `time.perf_counter()` when the picture was there, the start of the end-to-end latency.
        file: Name of the image file, empty for all others.
        time: Seconds since the epoch when a live picture was there; None for those of files.
    """

    image: NDArray[np.uint8]
    index: int
    timestamp: float
    name: str
    captured: float
    file: str = ""
    time: float | None = None


class Sound(NamedTuple):
    """The sound that belongs to a video: file or URL that holds it, and the second there at which the video begins."""

    path: str
    start: float


State = Literal["waiting", "playing", "lost", "frozen"]
"""State of a source: before its first picture, while pictures come, after they ceased, while they are all the same."""

EventKind = Literal["lost", "back", "frozen", "moving", "size", "ended"]


@dataclass(frozen=True)
class SourceEvent:
    """A change of a live source.

    Attributes:
        kind: "lost", "back" (also there for the first time), "frozen", "moving" (again), "size" (of the pictures) or
            "ended" (given up).
        message: A sentence for the user, without secrets.
        cause: Cause of "lost" in two words, such as "connection refused", "wrong password" or "timed out"; otherwise
            empty.
        time: Seconds since the epoch.
    """

    kind: EventKind
    message: str
    cause: str = ""
    time: float = field(default_factory=time.time)


class Source(ABC):
    """An iterable of frames and a context manager; iterate it once.

    Attributes:
        name: For messages and reports.
        fps: Frames per second as the source states them, None if it does not.
        live: True if frames arrive by themselves and are dropped when they are not taken in time.
        length: Number of frames as the source states it, None if unknown or endless.
        dropped: Live frames that were replaced by a newer one before they were taken.
        reconnects: Times that a live source was lost and came back.
        sound: The sound of a video file, None where there is none.
        seconds: Duration within which `seek` goes back and forth; None where it cannot.
        state: "playing" for all that is not live; may be read from any thread.
        trouble: The reason for another state, a sentence without secrets; empty while pictures come.
        on_event: Called with every `SourceEvent`, from the thread that reads the source; None for nothing.
    """

    live: bool = False

    def __init__(self, *, name: str, fps: float | None = None, length: int | None = None) -> None:
        self.name = name
        self.fps = fps
        self.length = length
        self.dropped = 0
        self.reconnects = 0
        self.sound: Sound | None = None
        self.seconds: float | None = None
        self.state: State = "playing"
        self.trouble = ""
        self.on_event: Callable[[SourceEvent], object] | None = None

    @abstractmethod
    def __iter__(self) -> Iterator[Frame]: ...

    def seek(self, seconds: float) -> None:
        """Go on with the frame at that time, where ``seconds`` is no None; called between two frames by the thread that
        iterates.
        """
        return

    def close(self) -> None:
        """Release the device or file; may be called twice."""
        return

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class UnavailableError(UserError):
    """A camera or stream that cannot be opened or read.

    Attributes:
        cause: Cause in two words, as in `SourceEvent`.
    """

    def __init__(self, cause: str, message: str) -> None:
        super().__init__(message)
        self.cause = cause

    def __reduce__(self) -> tuple[type[UnavailableError], tuple[str, str]]:
        return type(self), (self.cause, str(self))


@dataclass(frozen=True)
class SourceOptions:
    """Requests to a source besides its name, as ``open_source`` takes them; each kind takes those that concern it."""

    size: tuple[int, int] | None = None
    raw: RawFormat | None = None
    wait: bool = False
    give_up: float | None = None
    open_timeout: float | None = None
    read_timeout: float | None = None
    transport: str = "tcp"
    tell: Tell = tell_stderr


class _Quiet:
    """OpenCV's log level, which belongs to the process: the last thread to leave sets it back."""

    lock = threading.Lock()
    threads = 0
    level = 0


@contextmanager
def quiet_opencv() -> Iterator[None]:
    """Keep OpenCV from writing to stderr, in every thread: its callers raise a UserError instead."""
    with _Quiet.lock:
        if not _Quiet.threads:
            _Quiet.level = _LOGGING.getLogLevel()
            _LOGGING.setLogLevel(0)
        _Quiet.threads += 1
    try:
        yield
    finally:
        with _Quiet.lock:
            _Quiet.threads -= 1
            if not _Quiet.threads:
                _LOGGING.setLogLevel(_Quiet.level)


def natural_order(name: str) -> tuple[tuple[int, int | str], ...]:
    """A sort key under which "frame2" comes before "frame10"."""
    parts = re.split(r"([0-9]+)", name)
    return tuple((0, int(part)) if index % 2 else (1, part.lower()) for index, part in enumerate(parts))


def bgr(image: NDArray[np.generic]) -> NDArray[np.uint8]:
    """A picture as uint8 [H,W,3]; cameras with raw formats may give one channel."""
    pixels = np.asarray(image, dtype=np.uint8)
    if pixels.ndim == 2 or pixels.shape[2] == 1:
        pixels = np.asarray(cv2.cvtColor(pixels, cv2.COLOR_GRAY2BGR), dtype=np.uint8)
    return pixels


def stated_fps(capture: cv2.VideoCapture) -> float | None:
    """The rate that a capture states, None where it is no rate."""
    fps = float(capture.get(cv2.CAP_PROP_FPS))
    return fps if 0 < fps <= 1000 else None
