"""J and F against hand-computed cases, a slow, literal reading of the benchmark's definition, and the public code.

PUBLIC and FRAMES are what db_eval_iou, db_eval_boundary and db_statistics of davis2017-evaluation (commit ac7c43fca9,
with scikit-image's disk) answer to the masks of tests/support/drawn_masks.py.
"""

from __future__ import annotations

import math
from dataclasses import astuple
from pathlib import Path

import cv2
import numpy as np
import pytest
from support.drawn_masks import REAL, random_sequence, real_sequence

from rvos_edge.trainer.metrics import (
    IouMeter,
    boundary_accuracy,
    combine_objects,
    region_similarity,
    reliability,
    reliability_curve,
    statistics,
)

# By sequence: mean, recall and decay of J, then of F.
PUBLIC = {
    "random 0": (
        (0.2705592679254634, 0.1111111111111111, -0.0993682994713356),
        (0.20744246741280112, 0.1111111111111111, -0.0976430529957758),
    ),
    "random 1": (
        (0.45590273187032715, 0.3333333333333333, -0.1461595450437701),
        (0.22767361155995036, 0.1111111111111111, -0.03413246539885324),
    ),
    "random 2": (
        (0.38455649861458335, 0.4444444444444444, -0.3486852178191483),
        (0.23868414224121087, 0.1111111111111111, -0.07794570633827079),
    ),
    "random 3": (
        (0.26548468243813783, 0.2222222222222222, -0.33377393255545384),
        (0.2621272112268509, 0.2222222222222222, -0.2823544877338004),
    ),
    "bmx-bumps": (
        (0.4622307074063412, 0.2, -0.2853541443137003),
        (0.7138708431635558, 0.8666666666666667, -0.07793829259683571),
    ),
    "dance-jump": ((0.6075952673400196, 0.9, 0.22996378896600272), (0.6275406235452747, 0.7, 0.1454817372728855)),
    "mallard-fly": (
        (0.6154896804094258, 0.9166666666666666, -0.003235733673948693),
        (0.6423250899424533, 0.75, 0.08111982621035663),
    ),
}
# J and F of every frame of "random 2".
FRAMES = (
    [
        0.5349081364829397,
        0.0,
        0.0,
        1.0,
        0.12271341463414634,
        0.2224231464737794,
        0.7221832221832222,
        0.6273519963285911,
        0.23142857142857143,
    ],
    [
        0.22520899077891368,
        0.0,
        0.0,
        1.0,
        0.1943541756391684,
        0.2695480039590894,
        0.1745219366092881,
        0.190920429034672,
        0.09360374414976598,
    ],
)


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


def assert_public(name: str, truth: np.ndarray, result: np.ndarray) -> None:
    for measure, expected in zip((region_similarity, boundary_accuracy), PUBLIC[name], strict=True):
        assert astuple(statistics(measure(truth, result))) == pytest.approx(expected, rel=0, abs=1e-15)


@pytest.mark.parametrize("seed", range(4))
def test_the_public_code_gives_the_same_numbers_on_random_masks(seed: int) -> None:
    assert_public(f"random {seed}", *random_sequence(seed))
    if seed == 2:
        for measure, expected in zip((region_similarity, boundary_accuracy), FRAMES, strict=True):
            assert measure(*random_sequence(seed)).tolist() == expected


@pytest.mark.parametrize("video", REAL)
def test_the_public_code_gives_the_same_numbers_on_real_masks(shared: Path, video: str) -> None:
    assert_public(video, *real_sequence(shared / "data/davis2016-train", video))


@pytest.mark.parametrize("place", [(0, 0), (0, 7), (9, 0), (9, 7), (4, 3)])
def test_the_border_of_the_image_is_no_boundary(place: tuple[int, int]) -> None:
    truth, result = np.zeros((14, 12), bool), np.zeros((14, 12), bool)
    truth[place[0] : place[0] + 5, place[1] : place[1] + 5] = True
    result[place[0] : place[0] + 4, place[1] : place[1] + 5] = True
    assert boundary_accuracy(truth, result) == pytest.approx(slow_f(truth, result), abs=1e-12)
    assert boundary_accuracy(~truth, result) == pytest.approx(slow_f(~truth, result), abs=1e-12)


def test_a_shift_within_the_bound_costs_no_boundary(shared: Path) -> None:
    path = shared / "data/davis2016-train/Annotations/480p/hike/00000.png"
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


def test_decay_of_long_videos_does_not_wrap_around() -> None:
    """The public code keeps frame numbers in 8 bits: with 256 frames its last quarter is empty and the decay NaN."""
    values = np.random.default_rng(5).random(300)
    assert statistics(values[:255]).decay == pytest.approx(0.04349026826991492, abs=1e-15), "as the public code says"
    assert statistics(values[:256]).decay == pytest.approx(values[:65].mean() - values[191:256].mean())


def test_a_higher_id_overrides_a_lower_one() -> None:
    masks = np.zeros((3, 1, 4), bool)
    masks[0, 0, :3], masks[1, 0, 1:3], masks[2, 0, 2:3] = True, True, True
    assert combine_objects(masks, [1, 2, 3]).tolist() == [[1, 2, 3, 0]]
    assert combine_objects(masks, [3, 2, 1]).tolist() == [[3, 3, 3, 0]], "the ids decide, not the order"
    assert combine_objects(masks[:0], []).tolist() == [[0] * 4]
    for wrong in ([1, 2], [1, 2, 2], [0, 1, 2], [1, 2, 256]):
        with pytest.raises(ValueError, match="different ids"):
            combine_objects(masks, wrong)


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


def test_reliability_of_known_probabilities() -> None:
    present = np.array([True, True, False, False])
    perfect = reliability(np.array([1.0, 1.0, 0.0, 0.0]), present)
    assert (perfect["auc"], perfect["ece"], perfect["found"], perfect["false"]) == (1.0, 0.0, 1.0, 0.0)
    blind = reliability(np.full(4, 0.9), present)
    assert blind["ece"] == pytest.approx(0.4)
    assert blind["false"] == 1.0


def test_a_reliability_curve_weighs_both_classes_the_same() -> None:
    present = np.array([True, False, False, False])
    curve = reliability_curve(np.array([0.95, 0.95, 0.04, 0.06]), present)
    assert len(curve) == 10
    assert curve[0] == {"said": 0.05, "observed": 0.0, "true": 0, "absent": 2}
    assert curve[9] == {"said": 0.95, "observed": 0.75, "true": 1, "absent": 1}
    assert curve[4] == {"said": None, "observed": None, "true": 0, "absent": 0}
