"""The table of results in a Markdown page, between two markers: ``rvos-edge bench --render README.md``."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from rvos_edge.atomic import new_file
from rvos_edge.benchmarks.schema import BenchmarkResult, read_result
from rvos_edge.benchmarks.show import busy_warning
from rvos_edge.bundle import format_size
from rvos_edge.errors import UserError
from rvos_edge.outputs import names_path

BEGIN = "<!-- benchmarks:begin -->"
END = "<!-- benchmarks:end -->"
_HEADS = (
    "machine",
    "runtime",
    "bundle, input",
    "queries",
    "frame p50 / p90 / p99 ms",
    "frames/s",
    "first mask",
    "peak MiB",
)
_RIGHT = 3
"""First right-aligned column."""


def render(page: Path, *, results: Path | None = None) -> int:
    """Put the table of all results between the markers of a page, the rest of which is unchanged; returns their number.

    Raises:
        UserError: A file is missing or damaged, or the page lacks the markers.
    """
    folder = page.parent / "benchmarks" / "results" if results is None else results
    if not folder.is_dir():
        raise UserError(f"{folder} does not exist; measure with: rvos-edge bench --json {folder}/")
    found = [read_result(path) for path in sorted(folder.glob("*.json"))]
    if not found:
        raise UserError(f"{folder} holds no results; measure with: rvos-edge bench --json {folder}/")
    try:
        text = page.read_bytes().decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{page} cannot be read ({error}); give a Markdown file.") from error
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise UserError(f"{page} must hold one line {BEGIN} and after it one line {END}; add them.")
    head, rest = text.split(BEGIN)
    rendered = f"{head}{BEGIN}\n{table(found)}\n{END}{rest.split(END)[1]}"
    if rendered != text:
        with names_path(page), new_file(page) as temporary:
            temporary.write_bytes(rendered.encode())
    return len(found)


def table(results: Iterable[BenchmarkResult]) -> str:
    """Markdown table with a line per run; sorted by machine, then latest first."""
    ordered = sorted(results, key=lambda result: result.made, reverse=True)
    ordered.sort(key=lambda result: (result.machine.name, result.bundle.size))
    rules = ["---" if column < _RIGHT else "---:" for column in range(len(_HEADS))]
    lines = [_line(_HEADS), f"|{'|'.join(rules)}|"]
    lines += [_line(cells) for result in ordered for cells in _rows(result)]
    return "\n".join(lines)


def file_name(result: BenchmarkResult) -> str:
    """File name of a result by machine and date: ``jetson-orin-nano-2026-01-31.json``."""
    slug = re.sub(r"[^a-z0-9]+", "-", re.sub(r"\((?:r|tm)\)", "", result.machine.name.lower())).strip("-")
    return f"{slug}-{result.made[:10]}.json"


def _rows(result: BenchmarkResult) -> Iterable[Sequence[str]]:
    busy = f", busy: load {result.before.load_average:.1f}" if busy_warning(result) else ""
    for run in result.runs:
        times = run.end_to_end
        yield (
            f"{result.machine.name} ({result.made[:10]}{busy})",
            run.runtime,
            f"{result.bundle.name}, {format_size(result.bundle.size)}",
            str(result.workload.queries),
            f"{times.p50:.1f} / {times.p90:.1f} / {times.p99:.1f}",
            f"{run.fps:.1f}",
            f"{run.start_up.total_s:.1f} s" if run.start_up else "",
            f"{run.memory.host_mib:.0f}" if run.memory else "",
        )


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
