"""Streams on the network: RTSP, HLS, MPEG-TS, MJPEG and what else FFmpeg reads, by PyAV."""

from __future__ import annotations

import errno
import re
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, cast
from urllib.parse import urlsplit

import av
import numpy as np
from numpy.typing import NDArray

from rvos_edge.secrets import hide_secrets
from rvos_edge.streaming.sources.base import Source, SourceOptions, UnavailableError
from rvos_edge.streaming.sources.live import LiveCapture
from rvos_edge.streaming.sources.video import VideoFile, decoded_pictures

_URL = re.compile(r"^(rtsps?|rtmps?|https?|udp|tcp|srt)://", re.IGNORECASE)
_OPEN_TIMEOUT = 30.0
"""Seconds: a transport stream may have a key frame every 20."""
_PUSHED_TIMEOUT, _FETCHED_TIMEOUT, _LONGEST_TIMEOUT = 10.0, 30.0, 60.0
"""Seconds of silence after which a stream counts as lost: over HTTP come segments and single pictures too."""
_LARGEST_STEP = 10.0
"""Seconds between two pictures beyond which their timestamps have jumped."""
_LATE = 0.25
"""Seconds by which a picture may be late without starting the clock anew: a busy machine's, not the network's."""
_LARGE = 1920 * 1088
_DISCARD_ALL = 48
"""AVDISCARD_ALL: of the qualities that a playlist offers, only the best is fetched."""
_REMEDIES = {
    "connection refused": "check the address and the port, and that the camera or server is running",
    "wrong path": "the server has no such stream; check what follows the host",
    "wrong password": "check user and password, which stand before the host with an @ behind them",
    "server error": "the server is there and cannot give this stream now",
    "no video": "something answers, but not with a video; check the path",
    "timed out": "check the address and the network, or give it longer with --open-timeout",
    "unknown host": "check the name of the host",
    "unreachable": "check the network and the address",
}


def open_url(spec: str, options: SourceOptions) -> Source | None:
    """Open a stream on the network; None for other names. A file behind HTTP is a file: no frame of it is dropped."""
    if not _URL.match(spec):
        return None
    connect, name = NetworkStream(spec, options), hide_secrets(spec)
    if not options.wait and spec.lower().startswith("http"):
        capture = connect()
        if capture.is_file:
            capture.release()
            return VideoFile(spec, name=name, tell=options.tell, timeout=connect.timeouts)
        connect.opened = capture
    return LiveCapture(connect, name=name, wait=options.wait, give_up=options.give_up, tell=options.tell)


class NetworkStream:
    """Opens a stream again and again, and follows its pace: one whose pictures come rarely is waited for longer."""

    def __init__(self, url: str, options: SourceOptions) -> None:
        self._url, self._options = url, options
        fetched = url.lower().startswith(("http", "tcp"))
        self._usual = self._patience = options.read_timeout or (_FETCHED_TIMEOUT if fetched else _PUSHED_TIMEOUT)
        self._last: NetworkCapture | None = None
        self.opened: NetworkCapture | None = None

    @property
    def timeouts(self) -> tuple[float, float]:
        """Seconds for it to open, and from one picture to the next."""
        return self._options.open_timeout or _OPEN_TIMEOUT, self._patience

    def __call__(self) -> NetworkCapture:
        """Open it, or hand out `opened`."""
        if self.opened is None:
            if self._last is not None and self._options.read_timeout is None:
                rare = self._last.pictures < 2
                longer = 2 * self._patience if rare else max(self._usual, 3 * self._last.longest_gap)
                self._patience = min(longer, _LONGEST_TIMEOUT)
            opens, reads = self.timeouts
            self.opened = NetworkCapture(
                self._url, open_timeout=opens, read_timeout=reads, transport=self._options.transport
            )
        self._last, self.opened = self.opened, None
        return self._last


