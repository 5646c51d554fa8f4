"""Frames of video files by index."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rvos_edge.errors import UserError
from rvos_edge.streaming.sources import Frame, VideoFile
from rvos_edge.trainer.data.readers.images import DamagedFileError


class VideoFrames:
    """Random access to the frames of video files, as they are stored, exact to the frame.

    Seeking is inexact in many files, so every frame up to the wanted one is decoded. The last file stays open: reading
    in order of time decodes each frame once.
    """

    def __init__(self) -> None:
        self._path: Path | None = None
        self._frames: Iterator[Frame] = iter(())
        self._last: Frame | None = None
        self._facts: dict[Path, tuple[int, tuple[int, int]]] = {}

    def __getstate__(self) -> dict[str, Any]:
        return VideoFrames().__dict__

    def count(self, path: Path) -> int:
        """Number of frames of a file, stated or counted.

        Raises:
            DamagedFileError: The file is missing or no video.
        """
        return self._look(path)[0]

    def size(self, path: Path) -> tuple[int, int]:
        """Height and width of a file's frames.

        Raises:
            DamagedFileError: The file is missing or no video.
        """
        return self._look(path)[1]

    def read(self, path: Path, index: int) -> NDArray[np.uint8]:
        """A frame, BGR uint8 [H,W,3].

        Raises:
            DamagedFileError: The file is missing, or ends or breaks before this frame.
        """
        if self._path != path or self._last is None or index < self._last.index:
            self._path, self._last, self._frames = path, None, iter(_open(path))
        while self._last is None or self._last.index < index:
            self._last = next(self._frames, None)
            if self._last is None:
                self._path = None
                raise DamagedFileError(f"cannot read frame {index + 1} of the video {path}: restore or leave it out")
        return self._last.image

    def _look(self, path: Path) -> tuple[int, tuple[int, int]]:
        if path not in self._facts:
            with closing(_open(path)) as source:
                size = source.size
                self._facts[path] = source.length or sum(1 for _ in source), size
        return self._facts[path]


def _open(path: Path) -> VideoFile:
    try:
        return VideoFile(path, upright=False, tell=lambda _: None)
    except UserError as error:
        state = "damaged" if path.is_file() else "missing"
        raise DamagedFileError(f"cannot read the video {path}: it is {state}, restore it or leave it out") from error
