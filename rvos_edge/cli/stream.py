"""Commands that segment a stream: ``run`` and ``demo``."""

from __future__ import annotations

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
    from rvos_edge.stream.loop import OnResult, Summary
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
    runtime: Annotated[str, typer.Option(help="python, or cpp where the C++ runtime is installed.")] = "python",
) -> None:
    """Segment what the queries name, frame after frame."""
    from rvos_edge.stream.loop import run_stream
    from rvos_edge.stream.sinks import JsonSink, MaskSink, VideoSink, open_sinks
    from rvos_edge.stream.sources import open_source

    if not 0 <= opacity <= 1:
        raise UserError(f"--opacity {opacity:g} is out of range; choose between 0 and 1.")
    given = {"iterations": iterations, "every": every, "still": still, "hold_fps": hold_fps}
    options = _flow_options(flow, given)
    segmenter = _open(bundle, size=size, device=device, backend=backend, threads=threads, flow=options, runtime=runtime)
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
        # A bar and JSON lines on one terminal would write over each other.
        with _Progress(opened, frames, hidden=json == "-") as on_result:
            summary = run_stream(segmenter, opened, sinks, frames=frames, on_result=on_result, opacity=opacity)
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
    runtime: str = "python",
) -> Segmenter:
    from rvos_edge.segmenter import open_segmenter

    extent = parse_size(size) if size is not None else None
    return open_segmenter(
        bundle, size=extent, device=device, backend=backend, flow=flow, threads=threads, runtime=runtime
    )


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


class _Progress:
    """A bar on stderr, if that is a terminal, moved by the `on_result` that entering gives."""

    def __init__(self, source: Source, frames: int | None, *, hidden: bool) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        console = Console(stderr=True)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._bar = Progress(*columns, console=console, disable=hidden or not console.is_terminal)
        known = [count for count in (source.length, frames) if count is not None]
        self._task = self._bar.add_task(source.name, total=min(known, default=None))

    def __enter__(self) -> OnResult:
        self._bar.start()
        return lambda frame, result, overlay: self._bar.advance(self._task)

    def __exit__(self, *_: object) -> None:
        self._bar.stop()


def _print_summary(
    summary: Summary, segmenter: Segmenter, source: Source, written: list[str], console: Console
) -> None:
    from rich.markup import escape

    from rvos_edge.demo import stage_table

    console.print(stage_table(summary))
    dropped = f", {summary.dropped} dropped" if source.live else ""
    stopped = " (stopped by Ctrl-C)" if summary.interrupted else ""
    console.print(
        f"{escape(source.name)}: {summary.frames} frames{dropped} at {summary.fps:.1f} frames per second{stopped}, "
        f"{segmenter.backend_name} because {segmenter.backend_reason}.",
        soft_wrap=True,
    )
    if written:
        console.print(escape(f"Wrote {', '.join(written)}."), soft_wrap=True)
