"""A result as one HTML page: nothing is loaded from elsewhere, no scripts, dark and light."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from rvos_edge.benchmarks.compare import END_TO_END, compare_runs
from rvos_edge.benchmarks.schema import BenchmarkResult, BenchmarkRun, LatencyPercentiles
from rvos_edge.benchmarks.show import busy_warning, interval, state_line, verdict
from rvos_edge.bundle import format_size
from rvos_edge.outputs import GENERATOR

_STYLE = """
:root { color-scheme: light dark; --back: #fff; --text: #1c1e21; --faint: #5f6670; --line: #d8dce1; --warn: #8a5a00; }
@media (prefers-color-scheme: dark) {
  :root { --back: #15181c; --text: #e4e6e9; --faint: #9aa2ad; --line: #343a42; --warn: #e0b050; }
}
body { margin: 2rem auto; max-width: 70rem; padding: 0 1rem; background: var(--back); color: var(--text);
       font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.2rem; margin: 2.2rem 0 .5rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .7rem; border-bottom: 1px solid var(--line); text-align: right; }
th:first-child, td:first-child { text-align: left; }
svg { display: block; width: 100%; height: auto; }
svg text { fill: var(--text); font-size: 13px; }
.note { color: var(--faint); } .warn { color: var(--warn); }
.key { display: inline-block; margin-right: 1rem; } .key i { display: inline-block; width: .8rem; height: .8rem;
       margin-right: .3rem; border-radius: 2px; }
"""
# Distinct in both schemes, also for people who see few colours.
_COLOURS = (
    "#8c96a3", "#4477aa", "#66ccee", "#228833", "#99cc55", "#ccbb44", "#ee8866", "#aa3377", "#bbbbbb"
)  # fmt: skip
_WIDTH, _BAR, _GAP, _LABEL = 1000, 26, 34, 230
_PLOT = 140


def render_page(result: BenchmarkResult) -> str:
    """The whole page."""
    work, bundle = result.workload, result.bundle
    title = f"{bundle.name} {format_size(bundle.size)} on {result.machine.name}"
    stages = list(dict.fromkeys(name for run in result.runs for name in run.stages))
    parts = [
        "<!doctype html>",
        f'<html lang="en"><head><meta charset="utf-8">{GENERATOR}',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body>",
        f"<h1>{escape(title)}</h1>",
        f'<p class="note">{result.made}, {work.queries} queries, {work.frames} frames of {escape(work.source)} at '
        f"{format_size(work.frame_size)} after {work.warmup} to warm up, bundle {bundle.fingerprint[:12]}, "
        f"source {escape(result.commit or 'not a checkout')}.</p>",
    ]
    if warning := busy_warning(result):
        parts.append(f'<p class="warn">{escape(warning)}</p>')
    parts += ["<h2>Where a frame's time goes</h2>", _bars(result.runs, stages), _legend(stages)]
    parts += ["<h2>Milliseconds</h2>", _stage_table(result.runs, stages)]
    if len(result.runs) > 1:
        parts += ["<h2>Ratios</h2>", _ratios(result)]
    parts += ["<h2>Frame by frame</h2>", *map(_plot, result.runs)]
    parts += ["<h2>Start, memory, camera</h2>", _facts(result.runs)]
    parts += ["<h2>Machine</h2>", _machine(result), "</body></html>", ""]
    return "\n".join(parts)


def _bars(runs: Sequence[BenchmarkRun], stages: Sequence[str]) -> str:
    """One bar per backend, cut into the medians of its stages."""
    longest = max(sum(values.p50 for values in run.stages.values()) for run in runs) or 1.0
    lines = [f'<svg viewBox="0 0 {_WIDTH} {_GAP * len(runs)}" role="img" aria-label="medians of the stages">']
    for row, run in enumerate(runs):
        top, left = row * _GAP, float(_LABEL)
        lines.append(f'<text x="0" y="{top + 18}">{escape(run.runtime)}</text>')
        for name, values in run.stages.items():
            width = (_WIDTH - _LABEL - 90) * values.p50 / longest
            colour = _COLOURS[stages.index(name) % len(_COLOURS)]
            lines.append(
                f'<rect x="{left:.1f}" y="{top}" width="{width:.1f}" height="{_BAR}" fill="{colour}">'
                f"<title>{escape(name)}: {values.p50:.2f} ms</title></rect>"
            )
            left += width
        lines.append(f'<text x="{left + 8:.1f}" y="{top + 18}">{run.end_to_end.p50:.1f} ms</text>')
    return "\n".join([*lines, "</svg>"])


def _legend(stages: Sequence[str]) -> str:
    keys = (
        f'<span class="key"><i style="background:{_COLOURS[number % len(_COLOURS)]}"></i>{escape(name)}</span>'
        for number, name in enumerate(stages)
    )
    return f"<p>{''.join(keys)}</p>"


def _stage_table(runs: Sequence[BenchmarkRun], stages: Sequence[str]) -> str:
    heads = [head for run in runs for head in (f"{run.runtime} p50", "p90", "p99")]
    rows = [[name, *_cells(runs, name)] for name in stages]
    rows.append([END_TO_END, *(cell for run in runs for cell in _three(run.end_to_end))])
    return _table(["stage", *heads], rows)


def _cells(runs: Sequence[BenchmarkRun], stage: str) -> list[str]:
    return [cell for run in runs for cell in _three(run.stages.get(stage))]


def _three(values: LatencyPercentiles | None) -> list[str]:
    return ["", "", ""] if values is None else [f"{value:.2f}" for value in (values.p50, values.p90, values.p99)]


def _ratios(result: BenchmarkResult) -> str:
    first = result.runs[0]
    rows = []
    for run in result.runs[1:]:
        row = compare_runs(first, run)[0]
        rows.append([first.runtime, run.runtime, f"{row.ratio.value:.3f}", interval(row), verdict(row)])
    return _table(["A", "B", "B is so many times as fast", "95 % interval", "verdict"], rows)


def _plot(run: BenchmarkRun) -> str:
    """Every frame's time as a line over the frames, from zero to the slowest."""
    if run.times is None:
        return f'<p class="note">{escape(run.runtime)}: the single times were not kept.</p>'
    times = run.times.frame_us
    highest, step = max(times), _WIDTH / max(1, len(times) - 1)
    points = " ".join(f"{index * step:.1f},{_PLOT * (1 - us / highest):.1f}" for index, us in enumerate(times))
    return (
        f'<p class="note">{escape(run.runtime)}: 0 to {highest / 1000:.1f} ms</p>'
        f'<svg viewBox="0 -2 {_WIDTH} {_PLOT + 4}" role="img" aria-label="times of the frames">'
        f'<polyline points="{points}" fill="none" stroke="{_COLOURS[1]}" stroke-width="1.5"/></svg>'
    )


def _facts(runs: Sequence[BenchmarkRun]) -> str:
    rows = []
    for run in runs:
        start, memory, camera = run.start_up, run.memory, run.camera
        device = memory.device_mib if memory else None
        rows.append(
            [
                run.runtime,
                f"{run.fps:.1f}",
                f"{start.total_s:.2f} s" if start else "",
                f"{memory.host_mib:.0f} MiB" if memory else "",
                f"{device:.0f} MiB" if device is not None else "",
                f"{camera.dropped} of {camera.arrived} at {camera.fps:g} fps" if camera else "",
            ]
        )
    return _table(["", "frames/s", "start to first mask", "peak host", "peak device", "a camera would drop"], rows)


def _machine(result: BenchmarkResult) -> str:
    machine = result.machine
    rows = [
        ["CPU", f"{machine.cpu}, {machine.cores} usable cores"],
        ["GPU", machine.gpu or "none"],
        ["memory", f"{machine.memory_mib / 1024:.1f} GiB"],
        ["system", machine.system],
        ["before", state_line(result.before)],
        ["after", state_line(result.after)],
        ["tool", result.tool],
        ["versions", ", ".join(f"{name} {version}" for name, version in result.versions.items())],
    ]
    return _table([], rows)


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    top = f"<tr>{''.join(f'<th>{escape(head)}</th>' for head in heads)}</tr>" if heads else ""
    body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f'<div class="scroll"><table>{top}{body}</table></div>'
