"""Segmentation metrics: the official DAVIS region and boundary measures, and those of A2D-Sentences.

J, F and their statistics equal those of the public davis2017-evaluation, number for number (checked in the tests),
except for the decay of videos of 256 frames and more (see ``statistics``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

PRECISION_THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9)


def region_similarity(truth: NDArray[np.bool_], result: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Region similarity J (intersection over union) of masks [...,H,W] as float64 [...]; 1 where both are empty.

    Raises:
        ValueError: The shapes differ.
    """
    _same(truth, result)
    truth, result = truth.astype(np.bool_), result.astype(np.bool_)
    common, union = _areas(truth & result), _areas(truth | result)
    return np.where(union == 0, 1.0, common / np.maximum(union, 1))


def boundary_accuracy(
    truth: NDArray[np.bool_], result: NDArray[np.bool_], *, bound: float = 0.008
) -> NDArray[np.float64]:
    """Boundary accuracy F of masks [...,H,W] as float64 [...].

    ``bound``: largest distance of matching boundaries, a share of the image's diagonal (rounded up), or pixels from 1.

    Raises:
        ValueError: The shapes differ.
    """
    _same(truth, result)
    size = truth.shape[-2:]
    pairs = zip(truth.reshape(-1, *size), result.reshape(-1, *size), strict=True)
    values = [_f_of_one(t.astype(np.bool_), r.astype(np.bool_), bound) for t, r in pairs]
    return np.asarray(values, np.float64).reshape(truth.shape[:-2])


@dataclass(frozen=True)
class Statistics:
    """Mean, recall (share of frames above 0.5) and decay (first minus last quarter) of a metric over a video."""

    mean: float
    recall: float
    decay: float


def statistics(values: NDArray[np.float64] | Sequence[float]) -> Statistics:
    """Statistics of an object's values per frame, as in the DAVIS benchmark; NaN frames do not count in the means.

    The reference code keeps frame indices in 8 bits. From 256 frames on they wrap around there, and the decay is NaN or
    that of other frames; here they do not.
    """
    frames = np.asarray(values, np.float64)
    if frames.size == 0 or np.isnan(frames).all():
        return Statistics(float("nan"), float("nan"), float("nan"))
    edges = np.round(np.linspace(1, len(frames), 5) + 1e-10).astype(np.int64) - 1
    first, last = frames[edges[0] : edges[1] + 1], frames[edges[3] : edges[4] + 1]
    return Statistics(
        mean=float(np.nanmean(frames)), recall=float(np.mean(frames > 0.5)), decay=_mean(first) - _mean(last)
    )


def combine_objects(masks: NDArray[np.bool_], ids: Sequence[int]) -> NDArray[np.uint8]:
    """Map of object ids, uint8 [H,W], from masks [N,H,W] with ids 1 to 255 in any order; 0 is background.

    A higher id overrides a lower one (DAVIS-17, standard setting).

    Raises:
        ValueError: The ids are out of range, not different, or not as many as the masks.

    Example:
        >>> combine_objects(np.ones((2, 1, 1), bool), [2, 1]).tolist()
        [[2]]
    """
    if len(ids) != len(masks) or len(set(ids)) != len(ids) or not all(1 <= number <= 255 for number in ids):
        raise ValueError(f"{len(masks)} masks need as many different ids of 1 to 255, not {list(ids)}")
    out = np.zeros(masks.shape[1:], np.uint8)
    for number, mask in sorted(zip(ids, masks, strict=True), key=lambda pair: pair[0]):
        out[mask.astype(np.bool_)] = number
    return out


@dataclass
class IouMeter:
    """Overall IoU, mean IoU and precision at thresholds, accumulated over masks (A2D-Sentences, J-HMDB-Sentences).

    Example:
        >>> meter = IouMeter()
        >>> meter.add(np.ones((4, 4), bool), np.ones((4, 4), bool))
        >>> meter.mean_iou, meter.precision(0.9)
        (1.0, 1.0)
    """

    intersection: int = 0
    union: int = 0
    values: list[float] = field(default_factory=list)

    def add(self, truth: NDArray[np.bool_], result: NDArray[np.bool_]) -> None:
        """Add a pair of masks [H,W]; two empty masks score 1."""
        _same(truth, result)
        truth, result = truth.astype(np.bool_), result.astype(np.bool_)
        self.count(int(np.count_nonzero(truth & result)), int(np.count_nonzero(truth | result)))

    def count(self, intersection: int, union: int) -> None:
        """Add a pair of masks by its intersection and union in pixels."""
        self.intersection += intersection
        self.union += union
        self.values.append(intersection / union if union else 1.0)

    @property
    def overall_iou(self) -> float:
        """Sum of the intersections over the sum of the unions."""
        return self.intersection / self.union if self.union else 1.0 if self.values else float("nan")

    @property
    def mean_iou(self) -> float:
        """Mean of the pairs' IoU."""
        return float(np.mean(self.values)) if self.values else float("nan")

    def precision(self, threshold: float) -> float:
        """Share of pairs whose IoU is above a threshold."""
        return float(np.mean(np.asarray(self.values) > threshold)) if self.values else float("nan")

    def summary(self) -> dict[str, float]:
        """All metrics by name: overall_iou, mean_iou, precision@0.5 ... precision@0.9."""
        out = {"overall_iou": self.overall_iou, "mean_iou": self.mean_iou}
        return out | {f"precision@{t}": self.precision(t) for t in PRECISION_THRESHOLDS}


