"""Reading of image and annotation files; truncated files are refused."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from rvos_edge.errors import UserError
from rvos_edge.streaming.sources import IMAGE_SUFFIXES, natural_order

_ORIENTATION = 0x0112
_SIDEWAYS = range(5, 9)


class DamagedFileError(UserError):
    """A missing or damaged file of a data set: training draws another sample, everything else stops."""


def read_image(path: Path, *, turned: bool = True) -> NDArray[np.uint8]:
    """An image file as BGR uint8 [H,W,3], turned upright by its EXIF data as ``read_size`` and ``read_annotation`` are.

    Args:
        turned: False gives the pixels as they are stored.

    Raises:
        DamagedFileError: The file is missing, truncated or no image.
    """
    try:
        data = path.read_bytes()
        orientation = _orientation(data) if turned else 1
    except (OSError, SyntaxError, ValueError) as error:
        raise _damaged("image", path) from error
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    image = cv2.imdecode(np.frombuffer(data, np.uint8), flags) if _is_whole(data) else None
    if image is None:
        raise _damaged("image", path)
    return _upright(np.asarray(image, np.uint8), orientation)


def read_size(path: Path) -> tuple[int, int]:
    """Height and width of an image file, from its header, upright.

    Raises:
        DamagedFileError: The file is missing or no image.
    """
    try:
        with Image.open(path) as image:
            width, height = image.size
            return (width, height) if _exif_orientation(image) in _SIDEWAYS else (height, width)
    except (OSError, SyntaxError, ValueError) as error:
        raise _damaged("image", path) from error


def read_annotation(path: Path) -> NDArray[np.uint8]:
    """A mask image: object ids uint8 [H,W] (indices of a palette, not its colours), or colours [H,W,3].

    What is transparent is 0, whatever colour it has; a grey image with an alpha channel is one of ids.

    Raises:
        DamagedFileError: The file is missing, truncated or no image.
        UserError: It holds values above 255.
    """
    try:
        with Image.open(path) as image:
            values = np.asarray(image)
            orientation = _exif_orientation(image)
            alpha = image.mode in ("LA", "PA", "RGBA")
    except (OSError, SyntaxError, ValueError) as error:
        raise _damaged("mask", path) from error
    if alpha:
        values = values[..., :-1] * (values[..., -1:] > 0)
        values = values[..., 0] if values.shape[2] == 1 else values
    if values.size and (values.max() > 255 or values.min() < 0):
        raise UserError(f"the mask {path} holds the value {values.max()}: object ids go to 255, write it with 8 bits")
    return _upright(values.astype(np.uint8), orientation)


def image_files(folder: Path, suffixes: frozenset[str] = IMAGE_SUFFIXES) -> dict[str, Path]:
    """The image files of a folder by their stems, in natural order; copies of other systems (._NAME) are left out."""
    files = sorted(folder.iterdir(), key=lambda path: natural_order(path.name)) if folder.is_dir() else []
    return {path.stem: path for path in files if path.suffix.lower() in suffixes and path.name[0] != "."}


def _orientation(data: bytes) -> int:
    with Image.open(BytesIO(data)) as image:
        return _exif_orientation(image)


def _exif_orientation(image: Image.Image) -> int:
    # Of other formats the whole file would be decoded for it.
    return int(image.getexif().get(_ORIENTATION, 1)) if image.format in ("JPEG", "MPO", "WEBP") else 1


def _upright(pixels: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    if orientation not in range(2, 9):
        return pixels
    if orientation in _SIDEWAYS:
        pixels = pixels.swapaxes(0, 1)
    down, right = -1 if orientation in (3, 4, 7, 8) else 1, -1 if orientation in (2, 3, 6, 7) else 1
    return np.ascontiguousarray(pixels[::down, ::right])


def check_sizes(mask: tuple[int, ...], image: tuple[int, ...], where: Path) -> None:
    """Raise `UserError` unless a mask's shape [H,W] is that of its image."""
    if mask[:2] != image[:2]:
        raise UserError(f"the mask {where} is {mask[1::-1]}, its image {image[1::-1]}: sizes must agree")


def _is_whole(data: bytes) -> bool:
    """True if the data are complete; decoders fill the rest of a truncated file with grey."""
    if data.startswith(b"\xff\xd8"):
        return data.rfind(b"\xff\xd9") > data.rfind(b"\xff\xda")
    if data.startswith(b"\x89PNG"):
        return b"IEND" in data[-1024:]
    return bool(data)


def _damaged(kind: str, path: Path) -> DamagedFileError:
    state = "damaged" if path.is_file() else "missing"
    return DamagedFileError(f"cannot read the {kind} {path}: it is {state}, restore it or take it out of the data set")
