"""Traces of an object on the ground: a mirror image in water, or a shadow. It moves along and is no part of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import cv2
import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Ground:
    """A second image, on the ground, of what stands there.

    Args:
        base: row where it stands, pixels from the top.
        length: height of the image on the ground, in heights of the object; below 0 it falls away from the viewer.
        slant: pixels to the right per pixel of height.
        opacity: 0 to 1 at the foot.
        fade: share of the opacity that is lost at the far end.
        light: factor on the object's colours, 0 for a shadow.
        ripple: sideways displacement by waves, in pixels.
        blur: in pixels.
    """

    base: float
    length: float
    slant: float
    opacity: float
    fade: float
    light: float
    ripple: float
    blur: float

    @classmethod
    def draw(cls, rng: np.random.Generator, base: float, height: float) -> Ground:
        """Water or light for an object that is ``height`` pixels high and stands on row ``base``."""
        fade, blur = float(rng.uniform(0, 0.8)), float(rng.uniform(0.4, 2.5))
        if rng.random() < 0.6:
            ripple = float(rng.uniform(0, 0.06)) * height
            opacity, light = float(rng.uniform(0.4, 0.95)), float(rng.uniform(0.25, 1))
            return cls(base, float(rng.uniform(0.4, 1.1)), 0.0, opacity, fade, light, ripple, blur)
        length = float(rng.choice((-1, 1)) * rng.uniform(0.12, 0.5))
        return cls(base, length, float(rng.normal(0, 0.7)), float(rng.uniform(0.3, 0.7)), fade, 0.0, 0.0, blur)

    def show(
        self,
        rng: np.random.Generator,
        image: NDArray[np.uint8],
        patch: NDArray[np.uint8],
        alpha: NDArray[np.float32],
        corner: tuple[int, int],
        free: NDArray[np.bool_],
    ) -> NDArray[np.bool_]:
        """Blend the image on the ground of a patch, uint8 RGB [h,w,3] with opacity [h,w], into a frame, in place, where
        it is ``free``; returns where it is well visible, bool [H,W]. ``corner`` is the (x, y) of the patch.
        """
        height, width = image.shape[:2]
        row, column = (np.arange(height, dtype=np.float32)[:, None], np.arange(width, dtype=np.float32)[None])
        up = (row - self.base) / np.float32(self.length)  # height of the point that is seen in this row
        waves = self.ripple * np.sin(row * rng.uniform(0.15, 0.8) + rng.uniform(0, 2 * np.pi)) * np.minimum(up / 20, 1)
        x = column - np.float32(self.slant) * up + waves.astype(np.float32) - corner[0]
        y = np.broadcast_to(self.base - up - corner[1], x.shape)
        x, y = np.ascontiguousarray(x, np.float32), np.ascontiguousarray(y, np.float32)
        weight = cv2.remap(alpha, x, y, cv2.INTER_LINEAR)
        opacity = self.opacity * (1 - self.fade * np.clip(up / patch.shape[0], 0, 1))
        weight = cv2.GaussianBlur(weight, (0, 0), self.blur) * opacity * (up > 0) * free
        seen = cv2.remap(np.ascontiguousarray(patch), x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        seen = cv2.GaussianBlur(seen, (0, 0), self.blur).astype(np.float32) * np.float32(self.light)
        weight = weight.astype(np.float32)[..., None]
        image[:] = (weight * seen + (1 - weight) * image).astype(np.uint8)
        return cast("NDArray[np.bool_]", weight[..., 0] > 0.25)
