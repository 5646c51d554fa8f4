"""How the answers of one video become figures, and the figures of all videos become those of a data set.

A judge says which queries must be answered together, takes the scored frames one by one, and ends with a row of plain
numbers. Rows alone make the totals, so that videos may be judged at different times.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from rvos_edge.trainer.data.readers.base import Query
from rvos_edge.trainer.metrics import IouMeter, boundary_accuracy, combine_objects, region_similarity, statistics

Masks = NDArray[np.bool_]
Metrics = dict[str, Any]
"""Figures by name, as JSON has them."""
FIGURES = ("j", "j_recall", "j_decay", "f", "f_recall", "f_decay")
SETTINGS = ("standard", "binary")
_TOGETHER = 24
"""So many queries are answered in one pass over a video; memory grows with their number."""


class Scorer(Protocol):
    """Judges one video.

    Attributes:
        passes: The numbers of the queries that are answered in each pass over the video.
    """

    passes: list[list[int]]

    def add(self, number: int, truth: Masks, answers: Masks) -> None:
        """One scored frame of pass ``number``: truth and answers bool [n,H,W] of its queries."""

    def row(self) -> Metrics:
        """The video's figures, JSON-able."""


class RegionScorer:
    """J and F of every expression on its own (DAVIS-16, Refer-YouTube-VOS).

    Args:
        queries: Those of the video.
        foreign: A sentence of another video that goes along, as query number ``len(queries)``; only its J and its
            share of the image are of interest.
        absent: Whether that sentence surely names nothing in this video.
    """

    def __init__(self, queries: Sequence[Query], *, foreign: str | None = None, absent: bool = False) -> None:
        self.queries, self.foreign, self.absent = queries, foreign, absent
        self.passes = _singly(queries)
        if foreign is not None:
            self.passes[-1].append(len(queries))
        self._values: list[tuple[list[float], list[float]]] = [([], []) for _ in queries]
        self._foreign: list[tuple[float, float]] = []

    def add(self, number: int, truth: Masks, answers: Masks) -> None:
        """One scored frame."""
        for query, true, mask in zip(self.passes[number], truth, answers, strict=True):
            if query == len(self.queries):
                self._foreign.append((float(region_similarity(true, mask)), float(mask.mean())))
            else:
                for values, value in zip(self._values[query], _scores(true, mask), strict=True):
                    values.append(value)

    def row(self) -> Metrics:
        """``frames`` scored, ``expressions`` by key, their mean, and ``shuffled``: the foreign sentence."""
        each: dict[str, Metrics] = {}
        for query, values in zip(self.queries, self._values, strict=True):
            each[query.key] = {"expression": query.expression, **_figures(*values)}
        row: Metrics = {"frames": len(self._values[0][0]), **average(each.values()), "expressions": each}
        if self.foreign is not None:
            row["shuffled"] = {
                "sentence": self.foreign,
                "j": mean(value for value, _ in self._foreign),
                "foreground": mean(share for _, share in self._foreign),
                "absent": self.absent,
            }
        return row


