"""Files: videos, pictures, folders and globs of pictures. Every frame of them is handed out."""

from __future__ import annotations

import glob
import os
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from rvos_edge.errors import UserError
from rvos_edge.outputs import check_name
from rvos_edge.streaming.sources.base import (
    Frame,
    Source,
    SourceOptions,
    Tell,
    bgr,
    natural_order,
    quiet_opencv,
    stated_fps,
    tell_stderr,
)
from rvos_edge.streaming.sources.raw_format import ASSUMED_FPS

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp"})
_INDEXED = frozenset({".mp4", ".m4v", ".mov"})
"""Videos whose stated number of frames is counted and not guessed from their duration."""
_FAILED_READS = 1000
"""A damaged packet is a failed read, and so is the end: only many of them in a row are the end."""


class VideoFile(Source):
    """Every frame of a video file that can be decoded, in order, at the times that the file gives them.

    Frames whose packets are damaged are left out, and their number is told at the end. Timestamps start at 0 and
    grow; where the file's own jump back (joined transport streams) they go on by one frame.

    Args:
        capture: Opened.
        name: Name of the file.
        tell: Takes the number of damaged frames.

    Raises:
        UserError: Nothing can be decoded.
    """

    def __init__(self, capture: cv2.VideoCapture, *, name: str, tell: Tell = tell_stderr) -> None:
        self._capture = capture
        self._tell = tell
        image = None
        for _ in range(_FAILED_READS if capture.isOpened() else 0):
            with quiet_opencv():
                ok, image = capture.read()
            if ok:
                break
        if image is None:
            capture.release()
            raise UserError(f"{name} holds no video that OpenCV can decode; check that it is a video and complete")
        count, fps = int(capture.get(cv2.CAP_PROP_FRAME_COUNT)), stated_fps(capture)
        super().__init__(name=Path(name).name, fps=fps, length=count if count > 0 and fps else None)
        self._counted = self.length if Path(name).suffix.lower() in _INDEXED else None
        self._first: NDArray[np.uint8] | None = bgr(image)

    def __iter__(self) -> Iterator[Frame]:
        step = 1 / (self.fps or ASSUMED_FPS)
        origin, timestamp, decoded = self._position(), 0.0, 0
        image, self._first = self._first, None
        while image is not None:
            yield Frame(image, decoded, timestamp, f"{decoded:05d}", time.perf_counter())
            decoded += 1
            image = self._next(decoded)
            if self._position() - origin <= timestamp:
                origin = self._position() - timestamp - step
            timestamp = self._position() - origin
        if self._counted is not None and decoded < self._counted:
            self._tell(
                f"{self.name}: {decoded} of the {self._counted} frames that it states could be decoded, "
                "the others are damaged or missing"
            )

    def _position(self) -> float:
        """Position of the frame that was read last, seconds."""
        return float(self._capture.get(cv2.CAP_PROP_POS_MSEC)) / 1000

    def _next(self, decoded: int) -> NDArray[np.uint8] | None:
        # A file that counts its frames cannot lose more than are left; FFmpeg may take a few reads to say so.
        reads = _FAILED_READS if self._counted is None else max(0, self._counted - decoded) + 3
        for _ in range(reads):
            ok, image = self._capture.read()
            if ok:
                return bgr(image)
            if not self._capture.isOpened():
                break
        return None

    def close(self) -> None:
        self._capture.release()


class ImageFiles(Source):
    """Image files as frames, in the given order; they may differ in size."""

    def __init__(self, paths: list[Path], *, name: str) -> None:
        super().__init__(name=name, length=len(paths))
        self._paths = paths
        for path in paths:
            check_name(path)
        _read_image(paths[0])
        # Outputs are named after the stem: two files with one stem would overwrite each other's mask.
        self._stems_clash = max(Counter(path.stem for path in paths).values()) > 1

    def __iter__(self) -> Iterator[Frame]:
        for index, path in enumerate(self._paths):
            name = f"{index:05d}" if self._stems_clash else path.stem
            image = _read_image(path)
            yield Frame(image, index, index / ASSUMED_FPS, name, time.perf_counter())


def open_folder(spec: str, options: SourceOptions) -> Source | None:
    """Open a folder of images; None for other names."""
    folder = Path(spec)
    if not folder.is_dir():
        return None
    paths = [path for path in folder.iterdir() if _is_image(path)]
    if not paths:
        raise UserError(f"{spec} holds no images (jpg, png, bmp, webp); give a folder of frames or a video file")
    return ImageFiles(sorted(paths, key=lambda path: natural_order(path.name)), name=spec)


def open_file(spec: str, options: SourceOptions) -> Source | None:
    """Open a video or an image; None for other names."""
    path = Path(spec)
    if not path.is_file():
        return None
    if _is_image(path):
        return ImageFiles([path], name=path.name)
    with quiet_opencv():
        capture = cv2.VideoCapture(str(path))
    return VideoFile(capture, name=spec, tell=options.tell)


def open_glob(spec: str, options: SourceOptions) -> Source | None:
    """Open the images that a pattern matches; None for other names."""
    if not glob.has_magic(spec):
        return None
    paths = [path for path in map(Path, glob.glob(spec, recursive=True)) if _is_image(path)]
    if not paths:
        raise UserError(f"{spec!r} matches no images (jpg, png, bmp, webp); check the pattern")
    return ImageFiles(sorted(paths, key=lambda path: natural_order(str(path))), name=spec)


def source_files(spec: str) -> list[Path]:
    """The files and folders on this disk that a source reads."""
    if os.path.exists(spec):
        return [Path(spec)]
    return [Path(match) for match in glob.glob(spec, recursive=True)] if glob.has_magic(spec) else []


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")


def _read_image(path: Path) -> NDArray[np.uint8]:
    with quiet_opencv():
        image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None:
        raise UserError(f"{path} cannot be read as an image; remove it or write it again")
    return bgr(image)
