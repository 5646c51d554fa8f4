"""The flow policy: for each frame, compute the optical flow, keep the last one or take zero."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from rvos_edge.flow.constants import CALM_FRAMES, KEEP_FRAMES, MAX_ITERATIONS, RESTLESS
from rvos_edge.flow.frame_budget import Allowance, FrameBudget
from rvos_edge.flow.scene_change import Change, SceneChange
from rvos_edge.strict import StrictModel


class FlowOptions(StrictModel):
    """Options of the optical flow; docs/flow_policy.md has a measurement of each.

    Example:
        >>> FlowOptions(iterations=4, every=2).every
        2
    """

    enabled: bool = True
    """False: no flow graph is loaded and the flow is zero."""
    iterations: int | None = Field(default=None, ge=1, le=MAX_ITERATIONS)
    """Refinement iterations per computed flow; None for the bundle's number."""
    every: int = Field(default=1, ge=1)
    """Compute the flow on every n-th frame and keep it between."""
    still: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    """Grey levels up to which a frame counts as still; the flow of a still scene is zero and is not computed. The value
    compared is the largest change of a cell of a 32 x 18 thumbnail; about 3 tolerates the noise of a camera. None
    disables the test."""
    hold_fps: float | None = Field(default=None, gt=0, le=1000, allow_inf_nan=False)
    """Frames per second to hold by computing fewer flow iterations, then none. Counts the time of ``step`` only, not of
    drawing and writing."""
    keep_flow: bool = False
    """Store the flow in every result."""


@dataclass(frozen=True)
class FlowDecision:
    """Decision on the flow of one frame.

    Attributes:
        action: "run" computes the flow, "keep" leaves the last one, "zero" clears it.
        warm: With "run", start from the coordinates of the last run instead of the identity grid.
        encode: True if the features of the frame are computed, for its own flow or for that of the next frame.
        late: With ``hold_fps``, the frame takes too long even without flow. A live source then drops frames; a file is
            processed more slowly.
    """

    action: Literal["run", "keep", "zero"]
    reason: str
    iterations: int = 0
    warm: bool = False
    encode: bool = True
    late: bool = False


class FlowPolicy:
    """Decides on the flow of each frame; ``observe`` takes the measured times that the frame budget needs.

    Example:
        >>> policy = FlowPolicy(FlowOptions(every=2), iterations=3)
        >>> black = np.zeros((64, 96, 3), np.uint8)
        >>> [policy.decide(black, (64, 96)).action for _ in range(5)]
        ['zero', 'run', 'keep', 'run', 'keep']
    """

    def __init__(self, options: FlowOptions, *, iterations: int) -> None:
        self._options = options
        self._iterations = options.iterations or iterations
        self._scene = SceneChange()
        fps = options.hold_fps
        self._budget = None if fps is None else FrameBudget(fps=fps, iterations=self._iterations)
        self.reset()

    @property
    def iterations(self) -> int:
        """Refinement iterations per computed flow, if there is time for all of them."""
        return self._iterations

    def set_iterations(self, iterations: int) -> None:
        """Change the refinement iterations, at least 1, from the next decision on; the state of the video is kept."""
        self._iterations = iterations
        if self._budget is not None:
            self._budget.set_most(iterations)

    def reset(self) -> None:
        """Forget the video, so that the next frame is a first frame; the measured times are kept."""
        self._scene.reset()
        self._size: tuple[int, int] | None = None
        self._computed = False
        self._encoded = False
        self._since = 0
        self._calm = 0

    def decide(self, image: NDArray[np.uint8], size: tuple[int, int]) -> FlowDecision:
        """Decide on the flow of the next frame, once per frame: the network's input uint8 [h,w,3], and the frame's own
        size.
        """
        options = self._options
        change = self._scene.look(image)
        allowed = Allowance(self._iterations, False) if self._budget is None else self._budget.allow()
        known, self._size = self._size, size
        self._since += 1
        start = _restart_reason(known, size, change)
        if start is not None:
            self._scene.mark()
            self._calm = 0
            decision = self._zero(start, allowed)
        elif options.still is not None and self._rests(options.still):
            decision = self._zero("nothing moves", allowed)
        elif self._computed and self._since < options.every:
            # Only the flow of the next frame reads these features.
            encode = self._since + 1 >= options.every and allowed.iterations > 0
            decision = FlowDecision("keep", f"computed every {options.every} frames", encode=encode, late=allowed.late)
        elif allowed.iterations == 0:
            decision = self._skip("too slow even without flow" if allowed.late else "no time for flow", allowed)
        elif not self._encoded:
            decision = self._skip("getting ready for flow", allowed)
        else:
            decision = self._run(allowed)
        self._encoded = decision.encode
        return decision

    def observe(self, timings: Mapping[str, float], decision: FlowDecision) -> None:
        """Record the times of a frame, milliseconds by stage; used with ``hold_fps`` only."""
        if self._budget is not None:
            self._budget.observe(timings, iterations=decision.iterations)

    def _run(self, allowed: Allowance) -> FlowDecision:
        warm = self._computed
        self._computed, self._since = True, 0
        self._scene.mark()
        fewer = allowed.iterations < self._iterations
        reason = f"time for {allowed.iterations} of {self._iterations} updates" if fewer else "due"
        return FlowDecision("run", reason, allowed.iterations, warm)

    def _zero(self, reason: str, allowed: Allowance) -> FlowDecision:
        # A zeroed flow is neither a valid warm start nor worth keeping.
        self._computed = False
        return FlowDecision("zero", reason, encode=allowed.iterations > 0, late=allowed.late)

    def _skip(self, reason: str, allowed: Allowance) -> FlowDecision:
        if not self._computed or self._since > KEEP_FRAMES:
            return self._zero(reason, allowed)
        return FlowDecision("keep", reason, encode=allowed.iterations > 0, late=allowed.late)

    def _rests(self, still: float) -> bool:
        threshold = still * (RESTLESS if self._calm >= CALM_FRAMES else 1.0)
        self._calm = self._calm + 1 if self._scene.moved() <= threshold else 0
        return self._calm >= CALM_FRAMES


def _restart_reason(known: tuple[int, int] | None, size: tuple[int, int], change: Change | None) -> str | None:
    """Return the reason for restarting the flow on this frame, or None to go on."""
    if known is None:
        return "first frame"
    if known != size:
        return "the frame's size changed"
    if change is not None and change.cut:
        return "scene cut"
    return None
