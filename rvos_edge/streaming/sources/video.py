"""Video files, decoded by PyAV as players show them: whole frames, upright, with square pixels, in their colours."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.filter
import numpy as np
from av.sidedata.sidedata import Type as SideData
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from rvos_edge.errors import UserError
from rvos_edge.streaming.sources.base import Frame, Sound, Source, Tell, tell_stderr
from rvos_edge.streaming.sources.raw_format import ASSUMED_FPS

_FAILED_READS = 1000
"""Parts of a file that cannot be read, one after the other, after which the rest is given up."""
_SQUARE, _NARROWEST = 0.02, 0.2
"""Pixels are taken for square within 2 %, which is rounding; a ratio beyond 1:5 is a fault of the file."""
_BT709, _BT601, _FULL_RANGE = 1, 5, 2
_COLOURS = {1: _BT709, 4: 4, 5: _BT601, 6: _BT601, 7: 7, 9: 9, 10: 9}
"""AVColorSpace of a frame -> swscale's matrix; where the file names none, large pictures are BT.709."""

_PADDING = 2**20
"""Pixels that a decoder may count beyond those of a frame: it pads rows and columns."""
_REMEDY = "check that it is complete, or convert it to an mp4 with H.264."


class VideoFile(Source):
    """Every frame of a video file that can be decoded, in order, at the times that the file gives them.

    Interlaced frames are deinterlaced, rotated ones turned upright, pixels made square (the shorter side grows).
    Frames whose packets are damaged are left out and told at the end. Timestamps start at 0 and grow; where the
    file's own jump back (joined transport streams) they go on by one frame. After `seek` it may be iterated again.

    Args:
        formats: FFmpeg's names of the only containers that are opened, comma-separated; None for all.
        upright: False hands out the frames as they are stored, neither turned nor with square pixels.
        timeout: Seconds for a URL to open, and for each part of it to come.

    Raises:
        UserError: Nothing can be decoded, or the frames are too large.
    """

    def __init__(
        self,
        address: str | Path,
        *,
        name: str = "",
        tell: Tell = tell_stderr,
        formats: str | None = None,
        upright: bool = True,
        limit: int | None = None,
        timeout: tuple[float, float] = (10.0, 10.0),
    ) -> None:
        name = name or str(address)
        self._tell = tell
        self._damaged = 0
        self._read_until = 0.0
        self._target: float | None = None
        self._reading = False
        self._upright = upright
        self._container = open_container(address, name=name, formats=formats, timeout=timeout)
        try:
            self._stream = _video_stream(self._container, name)
            width, height = self._stream.codec_context.width, self._stream.codec_context.height
            if limit is not None and width * height > limit:
                raise UserError(f"{name} has frames of {width} x {height} pixels; give at most {limit:,} pixels.")
            if limit is not None:  # frames may grow on the way: the decoder refuses those
                self._stream.codec_context.options = {"max_pixels": str(limit + _PADDING)}
            self._pictures = decoded_pictures(self._frames(), self._stream, upright=upright)
            self._next = next(self._pictures, None)
            if self._next is None:
                codec = self._stream.codec_context.name
                raise UserError(f"{name} holds no video frame that can be decoded ({codec}); {_REMEDY}")
        except BaseException:
            self._container.close()
            raise
        rate = self._stream.average_rate or self._stream.guessed_rate
        fps = float(rate) if rate and 0 < rate <= 1000 else None
        seconds = _seconds(self._stream) or float(self._container.duration or 0) / av.time_base
        stated, estimated = self._stream.frames, round(seconds * fps) if fps else 0
        # The stated number counts what an edit list cuts away; the duration does not.
        super().__init__(name=Path(name).name, fps=fps, length=min(filter(None, (stated, estimated)), default=None))
        self.seconds = seconds or None
        self._stated = stated
        self.size = (self._next[0].shape[0], self._next[0].shape[1])
        self._first = self._next[1] or 0.0
        has_sound = any(stream.type == "audio" for stream in self._container.streams)
        self.sound = Sound(str(address), self._first) if has_sound else None

    def __iter__(self) -> Iterator[Frame]:
        step = 1 / (self.fps or ASSUMED_FPS)
        read, self._next = self._next, None
        timestamp, count, origin = 0.0, 0, self._first
        while read is not None or self._target is not None:
            if read is not None:
                yield Frame(read[0], count, timestamp, f"{count:05d}", time.perf_counter())
                count += 1
            if self._target is not None and self._jump(self._first + self._target - step / 2):
                origin, timestamp = self._first, self._target - step
            self._target = None
            self._reading = True
            try:
                read = next(self._pictures, None)
            finally:
                self._reading = False
            at = read[1] if read and read[1] is not None else origin + timestamp + step
            if at - origin <= timestamp:
                origin = at - timestamp - step
            timestamp = at - origin
        if self._damaged or self._ends_early():
            of = f" of the {self._stated} frames that it states" if self._stated >= count else " frames"
            self._tell(f"{self.name}: {count}{of} could be decoded, the others are damaged or missing")

    def seek(self, seconds: float) -> None:
        self._target = max(0.0, min(seconds, (self.seconds or 0.0) - 1 / (self.fps or ASSUMED_FPS)))

    def _jump(self, at: float) -> bool:
        """Decode from the first picture at or after a time in the file on; False where the file cannot be sought."""
        try:
            self._container.seek(round(at / self._stream.time_base), stream=self._stream)
        except av.FFmpegError:
            return False
        self._pictures = decoded_pictures(self._frames(), self._stream, upright=self._upright, since=at)
        return True

    def duration(self) -> float:
        """Seconds from the first to the last packet, whatever the file states; nothing is left to iterate over."""
        for _ in self._packets():
            pass
        return self._read_until - float((self._stream.start_time or 0) * self._stream.time_base)

    def _ends_early(self) -> bool:
        """True if the packets of a file that states its frames end before the time that it states."""
        if not (self._stated and self._stream.duration):
            return False
        step = 1 / (self.fps or ASSUMED_FPS)
        return self._read_until < float(self._stream.duration * self._stream.time_base) - 2 * step

    def _frames(self) -> Iterator[av.VideoFrame]:
        stream = self._stream
        for packet in self._packets():
            try:
                yield from stream.decode(packet)
            except av.FFmpegError:
                self._damaged += 1
        try:
            yield from stream.decode(None)
        except av.FFmpegError:
            self._damaged += 1

    def _packets(self) -> Iterator[Any]:
        failed = 0
        while failed < _FAILED_READS:
            try:
                for packet in self._container.demux(self._stream):
                    failed = 0
                    if packet.size:  # the last one is empty
                        end = (packet.pts or 0) + (packet.duration or 0)
                        self._read_until = max(self._read_until, float(end * self._stream.time_base))
                        yield packet
                return
            except av.FFmpegError:
                failed += 1
                self._damaged += 1

    def close(self) -> None:
        if not self._reading:  # a thread that hangs in a read still needs it
            self._container.close()


