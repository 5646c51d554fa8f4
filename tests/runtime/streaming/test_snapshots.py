"""A camera that gives a picture for each request."""

from __future__ import annotations

import base64
import itertools
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import cv2
import numpy as np
import pytest

from rvos_edge.streaming.sources import LiveCapture, SourceOptions, open_source, snapshots
from rvos_edge.streaming.sources.snapshots import open_snapshots


class Camera(BaseHTTPRequestHandler):
    """Answers with pictures of grey 20, 40, 60, ... to me:secret alone."""

    numbers: Iterator[int]

    def do_GET(self) -> None:
        known = self.headers.get("authorization") == f"Basic {base64.b64encode(b'me:secret').decode()}"
        self.send_response(200 if known else 401)
        self.send_header("www-authenticate", 'Basic realm="camera"')
        self.send_header("content-type", "image/jpeg")
        self.end_headers()
        if known:
            self.wfile.write(cv2.imencode(".jpg", np.full((48, 64, 3), next(self.numbers) * 20, np.uint8))[1].tobytes())

    def log_message(self, *_: object) -> None: ...


@contextmanager
def camera() -> Iterator[str]:
    handler = type("C", (Camera,), {"numbers": itertools.count(1)})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=[0.01])
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_port}/cgi-bin/snapshot.cgi"
        finally:
            server.shutdown()
            thread.join()


def test_a_url_of_a_picture_is_polled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshots, "_PERIOD", 0.02)
    with camera() as address, open_source(f"http://me:secret@{address}") as source:
        assert isinstance(source, LiveCapture)
        assert source.name == f"http://{address}"
        frames = list(itertools.islice(source, 3))
    shades = [int(frame.image.mean()) for frame in frames]
    assert shades == sorted(set(shades)), "each is newer than the one before"
    assert frames[0].image.shape == (48, 64, 3)


def test_a_server_that_does_not_answer_is_asked_no_longer_than_the_stream_may_take_to_open(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(snapshots, "_SECONDS", "unused")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}/live"
        assert open_snapshots(address, SourceOptions(open_timeout=0.01)) is None
