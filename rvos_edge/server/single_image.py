"""Single pictures that are sent to be segmented, apart from the stream."""

from __future__ import annotations

import struct
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from rvos_edge.errors import UserError
from rvos_edge.server.controls import MOST_QUERIES
from rvos_edge.server.telemetry import bounding_box
from rvos_edge.streaming.sinks import encode_rle, indexed_png, label_image

if TYPE_CHECKING:
    from rvos_edge.protocol import SegmenterProtocol
    from rvos_edge.result import Result

LARGEST_PICTURE = 40_000_000
"""Pixels: a small file can name a size that no memory holds."""
_BUSY = 4
"""Pictures that may wait."""


class BusyError(Exception):
    """Too many pictures are waiting."""


class SingleImages:
    """Segments single pictures with a segmenter of its own, so that none becomes the video's previous frame.

    Args:
        opener: Opens the segmenter, without flow: a single picture has none. Called with the first picture.
    """

    def __init__(self, opener: Callable[[], SegmenterProtocol]) -> None:
        self._opener = opener
        self._segmenter: SegmenterProtocol | None = None
        self._lock = threading.Lock()
        self._places = threading.BoundedSemaphore(_BUSY + 1)

    def segment(self, image: NDArray[np.uint8], queries: Sequence[str], threshold: float) -> Result:
        """Segment one picture.

        Args:
            image: uint8 [H,W,3] BGR.
            queries: What to segment.
            threshold: In logits.

        Raises:
            UserError: Of the queries or the threshold.
            BusyError: Others are waiting already.
        """
        if len(queries) > MOST_QUERIES:
            raise UserError(f"{len(queries)} queries are too many at once; give at most {MOST_QUERIES}.")
        if not self._places.acquire(blocking=False):
            raise BusyError
        try:
            with self._lock:
                if self._segmenter is None:
                    self._segmenter = self._opener()
                segmenter = self._segmenter
                segmenter.set_queries(queries)
                segmenter.set_threshold(threshold)
                segmenter.reset()
                return segmenter.step(image)
        finally:
            self._places.release()


def decode_picture(data: bytes) -> NDArray[np.uint8]:
    """A JPEG or PNG as uint8 [H,W,3] BGR.

    Raises:
        UserError: It is neither, is damaged, or is too large.
    """
    size = picture_size(data)
    if size is None:
        raise UserError("the body is not a JPEG or PNG picture; send the bytes of one.")
    height, width = size
    if height * width > LARGEST_PICTURE:
        raise UserError(
            f"the picture has {width} x {height} pixels, more than {LARGEST_PICTURE:,}; send a smaller one."
        )
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error:
        image = None
    if image is None:
        raise UserError("the picture is damaged and cannot be decoded; send it again.")
    return np.asarray(image, dtype=np.uint8)


def picture_size(data: bytes) -> tuple[int, int] | None:
    """Height and width as the header of a JPEG or PNG states them, None for anything else."""
    if data[:8] == b"\x89PNG\r\n\x1a\n" and data[12:16] == b"IHDR" and len(data) >= 24:
        width, height = struct.unpack(">II", data[16:24])
        return (height, width) if height and width else None
    if data[:2] != b"\xff\xd8":
        return None
    at = 2
    while at + 9 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:  # padding
            at += 1
            continue
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):  # a start of frame
            height, width = struct.unpack(">HH", data[at + 5 : at + 9])
            return (height, width) if height and width else None
        at += 2 + struct.unpack(">H", data[at + 2 : at + 4])[0]
    return None


def as_png(result: Result) -> bytes:
    """One indexed PNG: 0 is background, i+1 is query i, a later query over an earlier one."""
    return indexed_png(label_image(result.masks))


def as_coco(result: Result) -> dict[str, Any]:
    """Every mask whole, as COCO has it, in its compressed run lengths."""
    height, width = result.masks.shape[1:]
    objects = [
        {
            "text": text,
            "score": round(float(score), 4) if np.isfinite(score) else None,
            "area": int(np.count_nonzero(mask)),
            "bbox": bounding_box(mask),
            "segmentation": {"size": [height, width], "counts": encode_rle(mask)},
        }
        for text, score, mask in zip(result.queries, result.scores, result.masks, strict=True)
    ]
    timings = {stage: round(milliseconds, 3) for stage, milliseconds in result.timings.items()}
    return {"size": [height, width], "objects": objects, "timings_ms": timings}
