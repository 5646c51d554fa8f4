"""The actions of ``rvos-edge bench``: measure, compare, roofline. Each prints its result."""

from __future__ import annotations

import re
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from rvos_edge.atomic import write_output
from rvos_edge.benchmarks.compare import compare
from rvos_edge.benchmarks.cpu_peak import measure_cpu
from rvos_edge.benchmarks.measure import BenchOptions, run_benchmark
from rvos_edge.benchmarks.roofline import choose_devices
from rvos_edge.benchmarks.schema import BenchmarkResult, read_result, to_json
from rvos_edge.benchmarks.show import print_comparison, print_result, print_roof, print_roofs
from rvos_edge.benchmarks.state import read_machine
from rvos_edge.bundle import Bundle
from rvos_edge.catalogue import find_bundle
from rvos_edge.errors import UserError
from rvos_edge.outputs import check_outputs


def measure(options: BenchOptions, *, json: Path | None = None) -> BenchmarkResult:
    """Run a benchmark, print it and, where asked for, write its JSON: a file, or into a folder, named by machine and
    date.

    Raises:
        UserError: As for ``run_benchmark``, or the file cannot be written.
    """
    errors, console = Console(stderr=True), Console()
    check_outputs([None if json is None or json.is_dir() else json], [options.bundle, options.source])
    # Drawing the bar takes time from the frames that are timed: refresh once a second.
    with Progress(console=errors, disable=not errors.is_terminal, transient=True, refresh_per_second=1) as bar:
        task = bar.add_task("", total=None)
        found = run_benchmark(
            options,
            on_progress=lambda what, done, of: bar.update(task, description=what, completed=done, total=of),
            on_note=lambda note: errors.print(note, style="yellow", markup=False, soft_wrap=True),
        )
    print_result(found, console)
    if json is not None:
        file = json / file_name(found) if json.is_dir() else json
        write_output(file, to_json(found))
        console.print(f"Wrote {file}.", markup=False, soft_wrap=True)
    return found


def compare_files(first: Path, second: Path) -> None:
    """Print the comparison of two result files.

    Raises:
        UserError: A file cannot be read, or the results cannot be compared.
    """
    names = str(first), str(second)
    print_comparison(compare(read_result(first), read_result(second), names=names), Console())


def roofline(key: str, options: BenchOptions, *, result: Path | None = None, json: Path | None = None) -> None:
    """Print the roofline bound of a device, of all devices, or of this CPU, beside a result.

    Raises:
        UserError: The device is unknown, the result is of another bundle, or ``json`` is given and nothing is measured.
    """
    console = Console()
    devices = choose_devices(key) if key != "cpu" else []
    bundle = Bundle.open(find_bundle(options.bundle), size=options.size)
    found = read_result(result) if result is not None else None
    if found is not None and found.bundle.fingerprint != bundle.fingerprint:
        raise UserError(f"{result} was measured with another bundle or size; give that one with --bundle and --size.")
    if found is None and key == "cpu":
        found = measure(options, json=json)
    elif json is not None:
        raise UserError("--json keeps what is measured; leave it out, or give --roofline cpu alone.")
    if key in ("cpu", "all"):
        devices.append(measure_cpu(read_machine().name))
    if key == "all":
        print_roofs(bundle.manifest, devices, console)
    else:
        print_roof(bundle.manifest, devices[0], found, console)


def file_name(result: BenchmarkResult) -> str:
    """File name of a result by machine and date: ``jetson-orin-nano-2026-01-31.json``."""
    slug = re.sub(r"[^a-z0-9]+", "-", re.sub(r"\((?:r|tm)\)", "", result.machine.name.lower())).strip("-")
    return f"{slug}-{result.made[:10]}.json"
