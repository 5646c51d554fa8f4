"""Cameras and streams that come, go and come back, faster and slower than the model."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import cv2
import numpy as np
import pytest
from support.live_fakes import FakeCapture, wait_until

from rvos_edge.errors import UserError
from rvos_edge.streaming.sources import LiveCapture, VideoFile, open_source


def test_only_the_newest_frame_is_kept_and_the_rest_counted() -> None:
    camera = FakeCapture(4)
    with LiveCapture(camera, name="camera 0", fps=30.0) as source:
        frames = iter(source)
        first = next(frames)
        camera.go.release(3)
        wait_until(lambda: source.dropped == 2)
        second = next(frames)
        assert list(frames) == []  # the camera is gone: the stream ends
    assert [int(frame.image[0, 0, 0]) for frame in (first, second)] == [1, 4]
    assert [frame.index for frame in (first, second)] == [0, 1]
    assert [frame.name for frame in (first, second)] == ["00000", "00001"]
    assert second.timestamp > first.timestamp
    assert (source.live, source.fps, source.reconnects) == (True, 30.0, 0)
    assert camera.released


def test_source_slower_than_the_model_loses_nothing() -> None:
    camera, taken = FakeCapture(20), []
    with LiveCapture(camera, name="camera 0") as source:
        for frame in source:
            taken.append(int(frame.image[0, 0, 0]))
            camera.go.release()
    assert taken == list(range(1, 21))
    assert source.dropped == 0


def test_source_faster_than_the_model_stays_fresh() -> None:
    """However far the camera is ahead, what is handed out is a frame at most a few reads old."""
    camera, ages = FakeCapture(10**9, free=True), []
    with LiveCapture(camera, name="camera 0") as source:
        for frame in source:
            ages.append(time.perf_counter() - frame.captured)
            if len(ages) == 5:
                break
            before = source.dropped
            wait_until(lambda before=before: source.dropped > before + 100)
    assert source.dropped > 400
    assert max(ages[1:]) < 1.0


def test_closing_ends_the_thread() -> None:
    camera = FakeCapture(10**9, free=True)
    before = threading.active_count()
    source = LiveCapture(camera, name="camera 0")
    next(iter(source))
    source.close()
    source.close()
    assert threading.active_count() == before
    assert camera.released


def test_camera_that_gives_nothing() -> None:
    with pytest.raises(UserError, match="gives no frame"):
        LiveCapture(FakeCapture(0), name="camera 0")


def test_unplugged_camera_comes_back_with_another_size() -> None:
    cameras = [None, FakeCapture(0), None, FakeCapture(2, size=(6, 8), free=True), None]
    tried, told = list(cameras), list[str]()
    first = FakeCapture(2, free=True)
    with LiveCapture(
        first,
        name="camera 0",
        reopen=lambda: tried.pop(0) if tried else None,
        give_up=0.2,
        backoff=(0.001, 0.01),
        tell=told.append,
    ) as source:
        frames = list(source)
    assert first.released
    assert cameras[1].released, "a camera that opens without giving frames is tried again"
    assert frames[-1].image.shape == (6, 8, 3)
    assert frames[-1].timestamp > frames[0].timestamp
    assert source.reconnects == 1
    assert [message.split(";")[0].split(" after")[0] for message in told] == [
        "camera 0 is lost",
        "camera 0 is back",
        "camera 0 is lost",
        "camera 0 did not come back within 0.2 s",
    ]


def test_attempts_get_rarer() -> None:
    tries: list[float] = []

    def reopen() -> None:
        tries.append(time.monotonic())

    with LiveCapture(FakeCapture(1), name="c", reopen=reopen, backoff=(0.02, 0.08), tell=lambda _: None) as source:
        wait_until(lambda: len(tries) >= 5)
        assert source.reconnects == 0
    waits = np.diff(tries)
    # An attempt can be late on a busy machine, never early.
    assert all(wait >= least for wait, least in zip(waits, (0.039, 0.079, 0.079, 0.079), strict=False))


def test_lost_camera_that_is_not_waited_for_ends_the_stream() -> None:
    told: list[str] = []
    camera = FakeCapture(3, free=True)
    with LiveCapture(
        camera, name="c", reopen=lambda: pytest.fail("opened again"), give_up=0, tell=told.append
    ) as source:
        assert len(list(source)) >= 1
    assert told == []


def test_closing_does_not_wait_for_a_lost_camera() -> None:
    with LiveCapture(
        FakeCapture(1), name="c", reopen=lambda: None, backoff=(60.0, 60.0), tell=lambda _: None
    ) as source:
        next(iter(source))
        started = time.monotonic()
    assert time.monotonic() - started < 1.0


def test_one_bad_picture_is_no_lost_camera() -> None:
    class Stutters(FakeCapture):
        def read(self) -> tuple[bool, np.ndarray | None]:
            self.reads = getattr(self, "reads", 0) + 1
            return (False, None) if self.reads % 3 == 0 else super().read()

    told: list[str] = []
    camera = Stutters(10, free=True)
    with LiveCapture(camera, name="c", reopen=lambda: None, give_up=0.01, tell=told.append) as source:
        frames = list(source)
    assert int(frames[-1].image[0, 0, 0]) == 10


class Server(ThreadingHTTPServer):
    """Streams JPEGs as cameras do; drops every connection after `per_connection` of them while it `drops`."""

    daemon_threads = True

    def __init__(self, files: Path) -> None:
        self.files, self.connections, self.per_connection, self.up = files, 0, 6, True
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        if self.path != "/live":
            content = (self.server.files / self.path[1:]).read_bytes()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)
            return
        self.server.connections += 1
        if not self.server.up:
            self.send_error(503)
            return
        number = self.server.connections
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        self.end_headers()
        size = (48, 64) if number == 1 else (96, 128)
        for index in range(self.server.per_connection):
            _, jpeg = cv2.imencode(".jpg", np.full((*size, 3), 40 * number + index, np.uint8))
            self.wfile.write(b"--frame\r\nContent-Type: image/jpeg\r\n")
            self.wfile.write(b"Content-Length: %d\r\n\r\n" % jpeg.size + jpeg.tobytes() + b"\r\n")
            self.wfile.flush()
            time.sleep(0.01)

    def log_message(self, *_: object) -> None: ...


@contextmanager
def serving(files: Path) -> Iterator[Server]:
    server = Server(files)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_network_stream_that_drops_is_connected_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A real stream over HTTP: two connections drop, the second one brings pictures of another size."""
    told, shapes = list[str](), list[tuple[int, ...]]()
    with serving(tmp_path) as server, open_source(f"{server.url}/live", tell=told.append) as source:
        monkeypatch.setattr(source, "_backoff", (0.01, 0.02))
        for frame in source:
            shapes.append(frame.image.shape)
            if source.reconnects == 2:
                break
    assert (shapes[0], shapes[-1]) == ((48, 64, 3), (96, 128, 3))
    assert source.live
    name = f"{server.url}/live"
    assert told[0] == told[2] == f"{name} is lost; trying to open it again"
    assert told[1].startswith(f"{name} is back after ")


def test_network_stream_is_given_up_after_a_while(tmp_path: Path) -> None:
    told: list[str] = []
    with serving(tmp_path) as server, open_source(f"{server.url}/live", give_up=0.3, tell=told.append) as source:
        server.up = False
        assert len(list(source)) >= 1
    assert server.connections >= 2
    assert told[-1].endswith("did not come back within 0.3 s; the stream ends here")


def test_video_behind_http_is_a_file(tmp_path: Path) -> None:
    writer = cv2.VideoWriter(str(tmp_path / "clip.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 10.0, (64, 48))
    for index in range(5):
        writer.write(np.full((48, 64, 3), index * 40, np.uint8))
    writer.release()
    with serving(tmp_path) as server, open_source(f"{server.url}/clip.mp4") as source:
        assert isinstance(source, VideoFile)
        assert source.length == 5
        assert [round(float(frame.image.mean()) / 40) for frame in source] == [0, 1, 2, 3, 4]
