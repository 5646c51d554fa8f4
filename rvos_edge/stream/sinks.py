"""Where results go: an overlay video, indexed mask PNGs, JSON lines.

A sink writes under a temporary name and renames on `close`; `abort` leaves nothing of it behind.
"""

from __future__ import annotations

import json
import math
import os
import struct
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TextIO

import cv2
import numpy as np
from numpy.typing import NDArray

from rvos_edge.errors import UserError
from rvos_edge.stream.overlay import palette
from rvos_edge.stream.sources import Frame, quiet_opencv

if TYPE_CHECKING:
    from rvos_edge.segmenter import Result

_CODECS = ("avc1", "mp4v")  # H.264 plays everywhere, but pip's OpenCV can seldom write it


class Sink(Protocol):
    """Takes every result of a stream."""

    wants_overlay: bool

    def write(self, frame: Frame, result: Result, overlay: NDArray[np.uint8] | None) -> None:
        """Take one frame; `overlay` is there if any sink of the stream wants it."""

    def close(self) -> None:
        """Finish the output and give it its name."""

    def abort(self) -> None:
        """Remove what was written; does nothing after `close`."""


def open_sinks(makers: Iterable[Callable[[], Sink]]) -> list[Sink]:
    """Make several sinks, or none: if one cannot be made, those before it are aborted.

    Example:
        >>> sinks = open_sinks([lambda: VideoSink("out.mp4", 25.0), lambda: JsonSink("out.jsonl")])
    """
    sinks: list[Sink] = []
    try:
        for make in makers:
            sinks.append(make())
    except BaseException:
        for sink in reversed(sinks):
            sink.abort()
        raise
    return sinks


class VideoSink:
    """Writes the overlays as an mp4 of constant frame rate; the first frame fixes the size.

    Args:
        path: Ends in .mp4.
        fps: Frames per second of the video.

    Raises:
        UserError: The path cannot be written.

    Attributes:
        codec: FourCC in use, empty before the first frame.
    """

    wants_overlay = True

    def __init__(self, path: str | Path, fps: float) -> None:
        if Path(path).suffix.lower() != ".mp4":
            raise UserError(f"{path} must end in .mp4, the one kind of video that is written")
        if not 0 < fps <= 1000:
            raise UserError(f"{fps:g} frames per second cannot be written to {path}; choose between 1 and 1000")
        self._file = PendingFile(path)
        self._fps = fps
        self._writer: cv2.VideoWriter | None = None
        self._size = (0, 0)
        self.codec = ""

    def write(self, frame: Frame, result: Result, overlay: NDArray[np.uint8] | None) -> None:
        if overlay is None:
            raise ValueError("a VideoSink needs the overlay")
        if self._writer is None:
            self._size = (overlay.shape[1], overlay.shape[0])
            self._writer = self._open_writer()
        if (overlay.shape[1], overlay.shape[0]) != self._size:
            overlay = np.asarray(cv2.resize(overlay, self._size, interpolation=cv2.INTER_AREA), dtype=np.uint8)
        self._writer.write(overlay)

    def _open_writer(self) -> cv2.VideoWriter:
        for codec in _CODECS:
            with quiet_opencv():
                fourcc = cv2.VideoWriter.fourcc(*codec)
                writer = cv2.VideoWriter(str(self._file.partial), fourcc, self._fps, self._size)
            if writer.isOpened():
                self.codec = codec
                return writer
            writer.release()
        width, height = self._size
        raise UserError(f"{self._file.path} cannot be written: this OpenCV encodes no {width}x{height} mp4 video")

    def close(self) -> None:
        if self._writer is None:
            self._file.discard()
            return
        self._writer.release()
        self._writer = None
        if self._file.partial.stat().st_size == 0:  # OpenCV reports no write errors
            self._file.discard()
            raise UserError(f"{self._file.path} cannot be written; check the free space of its disk")
        self._file.commit()

    def abort(self) -> None:
        if self._writer is not None:
            self._writer.release()
            self._writer = None
        self._file.discard()


