"""An absent query has no mask; one doubtful frame changes nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from support.tiny_bundle import write_tiny_bundle

import rvos_edge
from rvos_edge import Segmenter
from rvos_edge.presence import PresenceFilter


def _run(chances: list[float], shift: float = 0.0) -> list[bool]:
    presence = PresenceFilter([shift])
    return [bool(presence.update(np.array([chance], np.float32))[1][0]) for chance in chances]


def test_a_single_frame_turns_nothing_over() -> None:
    assert _run([0.9, 0.9, 0.1, 0.9]) == [True] * 4
    assert _run([0.01, 0.01, 0.9, 0.01]) == [False] * 4


def test_between_the_thresholds_a_query_stays_what_it_was() -> None:
    assert _run([0.9, 0.14, 0.14, 0.14, 0.14, 0.14, 0.14]) == [True] * 7
    assert _run([0.05, 0.14, 0.14, 0.14, 0.14, 0.14, 0.14]) == [False] * 7


def test_certainty_of_the_past_does_not_outlast_the_object() -> None:
    assert _run([1.0] * 50 + [0.02] * 6)[-1] is False


def test_a_taught_query_brings_its_own_threshold() -> None:
    assert _run([0.15]) == [False]
    assert _run([0.15], shift=1.0) == [True]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_bundle(tmp_path_factory.mktemp("tiny"), presence=True)


def _open(bundle: Path, *, min_presence: float = 0.2) -> Segmenter:
    segmenter = rvos_edge.open(bundle, device="cpu", backend="onnxruntime", threads=1, min_presence=min_presence)
    assert isinstance(segmenter, Segmenter)
    return segmenter


FRAME: NDArray[np.uint8] = np.random.default_rng(1).integers(0, 255, (64, 96, 3), np.uint8)
QUERIES = ["the red ball", "a dog", "big", "small", "cat", "person", "left", "right", "black car", "ball"]


def test_masks_of_absent_queries_are_empty_unless_asked_for(tiny: Path) -> None:
    results = []
    for least in (0.2, 0):
        segmenter = _open(tiny, min_presence=least)
        segmenter.set_queries(QUERIES)
        results.append(segmenter.step(FRAME))
    shown, kept = results
    assert kept.present.all()
    assert set(shown.present.tolist()) == {True, False}
    np.testing.assert_array_equal(kept.presence >= 0.2, shown.present)
    np.testing.assert_array_equal(shown.masks[shown.present], kept.masks[shown.present])
    assert kept.masks.any((1, 2)).all()
    assert not shown.masks[~shown.present].any()
    assert not shown.scores[~shown.present].any()


def test_a_bundle_that_cannot_tell_counts_what_has_a_mask_as_present(tmp_path: Path) -> None:
    segmenter = _open(write_tiny_bundle(tmp_path / "tiny"))
    segmenter.set_queries(QUERIES)
    segmenter.set_threshold(1 - 1e-12)
    result = segmenter.step(FRAME)
    assert result.presence.tolist() == [1.0] * len(QUERIES)
    assert result.present.tolist() == [False] * len(QUERIES)
    segmenter.set_threshold(0.5)
    assert segmenter.step(FRAME).present.all()
