"""The command that measures: ``bench``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from rvos_edge.cli.app import BundleOption, DeviceOption, app, parse_size
from rvos_edge.errors import UserError

if TYPE_CHECKING:
    from rvos_edge.benchmarks.measure import Options
    from rvos_edge.benchmarks.schema import Result


@app.command()
def bench(
    bundle: BundleOption = None,
    backend: Annotated[
        list[str] | None, typer.Option(help="onnxruntime, openvino, ...; repeatable; all that work here if left out.")
    ] = None,
    size: Annotated[str | None, typer.Option(help="Network input as HxW, one that the bundle has.")] = None,
    queries: Annotated[int, typer.Option(help="So many sentences at once.")] = 1,
    frames: Annotated[int, typer.Option(help="Measured frames.")] = 200,
    warmup: Annotated[int, typer.Option(help="Frames before them.")] = 20,
    source: Annotated[str, typer.Option(help="As for run; read or rendered before anything is timed.")] = "synthetic",
    fps: Annotated[float, typer.Option(help="Of a camera: how many of its frames would be dropped.")] = 30.0,
    threads: Annotated[int | None, typer.Option(help="CPU threads; one per physical core if left out.")] = None,
    device: DeviceOption = "auto",
    starts: Annotated[
        int, typer.Option(help="Fresh processes per backend for start-up time and memory; 0 for none.")
    ] = 3,
    json: Annotated[
        Path | None, typer.Option(help="Write the result here; in a folder, under a name by machine and date.")
    ] = None,
    html: Annotated[Path | None, typer.Option(help="Write a page with pictures here.")] = None,
    compare: Annotated[
        tuple[Path, Path] | None, typer.Option(help="Measure nothing: compare two results, A and B.")
    ] = None,
    roofline: Annotated[
        str | None,
        typer.Option(help="Least times of the bundle on a device, on all, or on cpu: this one, measured."),
    ] = None,
    result: Annotated[
        Path | None, typer.Option(help="With --roofline: a result to hold against it; cpu measures one if left out.")
    ] = None,
    render: Annotated[
        Path | None, typer.Option(help="Measure nothing: put the results into this page, such as README.md.")
    ] = None,
) -> None:
    """Measure a bundle on this machine, compare results, or say how fast it could be at best."""
    if sum(option is not None for option in (compare, roofline, render)) > 1:
        raise UserError("--compare, --roofline and --render exclude each other; give one of them.")
    if result is not None and roofline is None:
        raise UserError("--result belongs to --roofline; give a device there.")
    if render is not None:
        _render(render)
        return
    if compare is not None:
        _compare(*compare)
        return
    from rvos_edge.benchmarks.measure import Options

    options = Options(
        bundle=bundle,
        backends=backend or (),
        size=parse_size(size) if size is not None else None,
        queries=queries,
        frames=frames,
        warmup=warmup,
        source=source,
        fps=fps,
        threads=threads,
        device=device,
        starts=starts,
    )
    if roofline is None:
        _measure(options, json, html)
    else:
        _roofline(roofline, options, result, json, html)


def _measure(options: Options, json: Path | None, html: Path | None) -> Result:
    from rich.progress import Progress

    from rvos_edge.benchmarks.measure import run_benchmark
    from rvos_edge.benchmarks.page import render_page
    from rvos_edge.benchmarks.render import file_name
    from rvos_edge.benchmarks.schema import to_json, write_text
    from rvos_edge.benchmarks.show import print_result

    errors = Console(stderr=True)
    # A bar that is drawn while frames are timed takes time from them: it moves rarely.
    with Progress(console=errors, disable=not errors.is_terminal, transient=True, refresh_per_second=1) as bar:
        task = bar.add_task("", total=None)
        found = run_benchmark(
            options,
            on_progress=lambda what, done, of: bar.update(task, description=what, completed=done, total=of),
            on_note=lambda note: errors.print(note, style="yellow", markup=False, soft_wrap=True),
        )
    print_result(found, Console())
    written = []
    if json is not None:
        json = json / file_name(found) if json.is_dir() else json
        write_text(json, to_json(found))
        written.append(str(json))
    if html is not None:
        write_text(html, render_page(found))
        written.append(str(html))
    if written:
        typer.echo(f"Wrote {', '.join(written)}.")
    return found


def _compare(first: Path, second: Path) -> None:
    from rvos_edge.benchmarks.compare import compare
    from rvos_edge.benchmarks.schema import read_result
    from rvos_edge.benchmarks.show import print_comparison

    names = str(first), str(second)
    print_comparison(compare(read_result(first), read_result(second), names=names), Console())


def _roofline(key: str, options: Options, result: Path | None, json: Path | None, html: Path | None) -> None:
    from rvos_edge.benchmarks.cpu_peak import measure_cpu
    from rvos_edge.benchmarks.roofline import choose_devices
    from rvos_edge.benchmarks.schema import read_result
    from rvos_edge.benchmarks.show import print_roof, print_roofs
    from rvos_edge.benchmarks.state import read_machine
    from rvos_edge.bundle import Bundle, shipped_bundle

    devices = choose_devices(key) if key != "cpu" else []
    bundle = Bundle.open(shipped_bundle() if options.bundle is None else options.bundle, size=options.size)
    found = read_result(result) if result is not None else None
    if found is not None and found.bundle.fingerprint != bundle.fingerprint:
        raise UserError(f"{result} was measured with another bundle or size; give that one with --bundle and --size.")
    if found is None and key == "cpu":
        found = _measure(options, json, html)
    elif json is not None or html is not None:
        raise UserError("--json and --html are for what is measured; leave them out, or give --roofline cpu alone.")
    if key in ("cpu", "all"):
        devices.append(measure_cpu(read_machine().name))
    if key == "all":
        print_roofs(bundle.manifest, devices, Console())
    else:
        print_roof(bundle.manifest, devices[0], found, Console())


def _render(page: Path) -> None:
    from rvos_edge.benchmarks.render import render

    count = render(page)
    typer.echo(f"{page} shows {count} result{'s' if count != 1 else ''}.")
