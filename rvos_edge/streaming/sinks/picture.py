"""The overlay of a single frame as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from rvos_edge.atomic import PendingFile
from rvos_edge.errors import UserError
from rvos_edge.outputs import mark_png, names_path
from rvos_edge.streaming.sources import Frame

if TYPE_CHECKING:
    from rvos_edge.result import Result

PICTURE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg"})


class PictureSink:
    """Writes the overlay of a source with one frame as a PNG or JPEG.

    Args:
        path: Ends in one of `PICTURE_SUFFIXES`.

    Raises:
        UserError: The path cannot be written.
    """

    wants_overlay = True

    def __init__(self, path: str | Path) -> None:
        self._file = PendingFile(path)
        self._written = False

    def write(self, frame: Frame, result: Result, overlay: NDArray[np.uint8] | None) -> None:
        if self._written:
            raise UserError(f"{self._file.path} holds one frame and the source has more; write a video (.mp4).")
        if overlay is None:
            raise ValueError("a PictureSink needs the overlay")
        suffix = self._file.path.suffix.lower()
        content = cv2.imencode(suffix, overlay)[1].tobytes()
        with names_path(self._file.path):
            self._file.partial.write_bytes(mark_png(content) if suffix == ".png" else content)
        self._written = True

    def close(self) -> None:
        self._file.commit()

    def abort(self) -> None:
        self._file.discard()
