"""Scorers of single videos, and totals over a data set.

A scorer states which queries are run together, takes the scored frames one by one, and returns a row of plain numbers.
Totals are computed from rows alone, so that videos may be scored at different times.
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
"""Metrics by name, as JSON has them."""
DAVIS_METRICS = ("j", "j_recall", "j_decay", "f", "f_recall", "f_decay")
SETTINGS = ("standard", "binary")
_QUERIES_PER_PASS = 24
"""Largest number of queries that are run together; memory grows with it."""


class Scorer(Protocol):
    """Scores one video.

    Attributes:
        passes: Numbers of the queries that are run together, one list per pass over the video.
    """

    passes: list[list[int]]

    def add(self, number: int, truth: Masks, predicted: Masks) -> None:
        """Add a scored frame of pass ``number``: ground truth and prediction of its queries, bool [n,H,W] each."""

    def row(self) -> Metrics:
        """The video's scores, JSON-able."""


class RegionScorer:
    """J and F of every expression on its own (DAVIS-16, Refer-YouTube-VOS).

    Args:
        shuffled: An expression of another video, run as query number ``len(queries)``; its J against this video's
            object and its share of the image are recorded.
        absent: Whether the shuffled expression surely names nothing in this video.
    """

    def __init__(self, queries: Sequence[Query], *, shuffled: str | None = None, absent: bool = False) -> None:
        self.queries, self.shuffled, self.absent = queries, shuffled, absent
        self.passes = _single_query_passes(queries)
        if shuffled is not None:
            self.passes[-1].append(len(queries))
        self._values: list[tuple[list[float], list[float]]] = [([], []) for _ in queries]
        self._shuffled: list[tuple[float, float]] = []

    def add(self, number: int, truth: Masks, predicted: Masks) -> None:
        """Add a scored frame."""
        for query, true, mask in zip(self.passes[number], truth, predicted, strict=True):
            if query == len(self.queries):
                self._shuffled.append((float(region_similarity(true, mask)), float(mask.mean())))
            else:
                for values, value in zip(self._values[query], _j_and_f(true, mask), strict=True):
                    values.append(value)

    def row(self) -> Metrics:
        """Number of scored ``frames``, ``expressions`` by key, their mean, ``drift`` (J in the last sixth of the video
        less J in the first), and the ``shuffled`` expression.
        """
        each: dict[str, Metrics] = {}
        for query, values in zip(self.queries, self._values, strict=True):
            each[query.key] = {"expression": query.expression, **_davis_metrics(*values)}
        row: Metrics = {"frames": len(self._values[0][0]), **average(each.values()), "expressions": each}
        row["drift"] = mean(_drift(region) for region, _ in self._values)
        if self.shuffled is not None:
            row["shuffled"] = {
                "sentence": self.shuffled,
                "j": mean(value for value, _ in self._shuffled),
                "foreground": mean(share for _, share in self._shuffled),
                "absent": self.absent,
            }
        return row


