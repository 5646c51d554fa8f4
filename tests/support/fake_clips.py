"""A referring data set in memory, and predictors that know what to answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rvos_edge.trainer.data.readers.base import Query

Masks = NDArray[np.bool_]


@dataclass
class FakeClips:
    """Videos by name: their queries, and per frame the truth bool [N,H,W] or None where there is no annotation.

    The first pixel of a frame tells its video and its index, so that predictors can be checked.
    """

    asked: Mapping[str, Sequence[Query]]
    truth: Mapping[str, Sequence[Masks | None]]
    root: Path = Path("fake")
    read: list[tuple[str, int]] = field(default_factory=list)

    @property
    def videos(self) -> tuple[str, ...]:
        return tuple(self.asked)

    def frames(self, video: str) -> list[str]:
        return [f"{index:05d}" for index in range(len(self.truth[video]))]

    def queries(self, video: str) -> tuple[Query, ...]:
        return tuple(self.asked[video])

    def image_path(self, video: str, index: int) -> Path:
        return self.root / video / f"{index:05d}.jpg"

    def image(self, video: str, index: int) -> NDArray[np.uint8]:
        height, width = next(masks for masks in self.truth[video] if masks is not None).shape[1:]
        image = np.zeros((height, width, 3), np.uint8)
        image[0, 0] = (self.videos.index(video), index, 0)
        return image

    def annotated(self, video: str) -> list[int]:
        return [index for index, masks in enumerate(self.truth[video]) if masks is not None]

    def masks(self, video: str, index: int) -> Masks | None:
        self.read.append((video, index))
        return self.truth[video][index]


class Fake:
    """Answers each query with ``answer(frame, query)``, and remembers how it was called."""

    def __init__(self, answer: Callable[[NDArray[np.uint8], str], Masks]) -> None:
        self.answer = answer
        self.asked: list[list[str]] = []
        self.seen: list[tuple[int, int]] = []
        self.shown: list[list[int]] = []
        self.before: list[list[int | None]] = []
        self.frames = self.resets = 0

    def reset(self) -> None:
        self.resets += 1

    def set_queries(self, queries: Sequence[str]) -> None:
        self.asked.append(list(queries))

    def teach(
        self,
        frames: Sequence[NDArray[np.uint8]],
        masks: Sequence[Masks],
        previous: Sequence[NDArray[np.uint8] | None],
        sentence: str,
    ) -> str:
        self.shown.append([int(frame[0, 0, 1]) for frame in frames])
        self.before.append([None if frame is None else int(frame[0, 0, 1]) for frame in previous])
        return f"taught {sentence}"

    def masks(self, frame: NDArray[np.uint8]) -> Masks:
        self.frames += 1
        self.seen.append((int(frame[0, 0, 0]), int(frame[0, 0, 1])))
        return np.stack([self.answer(frame, query) for query in self.asked[-1]])


def nothing(frame: NDArray[np.uint8], query: str) -> Masks:
    return np.zeros(frame.shape[:2], bool)
