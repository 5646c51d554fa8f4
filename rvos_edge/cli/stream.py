"""Commands that segment a stream: ``run`` and ``demo``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from rvos_edge.cli.app import BackendOption, BundleOption, DeviceOption, app, parse_size
from rvos_edge.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from rvos_edge.flow_policy import FlowOptions
    from rvos_edge.segmenter import Segmenter
    from rvos_edge.stream.loop import Summary
    from rvos_edge.stream.sinks import Sink
    from rvos_edge.stream.sources import Source

_ASSUMED_FPS = 25.0


@app.command()
def run(
    source: Annotated[str, typer.Option(help="Video, image folder, glob, camera number, URL, or synthetic[:SEED].")],
    query: Annotated[list[str], typer.Option(help="What to segment; repeat it for several objects.")],
    bundle: BundleOption = None,
    output: Annotated[Path | None, typer.Option(help="Write the overlay video here (.mp4).")] = None,
    masks: Annotated[Path | None, typer.Option(help="Write one indexed PNG per frame into this folder.")] = None,
    json: Annotated[str | None, typer.Option(help="Write one JSON line per frame here; - is stdout.")] = None,
    frames: Annotated[int | None, typer.Option(help="Stop after so many frames.")] = None,
    size: Annotated[str | None, typer.Option(help="Network input as HxW, one that the bundle has.")] = None,
    device: DeviceOption = "auto",
    backend: BackendOption = "auto",
    threads: Annotated[int | None, typer.Option(help="CPU threads; one per physical core if left out.")] = None,
    iterations: Annotated[int | None, typer.Option(help="Flow updates per frame; the bundle's if left out.")] = None,
    every: Annotated[int | None, typer.Option(help="Compute the flow on every n-th frame and keep it between.")] = None,
    still: Annotated[
        float | None, typer.Option(help="No flow while the picture changes by at most so many grey levels, such as 3.")
    ] = None,
    hold_fps: Annotated[
        float | None, typer.Option(help="Hold so many frames per second by computing less flow.")
    ] = None,
    flow: Annotated[bool, typer.Option("--flow/--no-flow", help="Use motion.")] = True,
    opacity: Annotated[float, typer.Option(help="Of the masks in the video, 0 to 1.")] = 0.5,
    workers: Annotated[int | None, typer.Option(help="Many files: processes that share them and the cores.")] = None,
    resume: Annotated[
        bool, typer.Option("--resume/--no-resume", help="Many files: skip those that an earlier run finished.")
    ] = True,
) -> None:
    """Segment what the queries name, frame after frame; of many files (a glob or a folder of videos) one by one."""
    from rvos_edge.cli.batch import run_batch
    from rvos_edge.stream.batch import Job, find_files
    from rvos_edge.stream.loop import Meter, run_stream
    from rvos_edge.stream.sinks import JsonSink, MaskSink, VideoSink, open_sinks
    from rvos_edge.stream.sources import open_source
    from rvos_edge.stream.status import Status

    if not 0 <= opacity <= 1:
        raise UserError(f"--opacity {opacity:g} is out of range; choose between 0 and 1.")
    given = {"iterations": iterations, "every": every, "still": still, "hold_fps": hold_fps}
    options = _flow_options(flow, given)
    if (files := find_files(source)) is not None:
        job = Job(
            queries=tuple(query),
            bundle=bundle,
            output=output,
            masks=masks,
            json=None if json is None else Path(json),
            frames=frames,
            opacity=opacity,
            size=None if size is None else parse_size(size),
            device=device,
            backend=backend,
            threads=threads,
            flow=options,
        )
        run_batch(source, files, job, workers=1 if workers is None else workers, resume=resume)
        return
    if workers is not None:
        raise UserError("--workers shares many files; give a glob of videos, such as --source 'videos/*.mp4'.")
    segmenter = _open(bundle, size=size, device=device, backend=backend, threads=threads, flow=options)
    segmenter.set_queries(query)
    with open_source(source) as opened:
        makers: list[Callable[[], Sink]] = []
        if output is not None:
            _check_not_source(output, source)
            makers.append(lambda: VideoSink(output, opened.fps or _ASSUMED_FPS))
        if masks is not None:
            makers.append(lambda: MaskSink(masks))
        if json is not None:
            makers.append(lambda: JsonSink(json))
        sinks = open_sinks(makers)
        meter = Meter()
        # A status and JSON lines on one terminal would write over each other.
        hidden = json == "-" and sys.stdout.isatty()
        with Status(opened, meter, backend=segmenter.backend_name, frames=frames, hidden=hidden) as on_result:
            summary = run_stream(
                segmenter, opened, sinks, frames=frames, on_result=on_result, opacity=opacity, meter=meter
            )
        written = [str(path) for path in (output, masks, json) if path not in (None, "-")]
        _print_summary(summary, segmenter, opened, written, Console(stderr=json == "-"))


@app.command()
def demo(
    output: Annotated[Path, typer.Option(help="Folder of demo.mp4 and demo.png.")] = Path("rvos-edge-demo"),
    bundle: BundleOption = None,
    frames: Annotated[int, typer.Option(help="Length of the clip.")] = 100,
    seed: Annotated[int, typer.Option(help="Of the synthetic camera.")] = 2,
    device: DeviceOption = "auto",
    backend: BackendOption = "auto",
) -> None:
    """Segment a synthetic clip whose exact masks are known; needs no data and no camera."""
    from rvos_edge.demo import run_demo

    run_demo(_open(bundle, device=device, backend=backend), output, frames=frames, seed=seed)


def _open(
    bundle: Path | None,
    *,
    device: str,
    backend: str,
    size: str | None = None,
    threads: int | None = None,
    flow: FlowOptions | None = None,
) -> Segmenter:
    from rvos_edge.segmenter import open_segmenter

    extent = parse_size(size) if size is not None else None
    return open_segmenter(bundle, size=extent, device=device, backend=backend, flow=flow, threads=threads)


def _flow_options(enabled: bool, given: Mapping[str, float | None]) -> FlowOptions:
    """Options of the flow by name, those that were given."""
    from pydantic import ValidationError

    from rvos_edge.flow_policy import FlowOptions

    try:
        return FlowOptions.model_validate(
            {"enabled": enabled, **{name: value for name, value in given.items() if value is not None}}
        )
    except ValidationError as error:
        first = error.errors()[0]
        name, should = str(first["loc"][0]), str(first["msg"]).removeprefix("Input ")
        option = f"--{name.replace('_', '-')} {given[name]:g}"
        raise UserError(f"{option} is out of range: it {should}; choose another number, or --no-flow.") from error


def _check_not_source(output: Path, source: str) -> None:
    if output.exists() and Path(source).exists() and output.samefile(source):
        raise UserError(f"--output {output} is the source itself; choose another file.")


def _print_summary(
    summary: Summary, segmenter: Segmenter, source: Source, written: list[str], console: Console
) -> None:
    from rich.markup import escape

    from rvos_edge.demo import stage_table

    console.print(stage_table(summary))
    dropped = f", {summary.dropped} dropped" if source.live else ""
    stopped = " (interrupted)" if summary.interrupted else ""
    console.print(
        f"{escape(source.name)}: {summary.frames} frames{dropped} at {summary.fps:.1f} frames per second{stopped}, "
        f"{segmenter.backend_name} because {segmenter.backend_reason}.",
        soft_wrap=True,
    )
    if written:
        console.print(escape(f"Wrote {', '.join(written)}."), soft_wrap=True)
