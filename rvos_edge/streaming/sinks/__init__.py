"""Sinks of results: overlay videos, mask PNGs, JSON lines, run lengths, pipes, network streams, virtual cameras.

A sink that writes files does so under a temporary name and renames on `close`; `abort` leaves nothing of it behind.
A new kind is a `Sink`; one that takes the overlay can be given a form of `--output` in `open_output`.
"""

from __future__ import annotations

from pathlib import Path

from rvos_edge.streaming.sinks.base import Outputs, Screen, Sink, open_sinks
from rvos_edge.streaming.sinks.lines import JsonSink, LineSink, RleSink
from rvos_edge.streaming.sinks.loopback import DEVICE, LoopbackSink
from rvos_edge.streaming.sinks.masks import MaskSink, indexed_png, label_image
from rvos_edge.streaming.sinks.network import STREAM_URL, FfmpegSink
from rvos_edge.streaming.sinks.picture import PICTURE_SUFFIXES, PictureSink
from rvos_edge.streaming.sinks.raw import RawSink
from rvos_edge.streaming.sinks.rle import encode_rle
from rvos_edge.streaming.sinks.video import VideoSink
from rvos_edge.streaming.sources import Tell, tell_stderr

__all__ = [
    "FfmpegSink",
    "JsonSink",
    "LineSink",
    "LoopbackSink",
    "MaskSink",
    "Outputs",
    "PictureSink",
    "RawSink",
    "RleSink",
    "Screen",
    "Sink",
    "VideoSink",
    "encode_rle",
    "indexed_png",
    "label_image",
    "open_output",
    "open_sinks",
]


def open_output(spec: str, fps: float, *, tell: Tell = tell_stderr) -> Sink:
    """A sink of overlays by its name.

    Args:
        spec: A video (.mp4), a picture (.png, .jpg) of a source with one frame, "-" for raw frames on stdout, a URL
            (rtmp, rtsp, srt, udp), or a v4l2loopback device ("/dev/video10").
        fps: Frames per second that the source states.
        tell: Takes a sentence when a network stream is interrupted.

    Raises:
        UserError: Nothing can be written there.
    """
    if spec == "-":
        return RawSink()
    if STREAM_URL.match(spec):
        return FfmpegSink(spec, fps, tell=tell)
    if DEVICE.match(spec):
        return LoopbackSink(spec)
    return PictureSink(spec) if Path(spec).suffix.lower() in PICTURE_SUFFIXES else VideoSink(spec, fps)