class ObjectsScorer:
    """J and F of every object of DAVIS-17, in the two settings of the referring literature, for ``expression_sets``.

    *Standard*: no pixel belongs to two objects, a higher id overrides a lower one. *Binary*: each object alone.

    Args:
        matched: *Standard* scores each object against the answer that fits it best, one to one, in place of its own.
    """

    def __init__(self, sets: Mapping[str, Sequence[tuple[int, int]]], *, matched: bool = False) -> None:
        self.matched = matched
        self._crossed: dict[str, dict[tuple[int, int], tuple[list[float], list[float]]]] = {}
        self.sets = {name: list(entries) for name, entries in sets.items() if entries}
        # The objects of a set may cover each other: a set is run in one pass.
        groups = _packed({name: [number for _, number in entries] for name, entries in self.sets.items()})
        self.passes = [numbers for numbers, _ in groups]
        self._sets_of_pass = [names for _, names in groups]
        self._values: dict[str, dict[str, dict[int, tuple[list[float], list[float]]]]] = {
            name: {setting: {identity: ([], []) for identity, _ in entries} for setting in SETTINGS}
            for name, entries in self.sets.items()
        }

    def combined(self, number: int, predicted: Masks) -> dict[str, NDArray[np.uint8]]:
        """Maps of object ids, uint8 [H,W], by set of pass ``number``."""
        out = {}
        for name in self._sets_of_pass[number]:
            identities = [identity for identity, _ in self.sets[name]]
            out[name] = combine_objects(predicted[self._places(number, name)], identities)
        return out

    def add(self, number: int, truth: Masks, predicted: Masks) -> None:
        """Add a scored frame."""
        for name, ids in self.combined(number, predicted).items():
            if self.matched:
                self._cross(name, truth[self._places(number, name)], ids)
            for (identity, _), place in zip(self.sets[name], self._places(number, name), strict=True):
                visible = ids == identity
                alone = _j_and_f(truth[place], predicted[place])
                # Most masks are not covered by others; then both settings are equal.
                standard = alone if np.array_equal(visible, predicted[place]) else _j_and_f(truth[place], visible)
                for setting, pair in zip(SETTINGS, (standard, alone), strict=True):
                    for values, value in zip(self._values[name][setting][identity], pair, strict=True):
                        values.append(value)

    def row(self) -> Metrics:
        """Number of scored ``frames``; ``sets``: scores by set, setting and object; their means in both settings."""
        self._match()
        sets = {
            name: {
                setting: {str(identity): _davis_metrics(*values) for identity, values in objects.items()}
                for setting, objects in settings.items()
            }
            for name, settings in self._values.items()
        }
        frames = max((len(j) for all_ in self._values.values() for j, _ in all_["binary"].values()), default=0)
        means = {setting: average(average(each[setting].values()) for each in sets.values()) for setting in SETTINGS}
        return {"frames": frames, **means, "sets": sets}

    def _cross(self, name: str, truth: Masks, ids: NDArray[np.uint8]) -> None:
        """Score every object of a set against every answer."""
        values = self._crossed.setdefault(name, {})
        identities = [identity for identity, _ in self.sets[name]]
        for true, identity in zip(truth, identities, strict=True):
            for answer in identities:
                kept = values.setdefault((identity, answer), ([], []))
                for one, value in zip(kept, _j_and_f(true, ids == answer), strict=True):
                    one.append(value)

    def _match(self) -> None:
        """Replace each object's standard scores by those of the answer that it is matched to."""
        from scipy.optimize import linear_sum_assignment

        for name, values in self._crossed.items():
            identities = [identity for identity, _ in self.sets[name]]
            means = [[np.mean([np.mean(one) for one in values[a, b]]) for b in identities] for a in identities]
            for row, column in zip(*linear_sum_assignment(-np.array(means)), strict=True):
                self._values[name]["standard"][identities[row]] = values[identities[row], identities[column]]

    def _places(self, number: int, name: str) -> list[int]:
        return [self.passes[number].index(query) for _, query in self.sets[name]]


class OverlapScorer:
    """Intersections and unions, for overall IoU, mean IoU and precision (A2D, J-HMDB, RefCOCO).

    Frames in which the object is not annotated do not count, as in the published lists of test pairs.
    """

    def __init__(self, queries: Sequence[Query]) -> None:
        self.passes = _single_query_passes(queries)
        self._pairs: list[tuple[int, int]] = []

    def add(self, number: int, truth: Masks, predicted: Masks) -> None:
        """Add a scored frame."""
        shown = truth.any(axis=(1, 2))
        self.count(truth[shown], predicted[shown])

    def count(self, truth: Masks, predicted: Masks) -> None:
        """Add pairs, bool [n,H,W] each, with an empty truth or without."""
        for true, mask in zip(truth, predicted, strict=True):
            self._pairs.append((int(np.count_nonzero(true & mask)), int(np.count_nonzero(true | mask))))

    def row(self) -> Metrics:
        """``pairs``: [intersection, union] in pixels."""
        return {"pairs": [list(pair) for pair in self._pairs]}


def expression_sets(queries: Mapping[str, Sequence[Query]]) -> dict[str, dict[str, list[tuple[int, int]]]]:
    """Split the expressions of DAVIS-17 into sets that name each object once; each set is one run of the benchmark.

    The data set has several expressions per object (two annotators, who saw the first frame or the whole video). The
    literature (Khoreva et al. 2018, URVOS) runs the benchmark once per annotator and averages. The part of a key before
    "/" names the annotator; without it, as in JSON, the k-th expression of each object belongs to set k. Where an
    object has fewer expressions than others they are repeated; an object that an annotator left out is missing from
    that annotator's sets.
    """
    said: dict[str, dict[str, dict[int, list[int]]]] = {}
    for video, of_video in queries.items():
        for number, query in enumerate(of_video):
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
    """J and F over a data set, averaged over videos (DAVIS-16) or over expressions (Refer-YouTube-VOS server)."""
    each = list(rows.values()) if by_video else [one for row in rows.values() for one in row["expressions"].values()]
    totals = _with_j_and_f(average(each))
    shuffled = [row["shuffled"] for row in rows.values() if "shuffled" in row]
    if shuffled:
        totals["shuffled_j"] = mean(entry["j"] for entry in shuffled)
        totals["shuffled_foreground"] = mean(entry["foreground"] for entry in shuffled)
        totals["absent_foreground"] = mean(entry["foreground"] for entry in shuffled if entry["absent"])
    return totals


