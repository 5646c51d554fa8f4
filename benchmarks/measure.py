"""The runtime benchmark: backends take turns on the same frames, so that their times are paired."""

from __future__ import annotations

import platform
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path

import rvos_edge
from rvos_edge.benchmarks.frames import BenchmarkClip, make_queries, read_clip
from rvos_edge.benchmarks.fresh import Order, open_run, start
from rvos_edge.benchmarks.schema import BenchmarkResult, BenchmarkRun, BundleFacts, Camera, StageTimes, Workload
from rvos_edge.benchmarks.state import read_machine, read_state
from rvos_edge.benchmarks.stats import percentiles, replay_camera
from rvos_edge.bundle import Bundle
from rvos_edge.catalogue import find_bundle
from rvos_edge.engines.registry import available_backends
from rvos_edge.errors import UserError
from rvos_edge.manifest import frame_flops
from rvos_edge.protocol import SegmenterProtocol

OnProgress = Callable[[str, int, int], None]
"""Progress callback: description, steps done, steps in all."""

_PACKAGES = (
    "numpy",
    "opencv-python-headless",
    "onnxruntime",
    "onnxruntime-gpu",
    "openvino",
    "tensorrt",
    "tensorrt-rtx-cu13",
)
_FRESH_FRAMES = 8
_TURN = 10
"""Consecutive frames of one backend before the next backend's turn."""


@dataclass(frozen=True)
class BenchOptions:
    """Options of a benchmark.

    Attributes:
        fps: Frame rate of the camera that is replayed against the times.
        starts: Fresh processes per backend for start-up time and memory; 0 for neither.
    """

    bundle: Path | None = None
    backends: Sequence[str] = ()
    size: tuple[int, int] | None = None
    queries: int = 1
    frames: int = 200
    warmup: int = 20
    source: str = "synthetic"
    fps: float = 30.0
    threads: int | None = None
    device: str = "auto"
    starts: int = 3


@dataclass
class _Entrant:
    """A backend and its times so far, in microseconds."""

    backend: str
    runtime: str
    reason: str
    segmenter: SegmenterProtocol
    frames: list[int] = field(default_factory=list)
    stages: dict[str, list[int | None]] = field(default_factory=dict)

    def step(self, clip: BenchmarkClip, index: int) -> None:
        """Segment frame ``index`` and keep its times; negative indices belong to the warm-up."""
        begin = time.perf_counter()
        result = self.segmenter.step(clip.at(index))
        took = time.perf_counter() - begin
        if result.index == 0 and index >= 0:
            raise AssertionError("the first frame of a video has no flow and must not be counted")
        self._keep(took, result.timings)

    def _keep(self, seconds: float, timings: dict[str, float]) -> None:
        for name in timings:
            # A stage may first run late, such as flow after a scene cut.
            self.stages.setdefault(name, [None] * len(self.frames))
        for name, times in self.stages.items():
            times.append(round(1e3 * timings[name]) if name in timings else None)
        self.frames.append(round(1e6 * seconds))

    def clear(self) -> None:
        """Drop the times of the warm-up."""
        self.frames.clear()
        self.stages.clear()

    def run(self, camera: Camera) -> BenchmarkRun:
        """The times, as percentiles and in full."""
        stages = {name: [1e-3 * us for us in times if us is not None] for name, times in self.stages.items()}
        return BenchmarkRun(
            backend=self.backend,
            runtime=self.runtime,
            reason=self.reason,
            end_to_end=percentiles(1e-3 * us for us in self.frames),
            fps=round(1e6 * len(self.frames) / sum(self.frames), 3),
            stages={name: percentiles(times) for name, times in stages.items()},
            camera=camera,
            times=StageTimes(
                frame_us=tuple(self.frames), stages_us={name: tuple(times) for name, times in self.stages.items()}
            ),
        )


