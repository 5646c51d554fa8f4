"""Sinks of results: videos and pictures of overlays, masks and cut-outs, mask PNGs, JSON lines, run lengths, pipes,
network streams, virtual cameras.

A sink that writes files does so under a temporary name and renames on `close`; `abort` leaves nothing of it behind.
A new kind is a `Sink`; one that takes the overlay can be given a form of `--output` in `open_output`.
"""

from __future__ import annotations

from pathlib import Path

from rvos_edge.result import PICTURE_SUFFIXES
from rvos_edge.streaming.sinks.base import Look, Outputs, Screen, Sink, open_sinks
from rvos_edge.streaming.sinks.coco import CocoSink, DatasetSink
from rvos_edge.streaming.sinks.events import EventSink
from rvos_edge.streaming.sinks.lines import JsonSink, RleSink
from rvos_edge.streaming.sinks.masks import CutoutSink, MaskSink, indexed_png, label_image
from rvos_edge.streaming.sinks.network import DEVICE, STREAM_URL, FfmpegSink
from rvos_edge.streaming.sinks.picture import PictureSink
from rvos_edge.streaming.sinks.raw import RawSink
from rvos_edge.streaming.sinks.video import VideoSink
from rvos_edge.streaming.sources import Sound, Tell, tell_stderr

__all__ = [
    "CocoSink",
    "DatasetSink",
    "EventSink",
    "FfmpegSink",
    "JsonSink",
    "Look",
    "MaskSink",
    "Outputs",
    "RawSink",
    "RleSink",
    "Screen",
    "Sink",
    "VideoSink",
    "indexed_png",
    "label_image",
    "open_cutout",
    "open_mask_video",
    "open_output",
    "open_sinks",
]


def open_output(spec: str, fps: float, *, sound: Sound | None = None, tell: Tell = tell_stderr) -> Sink:
    """A sink of overlays by its name.

    Args:
        spec: A video (.mp4, .mkv, .mov, .webm, .gif), a picture (.png, .jpg) of a source with one frame, "-" for raw
            frames on stdout, a URL (rtmp, rtsp, srt, udp), or a v4l2loopback device ("/dev/video10").
        fps: Frames per second that the source states.
        sound: The sound of the source, for videos.
        tell: Takes a sentence when a network stream is interrupted, or the sound cannot be kept.

    Raises:
        UserError: Nothing can be written there.
    """
    if spec == "-":
        return RawSink()
    if STREAM_URL.match(spec) or DEVICE.match(spec):
        return FfmpegSink(spec, fps, tell=tell)
    if Path(spec).suffix.lower() in PICTURE_SUFFIXES:
        return PictureSink(spec)
    return VideoSink(spec, fps, sound=sound, tell=tell)


def open_mask_video(spec: str, fps: float) -> Sink:
    """A sink of black and white pictures: a video, or a picture (.png, .jpg) of a source with one frame."""
    if Path(spec).suffix.lower() in PICTURE_SUFFIXES:
        return PictureSink(spec, look=Look.MASK)
    return VideoSink(spec, fps, look=Look.MASK)


def open_cutout(spec: str, fps: float) -> Sink:
    """A sink of cut-outs: a picture (.png) of a source with one frame, a video (.mov, .webm), or a folder of PNGs."""
    suffix = Path(spec).suffix.lower()
    if suffix == ".png":
        return PictureSink(spec, look=Look.CUTOUT)
    return VideoSink(spec, fps, look=Look.CUTOUT) if suffix else CutoutSink(spec)
