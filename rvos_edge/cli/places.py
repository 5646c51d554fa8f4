"""The outputs of ``rvos-edge run``: places that are checked, sinks, and what a killed run left."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from rvos_edge.catalogue import find_bundle
from rvos_edge.cli.options import STDOUT, RunOptions
from rvos_edge.outputs import check_inputs, check_outputs
from rvos_edge.streaming.sinks import (
    CocoSink,
    DatasetSink,
    EventSink,
    JsonSink,
    MaskSink,
    RleSink,
    Sink,
    open_cutout,
    open_mask_video,
    open_output,
)
from rvos_edge.streaming.sinks.events import EVENT_URL, QueryEvents
from rvos_edge.streaming.sinks.network import STREAM_URL
from rvos_edge.streaming.sinks.rescue import rescue
from rvos_edge.streaming.sinks.segments import SegmentedSink
from rvos_edge.streaming.sinks.window import KeyControls, WindowSink
from rvos_edge.streaming.sources import ASSUMED_FPS, Source, source_files, tell_stderr


def check_places(options: RunOptions) -> None:
    """Refuse outputs that would replace the source, the bundle or other files, before anything is loaded."""
    inputs = [*source_files(options.source or ""), find_bundle(options.bundle)]
    files = [str(place) for place in options.places if place not in (*STDOUT, options.masks)]
    check_outputs([file for file in files if not (STREAM_URL.match(file) or EVENT_URL.match(file))], inputs)
    check_inputs([] if options.masks is None else [options.masks], inputs)


def make_sinks(
    options: RunOptions, source: Source, *, keys: KeyControls | None = None, name: str = ""
) -> list[Callable[[], Sink]]:
    """Makers of the sinks; ``name`` is the camera's in events, that of the source if left out."""
    fps, segments, recordings = source.fps or ASSUMED_FPS, options.segments, options.recordings

    def cut(place: str, make: Callable[[Any], Sink]) -> Callable[[], Sink]:
        if segments is None or place not in recordings:
            return partial(make, place)
        return partial(SegmentedSink, Path(place), lambda path: make(str(path)), seconds=segments[0], keep=segments[1])

    makers: list[Callable[[], Sink]] = [
        cut(target, partial(open_output, fps=fps, sound=source.sound)) for target in options.targets
    ]
    if options.cutout is not None:
        makers.append(cut(options.cutout, partial(open_cutout, fps=fps)))
    if options.mask_video is not None:
        makers.append(cut(options.mask_video, partial(open_mask_video, fps=fps)))
    if options.masks is not None:
        makers.append(partial(MaskSink, options.masks, overlap=options.overlap))
    if options.json is not None:
        makers.append(cut(options.json, JsonSink))
    if options.rle is not None:
        makers.append(cut(options.rle, RleSink))
    for target in options.event_targets:
        queries = QueryEvents(options.zones, per_object=options.per_object)
        makers.append(cut(target, partial(EventSink, camera=name or source.name, queries=queries)))
    if options.coco is not None:
        makers.append(partial(CocoSink, options.coco))
    if options.dataset is not None:
        makers.append(partial(DatasetSink, options.dataset))
    if keys is not None:
        makers += [partial(WindowSink, source.name, keys=keys.press), lambda: keys]
    return makers


def rescue_recordings(options: RunOptions, source: Source) -> None:
    """Keep what a killed run recorded of a live source, which cannot be had again."""
    for path in chain.from_iterable(rescue(Path(place)) for place in options.recordings if source.live):
        tell_stderr(f"{path} is what a run that was killed had recorded")


def listen(source: Source, sinks: Sequence[Sink]) -> None:
    """Have events of the source written by the sinks of events."""
    listeners = [sink for sink in sinks if isinstance(sink, EventSink | SegmentedSink)]
    source.on_event = lambda event: [sink.write_source(event) for sink in listeners]
