"""Reading of image and annotation files; truncated files are refused."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from rvos_edge.errors import UserError


class DamagedFileError(UserError):
    """A missing or damaged file of a data set: training draws another sample, everything else stops."""


def read_image(path: Path) -> NDArray[np.uint8]:
    """An image file as BGR uint8 [H,W,3].

    Raises:
        DamagedFileError: The file is missing, truncated or no image.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise _damaged("image", path) from error
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) if _is_whole(data) else None
    if image is None:
        raise _damaged("image", path)
    return cast("NDArray[np.uint8]", image)


def read_size(path: Path) -> tuple[int, int]:
    """Height and width of an image file, from its header.

    Raises:
        DamagedFileError: The file is missing or no image.
    """
    try:
        with Image.open(path) as image:
            width, height = image.size
    except (OSError, SyntaxError, ValueError) as error:
        raise _damaged("image", path) from error
    return height, width


def read_annotation(path: Path) -> NDArray[np.uint8]:
    """A mask image: object ids uint8 [H,W] (indices of a palette, not its colours), or colours [H,W,3].

    Raises:
        DamagedFileError: The file is missing, truncated or no image.
    """
    try:
        with Image.open(path) as image:
            return np.asarray(image).astype(np.uint8)
    except (OSError, SyntaxError, ValueError) as error:
        raise _damaged("mask", path) from error


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
