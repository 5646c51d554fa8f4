"""Recordings that are started and stopped on the page."""

from __future__ import annotations

import shutil
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from rvos_edge.errors import UserError
from rvos_edge.streaming.sinks import VideoSink

if TYPE_CHECKING:
    from rvos_edge.result import Result
    from rvos_edge.streaming.sources import Frame

_LARGEST = 1 << 30
"""Largest recording, in bytes."""
SPARE = 256 << 20
"""Space to leave free on the disk, in bytes."""
_KEPT = 10
_EVERY = 50
"""Frames between two checks of the size and the disk."""


@dataclass(frozen=True)
class RecordingState:
    """State of the recorder: names of the finished recordings, the oldest first, and why the last one stopped by
    itself.
    """

    running: bool
    seconds: float
    files: tuple[str, ...]
    trouble: str


class Recorder:
    """Writes the pictures that viewers see as mp4 files into an existing folder, which its owner removes.

    An error ends the recording, never the stream.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._sink: VideoSink | None = None
        self._path = folder
        self._started = 0.0
        self._frames = 0
        self._count = 0
        self._files: list[str] = []
        self._trouble = ""

    @property
    def running(self) -> bool:
        """True while frames are recorded."""
        return self._sink is not None

    @property
    def state(self) -> RecordingState:
        """State for the page."""
        with self._lock:
            seconds = time.monotonic() - self._started if self._sink else 0.0
            return RecordingState(self._sink is not None, seconds, tuple(self._files), self._trouble)

    def start(self, fps: float) -> str:
        """Begin a recording and return its name.

        Raises:
            UserError: One is running, or there is no room.
        """
        with self._lock:
            if self._sink is not None:
                raise UserError("a recording is running already; stop it first.")
            if shutil.disk_usage(self._folder).free < 2 * SPARE:
                raise UserError("the server's disk is nearly full; free some space before recording.")
            self._count += 1
            self._path = self._folder / f"recording-{self._count}.mp4"
            self._sink = VideoSink(self._path, min(max(fps, 1.0), 120.0))
            self._started, self._frames, self._trouble = time.monotonic(), 0, ""
            return self._path.name

    def stop(self) -> str:
        """Finish the recording and return its name.

        Raises:
            UserError: None is running, or it cannot be finished.
        """
        with self._lock:
            if self._sink is None:
                raise UserError("no recording is running; start one first.")
            self._finish()
            if self._trouble:
                raise UserError(self._trouble)
            return self._path.name

    def write(self, frame: Frame, result: Result, picture: NDArray[np.uint8]) -> None:
        """Record a frame if a recording is running; ``picture`` is its drawing, uint8 [H,W,3] BGR."""
        with self._lock:
            if self._sink is None:
                return
            try:
                self._sink.write(frame, result, picture)
                self._frames += 1
                if self._frames % _EVERY == 0:
                    self._look()
            except (UserError, OSError, cv2.error) as error:
                self._finish(f"the recording stopped: {error}")

    def close(self) -> None:
        """Finish a running recording."""
        with self._lock:
            if self._sink is not None:
                self._finish()

    def _look(self) -> None:
        recorded = sum(path.stat().st_size for path in self._folder.glob(f".{self._path.stem}.part*"))
        if recorded > _LARGEST:
            self._finish(f"the recording stopped at {_LARGEST >> 20} MiB; start another one.")
        elif shutil.disk_usage(self._folder).free < SPARE:
            self._finish("the recording stopped because the server's disk is nearly full; free some space.")

    def _finish(self, trouble: str = "") -> None:
        sink, self._sink, self._trouble = self._sink, None, trouble
        if sink is None:
            return
        try:
            sink.close()
        except (UserError, OSError, cv2.error) as error:
            sink.abort()
            self._trouble = trouble or str(error)
        if self._path.is_file():
            self._files.append(self._path.name)
            for name in self._files[:-_KEPT]:
                (self._folder / name).unlink(missing_ok=True)
            del self._files[:-_KEPT]
        elif not self._trouble:
            self._trouble = "nothing was recorded: no frame came while the recording ran."

    def path(self, name: str) -> Path:
        """The file of a finished recording.

        Raises:
            KeyError: There is none of that name.
        """
        with self._lock:
            if name not in self._files:
                raise KeyError(name)
            return self._folder / name
