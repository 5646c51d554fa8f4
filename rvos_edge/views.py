"""Views of a shown frame: mirrored, closer, and in other light, each with its mask."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

_CLOSER = 0.7
"""Share of each side of the frame that the closer view keeps, or what the object needs ..."""
_MARGIN = 1.3
"""... with this much around it."""
_GAMMA, _TINT = 0.75, (1.06, 1.0, 0.92)
"""View in other light: exponent of the brightness, factors of blue, green and red."""


@dataclass(frozen=True)
class View:
    """A frame uint8 [H,W,3] BGR, the frame before it or None, and the mask bool [H,W]."""

    frame: NDArray[np.uint8]
    previous: NDArray[np.uint8] | None
    mask: NDArray[np.bool_]


def make_views(
    frame: NDArray[np.uint8],
    mask: NDArray[np.bool_],
    previous: NDArray[np.uint8] | None,
    *,
    flips: bool = True,
    many: bool = True,
) -> list[View]:
    """The frame itself, a closer view, one in other light, and a mirrored closer one; the frame alone unless ``many``.

    ``flips=False``, where left and right matter: no view is mirrored.
    """
    plain = View(frame, previous, mask)
    if not many:
        return [plain]
    rows, columns = _window(mask)

    def closer(image: NDArray[Any]) -> NDArray[Any]:
        return image[rows, columns]

    def mirrored(image: NDArray[Any]) -> NDArray[Any]:
        return image[:, ::-1] if flips else image

    first = _changed(plain, lambda image: mirrored(closer(image)))
    return [plain, first, _in_other_light(_changed(plain, mirrored)), _in_other_light(_changed(plain, closer))]


def _changed(view: View, change: Callable[[NDArray[Any]], NDArray[Any]]) -> View:
    frame = np.ascontiguousarray(change(view.frame))
    before = None if view.previous is None else np.ascontiguousarray(change(view.previous))
    return View(frame, before, np.ascontiguousarray(change(view.mask)))


def _in_other_light(view: View) -> View:
    levels = 255 * (np.arange(256) / 255) ** _GAMMA
    table = np.clip(np.outer(levels, _TINT), 0, 255).round().astype(np.uint8)[None]

    def lit(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return np.asarray(cv2.LUT(image, table), np.uint8)

    return View(lit(view.frame), None if view.previous is None else lit(view.previous), view.mask)


def _window(mask: NDArray[np.bool_]) -> tuple[slice, slice]:
    """Rows and columns around the object, of the frame's aspect ratio."""
    height, width = mask.shape
    x, y, w, h = cv2.boundingRect(mask.astype(np.uint8))
    share = min(1.0, max(_CLOSER, _MARGIN * w / width, _MARGIN * h / height))
    rows, columns = round(share * height), round(share * width)
    top = int(np.clip(y + h / 2 - rows / 2, 0, height - rows))
    left = int(np.clip(x + w / 2 - columns / 2, 0, width - columns))
    return slice(top, top + rows), slice(left, left + columns)
