"""Raw frames without any header, as `ffmpeg ... -f rawvideo -` writes them to a pipe."""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Iterator
from typing import Protocol, cast

import numpy as np
from numpy.typing import NDArray

from rvos_edge.errors import UserError
from rvos_edge.streaming.sources.base import Frame, Source, SourceOptions, Tell, tell_stderr
from rvos_edge.streaming.sources.raw_format import RawFormat


class ByteStream(Protocol):
    """A stream of raw frames, such as `sys.stdin.buffer`."""

    def readinto(self, buffer: memoryview, /) -> int | None: ...


def read_picture(stream: ByteStream, layout: RawFormat) -> NDArray[np.uint8] | None:
    """The next whole frame of a stream, None if it ends before."""
    content = bytearray(layout.size)
    return layout.decode(content) if _fill(stream, content) == len(content) else None


class RawFrames(Source):
    """Every frame of a stream of raw frames; its writer waits while frames are processed.

    Raises:
        UserError: No whole frame arrives.
    """

    def __init__(self, stream: ByteStream, layout: RawFormat, *, name: str = "stdin", tell: Tell = tell_stderr) -> None:
        super().__init__(name=name, fps=layout.fps)
        self._stream = stream
        self._layout = layout
        self._tell = tell
        first = self._read()
        if first is None:
            raise UserError(f"{name} ends before its first frame of {layout.size} bytes; check what writes to it")
        self._first: NDArray[np.uint8] | None = first

    def __iter__(self) -> Iterator[Frame]:
        image, self._first = self._first, None
        for index in itertools.count():
            if image is None:
                return
            yield Frame(image, index, index / self._layout.fps, f"{index:05d}", time.perf_counter())
            image = self._read()

    def _read(self) -> NDArray[np.uint8] | None:
        content = bytearray(self._layout.size)
        got = _fill(self._stream, content)
        if got == len(content):
            return self._layout.decode(content)
        if got:
            self._tell(
                f"{self.name} ends inside a frame, {got} of {len(content)} bytes; if that is not a broken pipe, "
                f"--raw {self._layout.width}x{self._layout.height}:{self._layout.pixels} is not what it sends"
            )
        return None


def open_stdin(spec: str, options: SourceOptions) -> Source | None:
    """Open raw frames on stdin; None for other names."""
    if spec != "-":
        return None
    if options.raw is None:
        raise UserError("--source - reads raw frames: give their layout with --raw, as in --raw 1280x720@30:bgr24")
    if sys.stdin.isatty():
        raise UserError("--source - reads raw frames from a pipe and stdin is a terminal; pipe them in, as from ffmpeg")
    return RawFrames(cast(ByteStream, sys.stdin.buffer), options.raw, tell=options.tell)


def _fill(stream: ByteStream, content: bytearray) -> int:
    """Read until `content` is full or the stream ends; returns the number of bytes."""
    view, got = memoryview(content), 0
    while got < len(content):
        part = stream.readinto(view[got:])
        if not part:
            break
        got += part
    return got
