"""Servers of streams on loopback: RTSP over TCP with H.264, and HTTP that sends whatever a test wants."""

from __future__ import annotations

import io
import socketserver
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import av
import numpy as np

Write = Callable[[bytes], object]
_SDP = "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\nm=video 0 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\n"
_LARGEST = 1400


def grey(value: int, size: tuple[int, int] = (48, 64)) -> np.ndarray:
    """A picture uint8 [H,W,3] with some texture around a grey value."""
    noise = np.random.default_rng(value).integers(0, 8, (*size, 3), np.uint8)
    return np.asarray(noise + value, np.uint8)


class H264:
    """Encodes pictures without delay; every frame a list of NAL units."""

    def __init__(self, size: tuple[int, int] = (48, 64), *, fps: int = 25, gop: int = 10) -> None:
        self._context: Any = av.CodecContext.create("libx264", "w")
        self._context.width, self._context.height, self._context.pix_fmt = size[1], size[0], "yuv420p"
        self._context.time_base, self._context.framerate = Fraction(1, fps), Fraction(fps)
        self._context.options = {"tune": "zerolatency", "preset": "ultrafast", "g": str(gop), "threads": "1"}
        self._count = 0

    def __call__(self, image: np.ndarray) -> list[bytes]:
        frame = av.VideoFrame.from_ndarray(image, format="bgr24")
        frame.pts, self._count = self._count, self._count + 1
        data = b"".join(bytes(packet) for packet in self._context.encode(frame))
        return [unit.rstrip(b"\0") for unit in data.replace(b"\0\0\0\1", b"\0\0\1").split(b"\0\0\1")[1:]]


def transport_stream(frames: int, *, fps: int = 10, first: int = 0, size: tuple[int, int] = (48, 64)) -> bytes:
    """An MPEG transport stream of H.264 pictures that go on in time from frame `first`."""
    file = io.BytesIO()
    with av.open(file, "w", format="mpegts") as container:
        stream = container.add_stream("libx264", rate=fps, options={"tune": "zerolatency", "g": str(frames)})
        stream.height, stream.width = size
        stream.pix_fmt = "yuv420p"
        for index in range(first, first + frames):
            frame = av.VideoFrame.from_ndarray(grey(index % 200, size), format="bgr24")
            frame.pts, frame.time_base = index, Fraction(1, fps)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return file.getvalue()


class _Rtsp(socketserver.StreamRequestHandler):
    server: RtspServer

    def handle(self) -> None:
        while True:
            lines: list[str] = []
            while (read := self.rfile.readline()).strip():
                lines.append(read.decode())
            if not lines:
                return
            method, url, _ = lines[0].split()
            headers = {
                name.strip().lower(): value.strip() for name, _, value in (li.partition(":") for li in lines[1:])
            }
            self.server.methods.append(method)
            if method == "PLAY":
                self._answer(headers)
                self._play()
                return
            if not url.rstrip("/").endswith(("/live", "/live/track")) and method != "OPTIONS":
                self._answer(headers, status="404 Not Found")
            elif self.server.password and method != "OPTIONS" and "authorization" not in headers:
                self._answer(headers, "WWW-Authenticate: Basic realm=camera\r\n", status="401 Unauthorized")
            elif method == "DESCRIBE":
                body = _SDP + "a=control:track\r\n"
                self._answer(headers, f"Content-Type: application/sdp\r\nContent-Length: {len(body)}\r\n", body=body)
            elif method == "SETUP":
                self._answer(headers, "Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\nSession: 1\r\n")
            else:
                self._answer(headers, "Public: OPTIONS, DESCRIBE, SETUP, PLAY\r\n")

    def _answer(self, headers: dict[str, str], more: str = "", *, status: str = "200 OK", body: str = "") -> None:
        self.wfile.write(f"RTSP/1.0 {status}\r\nCSeq: {headers.get('cseq', '0')}\r\n{more}\r\n{body}".encode())

    def _play(self) -> None:
        sequence = 0
        for seconds, units in self.server.frames():
            payloads = [part for unit in units for part in _fragments(unit)]
            for number, payload in enumerate(payloads):
                marker = 0x80 if number == len(payloads) - 1 else 0
                head = struct.pack(">BBHII", 0x80, 96 | marker, sequence & 0xFFFF, int(seconds * 90_000), 1)
                self.wfile.write(b"$\0" + struct.pack(">H", len(head + payload)) + head + payload)
                sequence += 1
            self.wfile.flush()


def _fragments(unit: bytes) -> Iterator[bytes]:
    """RTP payloads of a NAL unit (RFC 6184): itself, or fragments FU-A."""
    if len(unit) <= _LARGEST:
        yield unit
        return
    for start in range(1, len(unit), _LARGEST):
        ends = start + _LARGEST >= len(unit)
        edge = 0x80 * (start == 1) | 0x40 * ends
        yield bytes([unit[0] & 0xE0 | 28, unit[0] & 0x1F | edge]) + unit[start : start + _LARGEST]


class RtspServer(socketserver.ThreadingTCPServer):
    """Serves rtsp://127.0.0.1:PORT/live, interleaved in its connection; `frames` gives (seconds, NAL units)."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, frames: Callable[[], Iterator[tuple[float, list[bytes]]]], *, password: bool = False) -> None:
        self.frames, self.password = frames, password
        self.methods: list[str] = []
        super().__init__(("127.0.0.1", 0), _Rtsp)
        self.url = f"rtsp://127.0.0.1:{self.server_address[1]}/live"

    def handle_error(self, request: object, client_address: object) -> None: ...  # the client has gone


def endless(fps: float = 100.0) -> Iterator[tuple[float, list[bytes]]]:
    """Small pictures, each another, until the client goes."""
    encode = H264()
    for index in range(10**6):
        yield index / fps, encode(grey(index % 200))
        time.sleep(1 / fps)


class HttpServer(ThreadingHTTPServer):
    """Answers a path with what its function writes; the content type is sent before."""

    daemon_threads = True

    def __init__(self, paths: dict[str, tuple[str, Callable[[Write], object]]], *, port: int = 0) -> None:
        self.paths = paths
        super().__init__(("127.0.0.1", port), _Http)
        self.url = f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request: object, client_address: object) -> None: ...


class _Http(BaseHTTPRequestHandler):
    server: HttpServer

    def do_GET(self) -> None:
        if self.path not in self.server.paths:
            self.send_error(401 if "locked" in self.path else 404)
            return
        kind, send = self.server.paths[self.path]
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.end_headers()
        send(self.wfile.write)

    def log_message(self, *_: object) -> None: ...


@contextmanager
def running(server: Any) -> Iterator[Any]:
    """Run a server in a thread."""
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