class NetworkCapture:
    """The pictures of a stream.

    Those that come in bursts over HTTP, as segments do, are handed out at the pace of their timestamps; all others as
    they come.

    Args:
        open_timeout: Seconds for the stream to open, and then to its first picture.
        read_timeout: Seconds from one picture to the next.
        transport: "tcp" or "udp", for RTSP.

    Attributes:
        fps: Frames per second as the stream states them.
        is_file: True for something that has an end.
        pictures: Number of pictures until now.
        longest_gap: Longest time between two of them, in seconds.

    Raises:
        UnavailableError: It cannot be opened, or holds no video.
    """

    def __init__(self, url: str, *, open_timeout: float, read_timeout: float, transport: str = "tcp") -> None:
        self._url = url
        self._read_timeout = read_timeout
        self.pictures, self.longest_gap, self._seen = 0, 0.0, time.monotonic()
        options = {"rtsp_transport": transport} if url.lower().startswith("rtsp") else {}
        try:
            self._container = cast(Any, av.open(url, options=options, timeout=(open_timeout, read_timeout)))
        except (av.FFmpegError, OSError, ValueError) as error:
            # RTSP makes an input/output error of a time-out.
            late = time.monotonic() - self._seen >= open_timeout
            raise _unavailable(url, TimeoutError() if late else error) from error
        stream = self._container.streams.best("video")
        if stream is None or stream.codec_context is None:
            self._container.close()
            raise _unavailable(url, None)
        for other in self._container.streams:
            if other is not stream:
                with suppress(AttributeError):  # an older PyAV has no such thing
                    other.discard = _DISCARD_ALL
        self._stream = stream
        # Decoding in frame threads delays every picture by as many frames; only the largest need it.
        stream.thread_type = "AUTO" if stream.codec_context.width * stream.codec_context.height > _LARGE else "SLICE"
        kind = self._container.format.name
        timed = "mjpeg" not in kind  # the times of MJPEG are made up by FFmpeg
        rate = (stream.average_rate or stream.guessed_rate) if timed else None
        self.fps = float(rate) if rate and 0 < rate <= 1000 else None
        self.is_file = bool(self._container.duration or stream.frames)
        fetched = url.lower().startswith("http")
        self._pace = Pace(1.001 if kind in ("hls", "dash") else 1.05) if fetched and timed else None
        self._seen = time.monotonic()
        self._deadline = self._seen + open_timeout
        self._pictures = decoded_pictures(self._frames(), stream)

    def read(self) -> tuple[bool, NDArray[np.generic] | None]:
        """Wait for the next picture, and for its time.

        Raises:
            UnavailableError: The stream ended, or no picture came in time.
        """
        try:
            image, timestamp = next(self._pictures)
        except (TimeoutError, av.error.ExitError) as error:
            raise _unavailable(self._url, error) from error
        except (StopIteration, av.FFmpegError) as error:  # also what is cut off in its middle, or goes on as nonsense
            raise UnavailableError("ended", f"{hide_secrets(self._url)} has ended") from error
        now = time.monotonic()
        if self.pictures:
            self.longest_gap = max(self.longest_gap, now - self._seen)
        self.pictures += 1
        if self._pace is not None and timestamp is not None:
            time.sleep(self._pace.wait(timestamp, now))
        self._seen = time.monotonic()
        self._deadline = self._seen + self._read_timeout
        return True, image

    def release(self) -> None:
        """Close the connection."""
        self._pictures.close()
        self._container.close()

    def _frames(self) -> Iterator[av.VideoFrame]:
        for packet in self._container.demux():
            if time.monotonic() > self._deadline:
                raise TimeoutError
            if packet.stream is self._stream and packet.size:
                with suppress(av.FFmpegError):  # damaged, or before the first key frame
                    yield from self._stream.decode(packet)


class Pace:
    """The times at which pictures that come in bursts are due.

    A picture is due when its timestamp is as far from the last one's as the clock; one that comes late, or whose
    timestamp jumps, starts the clock anew; by a little it is only handed out at once.

    Args:
        speed: Rate of the clock, a little above 1, so that a lag does not stay and none builds up.

    Example:
        >>> pace = Pace(1.0)
        >>> [pace.wait(timestamp, now=100.0) for timestamp in (3.0, 3.5, 4.0)]
        [0.0, 0.5, 1.0]
    """

    def __init__(self, speed: float) -> None:
        self._speed = speed
        self._due, self._timestamp = 0.0, 0.0

    def wait(self, timestamp: float, now: float) -> float:
        """Seconds to wait for a picture that came at `now`."""
        step = timestamp - self._timestamp
        due = self._due + step / self._speed
        if not (0 <= step <= _LARGEST_STEP and due >= now - _LATE):
            due = now
        self._due, self._timestamp = due, timestamp
        return max(0.0, due - now)


def _unavailable(url: str, error: BaseException | None) -> UnavailableError:
    cause = _cause(url, error)
    remedy = _REMEDIES.get(cause, "check the address and that the stream is running")
    return UnavailableError(cause, f"{hide_secrets(url)} cannot be opened: {cause}; {remedy}")


def _cause(url: str, error: BaseException | None) -> str:
    if isinstance(error, av.error.HTTPUnauthorizedError | av.error.HTTPForbiddenError):
        return "wrong password"
    if isinstance(error, av.error.HTTPClientError):
        return "wrong path"
    if isinstance(error, av.error.HTTPServerError):
        return "server error"
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    if isinstance(error, TimeoutError | av.error.ExitError):
        return "timed out"
    if isinstance(error, EOFError | ConnectionError):
        return "ended"
    code = getattr(error, "errno", 0)
    if code in (errno.EHOSTUNREACH, errno.ENETUNREACH):
        return "unreachable"
    if code == errno.EIO:  # also what FFmpeg makes of a name that does not resolve
        try:
            socket.getaddrinfo(urlsplit(url).hostname, None)
        except OSError:
            return "unknown host"
    if error is None or isinstance(error, ValueError) or code == errno.EIO:
        return "no video"
    return str(getattr(error, "strerror", "") or type(error).__name__).lower()
