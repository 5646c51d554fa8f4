"""The command that measures: ``bench``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rvos_edge.cli.application import BundleOption, DeviceOption, app
from rvos_edge.errors import UserError
from rvos_edge.manifest import parse_size


@app.command()
def bench(
    bundle: BundleOption = None,
    backend: Annotated[
        list[str] | None,
        typer.Option(help="onnxruntime, cpp:openvino (C++), ...; repeatable; all that work here if left out."),
    ] = None,
    size: Annotated[str | None, typer.Option(help="Network input as HxW, one that the bundle has.")] = None,
    query_count: Annotated[int, typer.Option(help="Number of sentences at once.")] = 1,
    frames: Annotated[int, typer.Option(help="Measured frames.", max=1_000_000)] = 200,
    warmup: Annotated[int, typer.Option(help="Frames before them.", min=0, max=1_000_000)] = 20,
    source: Annotated[str, typer.Option(help="As for run; read or rendered before anything is timed.")] = "synthetic",
    fps: Annotated[float, typer.Option(help="Rate of a camera, to count the frames that it would drop.")] = 30.0,
    threads: Annotated[int | None, typer.Option(help="CPU threads; one per physical core if left out.")] = None,
    device: DeviceOption = "auto",
    starts: Annotated[
        int, typer.Option(help="Fresh processes per backend for start-up time and memory; 0 for none.")
    ] = 3,
    json: Annotated[
        Path | None, typer.Option(help="Write the result here; in a folder, under a name by machine and date.")
    ] = None,
    compare: Annotated[
        tuple[Path, Path] | None, typer.Option(help="Measure nothing: compare two results, A and B.")
    ] = None,
    roofline: Annotated[
        str | None, typer.Option(help="Least times of the bundle on a device, on all, or on cpu: this one, measured.")
    ] = None,
    result: Annotated[
        Path | None, typer.Option(help="With --roofline: a result to hold against it; cpu measures one if left out.")
    ] = None,
) -> None:
    """Measure a bundle on this machine, compare results, or say how fast it could be at best."""
    if compare is not None and roofline is not None:
        raise UserError("--compare and --roofline exclude each other; give one of them.")
    if result is not None and roofline is None:
        raise UserError("--result belongs to --roofline; give a device there.")
    from rvos_edge.benchmarks import report
    from rvos_edge.benchmarks.measure import BenchOptions

    if compare is not None:
        report.compare_files(*compare)
        return
    options = BenchOptions(
        bundle=bundle,
        backends=backend or (),
        size=parse_size(size) if size is not None else None,
        queries=query_count,
        frames=frames,
        warmup=warmup,
        source=source,
        fps=fps,
        threads=threads,
        device=device,
        starts=starts,
    )
    if roofline is None:
        report.measure(options, json=json)
    else:
        report.roofline(roofline, options, result=result, json=json)
