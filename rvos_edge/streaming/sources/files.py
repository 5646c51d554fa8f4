"""Files: videos, pictures, folders and globs of pictures. Every frame of them is handed out."""

from __future__ import annotations

import glob
import os
import re
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
    bgr,
    natural_order,
    quiet_opencv,
)
from rvos_edge.streaming.sources.raw_format import ASSUMED_FPS
from rvos_edge.streaming.sources.video import VideoFile

VIDEO_SUFFIXES = frozenset(
    """.3gp .avi .dv .flv .gif .m2ts .m4v .mkv .mov .mp4 .mpeg .mpg .mts .mxf .ts .vob .webm .wmv""".split()  # noqa: SIM905
)
_OTHER_PICTURES = frozenset({".avif", ".heic", ".tif", ".tiff"})
IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp"})


class ImageFiles(Source):
    """Image files as frames, in the given order; they may differ in size."""

    def __init__(self, paths: list[Path], *, name: str) -> None:
        super().__init__(name=name, length=len(paths))
        self.seconds = len(paths) / ASSUMED_FPS
        self._paths, self._index = paths, 0
        for path in paths:
            check_name(path)
        _read_image(paths[0])
        # Outputs are named after the stem: two files with one stem would overwrite each other's mask.
        self._stems_clash = max(Counter(path.stem for path in paths).values()) > 1

    def __iter__(self) -> Iterator[Frame]:
        while self._index < len(self._paths):
            index, path = self._index, self._paths[self._index]
            self._index += 1
            name = f"{index:05d}" if self._stems_clash else path.stem
            image = _read_image(path)
            yield Frame(image, index, index / ASSUMED_FPS, name, time.perf_counter(), path.name)

    def seek(self, seconds: float) -> None:
        self._index = min(max(0, round(seconds * ASSUMED_FPS)), len(self._paths) - 1)


class AnimatedWebp(Source):
    """The frames of an animated WebP, which FFmpeg cannot decode.

    Raises:
        UserError: OpenCV cannot either (before 4.11), or the file is damaged.
    """

    def __init__(self, path: Path) -> None:
        if not hasattr(cv2, "imreadanimation"):
            raise UserError(f"{path} is an animated WebP, which this OpenCV cannot read; install a newer one, or a GIF")
        with quiet_opencv():
            done, animation = cv2.imreadanimation(str(path))
        if not done:
            raise UserError(f"{path} cannot be read as an image; remove it or write it again")
        seconds = [milliseconds / 1000 for milliseconds in animation.durations]
        self._frames, self._starts = animation.frames, np.cumsum([0.0, *seconds])[:-1].tolist()
        fps = len(seconds) / sum(seconds) if sum(seconds) > 0 else None
        super().__init__(name=path.name, fps=fps, length=len(seconds))

    def __iter__(self) -> Iterator[Frame]:
        for index, (image, start) in enumerate(zip(self._frames, self._starts, strict=True)):
            yield Frame(bgr(image[..., :3]), index, start, f"{index:05d}", time.perf_counter())


def open_folder(spec: str, options: SourceOptions) -> Source | None:
    """Open a folder of images; None for other names."""
    folder = Path(spec)
    if not folder.is_dir():
        return None
    paths = [path for path in folder.iterdir() if _is_image(path)]
    if not paths:
        raise UserError(f"{spec} holds no images (jpg, png, bmp, webp); give a folder of frames or a video file")
    left = [path.name for path in folder.iterdir() if path.suffix.lower() in (VIDEO_SUFFIXES | _OTHER_PICTURES)]
    if left:
        names = ", ".join(sorted(left, key=natural_order)[:3])
        options.tell(f"{spec}: its pictures are one clip; {len(left)} other files are left out, such as {names}")
    return ImageFiles(sorted(paths, key=lambda path: natural_order(path.name)), name=spec)


def open_file(spec: str, options: SourceOptions) -> Source | None:
    """Open a video or an image; None for other names."""
    path = Path(spec)
    if not path.is_file():
        return None
    if _is_image(path):
        with path.open("rb") as file:
            head = file.read(4096)
        if head.startswith(b"RIFF") and head[12:16] == b"VP8X" and head[20] & 2:
            return AnimatedWebp(path)
        if b"acTL" not in head.partition(b"IDAT")[0]:
            return ImageFiles([path], name=path.name)
    return VideoFile(path, tell=options.tell)


def open_glob(spec: str, options: SourceOptions) -> Source | None:
    """Open the images that a pattern matches; None for other names."""
    if not glob.has_magic(spec):
        return None
    paths = [path for path in glob_files(spec) if _is_image(path)]
    if not paths:
        raise UserError(f"{spec!r} matches no images (jpg, png, bmp, webp); check the pattern")
    return ImageFiles(paths, name=spec)


def source_files(spec: str) -> list[Path]:
    """The files and folders on this disk that a source reads."""
    if os.path.exists(spec):
        return [Path(spec)]
    return glob_files(spec) if glob.has_magic(spec) else []


def glob_files(spec: str) -> list[Path]:
    """Paths that a pattern matches, in natural order; existing folders by their names, brackets or not."""
    parts = Path(spec).parts
    known = max(number for number in range(len(parts)) if not number or Path(*parts[:number]).exists())
    folder = Path(*parts[:known])
    rest = str(Path(*parts[known:]))
    found = glob.glob(rest, root_dir=folder, recursive=True)
    # "clip[1]*.mp4" means the brackets where nothing else fits.
    found = found or glob.glob(rest.replace("[", "[[]"), root_dir=folder, recursive=True)
    return sorted((folder / name for name in found), key=lambda path: natural_order(str(path)))


def output_name(spec: str) -> str:
    """A name for results of a source: the stem of a file, the name of a folder, the folder of a glob.

    Example:
        >>> [output_name(spec) for spec in ("in/clip.mp4", "videos/*.mp4", "synthetic:3", "https://host/a.mp4?key=1")]
        ['clip', 'videos', 'synthetic-3', 'a']
    """
    path = Path(spec)
    if path.is_dir():
        name = path.resolve().name
    elif not path.exists() and glob.has_magic(spec) and "://" not in spec:
        name = next(part for part in path.parents if not glob.has_magic(str(part))).resolve().name
    else:
        name = Path(spec.partition("?")[0] if "://" in spec else spec).stem
    return re.sub(r"[^\w.-]+", "-", name).strip("-.") or "stream"


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")


def _read_image(path: Path) -> NDArray[np.uint8]:
    with quiet_opencv():
        image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None:
        raise UserError(f"{path} cannot be read as an image; remove it or write it again")
    return bgr(image)
