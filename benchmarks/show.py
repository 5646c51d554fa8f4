"""Terminal tables of results, comparisons and rooflines."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from rvos_edge.benchmarks.compare import END_TO_END, Comparison, ComparisonRow, compare_runs
from rvos_edge.benchmarks.devices import DevicePeak
from rvos_edge.benchmarks.roofline import Bound, bounds, frame_share, total_ms
from rvos_edge.benchmarks.schema import BenchmarkResult, BenchmarkRun, LatencyPercentiles, State
from rvos_edge.manifest import Arithmetic, Manifest, format_size

_SHORT: dict[Arithmetic, str] = {"float32": "f32", "float16": "f16", "bfloat16": "bf16", "int8": "int8"}
BUSY = 0.5
"""Load per core above which a warning is printed."""


def print_result(result: BenchmarkResult, console: Console) -> None:
    """Print a result, without the times of single frames."""
    work, bundle = result.workload, result.bundle
    queries = f"{work.queries} {'query' if work.queries == 1 else 'queries'}"
    console.print(
        escape(
            f"{result.machine.name}: {bundle.name} {bundle.fingerprint[:12]} at {format_size(bundle.size)}, {queries}, "
            f"{work.frames} frames of {work.source}"
        ),
        soft_wrap=True,
    )
    console.print(_stages(result.runs))
    for run in result.runs[1:]:
        console.print(f"[bold]{escape(_verdict(compare_runs(result.runs[0], run)[0]))}[/]", soft_wrap=True)
    for moment, state in (("before", result.before), ("after", result.after)):
        console.print(f"{moment}: {escape(state_line(state))}", soft_wrap=True)
    if warning := busy_warning(result):
        console.print(f"[yellow]{escape(warning)}[/]", soft_wrap=True)


def busy_warning(result: BenchmarkResult) -> str | None:
    """A warning if the machine was busy with something else before the first frame; None otherwise."""
    load = result.before.load_average
    if load is None or load <= BUSY * result.machine.cores:
        return None
    return (
        f"The machine was busy before the first frame (load {load:.1f} on {result.machine.cores} cores): milliseconds "
        "are unreliable; ratios within one result are paired and less affected."
    )


def state_line(state: State) -> str:
    """A machine's state in one line."""
    parts = [f"load {state.load_average:.2f}"] if state.load_average is not None else []
    parts += [f"governor {', '.join(state.governors)}"] if state.governors else []
    if state.clocks_locked is not None:
        parts.append("clocks locked" if state.clocks_locked else "clocks free")
    parts += [f"power mode {state.power_mode}"] if state.power_mode else []
    parts += [f"{name} {degrees:.0f} °C" for name, degrees in state.temperatures_c.items()]
    parts += [f"{name} {value}" for name, value in state.gpu.items() if name != "name"]
    return ", ".join(parts) or "unknown"


def print_comparison(comparison: Comparison, console: Console) -> None:
    """Print a table per pair of runs, with a verdict on each line."""
    for difference in comparison.differences:
        console.print(f"differs: {escape(difference)}", soft_wrap=True)
    for (first, second), rows in groupby(comparison.rows, key=lambda row: (row.first, row.second)):
        table = Table(
            title=f"A: {escape(first)}, B: {escape(second)}",
            caption="x: how many times as fast B is; 95 % bootstrap interval of the ratios per frame",
        )
        table.add_column("stage", no_wrap=True)
        for column in ("A ms", "B ms", "x", "interval"):
            table.add_column(column, justify="right", no_wrap=True)
        table.add_column("verdict")
        for row in rows:
            table.add_row(
                row.stage,
                f"{row.first_ms:.2f}",
                f"{row.second_ms:.2f}",
                f"{row.ratio.value:.3f}",
                interval(row),
                verdict(row),
                style="bold" if row.stage == END_TO_END else None,
            )
        console.print(table)


def interval(row: ComparisonRow) -> str:
    """The confidence interval, ``1.92 to 2.11``, or the reason why there is none."""
    if row.ratio.low is None or row.ratio.high is None:
        return "medians only" if not row.ratio.pairs else "too few frames"
    return f"{row.ratio.low:.3f} to {row.ratio.high:.3f}"


def verdict(row: ComparisonRow) -> str:
    """The faster of the two, or "undecided" where the interval contains 1."""
    if not row.ratio.excludes_one:
        return "undecided"
    return "B is faster" if row.ratio.value > 1 else "A is faster"


def print_roofs(manifest: Manifest, devices: Sequence[DevicePeak], console: Console) -> None:
    """Print a line per device: the bound of a frame as exported, and with all graphs in float16."""
    table = Table(
        title=f"Least milliseconds of a frame: {escape(manifest.name)} at {format_size(manifest.size)}, one query",
        caption="f32, tf32, f16: dense TFLOPS. ms: as exported; ms f16: all graphs in float16. Estimated bounds: "
        "weights, inputs and outputs of a graph pass through memory once, tensors inside it stay in caches.",
    )
    table.add_column("device", no_wrap=True)
    for column in ("f32", "tf32", "f16", "GB/s", "ms", "ms f16"):
        table.add_column(column, justify="right", no_wrap=True)
    for device in devices:
        stated, narrow = (total_ms(bounds(manifest, device)), total_ms(bounds(manifest, device, precision="float16")))
        figures = (device.float32, device.tf32, device.float16, device.bandwidth, stated, narrow)
        table.add_row(escape(device.name), *("-" if figure is None else _short(figure) for figure in figures))
    console.print(table)
    for device in devices:
        console.print(f"{escape(device.name)}: {escape(device.basis)}; {escape(device.source)}", soft_wrap=True)


