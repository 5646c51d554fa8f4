"""Changes of a live source's pictures: they freeze, move again, or come in another size."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Literal

import numpy as np
from numpy.typing import NDArray

FROZEN_SECONDS = 10.0
"""Time of one and the same picture after which it counts as frozen; a sensor's noise makes every picture new."""
_FROZEN_PICTURES = 5
_STEP = 4
"""Every fourth row and column is compared."""


class Watch:
    """Looks at the pictures of a source, one after the other.

    Attributes:
        frozen: True while the picture stays the same.

    Example:
        >>> watch = Watch()
        >>> for height in (480, 480, 720):
        ...     print(list(watch.look(np.zeros((height, 640, 3), np.uint8))))
        []
        []
        [('size', 'gives pictures of 640x720 now, 640x480 before')]
    """

    def __init__(self) -> None:
        self.frozen = False
        self._size = (0, 0)
        self._sample = b""
        self._since = 0.0
        self._same = 0

    def look(self, picture: NDArray[np.uint8]) -> Iterator[tuple[Literal["frozen", "moving", "size"], str]]:
        """Events of the next picture, uint8 [H,W,3]: the kind of a `SourceEvent` and the rest of a sentence."""
        now, size, sample = time.monotonic(), picture.shape[:2], picture[::_STEP, ::_STEP].tobytes()
        if self._size not in ((0, 0), size):
            (before, wide), (height, width) = self._size, size
            yield "size", f"gives pictures of {width}x{height} now, {wide}x{before} before"
        self._size = (size[0], size[1])
        if sample != self._sample:
            if self.frozen:
                self.frozen = False
                yield "moving", f"moves again after {now - self._since:.0f} s"
            self._sample, self._since, self._same = sample, now, 1
            return
        self._same += 1
        if not self.frozen and self._same >= _FROZEN_PICTURES and now - self._since >= FROZEN_SECONDS:
            self.frozen = True
            yield "frozen", f"has shown the same picture for {now - self._since:.0f} s; is it frozen?"
