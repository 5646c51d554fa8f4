"""Resizing: frames to the input of the network, and margins to masks at the size of the frame."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from rvos_edge.errors import UserError

_MOST_STRETCH = 4 / 3
"""A frame of 4:3 stretched to 16:9 costs nothing, one of 3:4 ten points of J."""
_STEP = 8
"""Pixels: the coarsest stride at which maps of the input are cut back to the frame."""
_BARS = (104, 116, 124)
"""Blue, green and red of the padding: ImageNet's mean."""


@dataclass(frozen=True)
class Placement:
    """The part of the network's input that shows the frame; the rest is padding."""

    size: tuple[int, int]
    rows: slice
    columns: slice

    @property
    def padded(self) -> bool:
        """True if there is padding."""
        return (self.rows.stop - self.rows.start, self.columns.stop - self.columns.start) != self.size

    def on(self, grid: tuple[int, int]) -> tuple[slice, slice]:
        """Rows and columns of the frame on a map of the input at any stride up to 8, height and width ``grid``."""
        return tuple(
            slice(part.start * extent // whole, part.stop * extent // whole)
            for part, extent, whole in zip((self.rows, self.columns), grid, self.size, strict=True)
        )  # type: ignore[return-value]  # two


def place(frame: tuple[int, int], size: tuple[int, int]) -> Placement:
    """Placement of a frame in the network's input.

    A frame is stretched to the input's aspect ratio, but by no more than 4/3; beyond that it keeps what is left of its
    own shape and is centred between bars. Extents and places of the bars are multiples of 8 pixels.

    Example:
        >>> place((480, 640), (288, 512)).padded  # 4:3
        False
        >>> place((640, 480), (288, 512)).columns
        slice(112, 400, None)
    """
    (height, width), (rows, columns) = frame, size
    wider = (width / height) / (columns / rows)
    if wider < 1 / _MOST_STRETCH:
        columns = _whole(columns * wider * _MOST_STRETCH, columns)
    elif wider > _MOST_STRETCH:
        rows = _whole(rows * _MOST_STRETCH / wider, rows)
    top, left = (size[0] - rows) // (2 * _STEP) * _STEP, (size[1] - columns) // (2 * _STEP) * _STEP
    return Placement(size, slice(top, top + rows), slice(left, left + columns))


def _whole(extent: float, most: int) -> int:
    return min(most, max(_STEP, round(extent / _STEP) * _STEP))


class Preprocessor:
    """Resizes frames to the network's input, into a buffer of its own.

    Bilinear without antialiasing, between grey bars where the shapes differ much (``place``): what every runtime of a
    bundle does.
    """

    def __init__(self, size: tuple[int, int]) -> None:
        """Prepare for images of ``size`` (height, width)."""
        self._image = np.empty((*size, 3), np.uint8)
        self.placement = place(size, size)

    def __call__(self, frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Resize a frame, uint8 [H,W,3] -> [h,w,3]; ``placement`` says where it went.

        The result is valid until the next call; it is the frame itself where that fits already.
        """
        frame = np.ascontiguousarray(frame)
        size = self._image.shape[:2]
        placed = self.placement = place((frame.shape[0], frame.shape[1]), (size[0], size[1]))
        if frame.shape[:2] == size:
            return frame
        if not placed.padded:
            cv2.resize(frame, size[::-1], dst=self._image, interpolation=cv2.INTER_LINEAR)
            return self._image
        self._image[:] = _BARS
        extent = placed.columns.stop - placed.columns.start, placed.rows.stop - placed.rows.start
        self._image[placed.rows, placed.columns] = cv2.resize(frame, extent, interpolation=cv2.INTER_LINEAR)
        return self._image


def fill_padding(flow: NDArray[np.float32], placement: Placement) -> NDArray[np.float32]:
    """A flow field float32 [1,2,h,w] whose padding leaves the frame's statistics as they are.

    ``gating`` subtracts the mean flow and divides by the mean of what remains. In the padding columns alternate between
    the frame's mean flow plus and minus that mean magnitude: both means are then the frame's own.
    """
    region = placement.on((flow.shape[2], flow.shape[3]))
    inside = flow[0][:, region[0], region[1]]
    mean = inside.mean(axis=(1, 2))
    spread = np.linalg.norm(inside - mean[:, None, None], axis=0).mean()
    filled = np.empty_like(flow)
    filled[0, 0] = mean[0] + spread * np.where(np.arange(flow.shape[3]) % 2, -1, 1)
    filled[0, 1] = mean[1]
    filled[0][:, region[0], region[1]] = inside
    return filled


def threshold_logit(probability: float) -> float:
    """Convert a threshold of masks from a probability to a logit.

    Raises:
        UserError: ``probability`` is not between 0 and 1.

    Example:
        >>> threshold_logit(0.5)
        0.0
    """
    if not 0 < probability < 1:
        raise UserError(f"a threshold of {probability:g} separates nothing; give a probability between 0 and 1.")
    return math.log(probability / (1 - probability))


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
        """Upsample and threshold margins float32 [Q,h,w] (object minus background logit) to new masks bool [Q,H,W]."""
        if self._upsampled.shape != size:
            self._upsampled = np.empty(size, np.float32)
        masks = np.empty((len(margins), *size), np.bool_)
        for margin, mask in zip(margins, masks, strict=True):
            cv2.resize(margin, size[::-1], dst=self._upsampled, interpolation=cv2.INTER_LINEAR)
            np.greater(self._upsampled, self.threshold, out=mask)
        return masks

    def scores(self, margins: NDArray[np.float32]) -> NDArray[np.float32]:
        """Average the object probability over each mask: margins float32 [Q,h,w] -> float32 [Q] in [0, 1]; 0 for an
        empty mask.
        """
        scores = np.zeros(len(margins), np.float32)
        for index, margin in enumerate(margins):
            inside = margin[margin > self.threshold]
            if inside.size:
                # Equal to the sigmoid, but tanh cannot overflow.
                scores[index] = np.mean(0.5 + 0.5 * np.tanh(0.5 * inside))
        return scores
