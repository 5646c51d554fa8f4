"""Streams on the network: what FFmpeg reads, why it cannot, and how long a silent one is waited for."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from types import SimpleNamespace

import av
import cv2
import numpy as np
import pytest
from support.stream_servers import HttpServer, RtspServer, Write, endless, grey, running, transport_stream

from rvos_edge.streaming.sources import SourceEvent, network, open_source
from rvos_edge.streaming.sources.base import SourceOptions, UnavailableError
from rvos_edge.streaming.sources.network import NetworkCapture, NetworkStream


def jpeg(value: int) -> bytes:
    data = cv2.imencode(".jpg", grey(value))[1].tobytes()
    return b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(data) + data + b"\r\n"


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_rtsp_over_tcp_gives_its_pictures() -> None:
    with running(RtspServer(endless)) as server, open_source(server.url) as source:
        frames = iter(source)
        values = [float(next(frames).image.mean()) for _ in range(3)]
    assert server.methods[:4] == ["OPTIONS", "DESCRIBE", "SETUP", "PLAY"]
    assert (source.live, source.fps) == (True, 25.0)
    assert values == sorted(values)


@pytest.mark.parametrize(
    ("url", "cause"),
    [
        ("rtsp://{rtsp}/other", "wrong path"),
        ("rtsp://{locked}/live", "wrong password"),
        ("rtsp://{closed}/live", "connection refused"),
        ("http://{http}/other", "wrong path"),
        ("http://{http}/locked", "wrong password"),
        ("http://{http}/page", "no video"),
        ("http://{http}/silent", "timed out"),
        ("rtsp://{mute}/live", "timed out"),
        ("http://{closed}/live", "connection refused"),
    ],
)
def test_causes_are_told_apart(url: str, cause: str) -> None:
    done = threading.Event()
    paths = {
        "/page": ("text/html", lambda write: write(b"<html><body>Welcome to your camera</body></html>" * 100)),
        "/silent": ("video/mp2t", lambda write: done.wait(10)),
    }
    with (
        running(RtspServer(endless)) as rtsp,
        running(RtspServer(endless, password=True)) as locked,
        running(HttpServer(paths)) as http,
        socket.create_server(("127.0.0.1", 0)) as mute,
    ):
        ports = {"rtsp": rtsp.server_address[1], "locked": locked.server_address[1], "http": http.server_port}
        named = {name: f"127.0.0.1:{port}" for name, port in {**ports, "mute": mute.getsockname()[1]}.items()}
        with pytest.raises(UnavailableError, match=f"cannot be opened: {cause}; ") as caught:
            open_source(
                url.format(**named, closed=f"127.0.0.1:{closed_port()}"),
                open_timeout=0.3 if cause == "timed out" else None,
            )
        done.set()
    assert caught.value.cause == cause


def test_a_name_that_does_not_resolve(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise av.error.OSError(5, "Input/output error")

    monkeypatch.setattr(av, "open", fail)
    monkeypatch.setattr(socket, "getaddrinfo", fail)
    with pytest.raises(UnavailableError, match="unknown host; check the name of the host"):
        open_source("rtsp://camera.example/live")


def test_a_picture_now_and_then_is_a_stream() -> None:
    """A camera that sends a picture in ten seconds: it is opened by its first two, and not watched for its rate."""
    enough = threading.Event()

    def send(write: Write) -> None:
        write(jpeg(10))
        write(jpeg(20))
        enough.wait(10)

    with running(HttpServer({"/live": ("multipart/x-mixed-replace; boundary=frame", send)})) as server:
        with open_source(f"{server.url}/live") as source:
            assert 8 < next(iter(source)).image.mean() < 26
        enough.set()


def test_a_stream_that_falls_silent_is_lost() -> None:
    done = threading.Event()

    def send(write: Write) -> None:
        for value in (10, 20, 30):
            write(jpeg(value))
        done.wait(10)

    with running(HttpServer({"/live": ("multipart/x-mixed-replace; boundary=frame", send)})) as server:
        capture = NetworkCapture(f"{server.url}/live", open_timeout=10, read_timeout=0.2)
        capture.read()
        with pytest.raises(UnavailableError) as caught:
            [capture.read() for _ in range(3)]
        capture.release()
        done.set()
    assert caught.value.cause == "timed out"


def test_what_cannot_be_decoded_is_left_out() -> None:
    """A stream that is joined between two key frames, or that lost packets on its way."""

    def damaged() -> Iterator[tuple[float, list[bytes]]]:
        for number, (seconds, units) in enumerate(endless()):
            yield seconds, [b"\x41" + bytes(range(50))] if number < 3 or 20 <= number < 30 else units

    with running(RtspServer(damaged)) as server:
        capture = NetworkCapture(server.url, open_timeout=10, read_timeout=10)
        values = [float(np.mean(capture.read()[1])) for _ in range(30)]
        capture.release()
    assert max(values) > 30


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that stands still, and the waits of the capture."""
    slept: list[float] = []
    monkeypatch.setattr(network, "time", SimpleNamespace(monotonic=lambda: 100.0, sleep=slept.append))
    return slept


