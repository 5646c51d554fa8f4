"""What ``rvos-edge bench`` does: measure, compare, hold against the roof, render; each prints what it finds."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from rvos_edge.atomic import write_output
from rvos_edge.benchmarks.compare import compare
from rvos_edge.benchmarks.cpu_peak import measure_cpu
from rvos_edge.benchmarks.measure import BenchOptions, run_benchmark
from rvos_edge.benchmarks.page import render_page
from rvos_edge.benchmarks.render import file_name, render
from rvos_edge.benchmarks.roofline import choose_devices
from rvos_edge.benchmarks.schema import BenchmarkResult, read_result, to_json
from rvos_edge.benchmarks.show import print_comparison, print_result, print_roof, print_roofs
from rvos_edge.benchmarks.state import read_machine
from rvos_edge.bundle import Bundle, shipped_bundle
from rvos_edge.errors import UserError
from rvos_edge.outputs import check_outputs


def measure(options: BenchOptions, *, json: Path | None = None, html: Path | None = None) -> BenchmarkResult:
    """Measure, print, and write what was asked for.

    Args:
        options: What to measure.
        json: File of the result, or a folder, in which it gets a name by machine and date.
        html: File of the page.

    Raises:
        UserError: As for ``run_benchmark``, or a file cannot be written.
    """
    errors, console = Console(stderr=True), Console()
    check_outputs([html, None if json is None or json.is_dir() else json], [options.bundle, options.source])
    # A bar that is drawn while frames are timed takes time from them: it moves rarely.
    with Progress(console=errors, disable=not errors.is_terminal, transient=True, refresh_per_second=1) as bar:
        task = bar.add_task("", total=None)
        found = run_benchmark(
            options,
            on_progress=lambda what, done, of: bar.update(task, description=what, completed=done, total=of),
            on_note=lambda note: errors.print(note, style="yellow", markup=False, soft_wrap=True),
        )
    print_result(found, console)
    written = []
    if json is not None:
        file = json / file_name(found) if json.is_dir() else json
        write_output(file, to_json(found))
        written.append(str(file))
    if html is not None:
        write_output(html, render_page(found))
        written.append(str(html))
    if written:
        console.print(f"Wrote {', '.join(written)}.", markup=False, soft_wrap=True)
    return found


def compare_files(first: Path, second: Path) -> None:
    """Compare two results.

    Raises:
        UserError: One cannot be read, or they cannot be compared.
    """
    names = str(first), str(second)
    print_comparison(compare(read_result(first), read_result(second), names=names), Console())


def roofline(
    key: str, options: BenchOptions, *, result: Path | None = None, json: Path | None = None, html: Path | None = None
) -> None:
    """Print the roof of a device, of all, or of this CPU, beside a result.

    Args:
        key: A device, "all" or "cpu".
        options: The bundle; for "cpu" without a result, what to measure.
        result: A result of the same bundle.
        json: As for ``measure``.
        html: As for ``measure``.

    Raises:
        UserError: There is no such device, the result is of another bundle, or nothing is measured that could be
            written.
    """
    console = Console()
    devices = choose_devices(key) if key != "cpu" else []
    bundle = Bundle.open(shipped_bundle() if options.bundle is None else options.bundle, size=options.size)
    found = read_result(result) if result is not None else None
    if found is not None and found.bundle.fingerprint != bundle.fingerprint:
        raise UserError(f"{result} was measured with another bundle or size; give that one with --bundle and --size.")
    if found is None and key == "cpu":
        found = measure(options, json=json, html=html)
    elif json is not None or html is not None:
        raise UserError("--json and --html are for what is measured; leave them out, or give --roofline cpu alone.")
    if key in ("cpu", "all"):
        devices.append(measure_cpu(read_machine().name))
    if key == "all":
        print_roofs(bundle.manifest, devices, console)
    else:
        print_roof(bundle.manifest, devices[0], found, console)


def render_results(page: Path) -> None:
    """Put the table of results into a page.

    Raises:
        UserError: As for ``render``.
    """
    count = render(page)
    Console().print(f"{page} shows {count} result{'s' if count != 1 else ''}.", markup=False, soft_wrap=True)