class ObjectsScorer:
    """J and F of every object of DAVIS-17, in the two settings of the referring literature.

    *Standard*: no pixel belongs to two objects, a higher id overrides a lower one. *Binary*: each object alone.

    Args:
        sets: By name, the queries (id of the object, number of the query) that together name each object once;
            ``expression_sets`` makes them.
    """

    def __init__(self, sets: Mapping[str, Sequence[tuple[int, int]]]) -> None:
        self.sets = {name: list(entries) for name, entries in sets.items() if entries}
        # Objects of one set cover each other: they are answered together.
        groups = _packed({name: [number for _, number in entries] for name, entries in self.sets.items()})
        self.passes = [numbers for numbers, _ in groups]
        self._due = [names for _, names in groups]
        self._values: dict[str, dict[str, dict[int, tuple[list[float], list[float]]]]] = {
            name: {setting: {identity: ([], []) for identity, _ in entries} for setting in SETTINGS}
            for name, entries in self.sets.items()
        }

    def combined(self, number: int, answers: Masks) -> dict[str, NDArray[np.uint8]]:
        """The maps of ids, uint8 [H,W], of the sets that pass ``number`` answers."""
        out = {}
        for name in self._due[number]:
            identities = [identity for identity, _ in self.sets[name]]
            out[name] = combine_objects(answers[self._places(number, name)], identities)
        return out

    def add(self, number: int, truth: Masks, answers: Masks) -> None:
        """One scored frame."""
        for name, ids in self.combined(number, answers).items():
            for (identity, _), place in zip(self.sets[name], self._places(number, name), strict=True):
                visible = ids == identity
                alone = _scores(truth[place], answers[place])
                # Most masks are not covered by others; then the settings agree.
                standard = alone if np.array_equal(visible, answers[place]) else _scores(truth[place], visible)
                for setting, pair in zip(SETTINGS, (standard, alone), strict=True):
                    for values, value in zip(self._values[name][setting][identity], pair, strict=True):
                        values.append(value)

    def row(self) -> Metrics:
        """``frames`` scored; ``sets``: figures by set, setting and object; their means in both settings."""
        sets = {
            name: {
                setting: {str(identity): _figures(*values) for identity, values in objects.items()}
                for setting, objects in settings.items()
            }
            for name, settings in self._values.items()
        }
        frames = max((len(j) for all_ in self._values.values() for j, _ in all_["binary"].values()), default=0)
        means = {setting: average(average(each[setting].values()) for each in sets.values()) for setting in SETTINGS}
        return {"frames": frames, **means, "sets": sets}

    def _places(self, number: int, name: str) -> list[int]:
        return [self.passes[number].index(query) for _, query in self.sets[name]]


class OverlapScorer:
    """Intersections and unions, for overall IoU, mean IoU and precision (A2D, J-HMDB, RefCOCO).

    A frame on which an object is not annotated makes no pair, as in the published lists of test pairs.

    Args:
        queries: Those of the video.
    """

    def __init__(self, queries: Sequence[Query]) -> None:
        self.passes = _singly(queries)
        self._pairs: list[tuple[int, int]] = []

    def add(self, number: int, truth: Masks, answers: Masks) -> None:
        """One scored frame."""
        for true, mask in zip(truth, answers, strict=True):
            if true.any():
                self._pairs.append((int(np.count_nonzero(true & mask)), int(np.count_nonzero(true | mask))))

    def row(self) -> Metrics:
        """``pairs``: [intersection, union] in pixels."""
        return {"pairs": [list(pair) for pair in self._pairs]}


def expression_sets(queries: Mapping[str, Sequence[Query]]) -> dict[str, dict[str, list[tuple[int, int]]]]:
    """Part the expressions of DAVIS-17 into sets that name each object once; every set is one run of the benchmark.

    The data set has several expressions for each object (two annotators; the first frame or the whole video seen), and
    the literature (Khoreva et al. 2018, URVOS) runs once for each annotator and averages. The part of a key before
    its "/" names the annotator; without one, as in the JSON form, the k-th expression of each object is set k. An
    object with fewer expressions than others has its own repeated, so that every run asks for every object; an object
    that an annotator left out is left out of that run.

    Args:
        queries: By video.

    Returns:
        By video and set: (id of the object, number of the query), one entry for each object.
    """
    said: dict[str, dict[str, dict[int, list[int]]]] = {}
    for video, asked in queries.items():
        for number, query in enumerate(asked):
            if query.object_id is None:
                raise ValueError(
                    f"query '{query.key}' of {video} names no object: DAVIS-17 counts objects by their ids"
                )
            annotator = query.key.rpartition("/")[0]
            said.setdefault(annotator, {}).setdefault(video, {}).setdefault(query.object_id, []).append(number)
    out: dict[str, dict[str, list[tuple[int, int]]]] = {video: {} for video in queries}
    for annotator, videos in said.items():
        runs = max(len(numbers) for objects in videos.values() for numbers in objects.values())
        for run in range(runs):
            name = "-".join(filter(None, (annotator, str(run) if runs > 1 or not annotator else "")))
            for video, objects in videos.items():
                out[video][name] = [(identity, some[run % len(some)]) for identity, some in sorted(objects.items())]
    return out


