"""``rvos-edge run`` on one stream: a file, a folder of images, a camera, a URL."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from rich.console import Console
from rich.style import Style
from rich.text import Text

from rvos_edge.cli.options import OUTPUT_FOLDER, STDOUT, RunOptions
from rvos_edge.cli.places import check_places, listen, make_sinks, rescue_recordings
from rvos_edge.errors import UserError
from rvos_edge.flow.policy import FlowOptions
from rvos_edge.outputs import free_path
from rvos_edge.protocol import SegmenterProtocol
from rvos_edge.queries import read_queries
from rvos_edge.secrets import hide_secrets
from rvos_edge.streaming.loop import Meter, Stepper, Summary, check_frames, run_stream
from rvos_edge.streaming.overlay import OverlayView
from rvos_edge.streaming.signals import terminate_as_interrupt
from rvos_edge.streaming.sinks import Sink, open_sinks
from rvos_edge.streaming.sinks.window import KeyControls
from rvos_edge.streaming.sources import Source, output_name
from rvos_edge.streaming.status import Status, finding_lines, stage_table
from rvos_edge.streaming.systemd import notifying

if TYPE_CHECKING:
    from rvos_edge.server.live import Live


def run_single(options: RunOptions) -> None:
    """Segment a stream until it ends, and print a summary.

    Raises:
        UserError: The source, the bundle or an output cannot be used, or a sink had to end before the stream.
    """
    if options.workers is not None:
        raise UserError("--workers shares many files; give a glob of videos, such as 'videos/*.mp4'.")
    _ = options.opening(), options.layout  # refused before anything is loaded
    check_places(options)
    check_frames(options.frames)
    with terminate_as_interrupt():
        segmenter = options.open_segmenter()
        if options.queries:
            segmenter.set_queries(read_queries(options.queries))
        with options.open_source() as source:
            options = _with_outputs(options, source)
            # A live source does not wait while a query learns; the masks of a file are always the same.
            segmenter.set_adapt(options.adapt, background=source.live)
            rescue_recordings(options, source)
            keys = KeyControls(view=OverlayView(opacity=options.opacity)) if options.window else None
            with open_sinks(make_sinks(options, source, keys=keys)) as sinks:
                summary = _run(options, segmenter, source, sinks, keys)
        if not options.quiet:
            presence = segmenter.bundle.manifest.has_presence
            print_summary(summary, source, options, Console(stderr=options.piped > 0), presence=presence)
    if summary.failures:
        raise UserError(summary.failures[0])


def _with_outputs(options: RunOptions, source: Source) -> RunOptions:
    """The options; results of a file that were given no place get a new folder."""
    if options.writes or source.live:
        return options
    name = output_name(options.source or "")
    folder = free_path(OUTPUT_FOLDER / name)
    suffix = ".png" if source.length == 1 else ".mp4"
    return replace(options, output=[str(folder / f"{name}{suffix}")], json=str(folder / f"{name}.jsonl"))


def _run(
    options: RunOptions,
    segmenter: SegmenterProtocol,
    source: Source,
    sinks: list[Sink],
    keys: KeyControls | None,
) -> Summary:
    meter, console = Meter(), Console(stderr=True)
    # A status and what is piped would write over each other on one terminal.
    hidden = options.quiet or (options.piped > 0 and sys.stdout.isatty())
    with (
        _served(options, segmenter, source, sinks, meter) as (stepper, played, outputs),
        notifying([meter]),
        Status(played, meter, backend=segmenter.backend_name, frames=options.frames, hidden=hidden) as on_result,
    ):
        listen(played, sinks)
        if not options.quiet:
            print_backend(segmenter, console)
        return run_stream(
            stepper,
            played,
            outputs,
            frames=options.frames,
            on_result=on_result,
            opacity=options.opacity,
            overlap=options.overlap,
            controls=keys,
            meter=meter,
            # Files alone: a read from a pipe cannot be called off, and a page and keys steer every frame.
            pipelined=source.seconds is not None and options.serve is None and keys is None,
        )


@contextmanager
def _served(
    options: RunOptions, segmenter: SegmenterProtocol, source: Source, sinks: list[Sink], meter: Meter
) -> Iterator[tuple[Stepper, Source, list[Sink]]]:
    """Segmenter, source and sinks for the loop: those given, or with ``--serve`` a stream that the page steers."""
    if options.serve is None:
        yield segmenter, source, sinks
        return
    from rvos_edge.server.app import LiveServer  # an optional extra

    live = make_live(options, segmenter, source, sinks, meter)
    with LiveServer(live, options.server) as server:
        print_address(server.url, options)
        yield live.segmenter, live.player, [live.sink, *sinks]


def make_live(
    options: RunOptions, segmenter: SegmenterProtocol, source: Source, sinks: list[Sink], meter: Meter
) -> Live:
    """A stream for the page; with other sinks it ends with its file instead of starting again."""
    from rvos_edge.server.live import Live  # an optional extra

    return Live(
        segmenter,
        source,
        reopen=options.open_source,
        stills=lambda: options.open_segmenter(FlowOptions(enabled=False), beside=segmenter),
        repeat=not sinks,
        opacity=options.opacity,
        meter=meter,
    )


def print_address(url: str, options: RunOptions) -> None:
    """Print the address of the page to stderr."""
    link = Text(url, style=Style(link=url))  # no markup: an IPv6 address has brackets
    ending = f"{' and asks for the token' if options.token else ''}; Ctrl-C ends it."
    Console(stderr=True).print("The page is at ", link, ending, sep="", soft_wrap=True, highlight=False)


def print_backend(segmenter: SegmenterProtocol, console: Console) -> None:
    """Print the backend and the reason for it."""
    told = f"{segmenter.backend_name} because {segmenter.backend_reason}."
    console.print(told, soft_wrap=True, markup=False, highlight=False)


def print_summary(summary: Summary, source: Source, options: RunOptions, console: Console, *, presence: bool) -> None:
    """Print frames, rates, findings and places of a stream that ended; ``presence``: the bundle can tell it."""
    if options.verbose:
        console.print(stage_table(summary))
    dropped = f", {summary.dropped} dropped" if source.live else ""
    dropped += f", {source.reconnects} times lost and back" if source.reconnects else ""
    stopped = " (interrupted)" if summary.interrupted else ""
    count = "1 frame" if summary.frames == 1 else f"{summary.frames} frames"
    lines = [f"{source.name}: {count}{dropped} at {summary.fps:.1f} frames per second{stopped}."]
    lines += finding_lines(summary, presence=presence)
    if written := [hide_secrets(str(place)) for place in options.places if place not in STDOUT]:
        lines.append(f"Wrote {', '.join(written)}.")
    elif not options.writes:
        lines.append("Nothing was written; add --output, --json, --window or --serve.")
    for line in lines:
        console.print(line, soft_wrap=True, markup=False, highlight=False)
