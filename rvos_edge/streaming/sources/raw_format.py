"""The layout of raw frames, as FFmpeg names it."""

from __future__ import annotations

import re
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from rvos_edge.errors import UserError

ASSUMED_FPS = 25.0
"""Frames per second of a source that does not state its rate."""


@dataclass(frozen=True)
class _Pixels:
    """A pixel format.

    Attributes:
        rows: Rows of bytes per row of pixels, planes below each other.
        depth: Bytes per pixel in such a row.
        to_bgr: OpenCV's conversion.
        multiple: Numbers that height and width must be multiples of.
    """

    rows: float
    depth: int
    to_bgr: int | None
    multiple: tuple[int, int] = (1, 1)


_PIXELS = {
    "bgr24": _Pixels(1, 3, None),
    "rgb24": _Pixels(1, 3, cv2.COLOR_RGB2BGR),
    "bgra": _Pixels(1, 4, cv2.COLOR_BGRA2BGR),
    "rgba": _Pixels(1, 4, cv2.COLOR_RGBA2BGR),
    "gray": _Pixels(1, 1, cv2.COLOR_GRAY2BGR),
    "yuyv422": _Pixels(1, 2, cv2.COLOR_YUV2BGR_YUYV, (1, 2)),
    "uyvy422": _Pixels(1, 2, cv2.COLOR_YUV2BGR_UYVY, (1, 2)),
    "yuv420p": _Pixels(1.5, 1, cv2.COLOR_YUV2BGR_I420, (2, 2)),
    "nv12": _Pixels(1.5, 1, cv2.COLOR_YUV2BGR_NV12, (2, 2)),
}
"""By FFmpeg's names."""
_LARGEST = 2**26
"""Pixels of a frame, those of 8192x8192."""
_LAYOUT = re.compile(r"([1-9][0-9]{0,4})x([1-9][0-9]{0,4})(?:@([0-9]+(?:\.[0-9]+)?))?(?::([a-z0-9]+))?")


@dataclass(frozen=True)
class RawFormat:
    """Layout of raw frames; ``pixels`` is FFmpeg's name of the pixel format, and fps gives the timestamps."""

    height: int
    width: int
    fps: float = ASSUMED_FPS
    pixels: str = "bgr24"

    @classmethod
    def parse(cls, text: str) -> RawFormat:
        """Read "1280x720@30:bgr24": width and height as FFmpeg orders them; rate and pixel format may be left out.

        Raises:
            UserError: It cannot be read, or frames like that cannot.
        """
        match = _LAYOUT.fullmatch(text)
        if not match:
            raise UserError(f"--raw {text} cannot be read; write WIDTHxHEIGHT@FPS:PIXELS, as in 1280x720@30:bgr24")
        width, height, fps, pixels = (int(match[1]), int(match[2]), float(match[3] or ASSUMED_FPS), match[4] or "bgr24")
        if not 0 < fps <= 1000:
            raise UserError(f"--raw {text}: {fps:g} frames per second are out of range; choose between 1 and 1000")
        if height * width > _LARGEST:
            raise UserError(f"--raw {text}: frames may have {_LARGEST} pixels at most; scale them where they come from")
        if pixels not in _PIXELS:
            raise UserError(f"--raw {text}: the pixel format {pixels!r} is unknown; choose one of {', '.join(_PIXELS)}")
        down, across = _PIXELS[pixels].multiple
        if height % down or width % across:
            raise UserError(f"--raw {text}: frames of {pixels} cannot have an odd size; scale them, or use bgr24")
        return cls(height=height, width=width, fps=fps, pixels=pixels)

    @property
    def size(self) -> int:
        """Bytes per frame."""
        pixels = _PIXELS[self.pixels]
        return round(self.height * pixels.rows) * self.width * pixels.depth

    def decode(self, content: bytearray) -> NDArray[np.uint8]:
        """Bytes of one frame as uint8 [H,W,3], BGR; bgr24 is not copied."""
        pixels = _PIXELS[self.pixels]
        plain = np.frombuffer(content, np.uint8).reshape(round(self.height * pixels.rows), self.width, pixels.depth)
        return plain if pixels.to_bgr is None else np.asarray(cv2.cvtColor(plain, pixels.to_bgr), dtype=np.uint8)
