"""The keys of the live window: q ends the stream, space pauses it and goes on, s saves a snapshot.

Queries are typed on the page of ``--serve``.
"""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from rvos_edge.atomic import write_output
from rvos_edge.errors import UserError
from rvos_edge.outputs import mark_png
from rvos_edge.result import Result
from rvos_edge.streaming.loop import Stepper
from rvos_edge.streaming.overlay import OverlayView, draw_view
from rvos_edge.streaming.sinks.base import Sink
from rvos_edge.streaming.sinks.window import CLOSED
from rvos_edge.streaming.sources import Frame


class KeyControls(Sink):
    """Controls of a stream by keys, and a sink that remembers the frame for snapshots.

    Give the object to `run_stream` twice, as `controls` and among the sinks, and its `press` to a `WindowSink`.
    """

    def __init__(self, *, view: OverlayView | None = None, snapshots: Path | None = None) -> None:
        self.paused = False
        self._quit = self._snap = False
        self._view = view or OverlayView()
        self._folder = snapshots or Path()
        self._last: tuple[Frame, Result] | None = None
        self._said = ""

    def press(self, key: int) -> None:
        """Take one key: its character's code, or `CLOSED`."""
        self._said = ""
        if key in (ord("q"), CLOSED):
            self._quit = True
        elif key == ord(" "):
            self.paused = not self.paused
        elif key == ord("s"):
            self._snap = True  # the next call of `apply` has the frame

    @property
    def view(self) -> OverlayView:
        return replace(self._view, note=self._said or ("paused, space goes on" if self.paused else ""))

    def apply(self, segmenter: Stepper) -> bool:
        if self._snap:
            self._snap, self._said = False, self._save()
        return not self._quit

    def write(self, frame: Frame, result: Result, overlay: NDArray[np.uint8] | None) -> None:
        self._last = frame, result

    def close(self) -> None:
        self._last = None

    def _save(self) -> str:
        """Write the last frame with its masks; returns a note on it."""
        if self._last is None:
            return "no frame yet"
        frame, result = self._last
        path = self._folder / f"snapshot-{time.strftime('%Y%m%d-%H%M%S')}-{frame.name}.png"
        try:
            write_output(path, mark_png(cv2.imencode(".png", draw_view(frame.image, result, self.view))[1].tobytes()))
        except UserError as error:
            return f"no snapshot: {error}"
        return f"saved {path}"
