"""JSON lines: the findings on each frame, and masks as COCO's run lengths."""

from __future__ import annotations

import json
import os
import sys
from abc import abstractmethod
from collections.abc import Iterable, Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rvos_edge.atomic import PendingFile
from rvos_edge.outputs import names_path
from rvos_edge.result import Result, rounded
from rvos_edge.rle import encode_rle
from rvos_edge.streaming.sinks.base import Sink
from rvos_edge.streaming.sources import Frame


class LineFile:
    """A file of JSON objects, one per line; those of one call are written together or, on a full disk, not at all.

    Args:
        path: A file, a pipe, or "-" for stdout. A pipe and stdout receive each line as soon as it is written.
    """

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

    def send(self, records: Iterable[dict[str, Any]]) -> None:
        """Write some objects."""
        text = "".join(to_json(record) + "\n" for record in records)
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
        self._file.sync()

    def close(self) -> None:
        """Give the file its name."""
        if self._file is None or self._stream is None or self._stream.closed:
            return
        self._stream.close()
        self._file.commit()

    def abort(self) -> None:
        """Remove the file; does nothing after `close`."""
        if self._file is None or self._stream is None or self._stream.closed:
            return
        self._stream.close()
        self._file.discard()


class LineSink(Sink):
    """Writes JSON objects about every frame, one per line: see `LineFile`."""

    def __init__(self, path: str | Path) -> None:
        self._lines = LineFile(path)

    @abstractmethod
    def _records(self, frame: Frame, result: Result) -> Iterator[dict[str, Any]]: ...

    def write(self, frame: Frame, result: Result, overlay: NDArray[np.uint8] | None) -> None:
        self._lines.send(self._records(frame, result))

    def close(self) -> None:
        self._lines.close()

    def abort(self) -> None:
        self._lines.abort()


class JsonSink(LineSink):
    """Writes one JSON object per frame.

    Keys: frame, timestamp (seconds), time (of a live source: UTC, else null), source, and those of
    ``Result.to_dict``.
    """

    def _records(self, frame: Frame, result: Result) -> Iterator[dict[str, Any]]:
        yield {"frame": frame.index, **moment(frame), "source": frame.name, **result.to_dict()}


class RleSink(LineSink):
    """Writes one JSON object per frame and query, an entry of COCO's results format.

    Keys: image_id (the frame's index), file_name (its name), timestamp (seconds), time (of a live source: UTC, else
    null), category_id (1 for the first query), text, score, area (in pixels), segmentation (size [height, width] and
    counts, COCO's compressed run lengths). All lines in one list, as `jq -s .` makes it, are what
    `pycocotools.coco.COCO.loadRes` takes; there is no bbox, or it would take them for boxes.
    """

    def _records(self, frame: Frame, result: Result) -> Iterator[dict[str, Any]]:
        for category, (text, mask, score) in enumerate(
            zip(result.queries, result.masks, result.scores, strict=True), start=1
        ):
            yield {
                "image_id": frame.index,
                "file_name": frame.name,
                **moment(frame),
                "category_id": category,
                "text": text,
                "score": rounded(score, 4),
                "area": int(np.count_nonzero(mask)),
                "segmentation": {"size": list(mask.shape), "counts": encode_rle(mask)},
            }


def to_json(record: dict[str, Any]) -> str:
    """One object on one line."""
    return json.dumps(record, ensure_ascii=False, allow_nan=False)


def moment(frame: Frame) -> dict[str, Any]:
    """The time of a frame: seconds of the source, and of a live one UTC as ISO 8601 has it."""
    return {"timestamp": round(frame.timestamp, 4), "time": None if frame.time is None else utc(frame.time)}


def utc(seconds: float) -> str:
    """Seconds since the epoch as ISO 8601 in UTC.

    Example:
        >>> utc(1.5)
        '1970-01-01T00:00:01.500Z'
    """
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")
