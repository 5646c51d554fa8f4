"""J and F against hand-computed cases and a slow, literal reading of the benchmark's definition."""

from __future__ import annotations

import math
from pathlib import Path

import cv2
import numpy as np
import pytest

from rvos_edge.trainer.metrics import IouMeter, boundary_accuracy, region_similarity, statistics


def slow_edges(mask: np.ndarray) -> list[tuple[int, int]]:
    """Pixel by pixel: the last row looks right only, the last column down only, the last corner nowhere."""
    height, width = mask.shape
    out = []
    for y in range(height):
        for x in range(width):
            ahead = [(y, x + 1), (y + 1, x), (y + 1, x + 1)]
            if y == height - 1:
                ahead = ahead[:1]
            elif x == width - 1:
                ahead = ahead[1:2]
            if (y, x) != (height - 1, width - 1) and any(mask[y, x] != mask[v, u] for v, u in ahead):
                out.append((y, x))
    return out


def slow_f(truth: np.ndarray, result: np.ndarray, bound: float = 0.008) -> float:
    reach = math.ceil(bound * math.hypot(*truth.shape))
    wanted, found = slow_edges(truth), slow_edges(result)
    if not wanted or not found:
        return float(len(wanted) == len(found))

    def matched(points: list[tuple[int, int]], others: list[tuple[int, int]]) -> float:
        near = [any((y - v) ** 2 + (x - u) ** 2 <= reach**2 for v, u in others) for y, x in points]
        return sum(near) / len(near)

    precision, recall = matched(found, wanted), matched(wanted, found)
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def test_region_similarity() -> None:
    a = np.zeros((4, 4), bool)
    b = a.copy()
    assert region_similarity(a, b) == 1, "two empty masks agree"
    a[:2] = True
    assert region_similarity(a, b) == 0
    b[1:3] = True
    assert region_similarity(a, b) == pytest.approx(4 / 12)
    assert region_similarity(np.stack([a, b]), np.stack([a, a])).tolist() == pytest.approx([1, 4 / 12])


@pytest.mark.parametrize("seed", range(6))
def test_boundary_equals_the_slow_definition(seed: int) -> None:
    rng = np.random.default_rng(seed)
    size = (45, 60) if seed % 2 else (140, 30)
    noise = [cv2.GaussianBlur(rng.normal(size=size), (0, 0), 5) for _ in range(2)]
    truth, result = noise[0] > 0.02, noise[0] + 0.4 * noise[1] > 0.02
    for bound in (0.008, 0.03):
        assert boundary_accuracy(truth, result, bound=bound) == pytest.approx(slow_f(truth, result, bound), abs=1e-12)


def test_boundary_of_empty_masks() -> None:
    empty, some = np.zeros((20, 20), bool), np.zeros((20, 20), bool)
    some[5:9, 5:9] = True
    assert boundary_accuracy(empty, empty) == 1
    assert boundary_accuracy(some, empty) == 0
    assert boundary_accuracy(empty, some) == 0
    assert boundary_accuracy(np.stack([some, some]), np.stack([some, empty])).tolist() == [1, 0]


def test_a_shift_within_the_bound_costs_no_boundary(shared: Path) -> None:
    path = shared / "data/davis2016-train/Annotations/480p/bear/00000.png"
    mask = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) > 0
    assert boundary_accuracy(mask, np.roll(mask, 7, axis=1)) > 0.99, "8 pixels at 854x480"
    assert boundary_accuracy(mask, np.roll(mask, 30, axis=1)) < 0.6
    assert region_similarity(mask, np.roll(mask, 7, axis=1)) < 0.97


def test_statistics_are_mean_recall_and_decay() -> None:
    numbers = statistics([1.0] * 5 + [0.8] * 5 + [0.4] * 5 + [0.2] * 5)
    assert numbers.mean == pytest.approx(0.6)
    assert numbers.recall == 0.5
    # Quarters share their border frame: frames 1-6 and 15-20.
    assert numbers.decay == pytest.approx((5 * 1 + 0.8) / 6 - (0.4 + 5 * 0.2) / 6)
    assert statistics([float("nan"), 0.6, 0.6, 0.6, 0.6]).mean == pytest.approx(0.6)
    assert statistics(np.linspace(1, 0, 300)).decay == pytest.approx(0.75, abs=0.01), "long videos do not wrap"


def test_iou_meter() -> None:
    meter = IouMeter()
    big, small = np.zeros((10, 10), bool), np.zeros((10, 10), bool)
    big[:8], small[0, :2] = True, True
    meter.add(big, big)
    meter.add(small, np.roll(small, 1, axis=1))
    numbers = meter.summary()
    assert numbers["overall_iou"] == pytest.approx(81 / 83)
    assert numbers["mean_iou"] == pytest.approx((1 + 1 / 3) / 2)
    assert numbers["precision@0.5"] == 0.5
    assert numbers["precision@0.9"] == 0.5
