"""Pictures for viewers: the frame or its optical flow, with the masks over it."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from rvos_edge.result import Result
from rvos_edge.server.controls import Settings
from rvos_edge.streaming.overlay import draw_overlay

Image = NDArray[np.uint8]
_FEWEST_PIXELS = 4.0
"""Smallest motion with the full colour, in pixels: noise in a still scene stays pale."""
_STEPS = 128
"""Steps of the colour table from no motion to full motion."""


def draw_picture(
    image: Image,
    result: Result,
    settings: Settings,
    *,
    hidden: frozenset[int] = frozenset(),
    legend: bool = False,
) -> Image:
    """Draw a frame, uint8 [H,W,3] BGR, as the settings say; without a flow the frame itself is drawn.

    ``hidden`` are indices of queries that are not drawn; ``legend`` lists colour, query and score in the picture.
    """
    base = image
    if settings.flow and result.flow is not None:
        height, width = image.shape[:2]
        base = np.asarray(cv2.resize(flow_colours(result.flow), (width, height)), dtype=np.uint8)
    opacity = settings.opacity if settings.mask else 0.0
    return draw_overlay(
        base,
        result,
        opacity=opacity,
        outline=settings.outline,
        legend=legend,
        names=settings.names,
        hidden=hidden,
    )


def flow_colours(flow: NDArray[np.float32]) -> Image:
    """Motion as colour on the usual wheel (Baker et al., 2007), uint8 [h,w,3] BGR: hue is the direction, strength the
    distance, white no motion.

    Of a flow float32 [2,h,w] from this frame to the previous one, in pixels, the opposite is shown, the motion that led
    to this frame.
    """
    motion = np.nan_to_num(-flow, nan=0.0, posinf=0.0, neginf=0.0)
    length = np.sqrt(motion[0] ** 2 + motion[1] ** 2)
    scale = _STEPS / max(_FEWEST_PIXELS, float(np.percentile(length, 99)))
    x, y = (np.clip(np.rint(part * scale), -_STEPS, _STEPS).astype(np.int16) + _STEPS for part in motion)
    return np.asarray(_wheel_table()[y, x], dtype=np.uint8)


@lru_cache(maxsize=1)
def _wheel_table() -> Image:
    """Colours by y and x of the motion, uint8 [2n+1,2n+1,3] BGR."""
    wheel = _wheel()
    y, x = np.mgrid[-_STEPS : _STEPS + 1, -_STEPS : _STEPS + 1] / _STEPS
    place = (np.arctan2(-y, -x) / np.pi + 1) / 2 * (len(wheel) - 1)
    low = np.floor(place).astype(int)
    part = (place - low)[..., None]
    colour = (1 - part) * wheel[low] + part * wheel[(low + 1) % len(wheel)]
    strength = np.minimum(np.hypot(x, y), 1)[..., None]
    return np.asarray(np.rint(255 * (1 - strength * (1 - colour)))[..., ::-1], dtype=np.uint8)


def _wheel() -> NDArray[np.float64]:
    """Colours of the wheel, float64 [55,3] RGB from 0 to 1: red, yellow, green, cyan, blue, magenta and between."""
    corners = ((1, 0, 0), (1, 1, 0), (0, 1, 0), (0, 1, 1), (0, 0, 1), (1, 0, 1), (1, 0, 0))
    steps = (15, 6, 4, 11, 13, 6)
    parts = [
        np.linspace(start, stop, count, endpoint=False)
        for start, stop, count in zip(corners, corners[1:], steps, strict=False)
    ]
    return np.concatenate(parts).astype(np.float64)


def fit(image: Image, widest: int) -> Image:
    """Shrink an image, uint8 [H,W,3], whose longest side has more than ``widest`` pixels."""
    height, width = image.shape[:2]
    scale = widest / max(height, width)
    if scale >= 1:
        return image
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)


def encode_jpeg(image: Image, quality: int) -> bytes:
    """Encode an image, uint8 [H,W,3] BGR, as JPEG with a quality of 1 to 100."""
    _, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return data.tobytes()
