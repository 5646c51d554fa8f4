"""Rules that choose the frames of the figures.

First frames have no flow and are never chosen where motion is compared.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from rvos_edge.errors import UserError
from rvos_edge.trainer.data.readers.base import Query, ReferringClips
from rvos_edge.trainer.report.record import Recording

_Item = TypeVar("_Item")

STILL_PIXELS = 0.25
"""Largest motion of a still object after the camera's, in pixels of the network's input per frame: in DAVIS' training
videos a sitting duck stays below, and a hiker, a bear and a boat that move slowly do not."""


@dataclass(frozen=True)
class Example:
    """A query on a frame, chosen for a figure."""

    video: str
    index: int
    query: int
    change: float = 0.0
    """Change of J."""


@dataclass(frozen=True)
class Stretch:
    """Consecutive scored frames of a video on which the object of a query is still, and its mean motion in pixels."""

    video: str
    query: int
    frames: Sequence[int]
    motion: float


@dataclass(frozen=True)
class Frames:
    """Frames that the user asks for: ``count`` per video, or those of ``named``, by video, and their queries by key."""

    count: int = 5
    named: Sequence[tuple[str, str, str | None]] = ()

    @classmethod
    def parse(cls, text: str) -> Frames:
        """Read "5", or VIDEO:FRAME or VIDEO:FRAME:QUERY with commas.

        Raises:
            UserError: It is neither.
        """
        if text.isdecimal() and int(text):
            return cls(int(text))
        named = [tuple(part.strip().split(":", 2)) for part in text.split(",")]
        if any(len(part) < 2 or not all(part) for part in named):
            raise UserError(
                f"--frames {text}: give a number of frames per video, or VIDEO:FRAME with commas, such as bear:00010."
            )
        return cls(named=[(part[0], part[1], part[2] if len(part) > 2 else None) for part in named])

    def examples(self, recording: Recording, clips: ReferringClips) -> list[Example]:
        """The named frames.

        Raises:
            UserError: A video, frame or query is not among those that were scored.
        """
        found = []
        for video, frame, key in self.named:
            keys = [query.key for query in clips.queries(video)] if video in recording.videos else []
            names = clips.frames(video) if keys else []
            if frame not in names or names.index(frame) not in recording.videos[video].frames:
                raise UserError(f"--frames {video}:{frame}: no such frame was scored; give the name of its file.")
            if key is not None and key not in keys:
                raise UserError(f"--frames {video}:{frame}:{key}: its queries are {', '.join(keys)}; give one of them.")
            found.append(Example(video, names.index(frame), keys.index(key) if key is not None else 0))
        return found


def most_changed(better: Recording, base: Recording, *, gains: int, losses: int) -> list[Example]:
    """Frames where J of one run exceeds that of another most, then where it falls below most; one per video.

    Where fewer gain, frames without a change fill up, the first of each video.
    """
    best: list[Example] = []
    worst: list[Example] = []
    for video, recorded in better.videos.items():
        changes = [
            Example(video, index, query, recorded.j(index, query) - base.videos[video].j(index, query))
            for index in recorded.frames
            if index > 0
            for query in range(recorded.queries)
        ]
        changes = [example for example in changes if not math.isnan(example.change)]
        # Of equal changes the first frame and query is chosen.
        best += [max(changes, key=lambda example: example.change)] if changes else []
        worst += [min(changes, key=lambda example: example.change)] if changes else []
    best = sorted((example for example in best if example.change >= 0), key=lambda example: -example.change)[:gains]
    worst = sorted((example for example in worst if example.change < 0), key=lambda example: example.change)[:losses]
    return [*best, *worst]


def still_stretches(full: Recording, *, least: int) -> list[Stretch]:
    """The longest stretch of each video, of at least ``least`` scored frames, on which an object is still on every one;
    the longest of all first.
    """
    longest: dict[str, Stretch] = {}
    for video, recorded in full.videos.items():
        for query in range(recorded.queries):
            run: list[int] = []
            for index in [*recorded.frames, None]:
                if index is not None and recorded.motion(index, query) < STILL_PIXELS:
                    run.append(index)
                    continue
                if len(run) >= max(least, 1 + len(longest[video].frames) if video in longest else 0):
                    motion = float(np.mean([recorded.motion(place, query) for place in run]))
                    longest[video] = Stretch(video, query, run, motion)
                run = []
    return sorted(longest.values(), key=lambda stretch: -len(stretch.frames))


def evenly(items: Sequence[_Item], count: int) -> list[_Item]:
    """At most ``count`` items, evenly spaced from the first to the last."""
    places = np.linspace(0, len(items) - 1, min(count, len(items))).round().astype(int)
    return [items[place] for place in places]


def rows_of_queries(queries: Sequence[Query], *, most: int) -> list[list[int]]:
    """Queries that share a picture: the first of every object in row one, the second of every object in row two, ...

    Masks of several queries about one object would cover each other.
    """
    rows: list[list[int]] = []
    said: dict[int | None, int] = {}
    for number, query in enumerate(queries):
        row = said[query.object_id] = said.get(query.object_id, -1) + 1
        if row == len(rows):
            rows.append([])
        rows[row].append(number)
    return rows[:most]
