"""Two results side by side."""

from __future__ import annotations

import pytest
from support.bench_results import make_result, make_run

from rvos_edge.benchmarks.compare import END_TO_END, compare
from rvos_edge.benchmarks.show import verdict
from rvos_edge.errors import UserError

SLOW = [40.0 + index % 7 for index in range(30)]
FAST = [value / 2 for value in SLOW]


def test_twice_as_fast_frame_by_frame() -> None:
    comparison = compare(make_result({"onnxruntime": SLOW}), make_result({"onnxruntime": FAST}))
    whole, stage = comparison.rows
    assert (whole.stage, stage.stage) == (END_TO_END, "backbone")
    assert whole.ratio.value == pytest.approx(2, rel=1e-3)
    assert whole.ratio.pairs == 30
    assert verdict(whole) == "B is faster"
    assert comparison.differences == []


def test_the_other_way_round_and_against_itself() -> None:
    slow, fast = make_result({"onnxruntime": SLOW}), make_result({"onnxruntime": FAST})
    assert verdict(compare(fast, slow).rows[0]) == "A is faster"
    assert verdict(compare(slow, slow).rows[0]) == "undecided"


def test_runs_are_paired_by_backend_and_lone_ones_whatever_they_are() -> None:
    both = make_result({"onnxruntime": SLOW, "openvino": FAST})
    assert [row.first for row in compare(both, both).rows[::2]] == ["onnxruntime (cpu)", "openvino (cpu)"]
    across = compare(make_result({"onnxruntime": SLOW}), make_result({"openvino": FAST}))
    assert across.rows[0].ratio.value == pytest.approx(2, rel=1e-3)
    with pytest.raises(UserError, match="no backend in common"):
        compare(both, make_result({"tensorrt": FAST}))


def test_without_single_times_only_the_medians_count() -> None:
    slow, fast = make_result({"onnxruntime": SLOW}), make_result({"onnxruntime": FAST})
    bare = fast.model_copy(update={"runs": (fast.runs[0].model_copy(update={"times": None}),)})
    row = compare(slow, bare).rows[0]
    assert row.ratio.value == pytest.approx(2, rel=1e-3)
    assert (row.ratio.low, row.ratio.pairs) == (None, 0)
    assert verdict(row) == "undecided"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"queries": 4}, "the number of queries is 1 in one and 4 in the other"),
        ({"flow_iterations": 12}, "the number of flow iterations"),
        ({"source": "clip.mp4"}, "the source is synthetic:0 in one and clip.mp4"),
    ],
)
def test_results_of_other_workloads_are_not_compared(changes: dict[str, object], words: str) -> None:
    with pytest.raises(UserError, match=r"a\.json and b\.json cannot be compared") as caught:
        compare(make_result({"o": SLOW}), make_result({"o": FAST}, **changes), names=("a.json", "b.json"))
    assert words in str(caught.value)


def test_what_else_differs_is_said() -> None:
    first, second = make_result({"o": SLOW}), make_result({"o": FAST}, threads=2)
    facts = second.bundle.model_copy(update={"fingerprint": "1" * 64})
    second = second.model_copy(update={"bundle": facts, "versions": {"numpy": "1.26"}})
    assert compare(first, second).differences == [
        "bundle: 000000000000 and 111111111111",
        "threads: auto and 2",
        "numpy: 2.0 and 1.26",
    ]


def test_a_stage_of_one_alone_has_no_row() -> None:
    graph = make_run("o", FAST).model_copy(update={"stages": {}})
    other = make_result({"o": FAST}).model_copy(update={"runs": (graph,)})
    assert [row.stage for row in compare(make_result({"o": SLOW}), other).rows] == [END_TO_END]
