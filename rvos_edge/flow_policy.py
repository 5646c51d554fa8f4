"""Whether a frame's optical flow is computed, kept from an earlier frame or taken as zero."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

_THUMBNAIL = (32, 18)  # width, height


class FlowOptions(BaseModel):
    """How much flow is worth computing.

    Example:
        >>> FlowOptions(iterations=4, every=2)
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    enabled: bool = True
    """False: no flow graph is loaded and the flow is zero."""
    iterations: int | None = Field(default=None, ge=1)
    """Update steps per computed flow; None takes the bundle's number."""
    every: int = Field(default=1, ge=1)
    """Compute the flow on every n-th frame and keep it between."""
    warm_start: bool = True
    """Start from the last computed flow instead of zero."""
    scene_cut: float | None = Field(default=40.0, ge=0)
    """Mean absolute difference of successive thumbnails, in grey levels, above which the flow starts anew."""
    still: float | None = Field(default=None, ge=0)
    """The same difference at or below which nothing moves: the flow is zero and is not computed."""
    keep_flow: bool = False
    """Put the flow into every result."""


@dataclass(frozen=True)
class FlowDecision:
    """What to do on one frame.

    Attributes:
        action: "run" computes the flow, "keep" leaves the last one, "zero" clears it.
        warm: With "run": start from the coordinates of the last run instead of the identity grid.
        reason: In a few words.
    """

    action: Literal["run", "keep", "zero"]
    warm: bool
    reason: str


class FlowPolicy:
    """Decides frame by frame. It assumes that every frame's features are kept for the next one."""

    def __init__(self, options: FlowOptions) -> None:
        """Start before the first frame."""
        self._options = options
        self._colour = np.empty((_THUMBNAIL[1], _THUMBNAIL[0], 3), np.uint8)
        self._grey = np.empty((_THUMBNAIL[1], _THUMBNAIL[0]), np.uint8)
        self._grey_before = np.empty_like(self._grey)
        self.reset()

    def reset(self) -> None:
        """Forget the previous frame: the next one is a first frame."""
        self._size: tuple[int, int] | None = None
        self._computed = False
        self._since = 0

    def decide(self, image: NDArray[np.uint8], size: tuple[int, int]) -> FlowDecision:
        """Decide on the next frame; call it once per frame.

        Args:
            image: uint8 [h,w,3], the network's input.
            size: Height and width of the frame it was made from.
        """
        options = self._options
        known, self._size = self._size, size
        difference = self._difference(image)
        self._since += 1
        if known is None:
            return self._start("first frame")
        if known != size:
            return self._start("the frame's size changed")
        if options.scene_cut is not None and difference > options.scene_cut:
            return self._start("scene cut")
        if options.still is not None and difference <= options.still:
            return self._start("nothing moves")
        if self._computed and self._since < options.every:
            return FlowDecision("keep", False, f"computed every {options.every} frames")
        warm = self._computed and options.warm_start
        self._computed, self._since = True, 0
        return FlowDecision("run", warm, "due")

    def _start(self, reason: str) -> FlowDecision:
        # Zero is no start for a warm one, and must not be kept once there is something to compute.
        self._computed = False
        return FlowDecision("zero", False, reason)

    def _difference(self, image: NDArray[np.uint8]) -> float:
        if self._options.scene_cut is None and self._options.still is None:
            return 0.0
        self._grey, self._grey_before = self._grey_before, self._grey
        cv2.resize(image, _THUMBNAIL, dst=self._colour, interpolation=cv2.INTER_AREA)
        cv2.cvtColor(self._colour, cv2.COLOR_BGR2GRAY, dst=self._grey)
        return float(cv2.norm(self._grey, self._grey_before, cv2.NORM_L1)) / self._grey.size
