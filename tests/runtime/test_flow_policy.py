"""When the flow is computed, kept or zero."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError

from rvos_edge.flow_policy import FlowOptions, FlowPolicy

SIZE = (64, 96)


def _grey(level: int) -> np.ndarray:
    return np.full((*SIZE, 3), level, np.uint8)


def _actions(options: FlowOptions, levels: list[int]) -> str:
    """One letter per frame: z(ero), k(eep), r(un from the grid), R(un warm)."""
    policy = FlowPolicy(options)
    letters = []
    for level in levels:
        decision = policy.decide(_grey(level), SIZE)
        letters.append("R" if decision.warm else decision.action[0])
    return "".join(letters)


@pytest.mark.parametrize(
    ("options", "levels", "expected"),
    [
        (FlowOptions(), [9, 9, 9, 9], "zrRR"),
        (FlowOptions(warm_start=False), [9, 9, 9, 9], "zrrr"),
        (FlowOptions(every=3), [9] * 9, "zrkkRkkRk"),
        # A cut starts anew, also between two computed frames.
        (FlowOptions(scene_cut=40), [9, 9, 9, 200, 200, 200], "zrRzrR"),
        (FlowOptions(scene_cut=40, every=2), [9, 9, 9, 9, 200, 200, 200], "zrkRzrk"),
        (FlowOptions(scene_cut=None), [9, 200, 9], "zrR"),
        (FlowOptions(scene_cut=40), [0, 40, 80], "zrR"),  # the threshold itself is no cut
        # Nothing moves: zero, and cold again once something does.
        (FlowOptions(still=1.0), [9, 9, 20, 30, 30, 40], "zzrRzr"),
        (FlowOptions(still=1.0, every=3), [9, 20, 30, 30, 40, 50], "zrkzrk"),
    ],
)
def test_decisions(options: FlowOptions, levels: list[int], expected: str) -> None:
    assert _actions(options, levels) == expected


def test_reset_and_another_size_start_anew() -> None:
    policy = FlowPolicy(FlowOptions())
    sizes = [(4, 4), (4, 4), (4, 4), (8, 4), (8, 4), (8, 4)]
    decisions = [policy.decide(_grey(9), size) for size in sizes]
    assert [d.action for d in decisions] == ["zero", "run", "run", "zero", "run", "run"]
    assert decisions[3].reason == "the frame's size changed"
    assert not decisions[4].warm
    policy.reset()
    assert policy.decide(_grey(9), (8, 4)).reason == "first frame"
    assert not policy.decide(_grey(9), (8, 4)).warm


@pytest.mark.parametrize("wrong", [{"every": 0}, {"iterations": 0}, {"still": -1}, {"nonsense": 1}])
def test_options_are_checked(wrong: dict[str, int]) -> None:
    with pytest.raises(ValidationError):
        FlowOptions(**wrong)
