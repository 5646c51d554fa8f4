"""How much flow there is time for: measured stage times in, iterations out."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median_low

from rvos_edge.bundle import FLOW_GRAPHS

_STEP = "flow_step"
WINDOW = 9
"""Frames in the median that estimates a stage's time."""
FEWEST = 5
"""Measured frames before the first decision."""
PATIENCE = 15
"""Frames in a row that must have room for more flow before more is computed."""
ROOM = 0.85
"""Share of the budget within which there is room for more; all of it must be exceeded for less."""
FORGET = 150
"""Frames without flow after which its measurements are dropped and flow is tried again."""


@dataclass(frozen=True)
class Allowance:
    """What fits the next frame.

    Attributes:
        iterations: Flow updates; 0 for no flow.
        late: The frame exceeds its budget even without flow.
    """

    iterations: int
    late: bool


class FrameBudget:
    """Keeps the frames of a stream within their time by computing less flow; nothing else can be left out.

    The cost of flow is kept in units of the stages that always run: a machine that slows down slows both, so that
    what flow would cost is known while it is not computed. No clock is read here: the times are told.

    Args:
        fps: Frames per second to hold.
        iterations: Flow updates of a frame that has all the time it wants.

    Example:
        >>> budget = FrameBudget(fps=24, iterations=4)
        >>> for _ in range(5):
        ...     budget.observe({"backbone": 30.0, "flow_encode": 4.0, "flow_step": 12.0}, iterations=4)
        >>> budget.allow()   # 30 + 4 + 4 * 3 ms are more than 1000 / 24, with two updates they are not
        Allowance(iterations=2, late=False)
    """

    def __init__(self, *, fps: float, iterations: int) -> None:
        self.budget = 1e3 / fps
        """Milliseconds per frame."""
        self._most = iterations
        self._level = iterations
        self._always: deque[float] = deque(maxlen=WINDOW)
        self._once: deque[float] = deque(maxlen=WINDOW)
        self._step: deque[float] = deque(maxlen=WINDOW)
        self._without = 0
        self._calm = 0
        self._room = iterations

    def set_most(self, iterations: int) -> None:
        """Want another number of updates; what was measured stays known."""
        self._level = iterations if self._level == self._most else min(self._level, iterations)
        self._most = iterations
        self._settle()

    def observe(self, timings: Mapping[str, float], *, iterations: int) -> None:
        """Learn from a frame; one whose flow was computed but not timed by stage teaches nothing.

        Args:
            timings: Milliseconds by stage.
            iterations: Flow updates that it ran, 0 for none.
        """
        always = sum(time for stage, time in timings.items() if stage not in FLOW_GRAPHS)
        if always <= 0 or (iterations and _STEP not in timings):
            return
        self._always.append(always)
        if iterations:
            step = timings[_STEP]
            self._once.append((sum(timings.values()) - always - step) / always)
            self._step.append(step / iterations / always)
        self._without = 0 if iterations else self._without + 1
        if self._without == FORGET:
            self._once.clear()
            self._step.clear()

    def allow(self) -> Allowance:
        """Decide on the next frame; call it once per frame."""
        if len(self._always) < FEWEST:
            return Allowance(self._level, False)
        fits, fits_well = self._affordable(self.budget), self._affordable(ROOM * self.budget)
        if fits < self._level:
            self._level = fits
            self._settle()
        elif fits_well > self._level:
            self._calm, self._room = self._calm + 1, min(self._room, fits_well)
            if self._calm >= PATIENCE:
                # Doubling: soon back where it was, and a first attempt is a cheap one.
                self._level = min(self._room, max(1, 2 * self._level))
                self._settle()
        else:
            self._settle()
        return Allowance(self._level, median_low(self._always) > self.budget)

    def _settle(self) -> None:
        self._calm, self._room = 0, self._most

    def _affordable(self, limit: float) -> int:
        """Most updates whose frame stays within ``limit`` milliseconds."""
        always = median_low(self._always)
        if always > limit:
            return 0
        if not self._step:
            return self._most
        left = limit / always - 1 - median_low(self._once)
        step = median_low(self._step)
        if left >= step * self._most:
            return self._most
        return int(left / step) if left > 0 else 0