def open_container(
    address: str | Path,
    *,
    name: str = "",
    formats: str | None = None,
    timeout: tuple[float, float] = (10.0, 10.0),
) -> Any:
    """Open a file, or a URL, for reading.

    Raises:
        UserError: It cannot be opened, or is none of the formats.
    """
    local = isinstance(address, Path) or "://" not in address
    options = {} if formats is None else {"format_whitelist": formats, "protocol_whitelist": "file"}
    try:
        # With its protocol: a colon in a name would be taken for the end of another one.
        return av.open(
            f"file:{address}" if local else str(address), options=options, timeout=None if local else timeout
        )
    except (av.FFmpegError, OSError, ValueError) as error:
        raise UserError(f"{name or address} holds no video that can be read; {_REMEDY}") from error


def decoded_pictures(
    frames: Iterator[av.VideoFrame], stream: Any, *, upright: bool = True, since: float | None = None
) -> Generator[tuple[NDArray[np.uint8], float | None], None, None]:
    """Pictures of a stream's decoded frames, uint8 [H,W,3] BGR, and their times in it, seconds; ``since``: those before
    that time are left out.
    """
    picture = _Picture(stream, upright=upright)
    clock = stream.time_base
    for frame in _deinterlaced(frames, clock):
        at = None if frame.pts is None else float(frame.pts * (frame.time_base or clock))
        if since is None or at is None or at >= since:
            since = None
            yield picture.of(frame), at