def _short(figure: float) -> str:
    return f"{figure:.0f}" if figure >= 1000 else f"{figure:.3g}"


def print_roof(manifest: Manifest, device: DevicePeak, result: BenchmarkResult | None, console: Console) -> None:
    """Print the bound of every graph, beside the medians of a result if there is one."""
    found = bounds(manifest, device)
    runs = result.runs if result is not None else ()
    tensor = f" ({device.tf32:.3g} in TF32)" if device.tf32 else ""
    peak = f"{device.float32:.3g} TFLOPS in float32{tensor}, {device.float16:.4g} in float16"
    table = Table(
        title=f"{escape(device.name)}\n{peak}, {device.bandwidth:.4g} GB/s",
        caption=f"in brackets: share of the bound, measured on {escape(result.machine.name)}" if result else "",
        show_footer=True,
    )
    table.add_column("graph", footer="frame", no_wrap=True)
    table.add_column("in")
    table.add_column("GFLOP", justify="right", footer=f"{sum(bound.flops for bound in found) / 1e9:.2f}")
    table.add_column("MB", justify="right", footer=f"{sum(bound.bytes for bound in found) / 1e6:.1f}")
    table.add_column("least ms", justify="right", footer=f"{total_ms(found):.3g}", no_wrap=True)
    table.add_column("limit", no_wrap=True)
    for run in runs:
        reached = frame_share(found, {name: values.p50 for name, values in run.stages.items()})
        footer = "-" if reached is None else f"{run.end_to_end.p50:.2f} ({100 * reached:.1f} %)"
        table.add_column(f"{run.backend} ms", justify="right", footer=footer)
    for bound in found:
        table.add_row(
            bound.graph + (f" x {bound.runs}" if bound.runs > 1 else ""),
            _SHORT[bound.precision],
            f"{bound.flops / 1e9:.2f}",
            f"{bound.bytes / 1e6:.1f}",
            f"{bound.milliseconds:.3g}",
            bound.limit,
            *(_measured(bound, run) for run in runs),
        )
    console.print(table)
    console.print(f"{escape(device.basis)}; {escape(device.source)}", soft_wrap=True)
    if result is not None and (warning := busy_warning(result)):
        console.print(f"[yellow]{escape(warning)}[/]", soft_wrap=True)


def _measured(bound: Bound, run: BenchmarkRun) -> str:
    values = run.stages.get(bound.graph)
    if values is None or not values.p50:
        return "-"
    return f"{values.p50:.2f} ({100 * bound.milliseconds / values.p50:.1f} %)"


def _stages(runs: Sequence[BenchmarkRun]) -> Table:
    table = Table(title="Milliseconds: p50 / p90 / p99")
    table.add_column("stage", no_wrap=True)
    for run in runs:
        table.add_column(escape(run.runtime), justify="right")
    for name in dict.fromkeys(name for run in runs for name in run.stages):
        table.add_row(name, *(_three(run.stages.get(name)) for run in runs))
    table.add_row(END_TO_END, *(_three(run.end_to_end) for run in runs), style="bold", end_section=True)
    table.add_row("frames per second", *(f"{run.fps:.1f}" for run in runs), style="bold", end_section=True)
    for name, show in _FACTS.items():
        if any(show(run) for run in runs):
            table.add_row(name, *(show(run) or "-" for run in runs))
    return table


def _three(values: LatencyPercentiles | None) -> str:
    return f"{values.p50:.2f} / {values.p90:.2f} / {values.p99:.2f}" if values is not None else "-"


_FACTS: dict[str, Callable[[BenchmarkRun], str | None]] = {
    "start to first mask": lambda run: f"{run.start_up.total_s:.2f} s" if run.start_up else None,
    "opening the bundle": lambda run: f"{run.start_up.open_s:.2f} s" if run.start_up else None,
    "peak memory": lambda run: f"{run.memory.host_mib:.0f} MiB" if run.memory else None,
    "GPU memory": lambda run: f"{run.memory.device_mib:.0f} MiB" if run.memory and run.memory.device_mib else None,
    "dropped camera frames": lambda run: (
        f"{run.camera.dropped} of {run.camera.arrived} at {run.camera.fps:g} fps" if run.camera else None
    ),
}


def _verdict(row: ComparisonRow) -> str:
    faster = f"{row.second} is {row.ratio.value:.2f} times as fast as {row.first}"
    if row.ratio.low is None:
        return f"{faster} ({interval(row)})."
    doubt = "" if row.ratio.excludes_one else ", which does not exclude that they are equal"
    return f"{faster} (paired by frame; 95 % interval {interval(row)}{doubt})."
