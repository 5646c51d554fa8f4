"""Where frames come from: video files, image folders and globs, cameras, network streams, the synthetic camera.

Example:
    >>> with open_source("clips/dog.mp4") as source:
    ...     for frame in source:
    ...         result = segmenter.step(frame.image)

A new kind is a `Source` and an opener in `_OPENERS`.
"""

from __future__ import annotations

import glob
import itertools
import os
import re
import threading
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from rvos_edge.errors import UserError
from rvos_edge.stream.synthetic import SyntheticCamera, SyntheticFrame

if TYPE_CHECKING:
    from typing_extensions import Self

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp"})
SYNTHETIC_SIZE = (288, 512)
SYNTHETIC_FPS = 25.0
_ASSUMED_FPS = 25.0
# OpenCV reads this once, when it first uses FFmpeg, so it is too late inside a function.
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
_URL = re.compile(r"^(rtsps?|rtmp|https?|udp|tcp)://", re.IGNORECASE)
_OPEN_TIMEOUT_MS = 10_000
_READ_TIMEOUT_MS = 5_000


@dataclass(frozen=True)
class Frame:
    """One picture of a source.

    Attributes:
        image: uint8 [H,W,3], BGR.
        index: 0, 1, 2, ... over the frames that were handed out (dropped ones have no number).
        timestamp: Seconds since the start of the source.
        name: Stem of the image file, or the index with five digits.
        captured: `time.perf_counter()` when the picture was there, the start of the end-to-end latency.
    """

    image: NDArray[np.uint8]
    index: int
    timestamp: float
    name: str
    captured: float


class Source(ABC):
    """An iterable of frames and a context manager; iterate it once.

    Attributes:
        name: What to call it in messages and reports.
        fps: Frames per second as the source states them, None if it does not.
        live: Whether frames arrive by themselves and are dropped when nobody takes them.
        length: Number of frames, None if unknown or endless.
        dropped: Live frames that were replaced by a newer one before anybody took them.
    """

    live: bool = False

    def __init__(self, *, name: str, fps: float | None = None, length: int | None = None) -> None:
        self.name = name
        self.fps = fps
        self.length = length
        self.dropped = 0

    @abstractmethod
    def __iter__(self) -> Iterator[Frame]: ...

    def close(self) -> None:
        """Release the device or file; may be called twice."""
        return

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_source(spec: str, *, size: tuple[int, int] | None = None) -> Source:
    """Open a source by its name; the first frame of a file is decoded here, so that a bad file fails at once.

    Args:
        spec: A video file, an image, a folder of images, a glob, a camera ("0" or "/dev/video0"), a URL
            (rtsp, http, ...: live), "synthetic" or "synthetic:SEED". A folder called "0" is "./0".
        size: (height, width) asked of a camera or of the synthetic camera; files keep their own size.

    Raises:
        UserError: Nothing can be read there.
    """
    for opener in _OPENERS:
        source = opener(spec, size)
        if source is not None:
            return source
    raise UserError(f"{spec!r} does not exist; give a video, an image folder, a camera number, a URL or 'synthetic'")


class VideoFile(Source):
    """Every frame of a video file, in order."""

    def __init__(self, path: Path) -> None:
        with quiet_opencv():
            self._capture = cv2.VideoCapture(str(path))
            ok, image = self._capture.read()
        if not ok:
            self._capture.release()
            raise UserError(f"{path} holds no video that OpenCV can decode; check that it is a video and complete")
        count = int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT))
        super().__init__(name=path.name, fps=_stated_fps(self._capture), length=count if count > 0 else None)
        self._first: NDArray[np.uint8] = _bgr(image)

    def __iter__(self) -> Iterator[Frame]:
        image = self._first
        for index in itertools.count():
            yield Frame(image, index, index / (self.fps or _ASSUMED_FPS), f"{index:05d}", time.perf_counter())
            ok, decoded = self._capture.read()
            if not ok:
                return
            image = _bgr(decoded)

    def close(self) -> None:
        self._capture.release()


