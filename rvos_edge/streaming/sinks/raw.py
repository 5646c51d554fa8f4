"""Raw overlays on stdout, for another program to take."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import TextIO

import numpy as np
from numpy.typing import NDArray

from rvos_edge.errors import UserError
from rvos_edge.result import Result
from rvos_edge.streaming.sinks.base import Sink, fit
from rvos_edge.streaming.sources import Frame


class RawSink(Sink):
    """Writes the overlays to stdout as bgr24 without any header; the first fixes the size, others are fitted into it.

    Example:
        rvos-edge run 0 "a person" --output - | ffplay -f rawvideo -pixel_format bgr24
        -video_size 640x480 -

    Raises:
        UserError: stdout is a terminal.
    """

    wants_overlay = True

    def __init__(self) -> None:
        if sys.stdout.isatty():
            raise UserError("--output - writes raw frames and stdout is a terminal; pipe it into a program, as ffplay")
        self._stdout = sys.stdout  # as it is now: a status on the terminal takes its place while it runs
        self._size: tuple[int, int] | None = None

    def write(self, frame: Frame, result: Result, overlay: NDArray[np.uint8] | None) -> None:
        assert overlay is not None
        self._size = self._size or (overlay.shape[0], overlay.shape[1])
        try:
            self._stdout.buffer.write(np.ascontiguousarray(fit(overlay, self._size)).data)
            self._stdout.buffer.flush()
        except OSError as error:
            _forget(self._stdout)
            raise UserError(
                f"raw frames on stdout end: {error.strerror or error}; check the program that reads them"
            ) from error


def _forget(stream: TextIO) -> None:
    """Discard buffered output, or Python complains about the closed pipe when it exits."""
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
