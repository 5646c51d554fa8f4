"""Overlays sent over the network by ffmpeg, which is played by a script."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from support.fake_results import make_frame, make_result
from support.live_fakes import wait_until

from rvos_edge.errors import UserError
from rvos_edge.streaming.sinks import (
    FfmpegSink,
)

GREY = np.zeros((48, 64, 3), np.uint8)


def received(folder: Path) -> bytes:
    return (folder / "received").read_bytes() if (folder / "received").exists() else b""


def send(sink: FfmpegSink, value: int) -> None:
    sink.write(make_frame(), make_result(), np.full((48, 64, 3), value, np.uint8))


def test_network_stream(fake_ffmpeg: Path) -> None:
    told: list[str] = []
    sink = FfmpegSink("rtmp://host/live/key", 30, tell=told.append)
    for value in range(1, 4):
        send(sink, value)
        wait_until(lambda value=value: received(fake_ffmpeg).endswith(bytes([value]) * 9216))
    sink.write(make_frame(), make_result(), np.full((96, 128, 3), 4, np.uint8))  # another size in the middle
    sink.close()
    sink.close()
    assert received(fake_ffmpeg) == b"".join(bytes([value]) * 9216 for value in range(1, 5))
    (arguments,) = (fake_ffmpeg / "arguments").read_text().splitlines()
    assert "-f rawvideo -pix_fmt bgr24 -s 64x48 -framerate 30 -i - -an" in arguments
    assert arguments.endswith("-f flv rtmp://host/live/key")
    assert told == []


@pytest.mark.parametrize(
    ("url", "ending"),
    [
        ("rtmps://h/l", "-f flv rtmps://h/l"),
        ("rtsp://h/l", "-rtsp_transport tcp -f rtsp rtsp://h/l"),
        ("srt://h:9", "-f mpegts srt://h:9"),
        ("udp://h:9", "-f mpegts udp://h:9"),
        ("/dev/video9", "-c:v rawvideo -pix_fmt yuv420p -f v4l2 /dev/video9"),
    ],
)
def test_container_of_each_protocol(url: str, ending: str, fake_ffmpeg: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "exists", lambda path: True)
    assert " ".join(FfmpegSink(url, 25).command((48, 64))).endswith(ending)


def test_network_that_drops_is_connected_again_and_slows_nothing(fake_ffmpeg: Path) -> None:
    told: list[str] = []
    (fake_ffmpeg / "drops").touch()
    sink = FfmpegSink("rtsp://me:secret@host/live", 30, backoff=(0.01, 0.02), tell=told.append)
    deadline = time.monotonic() + 30
    while sink.restarts < 2 and time.monotonic() < deadline:
        send(sink, 1)
        time.sleep(0.001)
    (fake_ffmpeg / "drops").unlink()
    (fake_ffmpeg / "away").touch()
    wait_until(lambda: len(told) >= 4)
    (fake_ffmpeg / "away").unlink()
    before = len(received(fake_ffmpeg))
    while len(received(fake_ffmpeg)) == before and time.monotonic() < deadline:
        send(sink, 2)
        time.sleep(0.001)
    sink.close()
    assert received(fake_ffmpeg)[-1:] == b"\x02"
    assert told[0] == "rtsp://host/live takes no more frames (Connection reset by peer); trying again in 0.01 s"
    assert any("(rtsp://host/live: Connection refused)" in message for message in told)
    assert not any("secret" in message for message in told)


def test_network_that_hangs_slows_nothing_and_can_be_closed(fake_ffmpeg: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rvos_edge.streaming.sinks.network._PATIENCE", 0.1)
    (fake_ffmpeg / "hangs").touch()
    sink, big = (FfmpegSink("rtmp://host/live", 30, tell=lambda _: None), np.zeros((480, 640, 3), np.uint8))
    for _ in range(50):
        sink.write(make_frame(), make_result(), big)
    wait_until(lambda: (fake_ffmpeg / "arguments").exists())
    sink.write(make_frame(), make_result(), big)
    assert sink.dropped >= 40
    with pytest.raises(UserError, match=r"rtmp://host/\*\*\* received no frame"):
        sink.close()
    assert not sink._thread.is_alive()


def test_a_stream_that_never_received_a_frame_is_an_error(fake_ffmpeg: Path) -> None:
    (fake_ffmpeg / "away").touch()
    told: list[str] = []
    sink = FfmpegSink("rtmp://host/live", 30, backoff=(60.0, 60.0), tell=told.append)
    send(sink, 1)
    wait_until(lambda: told)
    with pytest.raises(UserError, match=r"received no frame \(rtmp://host/\*\*\*: Connection refused\)"):
        sink.close()


def test_network_without_ffmpeg(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match=r"rtmp://host/\*\*\* needs the program ffmpeg; install it"):
        FfmpegSink("rtmp://me:secret@host/live", 25)
