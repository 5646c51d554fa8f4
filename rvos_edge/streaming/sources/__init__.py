"""Sources of frames: files, folders, cameras, network streams, raw frames on stdin, the synthetic camera.

Example:
    >>> with open_source("clips/dog.mp4") as source:  # doctest: +SKIP
    ...     for frame in source:
    ...         result = segmenter.step(frame.image)

A new kind is a `Source` and an opener in `_OPENERS`.
"""

from __future__ import annotations

from collections.abc import Callable

from rvos_edge.errors import UserError
from rvos_edge.outputs import check_name
from rvos_edge.streaming.sources.base import (
    Frame,
    Sound,
    Source,
    SourceEvent,
    SourceOptions,
    Tell,
    natural_order,
    quiet_opencv,
    tell_stderr,
)
from rvos_edge.streaming.sources.cameras import open_camera, open_csi
from rvos_edge.streaming.sources.files import (
    IMAGE_SUFFIXES,
    VIDEO_SUFFIXES,
    ImageFiles,
    glob_files,
    open_file,
    open_folder,
    open_glob,
    output_name,
    source_files,
)
from rvos_edge.streaming.sources.live import LiveCapture, Realtime
from rvos_edge.streaming.sources.network import open_url
from rvos_edge.streaming.sources.raw import RawFrames, open_stdin
from rvos_edge.streaming.sources.raw_format import ASSUMED_FPS, RawFormat
from rvos_edge.streaming.sources.snapshots import open_snapshots
from rvos_edge.streaming.sources.synthetic import SYNTHETIC_FPS, SyntheticSource, open_synthetic
from rvos_edge.streaming.sources.video import VideoFile

__all__ = [
    "ASSUMED_FPS",
    "IMAGE_SUFFIXES",
    "SYNTHETIC_FPS",
    "VIDEO_SUFFIXES",
    "Frame",
    "ImageFiles",
    "LiveCapture",
    "RawFormat",
    "RawFrames",
    "Sound",
    "Source",
    "SourceEvent",
    "SyntheticSource",
    "Tell",
    "VideoFile",
    "glob_files",
    "natural_order",
    "open_source",
    "output_name",
    "quiet_opencv",
    "source_files",
    "tell_stderr",
]

_Opener = Callable[[str, SourceOptions], "Source | None"]
_OPENERS: tuple[_Opener, ...] = (
    open_synthetic,
    open_stdin,
    open_csi,
    open_snapshots,
    open_url,
    open_camera,
    open_folder,
    open_file,
    open_glob,
)


def open_source(
    spec: str,
    *,
    size: tuple[int, int] | None = None,
    realtime: bool = False,
    raw: RawFormat | None = None,
    wait: bool = False,
    give_up: float | None = None,
    open_timeout: float | None = None,
    read_timeout: float | None = None,
    transport: str = "tcp",
    tell: Tell = tell_stderr,
) -> Source:
    """Open a source by its name; the first frame of a file is decoded here, so that a bad file fails at once.

    Args:
        spec: A video file, an image, a folder of images, a glob, a camera ("0", "/dev/video0" or a link to one, such
            as those in /dev/v4l/by-id), a Jetson's camera ("csi://0"), a URL (rtsp, http, ...: live, but a video file
            behind http is a file, and a picture is polled), "-" for raw frames on stdin, "synthetic" or
            "synthetic:SEED". A folder called "0" is "./0".
        size: (height, width) asked of a camera or of the synthetic camera; files keep their own size.
        realtime: Play what is not live at its own speed, as if it were: frames that are not taken in time are dropped.
        raw: Layout of raw frames on stdin.
        wait: True for a camera or stream that need not be there yet: the source waits for it.
        give_up: Seconds after which a camera or stream that was lost is given up; None for never, 0 for at once.
        open_timeout: Seconds for a stream to open, and then to its first picture; None for 30.
        read_timeout: Seconds without a picture after which a stream is lost; None for 30 over HTTP and 10 otherwise,
            more where its pictures come rarely.
        transport: Way of RTSP's pictures, "tcp" or "udp".
        tell: Called with a sentence, also from other threads: what was lost, what came back, what was skipped.

    Raises:
        UserError: Nothing can be read there.
    """
    if raw is not None and spec != "-":
        raise UserError(f"--raw describes frames on stdin and the source is {spec!r}; leave it out, or read from -")
    check_name(spec)
    options = SourceOptions(
        size=size,
        raw=raw,
        wait=wait,
        give_up=give_up,
        open_timeout=open_timeout,
        read_timeout=read_timeout,
        transport=transport,
        tell=tell,
    )
    for opener in _OPENERS:
        source = opener(spec, options)
        if source is not None:
            return Realtime(source, paced=spec != "-") if realtime and not source.live else source
    raise UserError(f"{spec!r} does not exist; give a video, an image folder, a camera number, a URL or 'synthetic'")
