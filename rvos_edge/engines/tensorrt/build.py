"""Building TensorRT engines from the graphs of a bundle, with a progress bar, into the engine cache."""

from __future__ import annotations

import contextlib
import multiprocessing
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from rvos_edge.atomic import new_file
from rvos_edge.bundle import Bundle
from rvos_edge.engines.tensorrt import api
from rvos_edge.engines.tensorrt.engine_cache import EngineCache, EngineKey
from rvos_edge.engines.tensorrt.gpu import find_gpu
from rvos_edge.engines.tensorrt.open_cuda import open_cuda
from rvos_edge.errors import UserError, one_line
from rvos_edge.manifest import HOST_GRAPHS, GraphSpec, TensorSpec

_UNUSED = re.compile(r"unused input|input .*(?:is|was) (?:never|not) used", re.IGNORECASE)
_USUAL_QUERIES, _USUAL_TOKENS = 2, 16
"""Extents that the optimization profiles are tuned for."""

Report = Callable[[float], None]


@dataclass(frozen=True)
class BuildOptions:
    """Options of an engine build.

    Attributes:
        capabilities: Compute capabilities such as "86", for tensorrt-rtx; empty for the GPU of this machine.
        gpu: Index of the GPU of this machine that engines are built for.
        isolated: Build each graph in a process of its own, which frees its memory afterwards; for small Jetsons.
    """

    flavour: api.Flavour
    capabilities: tuple[str, ...] = ()
    workspace: int | None = None
    isolated: bool = False
    gpu: int = 0


def ensure_engines(
    bundle: Bundle,
    options: BuildOptions,
    *,
    graphs: Sequence[str] | None = None,
    build: bool = True,
    console: Console | None = None,
) -> dict[str, Path]:
    """Find the engines of a bundle and build those that are missing or do not fit, or refuse with ``build=False``;
    returns their paths by graph. ``graphs`` None is all but those that run on the host (``HOST_GRAPHS``).

    Raises:
        UserError: TensorRT or the GPU is missing, a graph cannot be built, or an engine is missing and ``build`` is
            False.
    """
    check_options(options)
    trt = api.load(options.flavour)
    cache = EngineCache(bundle)
    names = graphs if graphs is not None else [name for name in bundle.manifest.graphs if name not in HOST_GRAPHS]
    keys = {name: engine_key(bundle, name, options, api.version(trt)) for name in names}
    found = {name: path for name, key in keys.items() if (path := cache.find(key)) is not None}
    missing = [name for name in names if name not in found]
    if missing and not build:
        reason = cache.why_not(keys[missing[0]])
        raise UserError(f"{bundle.path}: {reason}; leave out --no-build, or run: rvos-edge build {bundle.path}")
    console = console or Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        for name in missing:
            task = bar.add_task(f"build {name}", total=1.0)
            timings = cache.root / f"timing-{options.flavour}.cache" if options.flavour == "tensorrt" else None
            job = BuildJob(
                graph=name,
                path=bundle.graph_path(name),
                spec=bundle.manifest.graphs[name],
                max_queries=bundle.manifest.max_queries,
                max_tokens=bundle.manifest.text.max_tokens,
                timings=timings,
                # Aimed at the GPU that is here where none was named.
                options=replace(options, capabilities=keys[name].capabilities),
            )
            make = build_isolated if options.isolated else build_plan
            plan = make(job, lambda share, task=task: bar.update(task, completed=share))  # type: ignore[misc]
            found[name] = cache.store(keys[name], plan)
            bar.update(task, completed=1.0)
    return {name: found[name] for name in names}


def check_options(options: BuildOptions) -> None:
    """Refuse a build without TensorRT, for an unknown compute capability, or for no GPU at all, before it starts."""
    trt = api.load(options.flavour)
    known = api.known_capabilities(trt)
    unknown = [capability for capability in options.capabilities if capability not in known]
    if unknown:
        raise UserError(
            f"--compute-capability {unknown[0]} is unknown to {options.flavour} {api.version(trt)}; "
            + (f"choose among {', '.join(known)}." if known else "it builds for the GPU it finds: leave it out.")
        )
    if options.capabilities:
        return
    gpu = find_gpu(options.gpu)
    if gpu is None:
        aim = "name the GPUs to build for, such as --compute-capability 86, or " if known else ""
        which = f"GPU {options.gpu}" if options.gpu else "NVIDIA GPU"
        raise UserError(f"target '{options.flavour}': no {which} with a driver is here; {aim}build on the device.")
    if not api.supports(trt, gpu.capability):
        raise UserError(
            f"target '{options.flavour}' {api.version(trt)} builds no engines for {gpu.name}, compute capability "
            f"{gpu.capability}, only for {', '.join(known)}; use --target tensorrt, or backend onnxruntime."
        )


def engine_key(bundle: Bundle, graph: str, options: BuildOptions, version: str) -> EngineKey:
    """Return the key of the engine of a graph on this machine; the options must have passed ``check_options``."""
    gpu = None if options.capabilities else find_gpu(options.gpu)
    spec = bundle.manifest.graphs[graph]
    return EngineKey(
        graph=graph,
        onnx_sha256=spec.sha256,
        flavour=options.flavour,
        version=version,
        gpu=gpu.name if gpu is not None else "",
        capabilities=(gpu.capability,) if gpu is not None else tuple(sorted(options.capabilities)),
        shapes={tensor.name: tensor.shape for tensor in spec.inputs},
        max_queries=bundle.manifest.max_queries,
        precision=spec.precision,
    )


