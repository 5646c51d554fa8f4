"""Cameras and streams that come, go and come back, faster and slower than the model."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from support.live_fakes import FakeCapture, wait_until
from support.stream_servers import running

from rvos_edge.errors import UserError
from rvos_edge.streaming.sources import LiveCapture, SourceEvent, VideoFile, live, open_source, quiet_opencv
from rvos_edge.streaming.sources.base import UnavailableError


def test_only_the_newest_frame_is_kept_and_the_rest_counted() -> None:
    camera = FakeCapture(4)
    with LiveCapture(lambda: camera, name="camera 0", give_up=0) as source:
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
    assert (source.live, source.fps, source.reconnects) == (True, None, 0)
    assert camera.released


def test_source_slower_than_the_model_loses_nothing() -> None:
    camera, taken = FakeCapture(20), []
    with LiveCapture(lambda: camera, name="camera 0", give_up=0) as source:
        for frame in source:
            taken.append(int(frame.image[0, 0, 0]))
            camera.go.release()
    assert taken == list(range(1, 21))
    assert source.dropped == 0


def test_source_faster_than_the_model_stays_fresh() -> None:
    """However far the camera is ahead, what is handed out is a frame at most a few reads old."""
    camera, ages = FakeCapture(10**9, free=True), []
    with LiveCapture(lambda: camera, name="camera 0", give_up=0) as source:
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
    source = LiveCapture(lambda: camera, name="camera 0", give_up=0)
    next(iter(source))
    source.close()
    source.close()
    assert threading.active_count() == before
    assert camera.released


def test_camera_that_gives_nothing() -> None:
    with pytest.raises(UserError, match="gives no frame"):
        LiveCapture(lambda: FakeCapture(0), name="camera 0")


def connects(*captures: FakeCapture | None) -> Callable[[], FakeCapture]:
    """Opens one capture after the other; fails where there is None, and after the last."""
    left = list(captures)

    def connect() -> FakeCapture:
        capture = left.pop(0) if left else None
        if capture is None:
            raise UnavailableError("not plugged in", "camera 0 cannot be opened")
        return capture

    return connect


def test_unplugged_camera_comes_back_with_another_size() -> None:
    first, dead, second = FakeCapture(2, free=True), FakeCapture(0), FakeCapture(2, size=(6, 8), free=True)
    told, events = list[str](), list[SourceEvent]()
    source = LiveCapture(
        connects(first, None, dead, None, second),
        name="camera 0",
        give_up=0.5,
        backoff=(0.001, 0.01),
        tell=told.append,
    )
    source.on_event = events.append
    with source:
        frames = list(source)
    assert first.released
    assert dead.released, "a camera that opens without giving frames is tried again"
    assert frames[-1].image.shape == (6, 8, 3)
    assert frames[-1].timestamp > frames[0].timestamp
    assert source.reconnects == 1
    assert [re.sub(r"after .*", "after", message) for message in told] == [
        "camera 0 is lost (no picture); trying to open it again",
        "camera 0 is still away (not plugged in); trying again",
        "camera 0 is back after",
        "camera 0 gives pictures of 8x6 now, 4x4 before",
        "camera 0 is lost (no picture); trying to open it again",
        "camera 0 is still away (not plugged in); trying again",
        "camera 0 did not come back within 0.5 s; the stream ends here",
    ]
    assert {event.message for event in events} <= set(told)
    assert (source.state, source.trouble) == ("lost", told[-1])


def test_state_says_if_pictures_come() -> None:
    with LiveCapture(
        connects(None, FakeCapture(1), None, FakeCapture(1, free=True)),
        name="camera 0",
        wait=True,
        backoff=(0.001, 0.01),
        tell=lambda _: None,
    ) as source:
        assert source.state in ("waiting", "playing", "lost")
        next(iter(source))
        wait_until(lambda: source.reconnects == 1)
        wait_until(lambda: "is still away (not plugged in)" in source.trouble)
        assert source.state == "lost"


def test_a_frozen_picture_is_told_once_and_its_end_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "FROZEN_SECONDS", 0.0)
    still, other = np.zeros((48, 64, 3), np.uint8), np.ones((48, 64, 3), np.uint8)
    eye, said = live.Watch(), list[str]()
    for picture in (still,) * 8 + (other,) * 2:
        said += [f"{kind}: {what}" for kind, what in eye.look(picture)]
    assert said == ["frozen: has shown the same picture for 0 s; is it frozen?", "moving: moves again after 0 s"]


def test_a_frozen_camera_is_in_trouble(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "FROZEN_SECONDS", 0.0)

    class Frozen(FakeCapture):
        def read(self) -> tuple[bool, np.ndarray | None]:
            ok, _ = super().read()
            return ok, np.zeros((48, 64, 3), np.uint8)

    with LiveCapture(lambda: Frozen(10**9, free=True), name="camera 0", tell=lambda _: None) as source:
        wait_until(lambda: source.state == "frozen")
        assert source.trouble == "camera 0 has shown the same picture for 0 s; is it frozen?"


def test_opencv_is_quiet_until_the_last_thread_is_done() -> None:
    logging = cv2 if hasattr(cv2, "setLogLevel") else cv2.utils.logging
    before = logging.getLogLevel()
    first, second = quiet_opencv(), quiet_opencv()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert logging.getLogLevel() == 0
    second.__exit__(None, None, None)
    assert logging.getLogLevel() == before


def test_attempts_get_rarer_and_stay_rare_for_a_camera_that_is_lost_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "time", SimpleNamespace(monotonic=lambda: 100.0, perf_counter=time.perf_counter))
    tries: list[float] = []

    def connect() -> FakeCapture:
        tries.append(time.monotonic())
        if len(tries) in (1, 4):
            return FakeCapture(1)
        raise UnavailableError("in use", "c cannot be opened")

    with LiveCapture(connect, name="c", backoff=(0.02, 0.16), tell=lambda _: None):
        wait_until(lambda: len(tries) >= 6)
    waits = np.diff(tries)
    # An attempt can be late on a busy machine, never early.
    assert all(wait >= least for wait, least in zip(waits, (0.019, 0.039, 0.079, 0.159, 0.159), strict=False))


def test_lost_camera_that_is_not_waited_for_ends_the_stream() -> None:
    told: list[str] = []
    with LiveCapture(connects(FakeCapture(3, free=True)), name="c", give_up=0, tell=told.append) as source:
        assert len(list(source)) >= 1
    assert told == []


def test_closing_does_not_wait_for_a_lost_camera() -> None:
    with LiveCapture(connects(FakeCapture(1)), name="c", backoff=(60.0, 60.0), tell=lambda _: None) as source:
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
    with LiveCapture(connects(camera), name="c", give_up=0.01, tell=told.append) as source:
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


def test_network_stream_that_drops_is_connected_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A real stream over HTTP: two connections drop, the second one brings pictures of another size."""
    told, shapes = list[str](), list[tuple[int, ...]]()
    with running(Server(tmp_path)) as server, open_source(f"{server.url}/live", tell=told.append) as source:
        monkeypatch.setattr(source, "_backoff", (0.01, 0.02))
        for frame in source:
            shapes.append(frame.image.shape)
            if source.reconnects == 2:
                break
    assert (shapes[0], shapes[-1]) == ((48, 64, 3), (96, 128, 3))
    assert source.live
    name = f"{server.url}/live"
    assert told[0] == f"{name} is lost (ended); trying to open it again"
    assert told[1].startswith(f"{name} is back after ")
    assert told.count(f"{name} gives pictures of 128x96 now, 64x48 before") == 1


def test_network_stream_is_given_up_after_a_while(tmp_path: Path) -> None:
    told: list[str] = []
    with (
        running(Server(tmp_path)) as server,
        open_source(f"{server.url}/live", give_up=0.3, tell=told.append) as source,
    ):
        server.up = False
        assert len(list(source)) >= 1
    assert server.connections >= 2
    assert told[-1].endswith("did not come back within 0.3 s; the stream ends here")


def test_video_behind_http_is_a_file(tmp_path: Path) -> None:
    writer = cv2.VideoWriter(str(tmp_path / "clip.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 10.0, (64, 48))
    for index in range(5):
        writer.write(np.full((48, 64, 3), index * 40, np.uint8))
    writer.release()
    with running(Server(tmp_path)) as server, open_source(f"{server.url}/clip.mp4") as source:
        assert isinstance(source, VideoFile)
        assert source.length == 5
        assert [round(float(frame.image.mean()) / 40) for frame in source] == [0, 1, 2, 3, 4]
