"""Decisions to compute, keep or zero the flow."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from pydantic import ValidationError

from rvos_edge.flow.policy import FlowDecision, FlowOptions, FlowPolicy
from rvos_edge.flow.scene_change import SceneChange

SIZE = (288, 512)
Image = NDArray[np.uint8]


def _scene(seed: int) -> Image:
    """A grey picture of large soft patches."""
    patches = np.random.default_rng(seed).integers(20, 200, (6, 10), np.uint8)
    grey = cv2.resize(patches, SIZE[::-1], interpolation=cv2.INTER_CUBIC)
    return np.asarray(cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR), np.uint8)


A, B = _scene(1), _scene(2)


def _with_ball(x: float) -> Image:
    """Scene A with a ball of 24 pixels at column x."""
    image = A.copy()
    cv2.circle(image, (round(16 * x), 16 * 150), 16 * 12, (255, 255, 255), -1, cv2.LINE_AA, shift=4)
    return image


def _noisy(image: Image, seed: int, sigma: float = 6.0) -> Image:
    noise = np.random.default_rng(seed).normal(0, sigma, image.shape)
    return np.clip(image + noise, 0, 255).astype(np.uint8)


def _brighter(image: Image, gain: float) -> Image:
    return np.asarray(cv2.convertScaleAbs(image, alpha=gain), np.uint8)


def _decide(options: FlowOptions, frames: Sequence[Image]) -> list[FlowDecision]:
    policy = FlowPolicy(options, iterations=3)
    return [policy.decide(frame, SIZE) for frame in frames]


def _word(options: FlowOptions, frames: Sequence[Image]) -> str:
    """One letter per frame: z(ero), k(eep), r(un from the grid), R(un warm)."""
    return "".join("R" if decision.warm else decision.action[0] for decision in _decide(options, frames))


@pytest.mark.parametrize(
    ("options", "frames", "expected"),
    [
        (FlowOptions(), [A] * 4, "zrRR"),
        (FlowOptions(every=3), [A] * 9, "zrkkRkkRk"),
        # A cut starts anew, also between two computed frames.
        (FlowOptions(), [A, A, A, B, B, B], "zrRzrR"),
        (FlowOptions(every=2), [A, A, A, A, B, B, B], "zrkRzrk"),
        # A flash or the camera's exposure is no cut.
        (FlowOptions(), [A, A, _brighter(A, 1.6), A, _brighter(A, 0.4)], "zrRRR"),
    ],
)
def test_decisions(options: FlowOptions, frames: list[Image], expected: str) -> None:
    assert _word(options, frames) == expected


def test_a_fast_pan_is_no_cut() -> None:
    wide = cv2.resize(np.random.default_rng(0).integers(0, 255, (6, 80, 3), np.uint8), (4096, 288))
    pan = [np.ascontiguousarray(wide[:, x : x + 512]) for x in range(0, 3000, 60)]
    scene = SceneChange()
    changes = [change for frame in pan if (change := scene.look(frame)) is not None]
    # Each pair differs as much as two scenes do, as this video always does.
    assert min(change.mean for change in changes) > 30
    assert "z" not in _word(FlowOptions(), pan)[2:]


def test_iterations_are_the_bundles_unless_given() -> None:
    assert [decision.iterations for decision in _decide(FlowOptions(), [A] * 3)] == [0, 3, 3]
    assert [decision.iterations for decision in _decide(FlowOptions(iterations=6), [A] * 3)] == [0, 6, 6]


def test_features_are_computed_only_if_a_flow_reads_them() -> None:
    """The flow of frame 4 compares it with frame 3; no flow reads the features of frame 2."""
    decisions = _decide(FlowOptions(every=3), [A] * 6)
    assert [decision.encode for decision in decisions] == [True, True, False, True, True, False]


def test_noise_and_light_are_not_motion() -> None:
    options = FlowOptions(still=3)
    noisy = [_noisy(A, seed) for seed in range(12)]
    assert _word(options, noisy) == "zrRzzzzzzzzz"  # three calm frames, then none
    flicker = [_noisy(_brighter(A, 1 + 0.01 * (index % 2)), index) for index in range(12)]
    assert _word(options, flicker) == "zrRzzzzzzzzz"


def test_a_small_thing_that_moves_is_seen_at_once() -> None:
    moving = [_noisy(_with_ball(100 + 4 * index), index) for index in range(6)]
    assert _word(FlowOptions(still=3), moving) == "zrRRRR"
    stopped = [_noisy(_with_ball(120), 10 + index) for index in range(6)]
    away = [_noisy(_with_ball(124 + 4 * index), 20 + index) for index in range(3)]
    assert _word(FlowOptions(still=3), [*moving, *stopped, *away]) == "zrRRRR" + "RRzzzz" + "rRR"


def test_slow_motion_is_found_in_the_end() -> None:
    creeping = [_with_ball(100 + 0.125 * index) for index in range(80)]
    scene = SceneChange()
    for frame in creeping:
        scene.look(frame)
        assert scene.moved() <= 3  # no two successive frames show it
        scene.mark()
    word = _word(FlowOptions(still=3), creeping)
    assert word.count("zr") > 3
    assert max(map(len, word.lower().split("r"))) < 20


def test_noise_at_the_threshold_does_not_flicker() -> None:
    def shift(grey: float) -> Image:
        image = A.copy()
        image[:16, :16] = np.clip(100 + grey, 0, 255)
        return image

    steps = [0, 4, 0, 4, 0, 4, 0, 4]
    assert _word(FlowOptions(still=3), [A, A, *map(shift, [0, *steps])]).endswith("R" * len(steps))
    # Once it rests, half as much again must move to wake it.
    resting = [shift(0)] * 6
    assert _word(FlowOptions(still=3), [*resting, *map(shift, steps)]).endswith("z" * len(steps))
    assert _word(FlowOptions(still=3), [*resting, shift(5)]).endswith("zr")


def test_reset_and_another_size_start_anew() -> None:
    policy = FlowPolicy(FlowOptions(), iterations=3)
    sizes = [(4, 4), (4, 4), (4, 4), (8, 4), (8, 4), (8, 4)]
    decisions = [policy.decide(A, size) for size in sizes]
    assert [d.action for d in decisions] == ["zero", "run", "run", "zero", "run", "run"]
    assert decisions[3].reason == "the frame's size changed"
    assert not decisions[4].warm
    policy.reset()
    assert policy.decide(A, (8, 4)).reason == "first frame"
    assert not policy.decide(A, (8, 4)).warm


@pytest.mark.parametrize(
    "wrong",
    [
        {"every": 0},
        {"iterations": 0},
        {"still": -1},
        {"still": float("nan")},
        {"hold_fps": 0},
        {"hold_fps": float("inf")},
        {"iterations": 101},
        {"nonsense": 1},
    ],
)
def test_options_are_checked(wrong: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        FlowOptions(**wrong)
