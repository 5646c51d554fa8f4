"""A single frame as a picture."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from rvos_edge.atomic import PendingFile
from rvos_edge.errors import UserError
from rvos_edge.outputs import mark_file, names_path
from rvos_edge.result import Result
from rvos_edge.streaming.sinks.base import Look, Sink, draw_look
from rvos_edge.streaming.sources import Frame


class PictureSink(Sink):
    """Writes the picture of a source with one frame as a PNG or JPEG.

    Args:
        path: Ends in one of `PICTURE_SUFFIXES`; a cut-out needs .png.
    """

    def __init__(self, path: str | Path, *, look: Look = Look.OVERLAY) -> None:
        self.wants_overlay = look is Look.OVERLAY
        self._look = look
        self._file = PendingFile(path)
        self._written = False

    def write(self, frame: Frame, result: Result, overlay: NDArray[np.uint8] | None) -> None:
        if self._written:
            raise UserError(f"{self._file.path} holds one frame and the source has more; write a video, such as .mp4.")
        picture = draw_look(self._look, frame, result, overlay)
        content = cv2.imencode(self._file.path.suffix, picture)[1].tobytes()
        with names_path(self._file.path):
            self._file.partial.write_bytes(content)
            mark_file(self._file.partial)
        self._written = True

    def close(self) -> None:
        self._file.commit()

    def abort(self) -> None:
        self._file.discard()
