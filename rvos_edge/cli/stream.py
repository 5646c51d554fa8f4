"""Commands that segment a stream: ``run`` and ``demo``."""

from __future__ import annotations

import sys
from collections import Counter
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from rvos_edge.bundle import parse_size
from rvos_edge.cli.app import BackendOption, BundleOption, DeviceOption, app
from rvos_edge.cli.serving import ServeOption, ServingCommand, TokenOption, check_serving, serving
from rvos_edge.errors import UserError
from rvos_edge.result import Overlap

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from rvos_edge.flow.policy import FlowOptions
    from rvos_edge.protocol import SegmenterProtocol
    from rvos_edge.streaming.loop import Summary
    from rvos_edge.streaming.sinks import Sink
    from rvos_edge.streaming.sources import Source


@app.command(cls=ServingCommand)
def run(
    source: Annotated[
        str,
        typer.Option(
            help="Video, image folder, glob, camera number, csi://0, URL, - (raw frames on stdin) or synthetic[:SEED]."
        ),
    ],
    query: Annotated[list[str] | None, typer.Option(help="What to segment; repeat it for several objects.")] = None,
    bundle: BundleOption = None,
    output: Annotated[
        list[str] | None,
        typer.Option(
            help="Where the overlay goes: a video (.mp4), rtmp:// or rtsp:// (by ffmpeg), /dev/videoN (v4l2loopback), "
            "- for raw frames on stdout; may be repeated."
        ),
    ] = None,
    masks: Annotated[Path | None, typer.Option(help="Write one indexed PNG per frame into this folder.")] = None,
    json: Annotated[str | None, typer.Option(help="Write one JSON line per frame here; - is stdout.")] = None,
    rle: Annotated[
        str | None, typer.Option(help="Write masks as COCO run lengths here, one JSON line per query; - is stdout.")
    ] = None,
    window: Annotated[bool, typer.Option("--window", help="Show the overlay in a window.")] = False,
    overlap: Annotated[
        Overlap, typer.Option(help="Pixels that several queries claim: the last query gets them, or all keep them.")
    ] = Overlap.HIGHER,
    realtime: Annotated[
        bool, typer.Option("--realtime", help="Play a file at its own speed and drop the frames that come too late.")
    ] = False,
    raw: Annotated[
        str | None, typer.Option(help="Layout of raw frames on stdin: WIDTHxHEIGHT@FPS:PIXELS, as 1280x720@30:bgr24.")
    ] = None,
    reconnect: Annotated[
        float | None, typer.Option(help="Give up a lost camera or stream after so many seconds; never if left out.")
    ] = None,
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
    serve: ServeOption = None,
    token: TokenOption = None,
    runtime: Annotated[str, typer.Option(help="python, or cpp where the C++ runtime is installed.")] = "python",
) -> None:
    """Segment what the queries name, frame after frame; of many files (a glob or a folder of videos) one by one."""
    from rvos_edge.cli.batch import run_batch
    from rvos_edge.flow.policy import FlowOptions
    from rvos_edge.streaming.batch import BatchJob, find_files
    from rvos_edge.streaming.keys import KeyControls
    from rvos_edge.streaming.loop import Meter, run_stream
    from rvos_edge.streaming.overlay import OverlayView
    from rvos_edge.streaming.signals import terminate_as_interrupt
    from rvos_edge.streaming.sinks import JsonSink, MaskSink, RleSink, open_output, open_sinks
    from rvos_edge.streaming.sinks.window import WindowSink
    from rvos_edge.streaming.sources import ASSUMED_FPS, RawFormat, open_source, without_password
    from rvos_edge.streaming.status import Status

    if not 0 <= opacity <= 1:
        raise UserError(f"--opacity {opacity:g} is out of range; choose between 0 and 1.")
    if reconnect is not None and not reconnect >= 0:
        raise UserError(f"--reconnect {reconnect:g} is out of range; give the seconds, 0 for not at all.")
    if not query and serve is None:
        raise UserError("there is no --query; say what to segment, or add --serve and type it on the page.")
    check_serving(serve, token)
    if serve is not None and runtime != "python":
        raise UserError(
            f"--serve changes settings that --runtime {runtime} fixes when it starts; leave one of them out."
        )
    queries = query or []
    targets = output or []
    piped = [*targets, json, rle].count("-")
    if piped > 1:
        raise UserError("stdout can take one of --output, --json and --rle; give the others a file.")
    for name, count in Counter([*targets, json, rle]).items():
        if name is not None and count > 1:
            raise UserError(f"{name} is given for {count} outputs; give each its own.")
    layout = RawFormat.parse(raw) if raw is not None else None
    given = {"iterations": iterations, "every": every, "still": still, "hold_fps": hold_fps}
    options = _flow_options(flow, given)
    if (files := find_files(source)) is not None:
        single = {
            "--window": window,
            "--realtime": realtime,
            "--serve": serve is not None,
            "--raw": raw is not None,
            "--reconnect": reconnect is not None,
            "a second --output": len(targets) > 1,
        }
        if asked := [option for option, given in single.items() if given]:
            raise UserError(f"{source} names many files, which {asked[0]} is not for; leave it out, or give one file.")
        job = BatchJob(
            queries=tuple(queries),
            bundle=bundle,
            output=Path(targets[0]) if targets else None,
            masks=masks,
            json=None if json is None else Path(json),
            rle=None if rle is None else Path(rle),
            overlap=overlap,
            frames=frames,
            opacity=opacity,
            size=None if size is None else parse_size(size),
            device=device,
            backend=backend,
            threads=threads,
            flow=options,
            runtime=runtime,
        )
        run_batch(source, files, job, workers=1 if workers is None else workers, resume=resume)
        return
    if workers is not None:
        raise UserError("--workers shares many files; give a glob of videos, such as --source 'videos/*.mp4'.")
    segmenter = _open(bundle, size=size, device=device, backend=backend, threads=threads, flow=options, runtime=runtime)
    if queries:
        segmenter.set_queries(queries)

    def reopen() -> Source:
        return open_source(source, realtime=realtime, raw=layout, give_up=reconnect)

    with terminate_as_interrupt(), reopen() as opened:
        makers: list[Callable[[], Sink]] = []
        for target in targets:
            _check_not_source(Path(target), source)
            makers.append(partial(open_output, target, opened.fps or ASSUMED_FPS))
        if masks is not None:
            makers.append(lambda: MaskSink(masks, overlap=overlap))
        if json is not None:
            makers.append(lambda: JsonSink(json))
        if rle is not None:
            makers.append(lambda: RleSink(rle))
        keys = KeyControls(view=OverlayView(opacity=opacity)) if window else None
        if keys is not None:
            makers.append(partial(WindowSink, opened.name, keys=keys.press))
        sinks = [*open_sinks(makers), *([keys] if keys is not None else [])]
        live = serving(
            serve,
            token,
            segmenter,
            opened,
            reopen=reopen,
            stills=lambda: _open(
                bundle, size=size, device=device, backend=backend, threads=threads, flow=FlowOptions(enabled=False)
            ),
            sinks=sinks,
            opacity=opacity,
            console=Console(stderr=True),
        )
        meter = Meter()
        # A status and what is piped would write over each other on one terminal.
        hidden = piped > 0 and sys.stdout.isatty()
        with (
            live as (stepper, played, outputs),
            Status(played, meter, backend=segmenter.backend_name, frames=frames, hidden=hidden) as on_result,
        ):
            summary = run_stream(
                stepper,
                played,
                outputs,
                frames=frames,
                on_result=on_result,
                opacity=opacity,
                overlap=overlap,
                controls=keys,
                meter=meter,
            )
        written = [without_password(str(path)) for path in (*targets, masks, json, rle) if path not in (None, "-")]
        _print_summary(summary, segmenter, opened, written, Console(stderr=piped > 0))
    if summary.failures:
        raise UserError(summary.failures[0])


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
    runtime: str = "python",
) -> SegmenterProtocol:
    from rvos_edge.opening import open_segmenter

    extent = parse_size(size) if size is not None else None
    return open_segmenter(
        bundle, size=extent, device=device, backend=backend, flow=flow, threads=threads, runtime=runtime
    )


def _flow_options(enabled: bool, given: Mapping[str, float | None]) -> FlowOptions:
    """Options of the flow by name, those that were given."""
    from pydantic import ValidationError

    from rvos_edge.flow.policy import FlowOptions

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
    summary: Summary, segmenter: SegmenterProtocol, source: Source, written: list[str], console: Console
) -> None:
    from rich.markup import escape

    from rvos_edge.demo import stage_table

    console.print(stage_table(summary))
    dropped = f", {summary.dropped} dropped" if source.live else ""
    dropped += f", {source.reconnects} times lost and back" if source.reconnects else ""
    stopped = " (interrupted)" if summary.interrupted else ""
    console.print(
        f"{escape(source.name)}: {summary.frames} frames{dropped} at {summary.fps:.1f} frames per second{stopped}, "
        f"{segmenter.backend_name} because {segmenter.backend_reason}.",
        soft_wrap=True,
    )
    if written:
        console.print(escape(f"Wrote {', '.join(written)}."), soft_wrap=True)
