"""Comparison of two benchmark results: ratios per stage with confidence intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rvos_edge.benchmarks.schema import BenchmarkResult, BenchmarkRun
from rvos_edge.benchmarks.stats import Ratio, paired_ratio
from rvos_edge.errors import UserError
from rvos_edge.manifest import format_size

END_TO_END = "end to end"


@dataclass(frozen=True)
class ComparisonRow:
    """A row of the comparison: the medians of one stage (or ``END_TO_END``) of two runs, and the time of A over that of
    B.
    """

    first: str
    second: str
    stage: str
    first_ms: float
    second_ms: float
    ratio: Ratio


@dataclass(frozen=True)
class Comparison:
    """Rows, and the differences between the two measurements ("threads: 1 and 4")."""

    rows: list[ComparisonRow]
    differences: list[str]


def compare(first: BenchmarkResult, second: BenchmarkResult, *, names: tuple[str, str] = ("A", "B")) -> Comparison:
    """Compare two results of the same workload.

    Runs are paired by backend; where each result has a single run, these two are paired whatever their backends.

    Raises:
        UserError: The workloads differ, or there is no backend in common.
    """
    for fact, a, b in _workload_facts(first, second):
        if a != b:
            raise UserError(f"{names[0]} and {names[1]} cannot be compared: {fact} is {a} in one and {b} in the other.")
    rows: list[ComparisonRow] = []
    for run_a, run_b in _pairs(first, second, names):
        rows += compare_runs(run_a, run_b)
    return Comparison(rows, [f"{fact}: {a} and {b}" for fact, a, b in _circumstances(first, second) if a != b])


def compare_runs(first: BenchmarkRun, second: BenchmarkRun) -> list[ComparisonRow]:
    """Rows of the whole frame and of every stage that both runs have."""
    ours, theirs = _medians(first), _medians(second)
    return [
        ComparisonRow(first.runtime, second.runtime, stage, ours[stage], theirs[stage], _ratio(first, second, stage))
        for stage in ours
        if stage in theirs
    ]


def _medians(run: BenchmarkRun) -> dict[str, float]:
    return {END_TO_END: run.end_to_end.p50, **{stage: values.p50 for stage, values in run.stages.items()}}


def _ratio(first: BenchmarkRun, second: BenchmarkRun, stage: str) -> Ratio:
    """Ratio paired by frame where both runs kept their times; otherwise that of the medians, without an interval."""
    if first.times and second.times:
        a, b = ({END_TO_END: times.frame_us, **times.stages_us}[stage] for times in (first.times, second.times))
        # None: the stage did not run on the frame. 0: less than half a microsecond, rounded.
        pairs = [(x, y) for x, y in zip(a, b, strict=False) if x and y]
        if pairs:
            return paired_ratio([x for x, _ in pairs], [y for _, y in pairs])
    a_ms, b_ms = _medians(first)[stage], _medians(second)[stage]
    return Ratio(a_ms / b_ms if b_ms else 1.0, None, None, 0)


def _pairs(
    first: BenchmarkResult, second: BenchmarkResult, names: tuple[str, str]
) -> Sequence[tuple[BenchmarkRun, BenchmarkRun]]:
    if len(first.runs) == len(second.runs) == 1:
        return [(first.runs[0], second.runs[0])]
    by_backend = {run.backend: run for run in second.runs}
    pairs = [(run, by_backend[run.backend]) for run in first.runs if run.backend in by_backend]
    if not pairs:
        raise UserError(f"{names[0]} and {names[1]} have no backend in common; measure the same with both.")
    return pairs


def _workload_facts(first: BenchmarkResult, second: BenchmarkResult) -> list[tuple[str, object, object]]:
    """Facts that must be equal for times to be comparable: (description, of A, of B)."""
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
    """Facts that may differ and are reported: (description, of A, of B)."""
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
