"""The frame budget: from measured stage times to the number of flow iterations that fit into a frame."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median_low

from rvos_edge.flow.constants import FEWEST, FORGET, PATIENCE, ROOM, WINDOW
from rvos_edge.manifest import FLOW_GRAPHS

_STEP = "flow_step"


@dataclass(frozen=True)
class Allowance:
    """Amount of flow that fits into the next frame.

    Attributes:
        late: True if the frame exceeds its budget even without flow.
    """

    iterations: int
    late: bool


class FrameBudget:
    """Holds a frame rate by computing fewer flow iterations, then no flow; all other stages always run.

    The cost of flow is stored relative to the stages that always run. A machine that slows down slows both, so the cost
    of flow stays known while no flow is computed. The class reads no clock; times are passed to ``observe``.

    Example:
        >>> budget = FrameBudget(fps=24, iterations=4)
        >>> for _ in range(5):
        ...     budget.observe({"backbone": 30.0, "flow_encode": 4.0, "flow_step": 12.0}, iterations=4)
        >>> budget.allow()  # 30 + 4 + 4 * 3 ms are more than 1000 / 24 ms, with two iterations they are not
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
        """Change the iterations of a frame with enough time; the measurements are kept."""
        self._level = iterations if self._level == self._most else min(self._level, iterations)
        self._most = iterations
        self._settle()

    def observe(self, timings: Mapping[str, float], *, iterations: int) -> None:
        """Record the milliseconds by stage of a frame. A frame whose flow was computed but not timed by stage is
        ignored.
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
        """Return the flow that fits into the next frame; call it once per frame."""
        if len(self._always) < FEWEST:
            return Allowance(self._level, False)
        fits, fits_well = self._affordable(self.budget), self._affordable(ROOM * self.budget)
        if fits < self._level:
            self._level = fits
            self._settle()
        elif fits_well > self._level:
            self._calm, self._room = self._calm + 1, min(self._room, fits_well)
            if self._calm >= PATIENCE:
                # Doubling starts with a cheap attempt and still recovers quickly.
                self._level = min(self._room, max(1, 2 * self._level))
                self._settle()
        else:
            self._settle()
        return Allowance(self._level, median_low(self._always) > self.budget)

    def _settle(self) -> None:
        self._calm, self._room = 0, self._most

    def _affordable(self, limit: float) -> int:
        """Largest number of iterations with which a frame stays within ``limit`` milliseconds."""
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
