"""How a frame differs from the one before: whether the scene was cut, and whether anything moved."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from statistics import median

import cv2
import numpy as np
from numpy.typing import NDArray

WIDTH, HEIGHT = 32, 18
RECENT = 5
"""Frames in the median difference that a cut is compared with."""
UNUSUAL = 2.0
"""Multiple of that median above which a frame may be a cut; a steady fast pan stays below."""
SIMILAR = 0.7
"""Correlation above which two thumbnails show the same scene: a flash or a change of exposure."""


@dataclass(frozen=True)
class Change:
    """A frame against the one before.

    Attributes:
        mean: Mean absolute difference of the thumbnails, in grey levels.
        cut: Whether that much is out of the ordinary in this video, and the picture another one.
    """

    mean: float
    cut: bool


class SceneChange:
    """Compares frames by thumbnails of 32 x 18 cells: in their means the noise of a camera is nearly gone.

    Example:
        >>> scene = SceneChange()
        >>> black = np.zeros((288, 512, 3), np.uint8)
        >>> scene.look(black) is None, scene.look(black)
        (True, Change(mean=0.0, cut=False))
    """

    def __init__(self) -> None:
        self._colour = np.empty((HEIGHT, WIDTH, 3), np.uint8)
        self._now = np.empty((HEIGHT, WIDTH), np.uint8)
        self._before = np.empty_like(self._now)
        self._marked = np.empty_like(self._now)
        self._recent: deque[float] = deque(maxlen=RECENT)
        self.reset()

    def reset(self) -> None:
        """Forget the video."""
        self._started = False
        self._recent.clear()

    def look(self, image: NDArray[np.uint8]) -> Change | None:
        """Compare the next frame, uint8 [h,w,3] of always the same size; None for the first one."""
        self._now, self._before = self._before, self._now
        cv2.resize(image, (WIDTH, HEIGHT), dst=self._colour, interpolation=cv2.INTER_AREA)
        cv2.cvtColor(self._colour, cv2.COLOR_BGR2GRAY, dst=self._now)
        if not self._started:
            self._started = True
            np.copyto(self._before, self._now)
            self.mark()
            return None
        mean = float(cv2.norm(self._now, self._before, cv2.NORM_L1)) / self._now.size
        unusual = bool(self._recent) and mean > UNUSUAL * median(self._recent)
        self._recent.append(mean)
        return Change(mean, unusual and _correlation(self._now, self._before) < SIMILAR)

    def moved(self) -> int:
        """Grey levels by which the most changed cell differs from the frame before or from the marked one.

        The latter finds what creeps. A change of the light as a whole is no motion.
        """
        return max(_largest(self._now, self._before), _largest(self._now, self._marked))

    def mark(self) -> None:
        """Remember the frame that was looked at last, for ``moved``."""
        np.copyto(self._marked, self._now)


def _correlation(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    """-1 to 1; 0 where one of them shows nothing at all."""
    left, right = a - a.mean(), b - b.mean()
    norm = float(np.linalg.norm(left) * np.linalg.norm(right))
    return float((left * right).sum()) / norm if norm > 0 else 0.0


def _largest(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> int:
    differences = np.sort(np.subtract(a, b, dtype=np.int16), axis=None)
    middle = int(differences[len(differences) // 2])
    return max(int(differences[-1]) - middle, middle - int(differences[0]))
