"""The options of ``rvos-edge run``, checked before anything is opened."""

from __future__ import annotations

import math
import re
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from rvos_edge.bundle import parse_size
from rvos_edge.cli.serving import check_serving
from rvos_edge.errors import UserError
from rvos_edge.outputs import check_name
from rvos_edge.result import PICTURE_SUFFIXES, Overlap

if TYPE_CHECKING:
    from rvos_edge.flow.policy import FlowOptions
    from rvos_edge.protocol import SegmenterProtocol
    from rvos_edge.streaming.sources import RawFormat, Source
    from rvos_edge.streaming.tracks import Zone

MOST_QUERIES = 255
"""Values of a mask's pixels, apart from the background."""
STDOUT = ("-", "/dev/stdout")
OUTPUT_FOLDER = Path("rvos-edge-out")
"""Folder of results that were given no place."""
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_EXAMPLE = 'rvos-edge run clip.mp4 "a dog"'


@dataclass(frozen=True)
class RunOptions:
    """The options of ``run`` by their names on the command line.

    Raises:
        UserError: One is out of range, or two do not fit together.
    """

    source: str | None
    query: list[str] | None
    query_file: Path | None
    bundle: Path | None
    output: list[str] | None
    masks: Path | None
    json: str | None
    rle: str | None
    events: list[str] | None
    zone: list[str] | None
    per_object: bool
    segment: str | None
    keep: str | None
    coco: str | None
    dataset: Path | None
    cutout: str | None
    mask_video: str | None
    window: bool
    overlap: Overlap
    realtime: bool
    raw: str | None
    wait: bool
    reconnect: float | None
    open_timeout: float | None
    read_timeout: float | None
    transport: str
    frames: int | None
    size: str | None
    device: str
    backend: str
    threads: int | None
    iterations: int | None
    flow_every: int | None
    still: float | None
    hold_fps: float | None
    flow: bool
    opacity: float
    workers: int | None
    resume: bool
    serve: str | None
    token: str | None
    base_path: str | None
    allow_origin: list[str] | None
    certificate: Path | None
    threshold: float
    min_presence: float
    adapt: str
    runtime: str
    quiet: bool
    verbose: bool

    def __post_init__(self) -> None:
        if self.source is None:
            raise UserError(f"there is no source; give a video, a folder or a camera, as in: {_EXAMPLE}")
        from rvos_edge.preprocess import threshold_logit

        threshold_logit(self.threshold)
        if not 0 <= self.min_presence <= 1:
            raise UserError(f"--min-presence {self.min_presence:g} is out of range; choose between 0 and 1.")
        if self.quiet and self.verbose:
            raise UserError("--quiet and --verbose exclude each other; give one of them.")
        if not 0 <= self.opacity <= 1:
            raise UserError(f"--opacity {self.opacity:g} is out of range; choose between 0 and 1.")
        if self.reconnect is not None and not self.reconnect >= 0:
            raise UserError(f"--reconnect {self.reconnect:g} is out of range; give the seconds, 0 for not at all.")
        for option, seconds in (("open", self.open_timeout), ("read", self.read_timeout)):
            if seconds is not None and not 0 < seconds < math.inf:
                raise UserError(f"--{option}-timeout {seconds:g} is out of range; give the seconds, such as 30.")
        if self.transport not in ("tcp", "udp"):
            raise UserError(f"--transport {self.transport} is unknown; use tcp or udp.")
        if not self.queries and self.serve is None:
            raise UserError(f"there is no query; say what to segment, as in: {_EXAMPLE}; or add --serve.")
        if len(self.queries) > MOST_QUERIES:
            raise UserError(f"{len(self.queries)} queries are too many; give at most {MOST_QUERIES} in one run.")
        if self.segments is not None and not self.recordings:
            raise UserError("--segment cuts videos, --json, --rle and --events; give one of them a file.")
        if self.zone or self.per_object:
            _ = self.zones  # refused before anything is loaded
        check_serving(self.serve, self.token, self.base_path, self.allow_origin or (), self.certificate)
        if self.serve is not None and self.runtime != "python":
            raise UserError(
                f"--serve changes settings that --runtime {self.runtime} fixes when it starts; leave one of them out."
            )
        outputs = [*self.targets, self.json, self.rle, *self.event_targets, self.coco, self.cutout, self.mask_video]
        if self.piped > 1:
            raise UserError("stdout can take one of --output, --json, --rle and --events; give the others a file.")
        for name, count in Counter(outputs).items():
            if name is not None and count > 1:
                raise UserError(f"{name} is given for {count} outputs; give each its own.")
        for path in (self.source, self.bundle, self.masks, self.dataset, *outputs):
            check_name("" if path is None else path)

    @cached_property
    def queries(self) -> tuple[str, ...]:
        """Queries of --query and of the lines of --queries."""
        from rvos_edge.queries import read_query_file

        return (*(self.query or ()), *(() if self.query_file is None else read_query_file(self.query_file)))

    @property
    def targets(self) -> list[str]:
        """Outputs of overlays: files, URLs, devices, "-"."""
        return self.output or []

    @property
    def event_targets(self) -> list[str]:
        """Places of events: files, URLs, "-"."""
        return self.events or []

    @cached_property
    def zones(self) -> list[Zone]:
        """Zones and lines of --zone.

        Raises:
            UserError: One is written otherwise, or its name is given twice, or there is no place for events.
        """
        from rvos_edge.streaming.tracks import parse_zone

        found = [parse_zone(written) for written in self.zone or ()]
        if len({zone.name for zone in found}) < len(found):
            raise UserError("--zone gives two zones one name; give each its own.")
        if (found or self.per_object) and not self.events:
            raise UserError("--zone and --per-object are about events; say with --events where to write them.")
        return found

    @property
    def segments(self) -> tuple[float, float | None] | None:
        """Length of a segment and the age at which it is removed, None for never; None for no segments.

        Raises:
            UserError: One is no time, or --keep stands alone.
        """
        keep = None if self.keep is None else _parse_duration(self.keep, "--keep")
        if self.segment is None and keep is not None:
            raise UserError("--keep removes old segments; add --segment with their length, such as 10m.")
        return None if self.segment is None else (_parse_duration(self.segment, "--segment"), keep)

    @property
    def recordings(self) -> list[str]:
        """Files that grow with the stream: videos and JSON lines, which --segment cuts."""
        lines = [name for name in (self.json, self.rle, *self.event_targets) if name is not None]
        films = [name for name in (*self.targets, self.cutout, self.mask_video) if name is not None]
        videos = [name for name in films if Path(name).suffix.lower() not in ("", *PICTURE_SUFFIXES)]
        return [name for name in (*videos, *lines) if not name.startswith(("-", "/dev/")) and "://" not in name]

    @property
    def writes(self) -> bool:
        """True if a place for results was given."""
        return self.window or self.serve is not None or bool(self.places)

    @property
    def places(self) -> list[str | Path]:
        """Files, folders, URLs and devices that results go to."""
        given = (self.cutout, self.mask_video, self.masks, self.json, self.rle, self.coco, self.dataset)
        return [*self.targets, *self.event_targets, *(place for place in given if place is not None)]

    @property
    def piped(self) -> int:
        """Number of outputs to stdout."""
        return sum(name in STDOUT for name in (*self.targets, *self.event_targets, self.json, self.rle))

    @property
    def extent(self) -> tuple[int, int] | None:
        """Height and width of the network's input."""
        return None if self.size is None else parse_size(self.size)

    @property
    def layout(self) -> RawFormat | None:
        """Layout of raw frames on stdin."""
        from rvos_edge.streaming.sources import RawFormat

        return None if self.raw is None else RawFormat.parse(self.raw)

    def flow_options(self) -> FlowOptions:
        """The options of the flow, those that were given.

        Raises:
            UserError: One is out of range.
        """
        from pydantic import ValidationError

        from rvos_edge.flow.policy import FlowOptions

        options = {"iterations": "iterations", "every": "flow_every", "still": "still", "hold_fps": "hold_fps"}
        given = {name: getattr(self, option) for name, option in options.items()}
        given = {name: value for name, value in given.items() if value is not None}
        try:
            return FlowOptions.model_validate({"enabled": self.flow, **given})
        except ValidationError as error:
            first = error.errors()[0]
            name, should = str(first["loc"][0]), str(first["msg"]).removeprefix("Input ")
            option = f"--{options[name].replace('_', '-')} {given[name]:g}"
            raise UserError(f"{option} is out of range: it {should}; choose another number, or --no-flow.") from error

    def open_source(self) -> Source:
        """Open the source from its start."""
        from rvos_edge.streaming.sources import open_source

        return open_source(
            self.source or "",
            realtime=self.realtime,
            raw=self.layout,
            wait=self.wait,
            give_up=self.reconnect,
            open_timeout=self.open_timeout,
            read_timeout=self.read_timeout,
            transport=self.transport,
        )

    def open_segmenter(self, flow: FlowOptions, *, beside: SegmenterProtocol | None = None) -> SegmenterProtocol:
        """Open the bundle, without its queries; ``beside`` another segmenter of the same graphs, where they can be
        shared.
        """
        from rvos_edge.opening import open_segmenter
        from rvos_edge.segmenter import Segmenter

        if isinstance(beside, Segmenter):
            sibling = beside.sibling(
                flow=flow, threshold=self.threshold, min_presence=self.min_presence, adapt=self.adapt
            )
            if sibling is not None:
                return sibling
        return open_segmenter(
            self.bundle,
            size=self.extent,
            device=self.device,
            backend=self.backend,
            flow=flow,
            threads=self.threads,
            runtime=self.runtime,
            threshold=self.threshold,
            min_presence=self.min_presence,
            adapt=self.adapt,
        )


def _parse_duration(written: str, option: str) -> float:
    """Seconds of a time such as 90s, 10m, 1.5h or 7d."""
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([smhd])", written)
    seconds = float(match[1]) * _UNITS[match[2]] if match else 0.0
    if not seconds:
        raise UserError(f"{option} {written} is no time; write it as 90s, 10m, 1h or 7d.")
    return seconds