def object_totals(rows: Mapping[str, Metrics]) -> Metrics:
    """Totals of DAVIS-17: per setting the mean over all objects of all videos, averaged over the expression sets."""
    names = list(dict.fromkeys(name for row in rows.values() for name in row["sets"]))
    totals: Metrics = {"sets": {}}
    for name in names:
        runs = [row["sets"][name] for row in rows.values() if name in row["sets"]]
        totals["sets"][name] = {
            setting: _with_j_and_f(average(one for run in runs for one in run[setting].values()))
            for setting in SETTINGS
        }
    for setting in SETTINGS:
        totals[setting] = _with_j_and_f(average(run[setting] for run in totals["sets"].values()))
    each = [{identity for run in row["sets"].values() for identity in run["binary"]} for row in rows.values()]
    totals["objects"] = sum(map(len, each))
    return totals


def overlap_totals(rows: Mapping[str, Metrics]) -> Metrics:
    """Totals of A2D, J-HMDB and RefCOCO: overall_iou, mean_iou, precision@0.5 ... precision@0.9, number of pairs."""
    meter = IouMeter()
    for row in rows.values():
        for intersection, union in row["pairs"]:
            meter.count(intersection, union)
    summary = meter.summary() if meter.values else dict.fromkeys(IouMeter().summary())
    return {**summary, "pairs": len(meter.values)}


def average(rows: Iterable[Mapping[str, float | None]]) -> Metrics:
    """Mean of each of ``DAVIS_METRICS`` over rows."""
    each = list(rows)
    return {name: mean(row[name] for row in each) for name in DAVIS_METRICS}


def mean(values: Iterable[float | None]) -> float | None:
    """Mean of the values that are numbers; None (JSON has no NaN) where there are none."""
    numbers = [float(value) for value in values if value is not None and not math.isnan(value)]
    return sum(numbers) / len(numbers) if numbers else None


def _with_j_and_f(metrics: Metrics) -> Metrics:
    both = (metrics["j"], metrics["f"])
    return {"j_and_f": None if None in both else mean(both), **metrics}


def _j_and_f(truth: Masks, mask: Masks) -> tuple[float, float]:
    return float(region_similarity(truth, mask)), float(boundary_accuracy(truth, mask))


def _drift(values: Sequence[float]) -> float | None:
    """Mean of the last sixth of the values less that of the first; None where there is a single one."""
    sixth = max(1, len(values) // 6)
    return float(np.mean(values[-sixth:]) - np.mean(values[:sixth])) if len(values) > 1 else None


def _davis_metrics(region: Sequence[float], boundary: Sequence[float]) -> Metrics:
    """``DAVIS_METRICS`` of an object from J and F of the scored frames."""
    numbers = (*asdict(statistics(region)).values(), *asdict(statistics(boundary)).values())
    return {name: None if math.isnan(value) else value for name, value in zip(DAVIS_METRICS, numbers, strict=True)}


def _single_query_passes(queries: Sequence[Query]) -> list[list[int]]:
    return [numbers for numbers, _ in _packed({query.key: [number] for number, query in enumerate(queries)})]


def _packed(units: Mapping[str, Sequence[int]]) -> list[tuple[list[int], list[str]]]:
    """Passes of at most ``_QUERIES_PER_PASS`` queries, each with the names of its units; a unit is never split."""
    passes: list[tuple[list[int], list[str]]] = []
    for name, numbers in units.items():
        joined = list(dict.fromkeys([*(passes[-1][0] if passes else ()), *numbers]))
        if passes and len(joined) <= _QUERIES_PER_PASS:
            passes[-1] = (joined, [*passes[-1][1], name])
        else:
            passes.append((list(dict.fromkeys(numbers)), [name]))
    return passes