def region_totals(rows: Mapping[str, Metrics], *, by_video: bool) -> Metrics:
    """J and F over a data set.

    Args:
        rows: ``RegionScorer`` rows by video.
        by_video: Each video counts once (DAVIS-16); otherwise each expression (the Refer-YouTube-VOS server).
    """
    each = list(rows.values()) if by_video else [one for row in rows.values() for one in row["expressions"].values()]
    totals = _with_both(average(each))
    foreigners = [row["shuffled"] for row in rows.values() if "shuffled" in row]
    if foreigners:
        totals["shuffled_j"] = mean(entry["j"] for entry in foreigners)
        totals["shuffled_foreground"] = mean(entry["foreground"] for entry in foreigners)
        totals["absent_foreground"] = mean(entry["foreground"] for entry in foreigners if entry["absent"])
    return totals


def object_totals(rows: Mapping[str, Metrics]) -> Metrics:
    """DAVIS-17: for each setting the mean over all objects of all videos, averaged over the sets of expressions."""
    names = list(dict.fromkeys(name for row in rows.values() for name in row["sets"]))
    totals: Metrics = {"sets": {}}
    for name in names:
        runs = [row["sets"][name] for row in rows.values() if name in row["sets"]]
        totals["sets"][name] = {
            setting: _with_both(average(one for run in runs for one in run[setting].values())) for setting in SETTINGS
        }
    for setting in SETTINGS:
        totals[setting] = _with_both(average(run[setting] for run in totals["sets"].values()))
    each = [{identity for run in row["sets"].values() for identity in run["binary"]} for row in rows.values()]
    totals["objects"] = sum(map(len, each))
    return totals


def overlap_totals(rows: Mapping[str, Metrics]) -> Metrics:
    """overall_iou, mean_iou, precision@0.5 ... precision@0.9 and the number of pairs."""
    meter = IouMeter()
    for row in rows.values():
        for intersection, union in row["pairs"]:
            meter.count(intersection, union)
    summary = meter.summary() if meter.values else dict.fromkeys(IouMeter().summary())
    return {**summary, "pairs": len(meter.values)}


def average(rows: Iterable[Mapping[str, float | None]]) -> Metrics:
    """The mean of each of ``FIGURES`` over rows."""
    each = list(rows)
    return {name: mean(row[name] for row in each) for name in FIGURES}


def mean(values: Iterable[float | None]) -> float | None:
    """The mean of what is a number; None (JSON has no NaN) where nothing is."""
    numbers = [float(value) for value in values if value is not None and not math.isnan(value)]
    return sum(numbers) / len(numbers) if numbers else None


def _with_both(figures: Metrics) -> Metrics:
    both = (figures["j"], figures["f"])
    return {"j_and_f": None if None in both else mean(both), **figures}


def _scores(truth: Masks, mask: Masks) -> tuple[float, float]:
    return float(region_similarity(truth, mask)), float(boundary_accuracy(truth, mask))


def _figures(region: Sequence[float], boundary: Sequence[float]) -> Metrics:
    """FIGURES of one object from its values on the scored frames."""
    numbers = (*asdict(statistics(region)).values(), *asdict(statistics(boundary)).values())
    return {name: None if math.isnan(value) else value for name, value in zip(FIGURES, numbers, strict=True)}


def _singly(queries: Sequence[Query]) -> list[list[int]]:
    return [numbers for numbers, _ in _packed({query.key: [number] for number, query in enumerate(queries)})]


def _packed(units: Mapping[str, Sequence[int]]) -> list[tuple[list[int], list[str]]]:
    """Passes of at most ``_TOGETHER`` queries, each with the names of the units it answers; a unit is never split."""
    passes: list[tuple[list[int], list[str]]] = []
    for name, numbers in units.items():
        joined = list(dict.fromkeys([*(passes[-1][0] if passes else ()), *numbers]))
        if passes and len(joined) <= _TOGETHER:
            passes[-1] = (joined, [*passes[-1][1], name])
        else:
            passes.append((list(dict.fromkeys(numbers)), [name]))
    return passes
