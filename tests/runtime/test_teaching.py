"""A query learns from shown frames, and is never worse than its sentence on what was left out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from support.tiny_bundle import write_tiny_bundle
from support.tiny_graphs import CHANNELS

import rvos_edge
from rvos_edge import Segmenter, UserError, teaching
from rvos_edge.bundle import Bundle
from rvos_edge.preprocess import place
from rvos_edge.queries import float_vectors
from rvos_edge.teaching import Teacher


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_bundle(tmp_path_factory.mktemp("tiny"), teach=True)


def _open(bundle: Path) -> Segmenter:
    segmenter = rvos_edge.open(bundle, device="cpu", backend="onnxruntime", threads=1)
    assert isinstance(segmenter, Segmenter)
    return segmenter


def _scene(place: int) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """A green square on a red ground, and its mask."""
    frame = np.zeros((64, 96, 3), np.uint8)
    frame[..., 2] = 180
    mask = np.zeros((64, 96), np.bool_)
    mask[16:48, place : place + 32] = True
    frame[mask] = (20, 220, 20)
    return frame, mask


def _iou(answer: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float:
    return float((answer & truth).sum() / (answer | truth).sum())


def test_the_gradient_is_that_of_the_loss(tiny: Path) -> None:
    """By central differences."""
    segmenter = _open(tiny)
    teacher = Teacher(Bundle.open(tiny))
    first, mask = _scene(8)
    lesson = teacher.lesson(segmenter.features(_scene(16)[0], first), mask, place((64, 96), (64, 96)))
    assert lesson.features["flow"].any()
    vectors = float_vectors(segmenter.encode(["the red ball"]), 0)
    _, gradient = teacher.judge(lesson, vectors)
    for name, channels in zip(gradient, CHANNELS, strict=True):
        for channel in range(channels):
            losses = []
            for step in (0.01, -0.01):
                moved = {key: vector.copy() for key, vector in vectors.items()}
                moved[name][channel] += step
                losses.append(teacher.judge(lesson, moved)[0])
            assert gradient[name][channel] == pytest.approx((losses[0] - losses[1]) / 0.02, abs=2e-3)


def test_learning_ends_where_what_is_left_out_gains_nothing(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    segmenter, teacher = _open(tiny), Teacher(Bundle.open(tiny))
    (frame, square), placed = _scene(8), place((64, 96), (64, 96))
    shown, left = (teacher.lesson(segmenter.features(frame), mask, placed) for mask in (~square, square))
    start = float_vectors(segmenter.encode(["the red ball"]), 0)
    steps: list[int] = []
    judge = teacher.judge
    monkeypatch.setattr(teacher, "judge", lambda *given: (steps.append(1), judge(*given))[1])
    learned, taken = teacher.learn([shown], start, watched=[left])
    assert (taken, len(steps)) == (0, teaching._LOOK * teaching._PATIENCE)
    np.testing.assert_array_equal(learned["lang1"], start["lang1"])


@pytest.mark.parametrize(("places", "taken"), [([8], 40), ([8, 40, 56], 20 + 30)])
def test_frames_of_a_clip_are_learned_to_the_end(
    tiny: Path, monkeypatch: pytest.MonkeyPatch, places: list[int], taken: int
) -> None:
    """The IoU on what is left out wavers there."""
    frames, squares = zip(*map(_scene, places), strict=True)
    steps: list[int] = []
    judge = Teacher.judge
    monkeypatch.setattr(Teacher, "judge", lambda *given: (steps.append(1), judge(*given))[1])
    for name, value in {"_STEPS": 40, "_CLIP_STEPS": 20, "_MORE": 30, "_PATIENCE": 0}.items():
        monkeypatch.setattr(teaching, name, value)
    _open(tiny).teach(frames, [~square for square in squares], like="the red ball", previous=frames)
    assert len(steps) == taken


def test_features_are_those_of_the_second_of_two_frames(tiny: Path) -> None:
    one, two = _open(tiny), _open(tiny)
    found = one.features(_scene(16)[0], _scene(8)[0])
    two.set_queries(["a dog"])
    for number in (8, 16):
        two.step(_scene(number)[0])
    for name, array in two._chain.features().items():
        np.testing.assert_array_equal(found[name], array)


@pytest.mark.parametrize("places", [[8], [8, 40, 56]])
def test_what_is_shown_is_found_elsewhere(tiny: Path, places: list[int]) -> None:
    """The sentence finds the square; what is shown is the ground."""
    segmenter = _open(tiny)
    frames, masks = zip(*map(_scene, places), strict=True)
    query = segmenter.teach(frames, [~mask for mask in masks], like="the red ball", name="ground")
    frame, square = _scene(24)
    truth = ~square
    segmenter.set_queries(["the red ball", query])
    result = segmenter.step(frame)
    assert result.queries == ("the red ball", "ground")
    before, after = (_iou(mask, truth) for mask in result.masks)
    assert after > max(0.8, before + 0.1)
    assert query.j is not None
    assert query.sentence_j is not None
    assert query.j > query.sentence_j
    assert query.shots == len(places)


def test_teaching_twice_gives_the_same(tiny: Path) -> None:
    frame, mask = _scene(8)
    one, two = (_open(tiny).teach([frame], [mask], like="a dog") for _ in range(2))
    for name, vector in one.vectors.items():
        np.testing.assert_array_equal(vector, two.vectors[name])


def test_what_cannot_be_learned_leaves_the_sentence_as_it_was(tiny: Path) -> None:
    """The frame left out contradicts the others: whatever they teach is worse there."""
    segmenter = _open(tiny)
    scenes = [_scene(8), _scene(40), _scene(56)]
    masks = [~scenes[0][1], scenes[1][1], ~scenes[2][1]]
    start = float_vectors(segmenter.encode(["the red ball"]), 0)
    query = segmenter.teach([frame for frame, _ in scenes], masks, like="the red ball")
    assert query.j == query.sentence_j
    for name, vector in query.vectors.items():
        np.testing.assert_array_equal(vector, start[name])


@pytest.mark.parametrize(("least", "clip"), [(0.1, False), (1.1, False), (1.1, True)])
def test_the_sentence_is_kept_where_too_little_is_gained(
    tiny: Path, monkeypatch: pytest.MonkeyPatch, least: float, clip: bool
) -> None:
    """The shown mask is the ground and half of the square that the sentence finds. In a clip any gain counts."""
    monkeypatch.setattr(teaching, "_LEAST_GAIN", least)
    monkeypatch.setattr(teaching, "_LEAST_SHARE", 100.0)
    frames, squares = zip(*map(_scene, (8, 40, 56)), strict=True)
    masks = [~square | (np.arange(96) < place + 16) for square, place in zip(squares, (8, 40, 56), strict=True)]
    query = _open(tiny).teach(frames, masks, like="the red ball", previous=frames if clip else None)
    assert query.j is not None
    assert query.sentence_j is not None
    assert (query.j > query.sentence_j + 0.1) == (clip or least == 0.1)
    assert query.sentence_j > 0


def test_without_a_sentence_it_starts_from_the_one_that_fits_best(tiny: Path) -> None:
    frame, mask = _scene(8)
    query = _open(tiny).teach([frame], [mask])
    assert query.sentence in {"the moving object", "a person", "an animal", "a vehicle", "a thing"}


def test_the_video_goes_on_as_if_nothing_had_been_shown(tiny: Path) -> None:
    one, two = _open(tiny), _open(tiny)
    rng = np.random.default_rng(5)
    video = [rng.integers(0, 255, (64, 96, 3), np.uint8) for _ in range(5)]
    for segmenter in (one, two):
        segmenter.set_queries(["a dog"])
    for index, frame in enumerate(video):
        if index == 3:
            one.teach([_scene(8)[0]], [_scene(8)[1]], like="a dog", previous=[_scene(9)[0]])
        np.testing.assert_array_equal(one.step(frame).margins, two.step(frame).margins)


@pytest.mark.parametrize(
    ("frames", "masks", "said"),
    [
        ([], [], "no frame is shown"),
        ([_scene(8)[0]], [], "1 frames come with 0 masks"),
        ([_scene(8)[0]], [None], "no mask shows the object"),
        ([_scene(8)[0]], [np.ones((5, 5), bool)], "masks of that size"),
    ],
)
def test_bad_examples_are_refused(
    tiny: Path, frames: list[NDArray[np.uint8]], masks: list[NDArray[np.bool_] | None], said: str
) -> None:
    with pytest.raises(UserError, match=said):
        _open(tiny).teach(frames, masks, like="a dog")


def test_a_bundle_without_the_graph_says_so(tmp_path: Path) -> None:
    segmenter = _open(write_tiny_bundle(tmp_path / "tiny"))
    with pytest.raises(UserError, match=r"has no graph 'teach'.*export"):
        segmenter.teach([_scene(8)[0]], [_scene(8)[1]], like="a dog")