def read_all(capture: NetworkCapture, count: int) -> None:
    for _ in range(count):
        capture.read()
    with pytest.raises(UnavailableError, match="has ended"):
        capture.read()
    capture.release()


def test_a_burst_over_http_is_paced_by_its_timestamps(waits: list[float]) -> None:
    paths = {"/live": ("video/mp2t", lambda write: write(transport_stream(10, fps=10)))}
    with running(HttpServer(paths)) as server:
        capture = NetworkCapture(f"{server.url}/live", open_timeout=10, read_timeout=10)
        assert not capture.is_file
        read_all(capture, 10)
    assert waits == pytest.approx([index / 10 / 1.05 for index in range(10)])


def test_a_segmented_stream_is_paced_too(waits: list[float]) -> None:
    """HLS: a playlist of two segments, fetched at once."""
    playlist = "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXT-X-MEDIA-SEQUENCE:0\n"
    playlist += "".join(f"#EXTINF:0.5,\n/{name}.ts\n" for name in "ab") + "#EXT-X-ENDLIST\n"
    segments = {name: transport_stream(5, first=5 * number) for number, name in enumerate("ab")}
    paths = {f"/{name}.ts": ("video/mp2t", lambda write, data=data: write(data)) for name, data in segments.items()}
    paths["/live.m3u8"] = ("application/vnd.apple.mpegurl", lambda write: write(playlist.encode()))
    with running(HttpServer(paths)) as server:
        capture = NetworkCapture(f"{server.url}/live.m3u8", open_timeout=10, read_timeout=10)
        assert capture.is_file  # it says where it ends
        read_all(capture, 10)
    assert waits == pytest.approx([index / 10 / 1.001 for index in range(10)], abs=1e-3)


def test_the_clock_of_a_burst_starts_anew_after_a_gap_or_a_jump() -> None:
    pace = network.Pace(1.0)
    assert [pace.wait(*at) for at in ((5.0, 100.0), (5.5, 100.0), (6.0, 103.0), (6.5, 103.0))] == [0, 0.5, 0, 0.5]
    assert [pace.wait(*at) for at in ((7.0, 104.2), (7.5, 104.2))] == [0, pytest.approx(0.3)], "a lag does not stay"
    assert [pace.wait(*at) for at in ((900.0, 103.2), (900.5, 103.2), (2.0, 103.2))] == [0, 0.5, 0]


def test_a_stream_of_rare_pictures_is_waited_for_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[float] = []
    behaviour = SimpleNamespace(pictures=1, longest_gap=0.0)

    def connect(url: str, *, read_timeout: float, **_: object) -> SimpleNamespace:
        asked.append(read_timeout)
        return SimpleNamespace(**vars(behaviour))

    monkeypatch.setattr(network, "NetworkCapture", connect)
    stream = NetworkStream("rtsp://camera/live", SourceOptions())
    for pictures, gap in ((1, 0.0), (1, 0.0), (100, 15.0), (100, 0.04), (100, 0.04)):
        behaviour.pictures, behaviour.longest_gap = pictures, gap
        stream()
    assert asked == [10, 20, 40, 45, 10]
    fixed = NetworkStream("rtsp://camera/live", SourceOptions(read_timeout=3))
    fixed(), fixed()
    assert asked[5:] == [3, 3]


def test_a_stream_that_is_not_there_yet_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    events, told, port = list[SourceEvent](), list[str](), closed_port()
    url = f"http://127.0.0.1:{port}/live"
    paths = {"/live": ("video/mp2t", lambda write: write(transport_stream(3)))}
    with ExitStack() as stack:

        def tell(message: str) -> None:
            told.append(message)
            if len(told) == 1:
                assert (source.state, source.trouble) == ("waiting", message)
                stack.enter_context(running(HttpServer(paths, port=port)))

        source = stack.enter_context(open_source(url, wait=True, tell=tell))
        source.on_event = events.append
        monkeypatch.setattr(source, "_backoff", (0.01, 0.02))
        assert (source.state, source.trouble) == ("waiting", "")
        next(iter(source))
        assert told[0] == f"{url} is not there (connection refused); trying again"
        assert any(message.startswith(f"{url} is there after ") for message in told)
    assert [event.message for event in events][:2] == told[:2]
    assert (events[0].kind, events[0].cause) == ("lost", "connection refused")


def test_waiting_can_end() -> None:
    with (
        open_source(f"http://127.0.0.1:{closed_port()}/live", wait=True, give_up=0.01, tell=lambda _: None) as source,
        pytest.raises(UnavailableError, match="cannot be opened: connection refused"),
    ):
        next(iter(source))
    assert source.trouble.endswith("did not come within 0.01 s; the stream ends here")
