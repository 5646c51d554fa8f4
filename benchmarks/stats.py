"""Statistics of times: percentiles, paired ratios with confidence intervals, dropped camera frames."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from rvos_edge.benchmarks.schema import Camera, LatencyPercentiles

MIN_PAIRS = 10
"""Smallest number of pairs for a confidence interval."""
_RESAMPLES = 2000
_CONFIDENCE = 0.95


def percentiles(milliseconds: Iterable[float]) -> LatencyPercentiles:
    """Percentiles of at least one time, rounded to microseconds.

    Example:
        >>> percentiles([1.0, 2.0, 3.0]).p50
        2.0
    """
    p50, p90, p99 = np.percentile(np.fromiter(milliseconds, np.float64), (50, 90, 99))
    return LatencyPercentiles(p50=round(float(p50), 3), p90=round(float(p90), 3), p99=round(float(p99), 3))


@dataclass(frozen=True)
class Ratio:
    """Time of the first over time of the second: above 1 where the second is faster.

    Attributes:
        value: Median of the paired ratios.
        low: Lower end of the 95 % interval; None where there is none.
        pairs: Number of pairs; 0 where only medians were compared.
    """

    value: float
    low: float | None
    high: float | None
    pairs: int

    @property
    def excludes_one(self) -> bool:
        """True if the interval lies on one side of 1."""
        return self.low is not None and self.high is not None and not self.low <= 1 <= self.high


def paired_ratio(first: Sequence[float], second: Sequence[float], *, seed: int = 0) -> Ratio:
    """Median of first[i] / second[i], with a block bootstrap interval.

    Disturbances last for several frames. The bootstrap therefore draws blocks of about n^(1/3) neighbouring frames;
    drawing single frames would make the interval too narrow.

    Example:
        >>> paired_ratio([2.0] * 20, [1.0] * 20)
        Ratio(value=2.0, low=2.0, high=2.0, pairs=20)
    """
    if len(first) != len(second) or not first:
        raise ValueError(f"{len(first)} and {len(second)} times cannot be paired")
    logs = np.log(np.asarray(first, np.float64)) - np.log(np.asarray(second, np.float64))
    count = len(logs)
    value = math.exp(float(np.median(logs)))
    if count < MIN_PAIRS:
        return Ratio(value, None, None, count)
    rng = np.random.default_rng(seed)
    block = round(count ** (1 / 3))
    blocks = math.ceil(count / block)
    offsets = np.arange(block)
    medians = np.empty(_RESAMPLES)
    for index in range(_RESAMPLES):
        chosen = (rng.integers(0, count, (blocks, 1)) + offsets) % count
        medians[index] = np.median(logs[chosen.reshape(-1)[:count]])
    tail = 50 * (1 - _CONFIDENCE)
    low, high = np.exp(np.percentile(medians, (tail, 100 - tail)))
    return Ratio(value, float(low), float(high), count)


def replay_camera(milliseconds: Sequence[float], fps: float) -> Camera:
    """Replay measured times against a camera: after each frame the newest one is taken, older ones are dropped.

    Example:
        >>> replay_camera([100.0, 100.0, 100.0], fps=20.0).dropped   # frames 0, 2 and 4
        2
    """
    period = 1000 / fps
    free, last = 0.0, -1
    for took in milliseconds:
        # The tolerance keeps a frame that arrives at this very moment.
        last = max(math.floor(free / period + 1e-9), last + 1)
        free = max(free, last * period) + took
    return Camera(fps=fps, arrived=last + 1, segmented=len(milliseconds), dropped=last + 1 - len(milliseconds))