class ImageFiles(Source):
    """Image files as frames, in the given order; they may differ in size."""

    def __init__(self, paths: list[Path], *, name: str) -> None:
        super().__init__(name=name, length=len(paths))
        self._paths = paths
        _read_image(paths[0])
        # Outputs are named after the stem: two files with one stem would overwrite each other's mask.
        self._stems_clash = max(Counter(path.stem for path in paths).values()) > 1

    def __iter__(self) -> Iterator[Frame]:
        for index, path in enumerate(self._paths):
            name = f"{index:05d}" if self._stems_clash else path.stem
            image = _read_image(path)
            yield Frame(image, index, index / _ASSUMED_FPS, name, time.perf_counter())


class LiveCapture(Source):
    """A camera or a network stream: a thread reads it and keeps only the newest frame, so lag cannot build up."""

    live = True

    def __init__(self, capture: cv2.VideoCapture, *, name: str) -> None:
        """Take over an opened capture; it ends when a read fails.

        Raises:
            UserError: No first frame arrives.
        """
        with quiet_opencv():
            ok, image = capture.read()
        if not ok:
            capture.release()
            raise UserError(f"{name} opens but gives no frame; check that no other program uses it")
        super().__init__(name=name, fps=_stated_fps(capture))
        self._capture = capture
        self._started = time.perf_counter()
        self._news = threading.Condition()
        self._newest: tuple[NDArray[np.uint8], float] | None = (_bgr(image), self._started)
        self._ended = False
        self._thread = threading.Thread(target=self._grab, name=f"grab {name}", daemon=True)
        self._thread.start()

    def _grab(self) -> None:
        # Only this thread reads and releases the capture: OpenCV crashes on a release during a read.
        try:
            while not self._ended:
                ok, image = self._capture.read()
                captured = time.perf_counter()
                if not ok:
                    return
                with self._news:
                    self.dropped += self._newest is not None
                    self._newest = (_bgr(image), captured)
                    self._news.notify()
        finally:
            with self._news:
                self._ended = True
                self._news.notify()
            self._capture.release()

    def __iter__(self) -> Iterator[Frame]:
        for index in itertools.count():
            with self._news:
                while self._newest is None and not self._ended:
                    self._news.wait(0.5)
                if self._newest is None:
                    return
                (image, captured), self._newest = self._newest, None
            yield Frame(image, index, captured - self._started, f"{index:05d}", captured)

    def close(self) -> None:
        with self._news:
            self._ended = True
            self._newest = None
            self._news.notify()
        self._thread.join(timeout=1.0)  # a read that hangs ends with the process: the thread is a daemon


class SyntheticSource(Source):
    """The endless synthetic camera: moving shapes whose exact masks are known.

    Attributes:
        camera: Says what can be said of its objects.
        current: The synthetic frame that was handed out last, with its masks.
    """

    def __init__(self, *, seed: int = 0, size: tuple[int, int] | None = None, objects: int | None = None) -> None:
        super().__init__(name=f"synthetic:{seed}", fps=SYNTHETIC_FPS)
        self.camera = SyntheticCamera(seed=seed, size=size or SYNTHETIC_SIZE, objects=objects)
        self.current: SyntheticFrame | None = None

    def __iter__(self) -> Iterator[Frame]:
        for index, rendered in enumerate(self.camera):
            self.current = rendered
            yield Frame(rendered.image, index, index / SYNTHETIC_FPS, f"{index:05d}", time.perf_counter())


@contextmanager
def quiet_opencv() -> Iterator[None]:
    """Keep OpenCV and its FFmpeg from writing to stderr: what goes wrong becomes a UserError of ours."""
    level = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        yield
    finally:
        cv2.utils.logging.setLogLevel(level)


def natural_order(name: str) -> tuple[tuple[int, int | str], ...]:
    """A sort key under which "frame2" comes before "frame10"."""
    parts = re.split(r"([0-9]+)", name)
    return tuple((0, int(part)) if index % 2 else (1, part.lower()) for index, part in enumerate(parts))


