"""JSON lines: the findings on each frame, masks as COCO's run lengths, and events."""

from __future__ import annotations

import json
import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rvos_edge.atomic import PendingFile
from rvos_edge.outputs import names_path
from rvos_edge.result import rounded
from rvos_edge.rle import encode_rle
from rvos_edge.streaming.sources import Frame

if TYPE_CHECKING:
    from rvos_edge.result import Result


class LineSink(ABC):
    """Writes JSON objects, one per line; the lines of a frame are written together or, on a full disk, not at all.

    Args:
        path: A file, a pipe, or "-" for stdout. Pipes and stdout have every frame at once.

    Raises:
        UserError: The path cannot be written.
    """

    wants_overlay = False

    def __init__(self, path: str | Path) -> None:
        self._file = None if str(path) in ("-", "/dev/stdout") else PendingFile(path)
        self._stdout = sys.stdout  # as it is now: a status on the terminal takes its place while it runs
        try:
            with names_path(path):
                self._stream = None if self._file is None else self._file.partial.open("ab", buffering=0)
        except BaseException:
            if self._file is not None:
                self._file.discard()
            raise

    @abstractmethod
    def _records(self, frame: Frame, result: Result) -> Iterator[dict[str, Any]]: ...

    def write(self, frame: Frame, result: Result, overlay: NDArray[np.uint8] | None) -> None:
        records = self._records(frame, result)
        text = "".join(json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n" for record in records)
        if self._file is None or self._stream is None:
            with names_path("stdout"):
                self._stdout.flush()
                self._stdout.buffer.write(text.encode())  # UTF-8 in any locale, as JSON is
                self._stdout.buffer.flush()
            return
        content, whole = memoryview(text.encode()), 0 if self._file.through else self._stream.tell()
        with names_path(self._file.path):
            try:
                while content:
                    content = content[self._stream.write(content) :]
            except BaseException:
                if not self._file.through:
                    os.ftruncate(self._stream.fileno(), whole)
                raise

    def close(self) -> None:
        if self._file is None or self._stream is None or self._stream.closed:
            return
        self._stream.close()
        self._file.commit()

    def abort(self) -> None:
        if self._file is None or self._stream is None or self._stream.closed:
            return
        self._stream.close()
        self._file.discard()


class JsonSink(LineSink):
    """Writes one JSON object per frame.

    Keys: frame, timestamp (seconds), source, and those of ``Result.to_dict``.

    Raises:
        UserError: The path cannot be written.
    """

    def _records(self, frame: Frame, result: Result) -> Iterator[dict[str, Any]]:
        yield {"frame": frame.index, "timestamp": round(frame.timestamp, 4), "source": frame.name, **result.to_dict()}


class EventSink(LineSink):
    """Writes one JSON object when a query appears, and one when it is gone (``Result.present``).

    Keys: event ("appeared" or "gone"), query, frame, timestamp (seconds), source, presence, bbox ([x0, y0, x1, y1] in
    pixels, or null without a mask).

    Raises:
        UserError: The path cannot be written.
    """

    def __init__(self, path: str | Path) -> None:
        super().__init__(path)
        self._present: dict[str, bool] = {}

    def _records(self, frame: Frame, result: Result) -> Iterator[dict[str, Any]]:
        before, self._present = self._present, {}
        rows = zip(result.queries, result.present, result.presence, result.boxes.tolist(), strict=True)
        for query, present, presence, box in rows:
            self._present[query] = bool(present)
            if bool(present) != before.get(query, False):
                yield {
                    "event": "appeared" if present else "gone",
                    "query": query,
                    "frame": frame.index,
                    "timestamp": round(frame.timestamp, 4),
                    "source": frame.name,
                    "presence": rounded(presence, 4),
                    "bbox": box if box[2] else None,
                }


class RleSink(LineSink):
    """Writes one JSON object per frame and query, an entry of COCO's results format.

    Keys: image_id (the frame's index), file_name (its name), timestamp (seconds), category_id (1 for the first query),
    text, score, area (in pixels), segmentation (size [height, width] and counts, COCO's compressed run lengths). All
    lines in one list, as `jq -s .` makes it, are what `pycocotools.coco.COCO.loadRes` takes; there is no bbox, or it
    would take them for boxes.

    Raises:
        UserError: The path cannot be written.
    """

    def _records(self, frame: Frame, result: Result) -> Iterator[dict[str, Any]]:
        for category, (text, mask, score) in enumerate(
            zip(result.queries, result.masks, result.scores, strict=True), start=1
        ):
            yield {
                "image_id": frame.index,
                "file_name": frame.name,
                "timestamp": round(frame.timestamp, 4),
                "category_id": category,
                "text": text,
                "score": rounded(score, 4),
                "area": int(np.count_nonzero(mask)),
                "segmentation": {"size": list(mask.shape), "counts": encode_rle(mask)},
            }
