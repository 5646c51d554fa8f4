"""Pictures for viewers: the frame or its optical flow, with the masks over it."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from rvos_edge.result import Result
from rvos_edge.server.controls import Settings
from rvos_edge.streaming.overlay import draw_overlay

Image = NDArray[np.uint8]
_FEWEST_PIXELS = 4.0
"""Smallest motion with the full colour, in pixels: noise in a still scene stays pale."""


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
    """Motion as colour, uint8 [h,w,3] BGR: hue is the direction, strength the distance, white no motion.

    Of a flow float32 [2,h,w] from this frame to the previous one, in pixels, the opposite is shown, the motion that led
    to this frame: to the right it is red, down yellow-green, to the left cyan, up violet.
    """
    x, y = np.nan_to_num(-flow, nan=0.0, posinf=0.0, neginf=0.0)
    length, degrees = cv2.cartToPolar(x, y, angleInDegrees=True)
    strength = np.minimum(length / max(_FEWEST_PIXELS, float(np.percentile(length, 99))), 1)
    colours = cv2.cvtColor(np.dstack([degrees, strength, np.ones_like(length)]), cv2.COLOR_HSV2BGR)
    return np.asarray(np.rint(255 * colours), np.uint8)


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
