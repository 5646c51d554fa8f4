"""A query settles on what it sees: its language vectors are taught by its own masks of the first confident frames.

The labels are the mean answer of several wordings of the sentence (``wordings``), which finds more than the sentence
alone; what is learned costs nothing a frame afterwards. A query that is not surely present is left alone, and what was
learned is undone when its confidence falls.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from rvos_edge.errors import UserError
from rvos_edge.preprocess import Placement
from rvos_edge.queries import Query, TaughtQuery, float_vectors
from rvos_edge.teaching import Features, Lesson, Teacher, lower_priority
from rvos_edge.wordings import wordings

Adapt = Literal["off", "once", "on"]

_FRAMES, _APART = 2, 5
"""Confident frames that are learned from, and frames from one to the next."""
_SURE_SCORE, _SURE_PRESENCE = 0.85, 0.7
"""Mean object probability in the mask, and presence, from which a frame is confident."""
_SMALLEST, _LARGEST = 0.001, 0.6
"""Share of the frame that the mask of a confident frame may cover."""
_STEPS, _RATE = 60, 0.05
_FALLEN, _NEWEST = 0.75, 0.1
"""Learned vectors are dropped when the running mean score, in which the newest frame has the second weight, is below
this share of what it was."""
_AFTER_CUT, _GONE = 5, 0.1
"""A query whose presence is below the second within so many frames after a cut starts afresh."""

Vectors = dict[str, NDArray[np.float32]]
Encode = Callable[[Sequence[str]], dict[str, NDArray[np.float32]]]


def check_adapt(adapt: str) -> Adapt:
    """A mode by its name.

    Raises:
        UserError: There is none of that name.
    """
    if adapt not in get_args(Adapt):
        raise UserError(f"adapt '{adapt}' is unknown; use off, once or on.")
    return adapt  # type: ignore[return-value]  # looked at above


@dataclass
class _Course:
    """Progress of one query."""

    sentence: str
    own: Vectors
    seen: list[tuple[Features, Placement]] = field(default_factory=list)
    last: int = 0
    state: Literal["looking", "learning", "adapted", "over"] = "looking"
    learned: Vectors | None = None
    score: float = 0.0
    usual: float = 0.0
    after_cut: int = 0


class Adaptation:
    """Watches the results of a stream and changes the language vectors of its queries.

    Args:
        again: A query whose confidence fell may settle anew.
        background: Learn in a thread while the stream goes on; otherwise the frame that completes what is learned from
            waits, and the same video always gives the same masks.
    """

    def __init__(
        self, teacher: Callable[[], Teacher], encode: Encode, *, again: bool = False, background: bool = False
    ) -> None:
        self._make, self._encode, self.again, self.background = teacher, encode, again, background
        self._teacher: Teacher | None = None
        self._courses: list[_Course | None] = []
        self._changed: set[int] = set()

    @property
    def adapted(self) -> NDArray[np.bool_]:
        """bool [Q]: which queries run with vectors that they were taught by their own masks."""
        return np.array([one is not None and one.state == "adapted" for one in self._courses], np.bool_)

    def start(self, queries: Sequence[Query], vectors: dict[str, NDArray[np.float32]]) -> None:
        """Start with new queries and their stacked vectors; what is being learned for the old ones is dropped.

        A taught query stays as it was taught.
        """
        self._changed = set()
        self._courses = [
            None if isinstance(query, TaughtQuery) else _Course(query, float_vectors(vectors, row))
            for row, query in enumerate(queries)
        ]

    def reset(self) -> None:
        """Forget the video: every query has its sentence's vectors again."""
        self._changed = {row for row, one in enumerate(self._courses) if one is not None and one.state == "adapted"}
        self._courses = [None if one is None else _Course(one.sentence, one.own) for one in self._courses]

    def changes(self) -> dict[int, Vectors]:
        """Rows whose vectors changed since the last call, to be written before the next frame."""
        changed, self._changed = self._changed, set()
        out = {}
        for row, one in enumerate(self._courses):
            if one is None:
                continue
            if one.state == "learning" and one.learned is not None:
                one.state = "adapted"
                changed.add(row)
            if row in changed:
                out[row] = one.learned if one.state == "adapted" and one.learned is not None else one.own
        return out

    def observe(
        self,
        index: int,
        margins: NDArray[np.float32],
        scores: NDArray[np.float32],
        presence: NDArray[np.float32],
        features: Callable[[], tuple[Features, Placement]],
        *,
        cut: bool = False,
    ) -> None:
        """Take what a frame was answered: margins float32 [Q,h,w], scores and presence float32 [Q].

        ``features`` gives the frame's features and place; it is called for a frame that is learned from. ``cut`` is
        True where another scene begins with the frame.
        """
        for row, one in enumerate(self._courses):
            if one is None:
                continue
            one.after_cut = _AFTER_CUT if cut else max(0, one.after_cut - 1)
            if one.after_cut and presence[row] < _GONE:
                if one.state == "adapted":
                    self._changed.add(row)
                self._courses[row] = _Course(one.sentence, one.own)
            if one.state in ("learning", "over"):
                continue
            there = presence[row] >= _SURE_PRESENCE
            score = float(scores[row]) if there else 0.0
            if one.state == "adapted":
                one.score += _NEWEST * (score - one.score)
                one.usual = max(one.usual, one.score)
                if one.score < _FALLEN * one.usual:
                    one.state = "over"
                    self._changed.add(row)
                    if self.again:
                        self._courses[row] = _Course(one.sentence, one.own)
            elif index and score >= _SURE_SCORE and _SMALLEST <= np.mean(margins[row] > 0) <= _LARGEST:
                if one.seen and index < one.last + _APART:
                    continue
                one.seen.append(features())
                one.last, one.score, one.usual = index, score, score
                if len(one.seen) == _FRAMES:
                    self._learn(one)

    def _learn(self, one: _Course) -> None:
        one.state = "learning"
        teacher = self._teacher = self._teacher or self._make()
        if not self.background:
            one.learned = self._taught(teacher, one)
            return

        def work() -> None:
            lower_priority()
            one.learned = self._taught(teacher, one)

        # A process that ends waits for it: an engine that is killed in a thread takes the process down.
        threading.Thread(target=work, name="rvos-edge-adapt").start()

    def _taught(self, teacher: Teacher, one: _Course) -> Vectors:
        stacked = self._encode(wordings(one.sentence))
        lessons: list[Lesson] = []
        for features, placement in one.seen:
            margin = teacher.answer(features, stacked)["margin"].mean(axis=0)
            lessons.append(teacher.lesson(features, margin[placement.on(teacher.grid)] > 0, placement))
        one.seen = []
        learned, _ = teacher.learn(lessons, one.own, steps=_STEPS, rate=_RATE)
        return learned
