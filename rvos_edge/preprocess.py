"""From frames to the network's input, and from margins back to masks of the frame's size."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from rvos_edge.errors import UserError


def check_frame(frame: Any) -> tuple[int, int]:
    """Height and width of a frame.

    Raises:
        UserError: It is not uint8 [H,W,3] with H, W >= 1; the sentence gives its dtype and shape.
    """
    if not isinstance(frame, np.ndarray):
        raise UserError(f"a frame must be a uint8 array [H,W,3] in BGR, not {type(frame).__name__}.")
    if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3 or frame.size == 0:
        raise UserError(
            f"a frame must be a uint8 array [H,W,3] in BGR, not {frame.dtype} of shape {list(frame.shape)}; convert it."
        )
    return frame.shape[0], frame.shape[1]


class Preprocessor:
    """Resizes frames to the network's input, into a buffer of its own.

    Bilinear without antialiasing, the aspect ratio is not kept: what every runtime of a bundle does.
    """

    def __init__(self, size: tuple[int, int]) -> None:
        """Prepare for images of ``size`` (height, width)."""
        self._size = size
        self._image = np.empty((*size, 3), np.uint8)

    def __call__(self, frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Resize a frame.

        Args:
            frame: uint8 [H,W,3].

        Returns:
            uint8 [h,w,3]: valid until the next call; the frame itself where it fits already.
        """
        frame = np.ascontiguousarray(frame)
        if frame.shape[:2] == self._size:
            return frame
        height, width = self._size
        cv2.resize(frame, (width, height), dst=self._image, interpolation=cv2.INTER_LINEAR)
        return self._image


class Postprocessor:
    """Upsamples margins to the frame's size and thresholds them.

    Bilinear as PyTorch's ``interpolate(align_corners=False)``; because upsampling is linear, ``margin > 0`` is the
    argmax over the upsampled background and object logits.
    """

    def __init__(self, threshold: float = 0.0) -> None:
        """Set the threshold, in logits; 0 is an object probability of one half."""
        self.threshold = threshold
        self._upsampled = np.empty((0, 0), np.float32)

    def masks(self, margins: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.bool_]:
        """Masks at the size of the frame.

        Args:
            margins: float32 [Q,h,w], object minus background logit.
            size: Height and width of the frame.

        Returns:
            bool [Q,H,W], newly allocated.
        """
        if self._upsampled.shape != size:
            self._upsampled = np.empty(size, np.float32)
        masks = np.empty((len(margins), *size), np.bool_)
        for margin, mask in zip(margins, masks, strict=True):
            cv2.resize(margin, size[::-1], dst=self._upsampled, interpolation=cv2.INTER_LINEAR)
            np.greater(self._upsampled, self.threshold, out=mask)
        return masks

    def scores(self, margins: NDArray[np.float32]) -> NDArray[np.float32]:
        """Mean object probability over each mask.

        Args:
            margins: float32 [Q,h,w].

        Returns:
            float32 [Q] in [0, 1]; 0 for an empty mask.
        """
        scores = np.zeros(len(margins), np.float32)
        for index, margin in enumerate(margins):
            inside = margin[margin > self.threshold]
            if inside.size:
                # tanh cannot overflow, and is the same function.
                scores[index] = np.mean(0.5 + 0.5 * np.tanh(0.5 * inside))
        return scores