@dataclass(frozen=True)
class BuildJob:
    """One engine to build."""

    graph: str
    path: Path
    spec: GraphSpec
    max_queries: int
    max_tokens: int
    timings: Path | None
    options: BuildOptions


def build_plan(job: BuildJob, report: Report) -> bytes:
    """Build one engine in this process; returns it serialised. ``report`` is called with the share that is done, 0 to
    1.

    Raises:
        UserError: TensorRT refuses the graph or fails; the message names the graph and, if known, the node.
    """
    if job.options.flavour == "tensorrt" and job.options.gpu:
        with open_cuda(job.options.gpu).current():
            return _build(job, report)
    return _build(job, report)


def _build(job: BuildJob, report: Report) -> bytes:
    trt = api.load(job.options.flavour)
    log = api.Log(trt)
    builder = trt.Builder(log.logger)
    network = builder.create_network(api.network_flags(trt))
    parser = trt.OnnxParser(network, log.logger)
    if not parser.parse_from_file(str(job.path)):
        problems = api.parser_errors(parser) or log.errors or ["no reason given"]
        raise UserError(f"Graph '{job.graph}' cannot be parsed by {job.options.flavour}: {one_line(problems[0])}.")
    _check_inputs(job, network, log)
    config = builder.create_builder_config()
    api.aim_at(trt, config, job.options.capabilities)
    api.limit_workspace(trt, config, job.options.workspace)
    api.require_user_allocation(trt, config)
    monitor = api.progress_monitor(trt, report)
    if monitor is not None:
        config.progress_monitor = monitor
    _add_profile(job, builder, config)
    timings = api.use_timing_cache(config, job.timings)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        reason = one_line(log.errors[0] if log.errors else "no reason given")
        raise UserError(
            f"Graph '{job.graph}' ({_type_in_file(job.spec)}) cannot be built by {job.options.flavour}: {reason}."
        )
    if timings is not None and job.timings is not None:
        # Without the timing cache the next build is slower; nothing else is lost.
        with contextlib.suppress(OSError):
            _save_timings(config, job.timings)
    return bytes(plan)


def build_isolated(job: BuildJob, report: Report) -> bytes:
    """Run ``build_plan`` in a process of its own.

    Raises:
        UserError: The errors of ``build_plan``, or the process was killed.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_build_and_send, args=(job, theirs), daemon=True)
    process.start()
    theirs.close()
    try:
        while True:
            kind, value = ours.recv()
            if kind == "plan":
                return bytes(value)
            if kind == "error":
                raise UserError(value)
            report(value)
    except EOFError:
        process.join()
        code = process.exitcode or 0
        how = f"was ended by signal {-code}" if code < 0 else f"ended with exit code {code}"
        raise UserError(
            f"the build of graph '{job.graph}' {how}, most likely for lack of memory; close other programs, add swap, "
            "or give a smaller --workspace."
        ) from None
    finally:
        process.kill()
        process.join()
        ours.close()


def _build_and_send(job: BuildJob, pipe: Connection) -> None:
    try:
        plan = build_plan(job, lambda share: pipe.send(("progress", share)))
    except UserError as error:
        pipe.send(("error", str(error)))
    else:
        pipe.send(("plan", plan))
    pipe.close()


def _check_inputs(job: BuildJob, network: Any, log: api.Log) -> None:
    unused = [message for message in log.warnings if _UNUSED.search(message)]
    if unused:
        raise UserError(f"Graph '{job.graph}': {one_line(unused[0])}; leave the input out when exporting.")
    found = {network.get_input(index).name for index in range(network.num_inputs)}
    expected = {tensor.name for tensor in job.spec.inputs}
    if found != expected:
        raise UserError(
            f"Graph '{job.graph}' reads {sorted(found)} in {job.options.flavour} where manifest.json has "
            f"{sorted(expected)}; export the bundle again."
        )


def _add_profile(job: BuildJob, builder: Any, config: Any) -> None:
    """Add one profile that allows every symbolic extent from 1 to its largest value."""
    symbolic = [tensor for tensor in job.spec.inputs if any(isinstance(dim, str) for dim in tensor.shape)]
    if not symbolic:
        return
    profile = builder.create_optimization_profile()
    most = {"Q": job.max_queries, "L": job.max_tokens}
    usual = {"Q": min(_USUAL_QUERIES, job.max_queries), "L": min(_USUAL_TOKENS, job.max_tokens)}
    for tensor in symbolic:
        profile.set_shape(tensor.name, _extents(tensor, {}), _extents(tensor, usual), _extents(tensor, most))
    config.add_optimization_profile(profile)


def _extents(tensor: TensorSpec, symbols: dict[str, int]) -> tuple[int, ...]:
    return tuple(symbols.get(dim, 1) if isinstance(dim, str) else dim for dim in tensor.shape)


def _save_timings(config: Any, path: Path) -> None:
    data = bytes(config.get_timing_cache().serialize())
    with new_file(path) as temporary:
        temporary.write_bytes(data)


def _type_in_file(spec: GraphSpec) -> str:
    """Return the arithmetic that the file states; bfloat16 is a permission for OpenVINO and stands for float32."""
    return "float32" if spec.precision == "bfloat16" else spec.precision
