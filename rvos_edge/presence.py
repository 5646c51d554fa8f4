"""Presence of what a query asks for: smoothed over time, with hysteresis."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rvos_edge.errors import UserError

_NEWEST = 0.4
"""Weight of the newest frame in the mean over time, of logits."""
MIN_PRESENCE = 0.2
"""A query becomes present from here on, and absent below half of it. Low on purpose, because a mask that is missed
costs more than one too many. Chosen for an earlier head, of which 95 % of the true and 36 % of the absent expressions
about pictures that no training saw were at 0.2 or more; of today's 95 and 7 % of single nouns are."""
_SUREST = 1e-4
"""Probabilities are cut here, so that no single frame decides for seconds."""


class PresenceFilter:
    """Presence of each query over time.

    Example:
        >>> presence = PresenceFilter([0.0])
        >>> [bool(presence.update(np.array([p], np.float32))[1][0]) for p in (0.9, 0.14, 0.14, 0.02, 0.02, 0.02)]
        [True, True, True, True, False, False]
    """

    def __init__(self, shifts: Sequence[float], minimum: float = MIN_PRESENCE) -> None:
        """Prepare for queries.

        Args:
            shifts: Added to the logits, one for each query (``TaughtQuery.presence_shift``).
            minimum: Probability from which a query is present; 0 for always.

        Raises:
            UserError: ``minimum`` is not from 0 to 1.
        """
        if not 0 <= minimum <= 1:
            raise UserError(f"a least presence of {minimum:g} is out of range; give a probability from 0 to 1.")
        self._minimum = minimum
        self._shifts = np.asarray(shifts, np.float64)
        self.reset()

    def reset(self) -> None:
        """Forget the video."""
        self._logits: NDArray[np.float64] | None = None
        self._present = np.zeros(len(self._shifts), np.bool_)

    def update(self, presence: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Take the next frame's probabilities float32 [Q]; returns them smoothed, and bool [Q]: which queries are
        present.
        """
        chance = np.clip(presence.astype(np.float64), _SUREST, 1 - _SUREST)
        logits = np.log(chance / (1 - chance)) + self._shifts
        self._logits = logits if self._logits is None else _NEWEST * logits + (1 - _NEWEST) * self._logits
        smooth = 1 / (1 + np.exp(-self._logits))
        self._present = np.where(self._present, smooth >= self._minimum / 2, smooth >= self._minimum)
        return smooth.astype(np.float32), self._present.copy()
