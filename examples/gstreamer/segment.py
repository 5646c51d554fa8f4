"""Segment what a GStreamer pipeline shows and put the overlay into another one.

    python examples/gstreamer/segment.py --query "a person" \\
        --input "v4l2src device=/dev/video0" --output "videoconvert ! autovideosink"

Any source will do that ends in video, and any sink that begins with it; the appsink and the appsrc are added here.
Frames come through memory: on a Jetson `nvvidconv` before the appsink does the conversion in hardware. See README.md
in this folder for pipelines.

Needs PyGObject and GStreamer, which come from the system: on Debian and Ubuntu python3-gi, gir1.2-gstreamer-1.0,
gir1.2-gst-plugins-base-1.0 and gstreamer1.0-plugins-good. A virtual environment sees them if it was made with
--system-site-packages.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import gi
import numpy as np
from numpy.typing import NDArray

import rvos_edge
from rvos_edge.streaming.overlay import draw_overlay

gi.require_version("Gst", "1.0")
gi.require_version("GstVideo", "1.0")
from gi.repository import Gst, GstVideo  # noqa: E402  (the versions come first)

_SECOND = 1_000_000_000


class PipelineError(Exception):
    """The error message of GStreamer."""


@dataclass(frozen=True)
class Picture:
    """A frame of a pipeline.

    Attributes:
        image: uint8 [H,W,3] BGR.
        pts: Nanoseconds since the start of the stream.
        duration: Nanoseconds, 0 if unknown.
        fps: Numerator and denominator, 0/1 if unknown.
    """

    image: NDArray[np.uint8]
    pts: int
    duration: int
    fps: tuple[int, int]


class Pipeline:
    """A running pipeline; a context manager.

    Raises:
        PipelineError: The description cannot be parsed, or an element is not installed.
    """

    def __init__(self, description: str) -> None:
        try:
            self._pipeline = Gst.parse_launch(description)
        except gi.repository.GLib.Error as error:
            raise PipelineError(f"{description}: {error.message}") from error
        self._bus = self._pipeline.get_bus()

    def __enter__(self) -> Pipeline:
        self._pipeline.set_state(Gst.State.PLAYING)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._pipeline.set_state(Gst.State.NULL)

    def element(self, name: str) -> Any:
        """The element of that name."""
        return self._pipeline.get_by_name(name)

    def check(self) -> None:
        """Raise what went wrong since the last look."""
        message = self._bus.timed_pop_filtered(0, Gst.MessageType.ERROR)
        if message is not None:
            error, _ = message.parse_error()
            raise PipelineError(f"{message.src.get_name()}: {error.message}")

    def wait_for_end(self, seconds: float) -> None:
        """Wait until everything has been written."""
        kinds = Gst.MessageType.EOS | Gst.MessageType.ERROR
        message = self._bus.timed_pop_filtered(int(seconds * _SECOND), kinds)
        if message is not None and message.type == Gst.MessageType.ERROR:
            raise PipelineError(message.parse_error()[0].message)


def pictures(description: str, *, drop: bool) -> Iterator[Picture]:
    """The frames of a pipeline.

    Args:
        description: Of its source.
        drop: Hand out the newest frame and drop those that were overtaken, for cameras; False hands out every frame.

    Raises:
        PipelineError: It cannot be started, or fails on the way.
    """
    keep = "max-buffers=1 drop=true sync=false" if drop else "max-buffers=4 drop=false sync=false"
    with Pipeline(f"{description} ! videoconvert ! video/x-raw,format=BGR ! appsink name=frames {keep}") as pipeline:
        sink = pipeline.element("frames")
        while True:
            sample = sink.emit("try-pull-sample", _SECOND // 5)
            pipeline.check()
            if sample is not None:
                yield _picture(sample)
            elif sink.get_property("eos"):
                return


def _picture(sample: Any) -> Picture:
    info = GstVideo.VideoInfo.new_from_caps(sample.get_caps())
    buffer = sample.get_buffer()
    found, mapped = buffer.map(Gst.MapFlags.READ)
    if not found:
        raise PipelineError("a frame cannot be read; put videoconvert or nvvidconv at the end of the input")
    try:
        # Rows are padded to four bytes.
        rows = np.frombuffer(mapped.data, np.uint8)[: info.height * info.stride[0]].reshape(info.height, info.stride[0])
        image = rows[:, : 3 * info.width].reshape(info.height, info.width, 3).copy()
    finally:
        buffer.unmap(mapped)
    duration = 0 if buffer.duration == Gst.CLOCK_TIME_NONE else buffer.duration
    return Picture(image, buffer.pts, duration, (info.fps_n, info.fps_d))


class Writer:
    """Pushes frames into a pipeline; it starts with the first, whose size and rate it takes over."""

    def __init__(self, description: str) -> None:
        self._description = description
        self._pipeline: Pipeline | None = None
        self._source: Any = None

    def write(self, picture: Picture, image: NDArray[np.uint8]) -> None:
        """Push an image, uint8 [H,W,3] BGR, at the time of a picture.

        Raises:
            PipelineError: The pipeline cannot take it.
        """
        height, width = image.shape[:2]
        if self._pipeline is None:
            rate = "{}/{}".format(*picture.fps)
            caps = f"video/x-raw,format=BGR,width={width},height={height},framerate={rate}"
            start = f"appsrc name=frames caps={caps} format=time block=true"
            self._pipeline = Pipeline(f"{start} ! {self._description}")
            self._pipeline.__enter__()
            self._source = self._pipeline.element("frames")
        self._pipeline.check()
        rows = np.zeros((height, -(-3 * width // 4) * 4), np.uint8)
        rows[:, : 3 * width] = image.reshape(height, 3 * width)
        buffer = Gst.Buffer.new_wrapped(rows.tobytes())
        buffer.pts = picture.pts
        if picture.duration:
            buffer.duration = picture.duration
        if self._source.emit("push-buffer", buffer) != Gst.FlowReturn.OK:
            self._pipeline.check()
            raise PipelineError(f"{self._description}: takes no more frames")

    def close(self) -> None:
        """Finish what was written."""
        if self._pipeline is not None:
            self._source.emit("end-of-stream")
            self._pipeline.wait_for_end(10)
            self._pipeline.__exit__(None, None, None)
            self._pipeline = None


def main(arguments: list[str] | None = None) -> int:
    """Run the example; returns its exit code."""
    parser = argparse.ArgumentParser(description="Segment what a GStreamer pipeline shows.")
    parser.add_argument("--input", default="videotestsrc is-live=true pattern=ball", help="beginning of a pipeline")
    parser.add_argument("--output", default="fakesink", help="end of a pipeline")
    parser.add_argument("--query", action="append", required=True)
    parser.add_argument("--bundle")
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--every-frame", action="store_true", help="drop none: for files")
    options = parser.parse_args(arguments)
    # Before GStreamer starts its threads: the other way round OpenVINO was seen to abort on a busy machine.
    segmenter = rvos_edge.open(options.bundle, backend=options.backend)
    segmenter.set_queries(options.query)
    Gst.init(None)
    writer, count, started = Writer(options.output), 0, time.perf_counter()
    try:
        for picture in pictures(options.input, drop=not options.every_frame):
            result = segmenter.step(picture.image)
            writer.write(picture, draw_overlay(picture.image, result))
            count += 1
    except KeyboardInterrupt:
        pass
    finally:
        writer.close()
    print(f"{count} frames at {count / (time.perf_counter() - started):.1f} frames per second")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (rvos_edge.UserError, PipelineError) as problem:
        sys.exit(f"Error: {problem}")
