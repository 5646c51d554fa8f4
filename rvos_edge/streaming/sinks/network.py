"""Overlays sent over the network, or shown as a camera by v4l2loopback, by the program ffmpeg."""

from __future__ import annotations

import re
import shutil
import threading
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rvos_edge.errors import UserError
from rvos_edge.result import Result
from rvos_edge.secrets import hide_secrets
from rvos_edge.streaming.program import Program
from rvos_edge.streaming.sinks.base import Sink, fit
from rvos_edge.streaming.sources import Frame, Tell, tell_stderr

STREAM_URL = re.compile(r"^(rtmps?|rtsps?|srt|udp)://", re.IGNORECASE)
DEVICE = re.compile(r"^/dev/video[0-9]+$")
_CONTAINERS = {"rtmp": ["-f", "flv"], "rtsp": ["-rtsp_transport", "tcp", "-f", "rtsp"], "srt": ["-f", "mpegts"]}
_PATIENCE = 3.0
"""Seconds that ffmpeg has to send the rest."""
_BUFFERED = 50, 16 << 20
"""Frames and bytes that ffmpeg may take before it is connected; beyond both they have arrived."""


class FfmpegSink(Sink):
    """Streams the overlays through a pipe to ffmpeg: as H.264 to rtmp://, rtsp://, srt:// or udp://, or as they are to
    a device of v4l2loopback, /dev/videoN, which other programs open as a camera.

    A thread writes to the pipe and takes the newest overlay: a slow network drops pictures and never slows the
    stream. When ffmpeg ends, because the server is not there or went away, it is started again with growing pauses.

    Args:
        backoff: Seconds before the first new start, which double with every other up to the second number.

    Raises:
        UserError: There is no ffmpeg, or no such device.
    """

    wants_overlay = True

    def __init__(
        self, url: str, fps: float, *, backoff: tuple[float, float] = (1.0, 16.0), tell: Tell = tell_stderr
    ) -> None:
        program = shutil.which("ffmpeg")
        self._name = hide_secrets(url)
        if DEVICE.match(url) and not Path(url).exists():
            raise UserError(
                f"{url} does not exist; make it with: sudo modprobe v4l2loopback "
                f"video_nr={url.removeprefix('/dev/video')} exclusive_caps=1"
            )
        if program is None:
            raise UserError(f"{self._name} needs the program ffmpeg; install it (apt install ffmpeg)")
        self._ffmpeg, self._url, self._fps = program, url, fps
        self._backoff = backoff
        self._tell = tell
        self._size: tuple[int, int] | None = None
        self._news = threading.Condition()
        self._newest: NDArray[np.uint8] | None = None
        self._closing = threading.Event()
        self._program: Program | None = None
        self._thread = threading.Thread(target=self._run, name=f"send {self._name}", daemon=True)
        self._arrived = False
        self._why = ""
        self.dropped = 0
        self.restarts = 0

    def write(self, frame: Frame, result: Result, overlay: NDArray[np.uint8] | None) -> None:
        assert overlay is not None
        self._size = self._size or (overlay.shape[0], overlay.shape[1])
        with self._news:
            self.dropped += self._newest is not None
            self._newest = fit(overlay, self._size)
            self._news.notify()
        if self._thread.ident is None:
            self._thread.start()

    def command(self, size: tuple[int, int]) -> list[str]:
        """The command line of ffmpeg for overlays of `size` (height, width)."""
        scheme = self._url.partition(":")[0].lower()
        container = _CONTAINERS.get(scheme.removesuffix("s") if scheme != "srt" else scheme, ["-f", "mpegts"])
        given = ["-f", "rawvideo", "-pix_fmt", "bgr24", "-s", f"{size[1]}x{size[0]}", "-framerate", f"{self._fps:g}"]
        made = ["-c:v", "libx264", "-preset", "veryfast", "-tune", "zerolatency"]
        made += ["-g", f"{max(1, round(2 * self._fps))}"]
        if DEVICE.match(self._url):
            made, container = ["-c:v", "rawvideo"], ["-f", "v4l2"]
        return [
            *(self._ffmpeg, "-nostdin", "-hide_banner", "-loglevel", "error"),
            *("-use_wallclock_as_timestamps", "1", *given, "-i", "-", "-an"),
            *("-vf", "pad=ceil(iw/2)*2:ceil(ih/2)*2", *made, "-pix_fmt", "yuv420p"),
            *(*container, self._url),
        ]

    def _run(self) -> None:
        shortest, longest = self._backoff
        delay = shortest
        while not self._closing.is_set():
            started = time.monotonic()
            why = self._send()
            if self._closing.is_set():
                return
            if time.monotonic() - started > longest:
                delay = shortest  # it went well for a while
            self._tell(f"{self._name} takes no more frames{why and f' ({why})'}; trying again in {delay:g} s")
            self._closing.wait(delay)
            delay = min(2 * delay, longest)
            self.restarts += 1

    def _send(self) -> str:
        """Start ffmpeg and feed it until it or the stream ends; returns its complaint."""
        assert self._size is not None
        try:
            program = Program(self.command(self._size), reads=True)
        except OSError as error:
            return error.strerror or str(error)
        self._program = program
        frames = size = 0
        try:
            while True:
                with self._news:
                    while self._newest is None and not self._closing.is_set() and program.running():
                        self._news.wait(0.5)
                    image, self._newest = self._newest, None
                if image is None:
                    break
                content = np.ascontiguousarray(image).data.cast("B")
                frames, size = frames + 1, size + len(content)
                self._arrived |= frames > _BUFFERED[0] and size > _BUFFERED[1]
                while content:
                    content = content[program.stdin.write(content) :]
        except OSError:  # the pipe is broken: it says why itself
            pass
        code = program.end(patience=_PATIENCE if self._closing.is_set() else 0.5)
        self._arrived |= code == 0 and frames > 0
        self._why = hide_secrets(program.said().replace(self._url, self._name))
        return self._why

    def close(self) -> None:
        """Send what is left, for a few seconds at most.

        Raises:
            UserError: Not one frame has arrived.
        """
        self._end()
        if self._thread.ident is not None and not self._arrived:
            why = f" ({self._why})" if self._why else ""
            raise UserError(f"{self._name} received no frame{why}; check the address and that the server takes streams")

    def _end(self) -> None:
        self._closing.set()
        if self._thread.ident is None:
            return
        with self._news:
            self._news.notify()
        self._thread.join(_PATIENCE)
        if self._thread.is_alive() and self._program is not None:
            self._program.kill()  # a write that hangs fails now
            self._thread.join(_PATIENCE)

    def abort(self) -> None:
        self._end()