class MaskSink:
    """Writes one indexed PNG per frame with the DAVIS palette: 0 is background, i+1 is query i.

    Where queries overlap the later one wins, the rule of DAVIS-17. The files are called after `Frame.name`;
    each is whole as soon as it has its name.

    Args:
        folder: Made if it is missing; files of the same name are replaced.

    Raises:
        UserError: The folder cannot be written.
    """

    wants_overlay = False

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        if self.folder.exists() and not self.folder.is_dir():
            raise UserError(f"{folder} is a file; masks need a folder, one PNG is written per frame")
        self._made = _make_folders(self.folder)
        self._written: list[Path] = []
        if not os.access(self.folder, os.W_OK):
            self.abort()
            raise UserError(f"{folder} cannot be written; choose another folder or change its permissions")

    def write(self, frame: Frame, result: Result, overlay: NDArray[np.uint8] | None) -> None:
        path = self.folder / f"{frame.name}.png"
        content = indexed_png(label_image(result.masks))
        partial = path.with_name(f".{path.name}.part")
        try:
            with _names_path(path):
                partial.write_bytes(content)
                os.replace(partial, path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
        self._written.append(path)

    def close(self) -> None:
        self._made, self._written = [], []

    def abort(self) -> None:
        for path in self._written:
            path.unlink(missing_ok=True)
        _remove_folders(self._made)
        self.close()


class JsonSink:
    """Writes one JSON object per frame and line.

    Keys: frame, timestamp (seconds), source, size ([height, width]), queries (a list of text, score, area as a
    fraction of the frame, bbox [x0, y0, x1, y1] in pixels with x1 and y1 exclusive, or null for an empty mask),
    timings_ms (by stage), total_ms, flow_used and flow (action, iterations, reason and late of the `FlowDecision`, or
    null without flow).

    Args:
        path: A file, or "-" for stdout, which is flushed after every line.

    Raises:
        UserError: The path cannot be written.
    """

    wants_overlay = False

    def __init__(self, path: str | Path) -> None:
        self._file = None if str(path) == "-" else PendingFile(path)
        self._stream: TextIO = sys.stdout if self._file is None else self._file.partial.open("w", encoding="utf-8")

    def write(self, frame: Frame, result: Result, overlay: NDArray[np.uint8] | None) -> None:
        line = json.dumps(_record(frame, result), ensure_ascii=False, allow_nan=False)
        if self._file is None:
            self._stream.write(line + "\n")
            self._stream.flush()
            return
        with _names_path(self._file.path):
            self._stream.write(line + "\n")

    def close(self) -> None:
        if self._file is None or self._stream.closed:
            return
        try:
            with _names_path(self._file.path):
                self._stream.close()
        except BaseException:
            self._file.discard()
            raise
        self._file.commit()

    def abort(self) -> None:
        if self._file is None or self._stream.closed:
            return
        with suppress(OSError):  # the last flush may meet the full disk that made us abort
            self._stream.close()
        self._file.discard()


class PendingFile:
    """A file that gets its name when it is whole.

    Missing parent folders are made at once, so that a path that cannot be written is refused before the work starts.

    Attributes:
        path: The final path.
        partial: The temporary path in the same folder; exists, empty.

    Raises:
        UserError: The path cannot be written.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if self.path.is_dir():
            raise UserError(f"{path} is a folder; give the name of a file")
        self.partial = self.path.with_name(f".{self.path.stem}.part{self.path.suffix}")
        self._made = _make_folders(self.path.parent)
        try:
            with _names_path(self.path):
                self.partial.write_bytes(b"")
        except BaseException:
            _remove_folders(self._made)
            raise

    def commit(self) -> None:
        """Give the file its name, replacing an older one."""
        with _names_path(self.path):
            os.replace(self.partial, self.path)

    def discard(self) -> None:
        """Remove the temporary file and the folders that were made for it."""
        self.partial.unlink(missing_ok=True)
        _remove_folders(self._made)


def label_image(masks: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Masks bool [Q,H,W] as one uint8 [H,W] image: 0 background, i+1 query i, a later query over an earlier one.

    Raises:
        UserError: More than 255 queries.
    """
    if len(masks) > 255:
        raise UserError(f"{len(masks)} queries do not fit into an indexed PNG; give at most 255")
    labels = np.zeros(masks.shape[1:], dtype=np.uint8)
    for value, mask in enumerate(masks, start=1):
        labels[mask] = value
    return labels


def indexed_png(labels: NDArray[np.uint8]) -> bytes:
    """A PNG (8 bit, palette of DAVIS) whose pixel values are `labels` [H,W]. OpenCV cannot write palettes."""
    height, width = labels.shape
    rows = np.zeros((height, width + 1), dtype=np.uint8)  # each row starts with its filter: 0, none
    rows[:, 1:] = labels
    header = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)
    chunks = (
        (b"IHDR", header),
        (b"PLTE", palette().tobytes()),
        (b"IDAT", zlib.compress(rows.tobytes())),
        (b"IEND", b""),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )


def _record(frame: Frame, result: Result) -> dict[str, Any]:
    height, width = frame.image.shape[:2]
    queries = []
    for text, mask, score in zip(result.queries, result.masks, result.scores, strict=True):
        x, y, w, h = cv2.boundingRect(mask.view(np.uint8))
        area = int(np.count_nonzero(mask)) / (height * width)
        bbox = [x, y, x + w, y + h] if area else None
        queries.append({"text": text, "score": _number(score, 4), "area": round(area, 6), "bbox": bbox})
    decision = result.decision
    names = ("action", "iterations", "reason", "late")
    return {
        "frame": frame.index,
        "timestamp": round(frame.timestamp, 4),
        "source": frame.name,
        "size": [height, width],
        "queries": queries,
        "timings_ms": {stage: _number(value, 3) for stage, value in result.timings.items()},
        "total_ms": _number(sum(result.timings.values()), 3),
        "flow_used": bool(result.flow_used),
        "flow": None if decision is None else {name: getattr(decision, name) for name in names},
    }


def _number(value: float | np.floating[Any], digits: int) -> float | None:
    """JSON has no NaN and no infinity."""
    return round(float(value), digits) if math.isfinite(value) else None


@contextmanager
def _names_path(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror or error}; choose another path") from error


def _make_folders(folder: Path) -> list[Path]:
    """Make `folder` and its missing parents; returns those that were made, innermost first."""
    missing = []
    for candidate in (folder, *folder.parents):
        if candidate.exists():
            break
        missing.append(candidate)
    with _names_path(folder):
        folder.mkdir(parents=True, exist_ok=True)
    return missing


def _remove_folders(folders: list[Path]) -> None:
    """Remove folders that we made, unless something else was put there since."""
    for folder in folders:
        with suppress(OSError):
            folder.rmdir()
