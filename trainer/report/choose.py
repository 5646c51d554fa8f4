"""Rules that choose the frames of the figures.

First frames have no flow and are never chosen where motion is compared.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from rvos_edge.trainer.data.readers.base import Query
from rvos_edge.trainer.report.record import RecordedMotion, Recording

_Item = TypeVar("_Item")

STILL_PIXELS = 0.5
"""Largest motion of a static object against the camera, in pixels of the network's input per frame."""


@dataclass(frozen=True)
class Example:
    """A query on a frame, chosen for a figure."""

    video: str
    index: int
    query: int
    reason: str


def most_changed(better: Recording, base: Recording, *, gains: int, losses: int) -> list[Example]:
    """Frames where J of one run exceeds that of another most, then where it falls below most; one per video."""
    changes: dict[str, list[tuple[float, int, int]]] = {}
    for video, frames in better.videos.items():
        changes[video] = [
            (float(frame.j[query] - base.videos[video][index].j[query]), index, query)
            for index, frame in frames.items()
            if index > 0
            for query in range(len(frame.j))
        ]
    # The sort is stable: of equal changes the first frame and query is chosen.
    best = [(max(rows, key=lambda row: row[0]), video) for video, rows in changes.items() if rows]
    worst = [(min(rows, key=lambda row: row[0]), video) for video, rows in changes.items() if rows]
    best = sorted((entry for entry in best if entry[0][0] > 0), key=lambda entry: -entry[0][0])[:gains]
    worst = sorted((entry for entry in worst if entry[0][0] < 0), key=lambda entry: entry[0][0])[:losses]
    return [
        Example(video, index, query, f"{word} of {100 * abs(change):.1f}")
        for word, entries in (("gain", best), ("loss", worst))
        for (change, index, query), video in entries
    ]


def still_frames(full: Recording) -> Iterator[tuple[str, int, int, RecordedMotion]]:
    """Video, frame, query and motion of all static objects."""
    for video, frames in full.videos.items():
        for index, frame in frames.items():
            for query in range(len(frame.j)):
                if frame.motion is not None and _still(frame.motion, query):
                    yield video, index, query, frame.motion


def stillest(full: Recording, *, rows: int) -> list[Example]:
    """The frame of each video in which an object moves least relative to its surroundings, the least motion first."""
    best: dict[str, tuple[float, Example]] = {}
    for video, index, query, motion in still_frames(full):
        inside, outside = float(motion.inside[query]), float(motion.outside[query])
        ratio = inside / max(outside, 1e-6)
        if video not in best or ratio < best[video][0]:
            reason = f"motion {inside:.2f} px inside, {outside:.2f} px outside"
            best[video] = (ratio, Example(video, index, query, reason))
    return [example for _, example in sorted(best.values(), key=lambda entry: entry[0])[:rows]]


def mean_when_still(full: Recording, other: Recording) -> tuple[float, float, int]:
    """Mean J of both runs over all static objects, and their number (frames times queries)."""
    pairs = [
        (full.videos[video][index].j[query], other.videos[video][index].j[query])
        for video, index, query, _ in still_frames(full)
    ]
    if not pairs:
        return math.nan, math.nan, 0
    mine, others = np.mean(pairs, axis=0)
    return float(mine), float(others), len(pairs)


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


def _still(motion: RecordedMotion, query: int) -> bool:
    inside, outside = float(motion.inside[query]), float(motion.outside[query])
    return not math.isnan(inside) and (inside < outside or inside < STILL_PIXELS)
