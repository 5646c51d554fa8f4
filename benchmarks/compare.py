"""Two results side by side: which is faster, by how much, and whether that is more than noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rvos_edge.benchmarks.schema import BenchmarkResult, BenchmarkRun
from rvos_edge.benchmarks.stats import Ratio, paired_ratio
from rvos_edge.bundle import format_size
from rvos_edge.errors import UserError

END_TO_END = "end to end"


@dataclass(frozen=True)
class ComparisonRow:
    """One line of the comparison.

    Attributes:
        first: What A ran on.
        second: What B ran on.
        stage: A stage, or ``END_TO_END``.
        first_ms: Median.
        second_ms: Median.
        ratio: How many times as fast B is.
    """

    first: str
    second: str
    stage: str
    first_ms: float
    second_ms: float
    ratio: Ratio


@dataclass(frozen=True)
class Comparison:
    """Rows, and what else differs between the two."""

    rows: list[ComparisonRow]
    differences: list[str]


def compare(first: BenchmarkResult, second: BenchmarkResult, *, names: tuple[str, str] = ("A", "B")) -> Comparison:
    """Compare two results of the same work.

    Runs are paired by backend; where each result has one run alone, these two are compared whatever they ran on.

    Args:
        first: A.
        second: B.
        names: How to call the two in messages.

    Raises:
        UserError: They did different work, or have no backend in common.
    """
    for what, a, b in _work(first, second):
        if a != b:
            raise UserError(f"{names[0]} and {names[1]} cannot be compared: {what} is {a} in one and {b} in the other.")
    rows: list[ComparisonRow] = []
    for run_a, run_b in _pairs(first, second, names):
        rows += compare_runs(run_a, run_b)
    return Comparison(rows, [f"{what}: {a} and {b}" for what, a, b in _circumstances(first, second) if a != b])


def compare_runs(first: BenchmarkRun, second: BenchmarkRun) -> list[ComparisonRow]:
    """A row for the whole frame and one for every stage that both have."""
    rows = [_row(first, second, END_TO_END, first.end_to_end.p50, second.end_to_end.p50)]
    rows += [
        _row(first, second, stage, first.stages[stage].p50, second.stages[stage].p50)
        for stage in first.stages
        if stage in second.stages
    ]
    return rows


def _row(first: BenchmarkRun, second: BenchmarkRun, stage: str, first_ms: float, second_ms: float) -> ComparisonRow:
    return ComparisonRow(first.runtime, second.runtime, stage, first_ms, second_ms, _ratio(first, second, stage))


def _ratio(first: BenchmarkRun, second: BenchmarkRun, stage: str) -> Ratio:
    """Paired by frame where both have the times; else the ratio of the medians, with no interval."""
    if first.times and second.times:
        a, b = (
            times.frame_us if stage == END_TO_END else times.stages_us[stage] for times in (first.times, second.times)
        )
        # Frames without the stage have no ratio; a time of less than half a microsecond was rounded to nothing.
        pairs = [(x, y) for x, y in zip(a, b, strict=False) if x and y]
        if pairs:
            return paired_ratio([x for x, _ in pairs], [y for _, y in pairs])
    a_ms, b_ms = (run.end_to_end.p50 if stage == END_TO_END else run.stages[stage].p50 for run in (first, second))
    return Ratio(a_ms / b_ms if b_ms else 1.0, None, None, 0)


def _pairs(
    first: BenchmarkResult, second: BenchmarkResult, names: tuple[str, str]
) -> Sequence[tuple[BenchmarkRun, BenchmarkRun]]:
    if len(first.runs) == len(second.runs) == 1:
        return [(first.runs[0], second.runs[0])]
    of_second = {run.backend: run for run in second.runs}
    pairs = [(run, of_second[run.backend]) for run in first.runs if run.backend in of_second]
    if not pairs:
        raise UserError(f"{names[0]} and {names[1]} have no backend in common; measure the same with both.")
    return pairs


def _work(first: BenchmarkResult, second: BenchmarkResult) -> list[tuple[str, object, object]]:
    """What must be the same, or the times mean different things."""
    a, b = first.workload, second.workload
    return [
        ("the network's preset", first.bundle.preset, second.bundle.preset),
        ("the input size", format_size(first.bundle.size), format_size(second.bundle.size)),
        ("the number of queries", a.queries, b.queries),
        ("the number of flow iterations", a.flow_iterations, b.flow_iterations),
        ("the source", a.source, b.source),
        ("the frames' size", format_size(a.frame_size), format_size(b.frame_size)),
    ]


def _circumstances(first: BenchmarkResult, second: BenchmarkResult) -> list[tuple[str, object, object]]:
    """What may differ, and should be known."""
    versions = sorted({*first.versions, *second.versions})
    return [
        ("bundle", first.bundle.fingerprint[:12], second.bundle.fingerprint[:12]),
        ("precision", _precision(first), _precision(second)),
        ("machine", first.machine.name, second.machine.name),
        ("threads", first.workload.threads or "auto", second.workload.threads or "auto"),
        ("frames", first.workload.frames, second.workload.frames),
        ("power mode", first.before.power_mode, second.before.power_mode),
        ("clocks locked", first.before.clocks_locked, second.before.clocks_locked),
        ("source code", first.commit, second.commit),
        ("tool", first.tool, second.tool),
        *((name, first.versions.get(name, "none"), second.versions.get(name, "none")) for name in versions),
    ]


def _precision(result: BenchmarkResult) -> str:
    return ", ".join(sorted(set(result.bundle.precision.values())))
