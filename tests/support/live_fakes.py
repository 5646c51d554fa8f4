"""Helpers for tests of live sources: waiting for something, a camera that is played, H.264 files with chosen times."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np


def wait_until(condition: Callable[[], object], *, seconds: float = 10.0) -> None:
    """Poll until `condition` holds; fails after `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


class FakeCapture:
    """A camera of `frames` pictures with the values 1, 2, ...; after the first, each waits for `go`."""

    fps: float | None = None

    def __init__(self, frames: int, *, size: tuple[int, int] = (4, 4), free: bool = False) -> None:
        self.frames, self.given, self.size = frames, 0, size
        self.go = threading.Semaphore(10**9 if free else 1)
        self.released = False

    def read(self) -> tuple[bool, np.ndarray | None]:
        if self.given == self.frames:
            return False, None
        assert self.go.acquire(timeout=10)
        self.given += 1
        return True, np.full((*self.size, 3), self.given % 256, np.uint8)

    def release(self) -> None:
        self.released = True


def write_h264(path: Path, times: Sequence[float] | np.ndarray, *, size: tuple[int, int] = (48, 64)) -> Path:
    """Frames of grey 0, 8, 16, ... at `times` seconds, with B-frames."""
    clock = Fraction(1, 90_000)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"bf": "2", "g": "10"})
        stream.height, stream.width = size
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = clock
        for index, seconds in enumerate(times):
            frame = av.VideoFrame.from_ndarray(np.full((*size, 3), index * 8 % 256, np.uint8), format="bgr24")
            frame.pts, frame.time_base = round(seconds / clock), clock
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path
