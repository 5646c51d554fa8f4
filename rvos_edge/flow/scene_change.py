"""Scene cuts and stillness, from the difference of successive frames."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from statistics import median

import cv2
import numpy as np
from numpy.typing import NDArray

from rvos_edge.flow.constants import RECENT_FRAMES, SCENE_CUT, SIMILAR, THUMBNAIL_HEIGHT, THUMBNAIL_WIDTH, UNUSUAL


@dataclass(frozen=True)
class Change:
    """Difference between a frame and the one before.

    Attributes:
        cut: True if the scene was cut: the difference is large, unusual in this video, and the pictures are unlike.
    """

    mean: float
    cut: bool


class SceneChange:
    """Compares frames by thumbnails of 32 x 18 cells, whose averaging removes most of a camera's noise.

    Example:
        >>> scene = SceneChange()
        >>> black = np.zeros((288, 512, 3), np.uint8)
        >>> scene.look(black) is None, scene.look(black)
        (True, Change(mean=0.0, cut=False))
    """

    def __init__(self) -> None:
        self._colour = np.empty((THUMBNAIL_HEIGHT, THUMBNAIL_WIDTH, 3), np.uint8)
        self._now = np.empty((THUMBNAIL_HEIGHT, THUMBNAIL_WIDTH), np.uint8)
        self._before = np.empty_like(self._now)
        self._marked = np.empty_like(self._now)
        self._recent: deque[float] = deque(maxlen=RECENT_FRAMES)
        self.reset()

    def reset(self) -> None:
        """Forget the video."""
        self._started = False
        self._recent.clear()

    def look(self, image: NDArray[np.uint8]) -> Change | None:
        """Compare the next frame, uint8 [h,w,3] of a constant size, with the one before; None for the first frame."""
        self._now, self._before = self._before, self._now
        cv2.resize(image, (THUMBNAIL_WIDTH, THUMBNAIL_HEIGHT), dst=self._colour, interpolation=cv2.INTER_AREA)
        cv2.cvtColor(self._colour, cv2.COLOR_BGR2GRAY, dst=self._now)
        if not self._started:
            self._started = True
            np.copyto(self._before, self._now)
            self.mark()
            return None
        mean = float(cv2.norm(self._now, self._before, cv2.NORM_L1)) / self._now.size
        unusual = mean > SCENE_CUT and bool(self._recent) and mean > UNUSUAL * median(self._recent)
        self._recent.append(mean)
        return Change(mean, unusual and _correlation(self._now, self._before) < SIMILAR)

    def moved(self) -> int:
        """Return the largest change of a cell since the frame before or since the marked frame, in grey levels.

        The comparison with the marked frame finds slow motion. A uniform change of brightness is not motion.
        """
        return max(_largest(self._now, self._before), _largest(self._now, self._marked))

    def mark(self) -> None:
        """Store the last frame as the marked frame that ``moved`` compares with."""
        np.copyto(self._marked, self._now)


def _correlation(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    """Correlation coefficient, -1 to 1; 0 if one of the pictures is uniform."""
    left, right = a - a.mean(), b - b.mean()
    norm = float(np.linalg.norm(left) * np.linalg.norm(right))
    return float((left * right).sum()) / norm if norm > 0 else 0.0


def _largest(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> int:
    differences = np.sort(np.subtract(a, b, dtype=np.int16), axis=None)
    middle = int(differences[len(differences) // 2])
    return max(int(differences[-1]) - middle, middle - int(differences[0]))
