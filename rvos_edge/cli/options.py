"""The options of ``rvos-edge run``: their names and help, checked before anything is opened."""

from __future__ import annotations

import math
import re
from collections import Counter
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rvos_edge.cli.application import (
    MODEL,
    RESULTS,
    BackendOption,
    BundleOption,
    DeviceOption,
    QuietOption,
    VerboseOption,
)
from rvos_edge.errors import UserError
from rvos_edge.manifest import parse_size
from rvos_edge.outputs import check_name
from rvos_edge.result import PICTURE_SUFFIXES, Overlap
from rvos_edge.server.address import DEFAULT_HOST, DEFAULT_PORT, Address, ServerOptions, parse_address

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
BARE_ADDRESS = f"{DEFAULT_HOST}:{DEFAULT_PORT}"
"""Address of ``--serve`` if nothing follows."""

_input = partial(typer.Option, rich_help_panel="Source and queries")
_output = partial(typer.Option, rich_help_panel=RESULTS)
_mask = partial(typer.Option, rich_help_panel="Masks")
_motion = partial(typer.Option, rich_help_panel="Motion")
_model = partial(typer.Option, rich_help_panel=MODEL)
_many = partial(typer.Option, rich_help_panel="Many files")


@dataclass(frozen=True)
class RunOptions:
    """The options of ``run`` by their names on the command line.

    Raises:
        UserError: One is out of range, or two do not fit together.
    """

    source: Annotated[str | None, _input(help="The source, in place of the first argument.")] = None
    query: Annotated[list[str] | None, _input(help="A query, after those of the arguments; repeatable.")] = None
    query_file: Annotated[Path | None, _input("--queries", help="Text file of queries, one a line.")] = None
    frames: Annotated[int | None, _input(help="Stop after so many frames.")] = None
    realtime: Annotated[
        bool, _input("--realtime", help="Play a file at its own speed and drop the frames that come too late.")
    ] = False
    raw: Annotated[
        str | None, _input(help="Layout of raw frames on stdin: WIDTHxHEIGHT@FPS:PIXELS, as 1280x720@30:bgr24.")
    ] = None
    wait: Annotated[bool, _input("--wait", help="Wait for a camera or stream that is not there yet.")] = False
    reconnect: Annotated[
        float | None, _input(help="Give up a lost camera or stream after so many seconds; never if left out.")
    ] = None
    open_timeout: Annotated[float | None, _input(help="Seconds for a stream to open; 30 if left out.")] = None
    read_timeout: Annotated[
        float | None,
        _input(help="Seconds without a picture after which a stream is lost; it follows the stream if left out."),
    ] = None
    transport: Annotated[
        str, _input(help="Way of RTSP's pictures: tcp or udp.", autocompletion=lambda: ["tcp", "udp"])
    ] = "tcp"
    output: Annotated[
        list[str] | None,
        _output(
            help="Place of the overlay: a video (.mp4, .mkv, .mov, .webm, .gif), a picture (.png, .jpg), rtmp:// or "
            "rtsp:// or /dev/videoN of v4l2loopback (by ffmpeg), - for raw frames on stdout; repeatable. Without any "
            "output, files get a new folder in rvos-edge-out."
        ),
    ] = None
    masks: Annotated[
        Path | None,
        _output(help="Write one indexed PNG per frame into this folder; with several queries each has a folder in it."),
    ] = None
    json: Annotated[str | None, _output(help="Write one JSON line per frame here; - is stdout.")] = None
    rle: Annotated[
        str | None, _output(help="Write masks as COCO run lengths here, one JSON line per query; - is stdout.")
    ] = None
    events: Annotated[
        list[str] | None,
        _output(
            help="Tell as JSON when a query appears, is gone or returns and a camera is lost or back: to a file "
            "(lines; - is stdout), http(s)://... (POST) or mqtt(s)://HOST/TOPIC; repeatable."
        ),
    ] = None
    zone: Annotated[
        list[str] | None,
        _output(
            help="With --events: tell when an object enters, leaves or crosses NAME=X,Y X,Y ..., an area or with two "
            "points a line, in shares of the frame; repeatable."
        ),
    ] = None
    per_object: Annotated[bool, _output(help="With --events: every part of a mask is an object of its own.")] = False
    segment: Annotated[
        str | None, _output(help="Cut videos and JSON lines into files with the time in their names, such as 10m each.")
    ] = None
    keep: Annotated[str | None, _output(help="With --segment: remove segments older than this, such as 7d.")] = None
    coco: Annotated[str | None, _output(help="Write a COCO file (.json): images, masks, a category per query.")] = None
    dataset: Annotated[
        Path | None, _output(help="Write a data set into this folder: pictures, COCO's instances.json, YOLO's labels.")
    ] = None
    cutout: Annotated[
        str | None,
        _output(
            help="Write what is masked on a transparent ground: a picture (.png), a video (.mov, .webm), a folder."
        ),
    ] = None
    mask_video: Annotated[str | None, _output(help="Write the masks in white on black: a video or a picture.")] = None
    window: Annotated[bool, _output("--window", help="Show the overlay in a window.")] = False
    serve: Annotated[
        str | None,
        _output(
            metavar="[HOST:PORT]",
            help=f"Serve a page to watch and change the queries; {BARE_ADDRESS} if nothing follows.",
        ),
    ] = None
    token: Annotated[
        str | None, _output(envvar="RVOS_EDGE_TOKEN", help="With --serve: ask for this; needed beyond this machine.")
    ] = None
    base_path: Annotated[
        str | None, _output(metavar="/PATH", help="With --serve: prefix below which a proxy shows the page.")
    ] = None
    allow_origin: Annotated[
        list[str] | None,
        _output(
            metavar="ORIGIN",
            help="With --serve: let pages of this origin, such as https://example.org, use the API; repeatable.",
        ),
    ] = None
    certificate: Annotated[
        Path | None,
        _output(
            help="With --serve: PEM file of a certificate and its key, for https, without which no phone gives its "
            "camera.",
        ),
    ] = None
    threshold: Annotated[float, _mask(help="Least probability of a pixel in a mask, 0 to 1.")] = 0.5
    min_presence: Annotated[
        float, _mask(help="Least probability that the object is in the frame, 0 to 1; below it the mask is empty.")
    ] = 0.2
    overlap: Annotated[
        Overlap, _mask(help="Pixels that several queries claim: all keep them, or the last query gets them.")
    ] = Overlap.KEEP
    adapt: Annotated[
        str,
        _mask(
            help="once: each query settles on its own first sure masks; on: again after its confidence fell; off.",
            autocompletion=lambda: ["off", "once", "on"],
        ),
    ] = "off"
    opacity: Annotated[float, _mask(help="Opacity of the masks in the overlay, 0 to 1.")] = 0.5
    flow: Annotated[bool, _motion("--flow/--no-flow", help="Use motion.")] = True
    iterations: Annotated[int | None, _motion(help="Flow updates per frame; the bundle's if left out.")] = None
    flow_every: Annotated[int | None, _motion(help="Compute the flow on every n-th frame and keep it between.")] = None
    still: Annotated[
        float | None, _motion(help="No flow while the picture changes by at most so many grey levels, such as 3.")
    ] = None
    hold_fps: Annotated[float | None, _motion(help="Hold so many frames per second by computing less flow.")] = None
    bundle: BundleOption = None
    size: Annotated[str | None, _model(help="Network input as HxW, one that the bundle has.")] = None
    device: DeviceOption = "auto"
    backend: BackendOption = "auto"
    runtime: Annotated[
        str,
        _model(
            help="python, or cpp where the C++ runtime is installed.",
            autocompletion=lambda: ["python", "cpp"],
        ),
    ] = "python"
    threads: Annotated[int | None, _model(help="CPU threads; one per physical core if left out.")] = None
    workers: Annotated[int | None, _many(help="Many files: processes that share them and the cores.")] = None
    resume: Annotated[
        bool, _many("--resume/--no-resume", help="Many files: skip those that an earlier run finished.")
    ] = True
    quiet: QuietOption = False
    verbose: VerboseOption = False

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
        _ = self.server
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
    def server(self) -> ServerOptions:
        """Options of the page, which are checked also where none is served."""
        address, token = (Address(), None) if self.serve is None else (parse_address(self.serve), self.token)
        return ServerOptions(address, token, self.base_path or "", self.allow_origin or (), self.certificate)

    @cached_property
    def zones(self) -> list[Zone]:
        """Zones and lines of --zone; a name that is given twice, and a zone without a place for events, are refused."""
        from rvos_edge.streaming.tracks import parse_zone

        found = [parse_zone(written) for written in self.zone or ()]
        if len({zone.name for zone in found}) < len(found):
            raise UserError("--zone gives two zones one name; give each its own.")
        if (found or self.per_object) and not self.events:
            raise UserError("--zone and --per-object are about events; say with --events where to write them.")
        return found

    @property
    def segments(self) -> tuple[float, float | None] | None:
        """Length of a segment and the age at which it is removed, None for never; None for no segments."""
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
        """The options of the flow, those that were given; one out of range is refused."""
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

    def opening(self) -> dict[str, Any]:
        """Keyword arguments of ``rvos_edge.open``."""
        same = ("device", "backend", "threads", "runtime", "threshold", "min_presence", "adapt")
        return {"size": self.extent, "flow": self.flow_options(), **{name: getattr(self, name) for name in same}}

    def open_segmenter(
        self, flow: FlowOptions | None = None, *, beside: SegmenterProtocol | None = None
    ) -> SegmenterProtocol:
        """Open the bundle, without its queries.

        Args:
            flow: In place of the options of the flow.
            beside: Another segmenter of the same graphs, which are shared where they can be.
        """
        from rvos_edge.opening import open_segmenter
        from rvos_edge.segmenter import Segmenter

        given = self.opening() if flow is None else {**self.opening(), "flow": flow}
        if isinstance(beside, Segmenter):
            own = ("flow", "threshold", "min_presence", "adapt")
            sibling = beside.sibling(**{name: given[name] for name in own})
            if sibling is not None:
                return sibling
        return open_segmenter(self.bundle, **given)


def _parse_duration(written: str, option: str) -> float:
    """Seconds of a time such as 90s, 10m, 1.5h or 7d."""
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([smhd])", written)
    seconds = float(match[1]) * _UNITS[match[2]] if match else 0.0
    if not seconds:
        raise UserError(f"{option} {written} is no time; write it as 90s, 10m, 1h or 7d.")
    return seconds