def _open_synthetic(spec: str, size: tuple[int, int] | None) -> Source | None:
    kind, colon, seed = spec.partition(":")
    if kind != "synthetic":
        return None
    if colon and not (seed.isascii() and seed.isdigit()):
        raise UserError(f"the seed in {spec!r} is not a number; write for example 'synthetic:7'")
    return SyntheticSource(seed=int(seed or 0), size=size)


def _open_url(spec: str, size: tuple[int, int] | None) -> Source | None:
    if not _URL.match(spec):
        return None
    timeouts = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, _OPEN_TIMEOUT_MS, cv2.CAP_PROP_READ_TIMEOUT_MSEC, _READ_TIMEOUT_MS]
    with quiet_opencv():
        capture = cv2.VideoCapture(spec, cv2.CAP_FFMPEG, timeouts)
    name = re.sub(r"//[^/@]*@", "//", spec)  # a password does not belong in messages
    if not capture.isOpened():
        raise UserError(f"{name} cannot be opened; check the address, the password and that the stream is running")
    return LiveCapture(capture, name=name)


def _open_camera(spec: str, size: tuple[int, int] | None) -> Source | None:
    device = re.fullmatch(r"(?:/dev/video)?([0-9]{1,4})", spec)
    if not device:
        return None
    with quiet_opencv():
        capture = cv2.VideoCapture(int(device[1]))
        if size:
            capture.set(cv2.CAP_PROP_FRAME_HEIGHT, size[0])
            capture.set(cv2.CAP_PROP_FRAME_WIDTH, size[1])
        capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)
    if not capture.isOpened():
        found = ", ".join(sorted(glob.glob("/dev/video*"), key=natural_order)) or "none"
        raise UserError(f"camera {device[1]} cannot be opened; check that it is plugged in and free (devices: {found})")
    return LiveCapture(capture, name=f"camera {device[1]}")


def _open_folder(spec: str, size: tuple[int, int] | None) -> Source | None:
    folder = Path(spec)
    if not folder.is_dir():
        return None
    paths = [path for path in folder.iterdir() if _is_image(path)]
    if not paths:
        raise UserError(f"{spec} holds no images (jpg, png, bmp, webp); give a folder of frames or a video file")
    return ImageFiles(sorted(paths, key=lambda path: natural_order(path.name)), name=spec)


def _open_file(spec: str, size: tuple[int, int] | None) -> Source | None:
    path = Path(spec)
    if not path.is_file():
        return None
    return ImageFiles([path], name=path.name) if _is_image(path) else VideoFile(path)


def _open_glob(spec: str, size: tuple[int, int] | None) -> Source | None:
    if not glob.has_magic(spec):
        return None
    paths = [path for path in map(Path, glob.glob(spec, recursive=True)) if _is_image(path)]
    if not paths:
        raise UserError(f"{spec!r} matches no images (jpg, png, bmp, webp); check the pattern")
    return ImageFiles(sorted(paths, key=lambda path: natural_order(str(path))), name=spec)


_Opener = Callable[[str, "tuple[int, int] | None"], "Source | None"]
_OPENERS: tuple[_Opener, ...] = (_open_synthetic, _open_url, _open_camera, _open_folder, _open_file, _open_glob)


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")


def _read_image(path: Path) -> NDArray[np.uint8]:
    with quiet_opencv():
        image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None:
        raise UserError(f"{path} cannot be read as an image; remove it or write it again")
    return _bgr(image)


def _bgr(image: NDArray[np.generic]) -> NDArray[np.uint8]:
    """OpenCV hands out uint8 [H,W,3], but cameras with raw formats may give one channel."""
    pixels = np.asarray(image, dtype=np.uint8)
    if pixels.ndim == 2 or pixels.shape[2] == 1:
        pixels = np.asarray(cv2.cvtColor(pixels, cv2.COLOR_GRAY2BGR), dtype=np.uint8)
    return pixels


def _stated_fps(capture: cv2.VideoCapture) -> float | None:
    fps = float(capture.get(cv2.CAP_PROP_FPS))
    return fps if 0 < fps <= 1000 else None
