"""Recordings that are started and stopped on the page: videos, and data sets to annotate."""

from __future__ import annotations

import shutil
import threading
import time
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from rvos_edge.atomic import new_file
from rvos_edge.errors import UserError
from rvos_edge.outputs import free_path, names_path
from rvos_edge.result import Result
from rvos_edge.streaming.sinks import DatasetSink, Sink, VideoSink
from rvos_edge.streaming.sinks.rescue import rescue_folders, stamp
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
    """State of the recorder: seconds that the video has so far, names of the finished recordings, the oldest first, and
    why the last one stopped by itself.
    """

    running: bool
    seconds: float
    files: tuple[str, ...]
    trouble: str


class Recorder:
    """Writes the pictures that viewers see as mp4 files into an existing folder, which its owner removes; if asked, the
    bare pictures with their masks as a data set too (COCO and YOLO, in a zip file). What a killed server of the same
    source had recorded is among them.

    An error ends the recording, never the stream.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._zipping = threading.Lock()
        self._sinks: list[Sink] = []
        self._path = folder
        self._step = 0.0
        self._begin = self._latest = 0.0
        self._image: NDArray[np.uint8] | None = None
        self._frames = 0
        self._files: list[str] = []
        self._trouble = ""
        for path in rescue_folders(folder, "recording.mp4"):
            self._add(path)

    @property
    def running(self) -> bool:
        """True while frames are recorded."""
        return bool(self._sinks)

    @property
    def state(self) -> RecordingState:
        """State for the page."""
        with self._lock:
            seconds = self._latest - self._begin + self._step if self._sinks and self._frames else 0.0
            return RecordingState(self.running, seconds, tuple(self._files), self._trouble)

    def start(self, fps: float, dataset: bool = False) -> str:
        """Begin a recording and return its name; ``dataset`` for a data set beside the video. One at a time, and only
        with room on the disk.
        """
        with self._lock:
            if self._sinks:
                raise UserError("a recording is running already; stop it first.")
            if shutil.disk_usage(self._folder).free < 2 * SPARE:
                raise UserError("the server's disk is nearly full; free some space before recording.")
            self._path = free_path(self._folder / f"recording-{stamp(time.time())}", ".mp4")
            fps = min(max(fps, 1.0), 120.0)
            self._sinks = [VideoSink(self._path, fps)]
            if dataset:
                self._sinks.append(DatasetSink(self._path.with_suffix("")))
            self._step, self._frames, self._trouble = 1 / fps, 0, ""
            self._image = None
            return self._path.name

    def stop(self) -> str:
        """Finish the recording and return its name."""
        with self._lock:
            if not self._sinks:
                raise UserError("no recording is running; start one first.")
            self._finish()
            if self._trouble:
                raise UserError(self._trouble)
            return self._path.name

    def write(self, frame: Frame, result: Result, picture: NDArray[np.uint8]) -> None:
        """Record a frame if a recording is running; ``picture`` is its drawing, uint8 [H,W,3] BGR."""
        with self._lock:
            if not self._sinks:
                return
            if self._frames == 0:
                self._begin = self._latest = frame.timestamp
            held, self._image = self._image is frame.image, frame.image
            self._latest = max(self._latest, frame.timestamp)
            frame = replace(frame, name=f"{self._frames:05d}")
            try:
                # A data set holds a frame that was paused once.
                for sink in self._sinks[: 1 if held else None]:
                    sink.write(frame, result, picture)
                self._frames += 1
                if self._frames % _EVERY == 0:
                    self._look()
            except (UserError, OSError, cv2.error) as error:
                self._finish(f"the recording stopped: {error}")

    def close(self) -> None:
        """Finish a running recording."""
        with self._lock:
            if self._sinks:
                self._finish()

    def _look(self) -> None:
        unfinished = self._folder.glob(f".{self._path.stem}.part*")
        files = (path for part in unfinished for path in ([part] if part.is_file() else part.rglob("*")))
        recorded = sum(path.stat().st_size for path in files)
        if recorded > _LARGEST:
            self._finish(f"the recording stopped at {_LARGEST >> 20} MiB; start another one.")
        elif shutil.disk_usage(self._folder).free < SPARE:
            self._finish("the recording stopped because the server's disk is nearly full; free some space.")

    def _finish(self, trouble: str = "") -> None:
        sinks, self._sinks, self._trouble = self._sinks, [], trouble
        for sink in sinks:
            try:
                sink.close() if self._frames else sink.abort()
            except (UserError, OSError, cv2.error) as error:
                sink.abort()
                self._trouble = trouble or str(error)
        if self._path.is_file():
            self._add(self._path)
        elif not self._trouble:
            self._trouble = "nothing was recorded: no frame came while the recording ran."

    def _add(self, path: Path) -> None:
        self._files.append(path.name)
        if path.with_suffix("").is_dir():
            self._files.append(f"{path.stem}.zip")
        for name in self._files[:-_KEPT]:
            (self._folder / name).unlink(missing_ok=True)
            if name.endswith(".zip"):
                shutil.rmtree((self._folder / name).with_suffix(""), ignore_errors=True)
        del self._files[:-_KEPT]

    def path(self, name: str) -> Path:
        """The file of a finished recording, KeyError where there is none; a data set becomes one when it is first asked
        for.
        """
        with self._lock:
            if name not in self._files:
                raise KeyError(name)
        path = self._folder / name
        with self._zipping:
            if path.suffix == ".zip" and not path.exists():
                with names_path(path), new_file(path) as part, zipfile.ZipFile(part, "w") as archive:
                    for file in sorted(path.with_suffix("").rglob("*")):
                        archive.write(file, f"{path.stem}/{file.relative_to(path.with_suffix(''))}")
        return path
