"""A segmenter and a source that need no bundle and no file, for tests of what lies around them."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from rvos_edge.result import Result
from rvos_edge.streaming.sources import Frame, Source


class FakeSegmenter:
    """Finds the bright pixels; fails at frame `fail_at` with `error`."""

    def __init__(self, *, fail_at: int | None = None, error: BaseException | None = None) -> None:
        self.queries: tuple[str, ...] = ("a bright thing",)
        self.history: list[tuple[int, tuple[str, ...]]] = []
        self._fail_at, self._error, self._index = fail_at, error, 0

    def set_queries(self, queries: Sequence[str]) -> None:
        self.queries = tuple(queries)
        self.history.append((self._index, self.queries))

    def step(self, frame: NDArray[np.uint8]) -> Result:
        if self._index == self._fail_at and self._error is not None:
            raise self._error
        self._index += 1
        masks = np.repeat((frame[..., 1] > 128)[None], len(self.queries), axis=0)
        return Result(
            queries=self.queries,
            masks=masks,
            margins=np.zeros((len(masks), 4, 4), np.float32),
            scores=np.ones(len(masks), np.float32),
            timings={"preprocess": 1.0, "backbone": 2.0 * self._index},
            flow_used=False,
            flow=None,
            index=self._index - 1,
        )


class FakeSource(Source):
    def __init__(self, frames: int = 5) -> None:
        super().__init__(name="fake", fps=25.0, length=frames)
        self.handed_out = 0

    def __iter__(self) -> Iterator[Frame]:
        for index in range(self.length or 0):
            self.handed_out += 1
            image = np.zeros((48, 64, 3), np.uint8)
            image[10:20, 10 + index : 30 + index] = 200
            yield Frame(image, index, index / 25, f"{index:05d}", time.perf_counter())