def _video_stream(container: Any, name: str) -> Any:
    stream = container.streams.best("video")
    if stream is None:
        raise UserError(f"{name} holds no video; {_REMEDY}")
    if stream.codec_context is None:
        raise UserError(f"{name} holds no video of a known codec; {_REMEDY}")
    stream.thread_type = "AUTO"
    return stream


def _seconds(stream: Any) -> float:
    return float(stream.duration * stream.time_base) if stream.duration and stream.time_base else 0.0


def _deinterlaced(frames: Iterator[av.VideoFrame], clock: Fraction) -> Iterator[av.VideoFrame]:
    """The frames; from the first interlaced one on they pass a filter that mends those that are."""
    graph: av.filter.Graph | None = None
    layout: tuple[int, int, str] | None = None
    for frame in frames:
        now = (frame.width, frame.height, frame.format.name)
        if graph is not None and layout != now:
            yield from _drain(graph, last=True)
            graph = None
        if graph is None and not frame.interlaced_frame:
            yield frame
            continue
        if graph is None:
            graph, layout = _deinterlacer(frame, clock), now
        graph.vpush(frame)
        yield from _drain(graph)
    if graph is not None:
        yield from _drain(graph, last=True)


def _deinterlacer(frame: av.VideoFrame, clock: Fraction) -> av.filter.Graph:
    graph = av.filter.Graph()
    source = graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=clock)
    graph.link_nodes(source, graph.add("bwdif", "mode=send_frame:deint=interlaced"), graph.add("buffersink"))
    graph.configure()
    return graph


def _drain(graph: av.filter.Graph, *, last: bool = False) -> Iterator[av.VideoFrame]:
    if last:
        graph.vpush(None)
    while True:
        try:
            frame = graph.vpull()
        except (av.BlockingIOError, av.EOFError):
            return
        yield frame


class _Picture:
    """Makes BGR pictures of decoded frames."""

    def __init__(self, stream: Any, *, upright: bool) -> None:
        self._reformatter = VideoReformatter()
        ratio = float(stream.sample_aspect_ratio or 1) if upright else 1.0
        plausible = abs(ratio - 1) > _SQUARE and _NARROWEST <= ratio <= 1 / _NARROWEST
        self._ratio = ratio if plausible else 1.0
        self._upright = upright

    def of(self, frame: av.VideoFrame) -> NDArray[np.uint8]:
        """The picture of a frame, uint8 [H,W,3] BGR."""
        picture = self._reformatter.reformat(
            frame,
            width=round(frame.width * max(1.0, self._ratio)),
            height=round(frame.height / min(1.0, self._ratio)),
            format="bgr24",
            src_colorspace=_COLOURS.get(frame.colorspace, _BT709 if frame.height >= 720 else _BT601),
            dst_colorspace=_BT601,  # means nothing to BGR, but PyAV 15 takes the source's only where the two differ
            src_color_range=_FULL_RANGE if "yuvj" in frame.format.name else frame.color_range,
            interpolation="BICUBIC",
        )
        image = np.asarray(picture.to_ndarray(), np.uint8)
        side_data: Any = frame.side_data
        matrix = side_data.get(SideData.DISPLAYMATRIX) if self._upright else None
        return image if matrix is None else _turned(image, np.frombuffer(matrix, np.int32)[[0, 1, 3, 4]])


def _turned(image: NDArray[np.uint8], matrix: NDArray[np.int32]) -> NDArray[np.uint8]:
    """A picture turned and mirrored by a display matrix a, b, c, d: x' = ax + cy, y' = bx + dy; to quarter turns."""
    a, b, c, d = (int(value) for value in matrix)
    if abs(b) + abs(c) > abs(a) + abs(d):
        image, a, d = image.transpose(1, 0, 2), c, b
    return np.ascontiguousarray(image[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1])
