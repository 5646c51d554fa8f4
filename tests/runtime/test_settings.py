"""Settings of a segmenter that change while a video runs."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from support.tiny_bundle import write_tiny_bundle

import rvos_edge
from rvos_edge.errors import UserError
from rvos_edge.flow.frame_budget import FrameBudget
from rvos_edge.flow.policy import FlowOptions, FlowPolicy
from rvos_edge.segmenter import Segmenter

FRAMES = np.random.default_rng(3).integers(0, 255, (12, 64, 96, 3), np.uint8)
Open = Callable[..., Segmenter]


@pytest.fixture(scope="module")
def open_tiny(tmp_path_factory: pytest.TempPathFactory) -> Open:
    folder = tmp_path_factory.mktemp("tiny")
    bundle = write_tiny_bundle(folder / "bundle")

    def opener(**options: Any) -> Segmenter:
        threshold = options.pop("threshold", 0.5)
        segmenter = rvos_edge.open(
            bundle,
            backend="onnxruntime",
            threads=1,
            flow=FlowOptions(**options),
            threshold=threshold,
        )
        segmenter.set_queries(["the dog"])
        return segmenter

    return opener


def test_the_threshold_is_that_of_opening(open_tiny: Open) -> None:
    opened, changed = open_tiny(threshold=0.4), open_tiny()
    assert changed.threshold == 0.5
    changed.set_threshold(0.4)
    assert changed.threshold == 0.4
    for frame in FRAMES[:3]:
        expected, got = opened.step(frame), changed.step(frame)
        assert np.array_equal(expected.masks, got.masks)
        assert np.array_equal(expected.scores, got.scores)
    for wrong in (float("nan"), 0, 1, -0.1):
        with pytest.raises(UserError, match="between 0 and 1"):
            changed.set_threshold(wrong)
    assert changed.threshold == 0.4


def test_iterations_are_those_of_opening_from_the_next_frame_on(open_tiny: Open) -> None:
    opened, changed = open_tiny(iterations=7), open_tiny()
    assert (opened.iterations, changed.iterations) == (7, 3)
    opened.step(FRAMES[0])
    changed.step(FRAMES[0])
    changed.set_iterations(7)
    expected, got = opened.step(FRAMES[1]), changed.step(FRAMES[1])
    assert np.array_equal(expected.margins, got.margins)
    assert got.decision is not None
    assert got.decision.iterations == 7
    assert got.index == 1
    for wrong in (0, 101):
        with pytest.raises(UserError, match="1 to 100 iterations"):
            changed.set_iterations(wrong)
    assert changed.iterations == 7


def test_no_flow_no_iterations(open_tiny: Open) -> None:
    segmenter = open_tiny(enabled=False)
    assert segmenter.iterations is None
    with pytest.raises(UserError, match="no flow"):
        segmenter.set_iterations(3)


def test_the_flow_is_kept_when_asked_for(open_tiny: Open) -> None:
    segmenter = open_tiny()
    assert segmenter.step(FRAMES[0]).flow is None
    segmenter.set_keep_flow(True)
    flow = segmenter.step(FRAMES[1]).flow
    assert flow is not None
    assert flow.shape == (2, 64, 96)
    segmenter.set_keep_flow(False)
    assert segmenter.step(FRAMES[2]).flow is None


def test_queries_are_checked_without_being_set(open_tiny: Open) -> None:
    segmenter = open_tiny()
    assert segmenter.check_queries(["  a   cat "]) == ("a cat",)
    assert segmenter.queries == ("the dog",)
    for wrong in ([], [""], ["dog " * 30], ["x" * 101]):
        with pytest.raises(UserError) as checked:
            segmenter.check_queries(wrong)
        with pytest.raises(UserError) as being_set:
            segmenter.set_queries(wrong)
        assert str(checked.value) == str(being_set.value)


def test_settings_change_while_frames_run(open_tiny: Open) -> None:
    segmenter = open_tiny()
    done = threading.Event()
    errors: list[BaseException] = []

    def change() -> None:
        try:
            for number in range(300):
                segmenter.set_threshold((number % 3 + 1) / 4)
                segmenter.set_iterations(1 + number % 4)
                segmenter.set_keep_flow(bool(number % 2))
                segmenter.set_queries(["the dog", "a cat"][: 1 + number % 2])
        except BaseException as error:
            errors.append(error)
        finally:
            done.set()

    threading.Thread(target=change, daemon=True).start()
    frames = 0
    while not done.is_set() or frames < 10:
        result = segmenter.step(FRAMES[frames % len(FRAMES)])
        assert result.masks.shape == (len(result.queries), 64, 96)
        frames += 1
    assert errors == []


def test_the_policy_takes_other_iterations_at_the_next_decision() -> None:
    policy = FlowPolicy(FlowOptions(hold_fps=1), iterations=3)
    images = FRAMES[:, :, :, :]
    assert [policy.decide(image, (64, 96)).iterations for image in images[:2]] == [0, 3]
    policy.set_iterations(8)
    assert policy.iterations == 8
    assert policy.decide(images[2], (64, 96)).iterations == 8
    policy.set_iterations(2)
    assert policy.decide(images[3], (64, 96)).iterations == 2


def test_more_iterations_are_allowed_at_once_only_if_there_is_room() -> None:
    roomy, tight = FrameBudget(fps=1, iterations=4), FrameBudget(fps=20, iterations=4)
    for _ in range(6):
        roomy.observe({"backbone": 30.0, "flow_step": 40.0}, iterations=4)
        tight.observe({"backbone": 30.0, "flow_step": 40.0}, iterations=4)
    assert roomy.allow().iterations == 4
    assert tight.allow().iterations == 2
    roomy.set_most(12)
    tight.set_most(12)
    assert roomy.allow().iterations == 12
    assert tight.allow().iterations == 2
    tight.set_most(1)
    assert tight.allow().iterations == 1
