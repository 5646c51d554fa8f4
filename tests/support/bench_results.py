"""Results made by hand for the tests of the benchmarks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rvos_edge.benchmarks.schema import BenchmarkResult, BenchmarkRun, BundleFacts, Machine, StageTimes, State, Workload
from rvos_edge.benchmarks.stats import percentiles, replay_camera


def make_run(backend: str, milliseconds: Sequence[float]) -> BenchmarkRun:
    """A run whose only stage takes half of each frame."""
    half = [value / 2 for value in milliseconds]
    return BenchmarkRun(
        backend=backend,
        runtime=f"{backend} (cpu)",
        reason="asked for",
        end_to_end=percentiles(milliseconds),
        fps=1000 * len(milliseconds) / sum(milliseconds),
        stages={"backbone": percentiles(half)},
        camera=replay_camera(milliseconds, 30.0),
        times=StageTimes(
            frame_us=tuple(round(1000 * value) for value in milliseconds),
            stages_us={"backbone": tuple(round(1000 * value) for value in half)},
        ),
    )


def make_result(runs: Mapping[str, Sequence[float]], **changes: object) -> BenchmarkResult:
    """A result of a tiny bundle; ``changes`` replace fields of the workload.

    Args:
        runs: Milliseconds of the frames by backend.
        changes: Such as ``queries=2``.
    """
    frames = len(next(iter(runs.values())))
    work = Workload(
        source="synthetic:0",
        frame_size=(64, 96),
        frames=frames,
        distinct=frames,
        warmup=2,
        queries=1,
        flow_iterations=3,
        interleaved=len(runs) > 1,
    )
    return BenchmarkResult(
        made="2026-01-31T12:00:00Z",
        tool="by hand",
        machine=Machine(name="Some Board", cpu="Some CPU", cores=4, memory_mib=8000, system="Linux aarch64"),
        bundle=BundleFacts(
            name="tiny",
            preset="test",
            fingerprint="0" * 64,
            size=(64, 96),
            frame_flops=10,
            weight_bytes=20,
            precision={"backbone": "float32"},
        ),
        workload=work.model_copy(update=changes),
        versions={"numpy": "2.0"},
        before=State(load_average=0.1),
        after=State(load_average=1.0),
        runs=tuple(make_run(backend, times) for backend, times in runs.items()),
    )
