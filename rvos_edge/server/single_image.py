"""Single pictures that are sent to be segmented, apart from the stream."""

from __future__ import annotations

import struct
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from rvos_edge.errors import UserError
from rvos_edge.protocol import SegmenterProtocol
from rvos_edge.queries import Query
from rvos_edge.result import Result, coco_entry, rounded
from rvos_edge.server.controls import MOST_QUERIES
from rvos_edge.streaming.sinks import indexed_png, label_image

LARGEST_PICTURE = 16_000_000
"""Largest picture, in pixels: a small file can state a size that no memory holds."""
_MOST_WAITING = 4
_MOST_RECEIVED = 64 << 20
"""Limit of all pictures together that are being received or wait, in bytes."""
_Answer = TypeVar("_Answer")


class BusyError(Exception):
    """Too many pictures are waiting."""


class SingleImages:
    """Segments single pictures with a segmenter of its own, so that none becomes the video's previous frame.

    One picture at a time is decoded, segmented and encoded; the others wait as the bytes that were sent. ``opener``
    opens the segmenter, without flow, with the first picture.
    """

    def __init__(self, opener: Callable[[], SegmenterProtocol]) -> None:
        self._opener = opener
        self._segmenter: SegmenterProtocol | None = None
        self._lock = threading.Lock()
        self._places = threading.BoundedSemaphore(_MOST_WAITING + 1)
        self._received = 0

    @asynccontextmanager
    async def receive(self, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytearray]:
        """The bytes of a picture, which count against the limit of all pictures until the context ends.

        Raises:
            BusyError: The pictures that are being received would take too much memory.
        """
        data = bytearray()
        try:
            async for chunk in chunks:
                self._received += len(chunk)
                data += chunk
                if self._received > _MOST_RECEIVED:
                    raise BusyError
            yield data
        finally:
            self._received -= len(data)

    def segment(
        self,
        data: bytes | bytearray,
        queries: Sequence[Query],
        threshold: float,
        encode: Callable[[Result], _Answer],
    ) -> _Answer:
        """Segment a JPEG or PNG; ``encode`` makes the answer of the result.

        Raises:
            UserError: The picture, a query or the threshold cannot be taken.
            BusyError: Others are waiting already.
        """
        if len(queries) > MOST_QUERIES:
            raise UserError(f"{len(queries)} queries are too many at once; give at most {MOST_QUERIES}.")
        if not self._places.acquire(blocking=False):
            raise BusyError
        try:
            with self._lock:
                image = decode_picture(data)
                if self._segmenter is None:
                    self._segmenter = self._opener()
                segmenter = self._segmenter
                segmenter.set_queries(queries)
                segmenter.set_threshold(threshold)
                segmenter.reset()
                return encode(segmenter.step(image))
        finally:
            self._places.release()


def decode_picture(data: bytes | bytearray) -> NDArray[np.uint8]:
    """Decode a JPEG or PNG to uint8 [H,W,3] BGR; its size is read from the header first.

    Raises:
        UserError: The data is neither, is damaged, or states too many pixels.
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


def picture_size(data: bytes | bytearray) -> tuple[int, int] | None:
    """Height and width that the header of a JPEG or PNG states; None for anything else."""
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
    """Indexed PNG of a result: 0 is background, i+1 is query i, a later query over an earlier one."""
    return indexed_png(label_image(result.masks))


def as_coco(result: Result) -> dict[str, Any]:
    """Masks of a result in COCO's form: ``bbox`` is x, y, width, height or null; masks are compressed run lengths."""
    objects = []
    for text, score, mask in zip(result.queries, result.scores, result.masks, strict=True):
        entry = coco_entry(mask)
        box = entry["bbox"] if entry["area"] else None
        objects.append({"text": text, "score": rounded(score, 4), **entry, "bbox": box})
    timings = {stage: rounded(milliseconds, 3) for stage, milliseconds in result.timings.items()}
    return {"size": list(result.masks.shape[1:]), "objects": objects, "timings_ms": timings}
