"""Figures from times, against numbers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from rvos_edge.benchmarks.stats import paired_ratio, percentiles, replay_camera

RNG = np.random.default_rng(3)
DRIFT = 20 + 10 * np.sin(np.arange(200) / 15)
"""A machine that slows down and recovers."""


def noise(scale: float) -> np.ndarray:
    return np.exp(RNG.normal(0, scale, len(DRIFT)))


def test_percentiles() -> None:
    found = percentiles(range(101))
    assert (found.p50, found.p90, found.p99) == (50.0, 90.0, 99.0)


def test_twice_as_fast_is_seen_through_the_drift_of_both() -> None:
    ratio = paired_ratio(list(DRIFT * noise(0.05)), list(DRIFT / 2 * noise(0.05)))
    assert ratio.value == pytest.approx(2, rel=0.02)
    assert ratio.low is not None
    assert ratio.high is not None
    assert 1.9 < ratio.low < 2 < ratio.high < 2.1
    assert ratio.excludes_one


def test_equal_ones_are_not_told_apart() -> None:
    ratio = paired_ratio(list(DRIFT * noise(0.05)), list(DRIFT * noise(0.05)))
    assert ratio.low is not None
    assert ratio.high is not None
    assert ratio.low < 1 < ratio.high
    assert ratio.high - ratio.low < 0.1
    assert not ratio.excludes_one


def test_neighbours_that_hang_together_widen_the_interval() -> None:
    calm = noise(0.05)
    slow = np.repeat(noise(0.05)[:20], 10)  # ten frames at a time share one disturbance
    spread = [ratio.high - ratio.low for ratio in (paired_ratio(list(x), [1.0] * 200) for x in (calm, slow))]  # type: ignore[operator]
    assert spread[1] > 1.3 * spread[0]


def test_same_seed_same_interval() -> None:
    times = list(noise(0.2)), list(noise(0.2))
    assert paired_ratio(*times) == paired_ratio(*times)


def test_few_pairs_give_no_interval() -> None:
    ratio = paired_ratio([2.0] * 9, [1.0] * 9)
    assert (ratio.value, ratio.low, ratio.pairs) == (pytest.approx(2), None, 9)
    assert not ratio.excludes_one


@pytest.mark.parametrize(
    ("milliseconds", "fps", "arrived", "dropped"),
    [
        ([100.0] * 3, 10.0, 3, 0),  # just in time
        ([50.0] * 3, 10.0, 3, 0),  # waits for each frame
        ([100.0] * 3, 20.0, 5, 2),  # takes frames 0, 2, 4
        ([250.0, 10.0, 10.0], 10.0, 4, 1),  # busy until 250: frame 2 is next, frame 1 is lost, then 3 on time
    ],
)
def test_camera(milliseconds: list[float], fps: float, arrived: int, dropped: int) -> None:
    camera = replay_camera(milliseconds, fps)
    assert (camera.arrived, camera.dropped, camera.segmented) == (arrived, dropped, len(milliseconds))
