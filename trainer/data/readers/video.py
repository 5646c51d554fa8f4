"""Frames of video files by index."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from rvos_edge.trainer.data.readers.images import DamagedFileError


class VideoFrames:
    """Random access to the frames of video files, exact to the frame.

    Seeking is inexact in many files, so every frame up to the wanted one is decoded. The last file stays open: reading
    in order of time decodes each frame once.
    """

    def __init__(self) -> None:
        self._path: Path | None = None
        self._capture: cv2.VideoCapture | None = None
        self._last: tuple[int, NDArray[np.uint8] | None] = (-1, None)

    def __getstate__(self) -> dict[str, Any]:
        return {"_path": None, "_capture": None, "_last": (-1, None)}

    def count(self, path: Path) -> int:
        """Number of frames stated by a file.

        Raises:
            DamagedFileError: The file is missing or no video.
        """
        return int(self._open(path).get(cv2.CAP_PROP_FRAME_COUNT))

    def size(self, path: Path) -> tuple[int, int]:
        """Height and width of a file's frames.

        Raises:
            DamagedFileError: The file is missing or no video.
        """
        capture = self._open(path)
        return int(capture.get(cv2.CAP_PROP_FRAME_HEIGHT)), int(capture.get(cv2.CAP_PROP_FRAME_WIDTH))

    def read(self, path: Path, index: int) -> NDArray[np.uint8]:
        """A frame, BGR uint8 [H,W,3].

        Raises:
            DamagedFileError: The file is missing, or ends or breaks before this frame.
        """
        capture = self._open(path)
        if index < self._last[0]:
            capture = self._open(path, anew=True)
        at, image = self._last
        if at < index:
            # grab() decodes without converting to BGR.
            grabbed = all(capture.grab() for _ in range(index - at))
            done, frame = capture.retrieve() if grabbed else (False, None)
            if not done:
                self._path = None
                raise DamagedFileError(f"cannot read frame {index + 1} of the video {path}: restore or leave it out")
            image = cast("NDArray[np.uint8]", frame)
            self._last = index, image
        assert image is not None
        return image

    def _open(self, path: Path, *, anew: bool = False) -> cv2.VideoCapture:
        if self._capture is None or self._path != path or anew:
            self._path, self._last = None, (-1, None)
            capture = cv2.VideoCapture(str(path)) if path.is_file() else None
            if capture is None or not capture.isOpened():
                state = "damaged" if path.is_file() else "missing"
                raise DamagedFileError(f"cannot read the video {path}: it is {state}, restore it or leave it out")
            self._path, self._capture = path, capture
        return self._capture
