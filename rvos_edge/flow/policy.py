"""Whether a frame's optical flow is computed, kept from an earlier frame or taken as zero."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from rvos_edge.flow.frame_budget import Allowance, FrameBudget
from rvos_edge.flow.scene_change import Change, SceneChange

SCENE_CUT = 30.0
"""Mean absolute difference of successive thumbnails, in grey levels, above which another scene is a cut."""
CALM_FRAMES = 3
"""Frames in a row without motion before the flow is left out."""
RESTLESS = 1.5
"""Multiple of ``still`` that must move before flow is computed again, so that noise does not switch it on and off."""
KEEP_FRAMES = 4
"""With ``hold_fps``: frames for which a flow that there is no time to renew is kept; then it is zero."""


class FlowOptions(BaseModel):
    """How much flow is worth computing.

    Example:
        >>> FlowOptions(iterations=4, every=2).every
        2
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    enabled: bool = True
    """False: no flow graph is loaded and the flow is zero."""
    iterations: int | None = Field(default=None, ge=1)
    """Update steps per computed flow; None takes the bundle's number."""
    every: int = Field(default=1, ge=1)
    """Compute the flow on every n-th frame and keep it between."""
    still: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    """Grey levels that no cell of a thumbnail of 32 x 18 may exceed in its change if nothing is to be moving: the flow
    is then zero and not computed. About 3 leaves room for a camera's noise; None never looks."""
    hold_fps: float | None = Field(default=None, gt=0, le=1000, allow_inf_nan=False)
    """Frames per second to hold by computing less flow: fewer updates first, then none. It is the segmenter's own time
    that is held; drawing and writing come on top."""
    keep_flow: bool = False
    """Put the flow into every result."""


@dataclass(frozen=True)
class FlowDecision:
    """What to do on one frame.

    Attributes:
        action: "run" computes the flow, "keep" leaves the last one, "zero" clears it.
        reason: In a few words.
        iterations: Updates of a "run", else 0.
        warm: With "run": start from the coordinates of the last run instead of the identity grid.
        encode: Whether the frame's features are computed, for this frame's flow or for the next one's.
        late: With ``hold_fps``: the frame takes too long even without flow. A live source drops frames then, a file
            is merely slower.
    """

    action: Literal["run", "keep", "zero"]
    reason: str
    iterations: int = 0
    warm: bool = False
    encode: bool = True
    late: bool = False


class FlowPolicy:
    """Decides frame by frame: call ``decide``, do it, and tell ``observe`` how long it took.

    Args:
        options: What is wanted.
        iterations: The bundle's updates per flow.

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
        self._deadline = None if fps is None else FrameBudget(fps=fps, iterations=self._iterations)
        self.reset()

    @property
    def iterations(self) -> int:
        """Updates per computed flow that are wanted."""
        return self._iterations

    def set_iterations(self, iterations: int) -> None:
        """Want another number of updates, at least 1, from the next decision on; the video's state stays."""
        self._iterations = iterations
        if self._deadline is not None:
            self._deadline.set_most(iterations)

    def reset(self) -> None:
        """Forget the video: the next frame is a first frame. What the machine can do stays known."""
        self._scene.reset()
        self._size: tuple[int, int] | None = None
        self._computed = False
        self._encoded = False
        self._since = 0
        self._calm = 0

    def decide(self, image: NDArray[np.uint8], size: tuple[int, int]) -> FlowDecision:
        """Decide on the next frame; call it once per frame.

        Args:
            image: uint8 [h,w,3], the network's input.
            size: Height and width of the frame it was made from.
        """
        options = self._options
        change = self._scene.look(image)
        allowed = Allowance(self._iterations, False) if self._deadline is None else self._deadline.allow()
        known, self._size = self._size, size
        self._since += 1
        start = _start(known, size, change)
        if start is not None:
            self._scene.mark()
            self._calm = 0
            decision = self._zero(start, allowed)
        elif options.still is not None and self._rests(options.still):
            decision = self._zero("nothing moves", allowed)
        elif self._computed and self._since < options.every:
            # Features are read by the next frame's flow alone.
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
        """Learn what a frame took, in milliseconds by stage; only ``hold_fps`` wants to know."""
        if self._deadline is not None:
            self._deadline.observe(timings, iterations=decision.iterations)

    def _run(self, allowed: Allowance) -> FlowDecision:
        warm = self._computed
        self._computed, self._since = True, 0
        self._scene.mark()
        fewer = allowed.iterations < self._iterations
        reason = f"time for {allowed.iterations} of {self._iterations} updates" if fewer else "due"
        return FlowDecision("run", reason, allowed.iterations, warm)

    def _zero(self, reason: str, allowed: Allowance) -> FlowDecision:
        # Zero is no start for a warm one, and must not be kept once there is something to compute.
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


def _start(known: tuple[int, int] | None, size: tuple[int, int], change: Change | None) -> str | None:
    """The reason to start the flow anew on this frame, or None."""
    if known is None:
        return "first frame"
    if known != size:
        return "the frame's size changed"
    if change is not None and change.cut and change.mean > SCENE_CUT:
        return "scene cut"
    return None
