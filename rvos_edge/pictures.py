"""Pictures as users have them, brought to the frames that the network takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from rvos_edge.errors import UserError

Picture = Any
"""An array uint8 [H,W,3], [H,W,4], [H,W,1] or [H,W]; a PIL image; a torch tensor [3,H,W] or [1,H,W] of uint8, or of
floats from 0 to 1; or the path of a file."""
COLOURS = ("bgr", "rgb")


def as_frame(picture: Picture, color: str | None = None) -> NDArray[np.uint8]:
    """Convert a picture to a frame, uint8 [H,W,3] BGR; the array itself where it is one already. Alpha is dropped.

    Args:
        color: Order of the channels, "bgr" or "rgb"; None for that of its kind: BGR in arrays, RGB in PIL images and
            tensors. The channels of a file are known.

    Raises:
        UserError: The picture is none of these, the file cannot be read, or ``color`` is unknown.
    """
    if color not in (None, *COLOURS):
        raise UserError(f"color '{color}' is unknown; use {' or '.join(COLOURS)}.")
    if isinstance(picture, str | Path):
        image = cv2.imread(str(picture), cv2.IMREAD_COLOR) if Path(picture).is_file() else None
        if image is None:
            raise UserError(f"{picture} cannot be read as a picture; give a JPEG, PNG, BMP or WebP file.")
        return np.asarray(image, np.uint8)
    order = color or "bgr"
    if type(picture).__module__.partition(".")[0] == "torch":  # not imported here
        picture, order = _of_tensor(picture), color or "rgb"
    elif hasattr(picture, "getbands"):  # PIL, which is not imported either
        picture, order = np.asarray(picture.convert("RGB")), color or "rgb"
    if not isinstance(picture, np.ndarray):
        raise UserError(f"a frame must be a uint8 array [H,W,3] in BGR, not {type(picture).__name__}.")
    if (
        picture.dtype != np.uint8
        or picture.size == 0
        or picture.ndim not in (2, 3)
        or _channels(picture) not in (1, 3, 4)
    ):
        raise UserError(
            f"a frame must be a uint8 array [H,W,3] in BGR, not {picture.dtype} of shape {list(picture.shape)}; "
            "convert it."
        )
    if _channels(picture) == 1:
        return np.asarray(cv2.cvtColor(np.ascontiguousarray(picture), cv2.COLOR_GRAY2BGR), np.uint8)
    if _channels(picture) == 4:
        picture = picture[..., :3]
    return picture if order == "bgr" else np.ascontiguousarray(picture[..., ::-1])


def _channels(array: NDArray[Any]) -> int:
    return 1 if array.ndim == 2 else int(array.shape[2])


def _of_tensor(tensor: Any) -> NDArray[Any]:
    array: NDArray[Any] = tensor.detach().cpu().numpy()
    if array.ndim == 4 and len(array) == 1:
        array = array[0]
    if array.ndim != 3 or array.shape[0] not in (1, 3):
        raise UserError(f"a tensor must be [3,H,W] or [1,H,W], not {list(array.shape)}; give one picture at a time.")
    if array.dtype.kind == "f":
        array = np.rint(array.astype(np.float32).clip(0, 1) * 255).astype(np.uint8)
    return np.ascontiguousarray(array.transpose(1, 2, 0))
