"""Resizing: frames to the input of the network, and margins to masks at the size of the frame."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from rvos_edge.errors import UserError


def check_frame(frame: Any) -> tuple[int, int]:
    """Check a frame and return its height and width.

    Raises:
        UserError: The frame is not uint8 [H,W,3] with H, W >= 1; the message gives its dtype and shape.
    """
    if not isinstance(frame, np.ndarray):
        raise UserError(f"a frame must be a uint8 array [H,W,3] in BGR, not {type(frame).__name__}.")
    if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3 or frame.size == 0:
        raise UserError(
            f"a frame must be a uint8 array [H,W,3] in BGR, not {frame.dtype} of shape {list(frame.shape)}; convert it."
        )
    return frame.shape[0], frame.shape[1]


class Preprocessor:
    """Resizes frames to the input size of the network, into a buffer that is reused.

    Bilinear without antialiasing; the aspect ratio is not kept. Every runtime of a bundle must do the same
    (docs/bundle.md).
    """

    def __init__(self, size: tuple[int, int]) -> None:
        """Allocate the buffer for images of ``size`` (height, width)."""
        self._size = size
        self._image = np.empty((*size, 3), np.uint8)

    def __call__(self, frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Resize a frame.

        Args:
            frame: uint8 [H,W,3].

        Returns:
            uint8 [h,w,3], valid until the next call; the frame itself if it already has that size.
        """
        frame = np.ascontiguousarray(frame)
        if frame.shape[:2] == self._size:
            return frame
        height, width = self._size
        cv2.resize(frame, (width, height), dst=self._image, interpolation=cv2.INTER_LINEAR)
        return self._image


class Postprocessor:
    """Upsamples margins to the size of the frame and thresholds them.

    Bilinear, as PyTorch's ``interpolate(align_corners=False)``. Because upsampling is linear, ``margin > 0`` is the
    argmax over the upsampled background and object logits (the inference rule of the paper: supplement, section 1).
    """

    def __init__(self, threshold: float = 0.0) -> None:
        """Set the threshold in logits; 0 is an object probability of one half."""
        self.threshold = threshold
        self._upsampled = np.empty((0, 0), np.float32)

    def masks(self, margins: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.bool_]:
        """Upsample and threshold margins.

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
        """Average the object probability over each mask.

        Args:
            margins: float32 [Q,h,w].

        Returns:
            float32 [Q] in [0, 1]; 0 for an empty mask.
        """
        scores = np.zeros(len(margins), np.float32)
        for index, margin in enumerate(margins):
            inside = margin[margin > self.threshold]
            if inside.size:
                # Equal to the sigmoid, but tanh cannot overflow.
                scores[index] = np.mean(0.5 + 0.5 * np.tanh(0.5 * inside))
        return scores