def run_benchmark(
    options: BenchOptions, *, on_progress: OnProgress | None = None, on_note: Callable[[str], None] | None = None
) -> BenchmarkResult:
    """Run a benchmark.

    Raises:
        UserError: An option is out of range, the bundle or the source is damaged, or no backend can run the bundle.
    """
    _check(options)
    path = find_bundle(options.bundle)
    bundle = Bundle.open(path, size=options.size)
    if options.queries > bundle.manifest.max_queries:
        most = bundle.manifest.max_queries
        raise UserError(f"--query-count {options.queries} is more than this bundle's {most}; ask for fewer.")
    report = on_progress or (lambda what, done, of: None)
    clip = read_clip(options.source, frames=options.frames + options.warmup, size=bundle.manifest.size)
    queries = make_queries(options.queries)
    entrants = _open_all(bundle, options, queries, on_note or (lambda note: None))
    before = read_state()
    _take_turns(entrants, clip, options, report)
    runs = [entrant.run(replay_camera([1e-3 * us for us in entrant.frames], options.fps)) for entrant in entrants]
    after = read_state()
    for number, run in enumerate(runs if options.starts else ()):
        report("fresh processes", number, len(runs))
        order = Order(
            bundle=path.resolve(),
            backend=run.backend,
            device=options.device,
            size=bundle.manifest.size,
            threads=options.threads,
            queries=queries,
        )
        start_up, memory = start(order, [clip.at(index) for index in range(_FRESH_FRAMES)], options.starts)
        runs[number] = run.model_copy(update={"start_up": start_up, "memory": memory})
    flow = bundle.manifest.flow
    return BenchmarkResult(
        made=datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        tool=f"rvos-edge {rvos_edge.__version__} (Python {platform.python_version()})",
        commit=_commit(),
        machine=read_machine(uses_gpu=any("cpu" not in run.runtime.lower() for run in runs)),
        bundle=_bundle_facts(bundle),
        workload=Workload(
            source=clip.name,
            frame_size=clip.size,
            frames=options.frames,
            distinct=len(clip.images),
            warmup=options.warmup,
            queries=options.queries,
            flow_iterations=flow.iterations if flow else 0,
            threads=options.threads,
            interleaved=len(runs) > 1,
        ),
        versions=_versions(),
        before=before,
        after=after,
        runs=tuple(runs),
    )


def _check(options: BenchOptions) -> None:
    for name, value, least in (
        ("--query-count", options.queries, 1),
        ("--frames", options.frames, 1),
        ("--warmup", options.warmup, 1),
        ("--starts", options.starts, 0),
    ):
        if value < least:
            raise UserError(f"{name} {value} is out of range; give at least {least}.")
    if not 0 < options.fps <= 1000:
        raise UserError(f"--fps {options.fps:g} is out of range; give more than 0 and at most 1000.")


def _open_all(bundle: Bundle, options: BenchOptions, queries: list[str], note: Callable[[str], None]) -> list[_Entrant]:
    """The requested backends, or all that can run the bundle on this machine."""
    entrants = []
    for name in dict.fromkeys(options.backends or available_backends(bundle, options.device)):
        try:
            segmenter = open_run(
                bundle.path, bundle.manifest.size, name, device=options.device, threads=options.threads
            )
        except UserError as error:
            if options.backends:
                raise
            note(f"{name} is left out: {error}")
            continue
        segmenter.set_queries(queries)
        entrants.append(_Entrant(name, segmenter.backend_name, segmenter.backend_reason, segmenter))
    if not entrants:
        raise UserError("no backend can run this bundle here; see 'rvos-edge doctor'.")
    return entrants


def _take_turns(entrants: list[_Entrant], clip: BenchmarkClip, options: BenchOptions, report: OnProgress) -> None:
    """Run ``_TURN`` frames on each backend in turn; the order rotates, so that no backend always follows the same one.

    Turns of single frames would measure the other runtime's threads, which spin for a while after their work.
    """
    for number, begin in enumerate(range(-options.warmup, options.frames, _TURN)):
        turn = range(begin, min(begin + _TURN, options.frames))
        first = number % len(entrants)
        for entrant in (*entrants[first:], *entrants[:first]):
            for index in turn:
                if index == 0:
                    entrant.clear()
                entrant.step(clip, index)
        report("frames", turn.stop + options.warmup, options.warmup + options.frames)


def _bundle_facts(bundle: Bundle) -> BundleFacts:
    manifest = bundle.manifest
    return BundleFacts(
        name=manifest.name,
        preset=manifest.preset,
        fingerprint=bundle.fingerprint,
        size=manifest.size,
        frame_flops=frame_flops(manifest.graphs, manifest.flow.iterations if manifest.flow else 0),
        weight_bytes=sum(spec.weight_bytes for spec in manifest.graphs.values()),
        precision={name: spec.precision for name, spec in manifest.graphs.items()},
    )


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def _commit() -> str | None:
    """Commit of the checkout that this package is imported from, "+" appended if modified; None where installed."""
    folder = Path(rvos_edge.__file__).parent

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(folder), *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()

    try:
        # Fails where the package lies inside another project's checkout, in its virtual environment.
        git("ls-files", "--error-unmatch", "__init__.py")
        return git("rev-parse", "--short=12", "HEAD") + ("+" if git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.SubprocessError):
        return None