def _same(truth: NDArray[np.bool_], result: NDArray[np.bool_]) -> None:
    if truth.shape != result.shape or truth.ndim < 2:
        raise ValueError(f"masks of shapes {truth.shape} and {result.shape} cannot be compared")


def _areas(masks: NDArray[np.bool_]) -> NDArray[np.int64]:
    # Per mask: count_nonzero along axes is many times slower.
    each = [np.count_nonzero(mask) for mask in masks.reshape(-1, *masks.shape[-2:])]
    return np.asarray(each, np.int64).reshape(masks.shape[:-2])


def _mean(values: NDArray[np.float64]) -> float:
    return float("nan") if np.isnan(values).all() else float(np.nanmean(values))


def _f_of_one(truth: NDArray[np.bool_], result: NDArray[np.bool_], bound: float) -> float:
    radius = int(bound) if bound >= 1 else int(np.ceil(bound * np.linalg.norm(truth.shape)))
    # All boundaries lie in this window: the rest of the image need not be dilated.
    window = _window(truth, result)
    edge, other = _boundary(result[window]), _boundary(truth[window])
    found, wanted = int(np.count_nonzero(edge)), int(np.count_nonzero(other))
    if found == 0 or wanted == 0:
        # Precision and recall are 1 and 0, or both are 1.
        return 1.0 if found == wanted else 0.0
    disk = _disk(radius)
    precision = np.count_nonzero(np.bitwise_and(edge, cv2.dilate(other, disk))) / found
    recall = np.count_nonzero(np.bitwise_and(other, cv2.dilate(edge, disk))) / wanted
    total = precision + recall
    return 2 * precision * recall / total if total > 0 else 0.0


def _window(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> tuple[slice, slice]:
    """Bounding box of two masks [H,W], one pixel wider, so that all boundary pixels are found in it."""
    x, y, width, height = cv2.boundingRect((one | other).view(np.uint8))
    return slice(max(y - 1, 0), y + height + 1), slice(max(x - 1, 0), x + width + 1)


def _boundary(mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Pixels [H,W] that differ from their right, lower or lower right neighbour; the image's border is replicated."""
    edge = np.zeros(mask.shape, np.bool_)
    edge[:, :-1] |= mask[:, :-1] != mask[:, 1:]
    edge[:-1] |= mask[:-1] != mask[1:]
    edge[:-1, :-1] |= mask[:-1, :-1] != mask[1:, 1:]
    return edge.view(np.uint8)


@lru_cache(maxsize=16)
def _disk(radius: int) -> NDArray[np.uint8]:
    y, x = np.ogrid[-radius : radius + 1, -radius : radius + 1]
    inside: NDArray[np.bool_] = x * x + y * y <= radius * radius
    return inside.astype(np.uint8)


_RELIABILITY_BINS: Final = 10


def reliability(probability: NDArray[np.floating], present: NDArray[np.bool_]) -> dict[str, float]:
    """Quality of probabilities [N] given the truth, bool [N]; both classes weigh the same.

    Returns:
        ``auc``: Area under the ROC curve. ``ece``: Expected calibration error over ten bins of equal width. ``found``
        and ``false``: shares of the true and of the absent sentences that are called present at 0.5. ``true`` and
        ``absent``: their numbers.
    """
    weight, bins = _balanced_bins(probability, present)
    gaps = [abs(float((weight * (present - probability))[bins == index].sum())) for index in range(_RELIABILITY_BINS)]
    order = np.argsort(np.argsort(probability, kind="stable"), kind="stable") + 1.0
    pairs = float(present.sum()) * float((~present).sum())
    ranked = float(order[present].sum()) - float(present.sum()) * (float(present.sum()) + 1) / 2
    return {
        "auc": round(ranked / max(pairs, 1.0), 4),
        "ece": round(sum(gaps), 4),
        "found": round(float((probability[present] > 0.5).mean()), 4),
        "false": round(float((probability[~present] > 0.5).mean()), 4),
        "true": int(present.sum()),
        "absent": int((~present).sum()),
    }


def reliability_curve(
    probability: NDArray[np.floating], present: NDArray[np.bool_]
) -> list[dict[str, float | int | None]]:
    """The reliability diagram of probabilities [N] given the truth, bool [N]: ten bins of equal width, lowest first.

    Returns:
        For each bin the mean probability ``said``, the share ``observed`` of what is there, both classes weighing the
        same (None for an empty bin), and the numbers of ``true`` and ``absent`` sentences.
    """
    weight, bins = _balanced_bins(probability, present)
    curve: list[dict[str, float | int | None]] = []
    for index in range(_RELIABILITY_BINS):
        own, true = weight * (bins == index), int((present & (bins == index)).sum())
        total = float(own.sum())
        curve.append(
            {
                "said": round(float((own * probability).sum()) / total, 4) if total else None,
                "observed": round(float((own * present).sum()) / total, 4) if total else None,
                "true": true,
                "absent": int((bins == index).sum()) - true,
            }
        )
    return curve


def _balanced_bins(
    probability: NDArray[np.floating], present: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """Weights [N] by which both classes count the same, and the bin [N] of each probability."""
    weight = np.where(present, 0.5 / max(present.sum(), 1), 0.5 / max((~present).sum(), 1))
    return weight, np.minimum((probability * _RELIABILITY_BINS).astype(np.intp), _RELIABILITY_BINS - 1)
