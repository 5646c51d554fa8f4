"""Clips that are uploaded, and recordings that are made, by the HTTP API."""

from __future__ import annotations

import socket
import struct
from pathlib import Path
from typing import Any

import cv2
import pytest
from support.served import Serve, Served, wait_until, write_clip

from rvos_edge.server import uploads

JSON = {"content-type": "application/json"}


def mp4_box(name: str, content: bytes = b"") -> bytes:
    return struct.pack(">I", 8 + len(content)) + name.encode() + content


def test_clips_are_uploaded_played_and_removed(serve: Serve, tmp_path: Path) -> None:
    served = serve("the dog")
    answer = served.request("POST", "/api/clips?name=%D9%83%D9%84%D8%A8.mp4", write_clip(tmp_path / "a.mp4"))
    assert answer.status == 200, answer.body
    source = answer.json["source"]
    assert served.request("PUT", "/api/source", {"source": source}).status == 200
    wait_until(lambda: served.live.player.choice.id == source)
    assert served.after(20).masks.shape[1:] == (48, 64)  # it has six frames: it starts again
    listed = served.request("GET", "/api/sources").json
    assert listed["playing"] == source
    assert {"id": source, "name": "كلب.mp4", "uploaded": True} in listed["sources"]
    assert served.request("PUT", "/api/source", {"source": "start"}).status == 200
    wait_until(lambda: served.live.player.choice.id == "start")
    assert served.request("DELETE", f"/api/clips/{source}").status == 200
    assert served.request("PUT", "/api/source", {"source": source}).status == 404
    assert list(served.live.library.folder.iterdir()) == []
    assert served.request("DELETE", "/api/clips/start").status == 422
    served.after(1)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"no video",
        b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n/etc/passwd\n",
        b"ffconcat version 1.0\nfile /etc/passwd\n",
        b"\0\0\0\x20ftypisom" + bytes(500),
    ],
)
def test_only_videos_are_kept(dog: Served, body: bytes) -> None:
    answer = dog.request("POST", "/api/clips", body)
    assert (answer.status, "mp4" in answer.error) == (422, True)
    empty = mp4_box("ftyp", b"isom") + mp4_box("moov", mp4_box("mvhd") + mp4_box("trak")) + mp4_box("mdat", body)
    broken = dog.request("POST", "/api/clips?name=cut.mp4", empty)
    assert (broken.status, "cut.mp4 holds no video" in broken.error) == (422, True)
    assert list(dog.live.library.folder.iterdir()) == []
    dog.after(1)


def test_an_upload_that_breaks_off_leaves_nothing(dog: Served) -> None:
    head = b"POST /api/clips HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n"
    with socket.create_connection(("127.0.0.1", dog.port), timeout=10) as connection:
        connection.sendall(head + bytes(1000))
        wait_until(lambda: list(dog.live.library.folder.iterdir()))
    wait_until(lambda: not list(dog.live.library.folder.iterdir()))
    dog.after(1)


def test_clips_are_limited_in_size_and_number(serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    served = serve()
    head = b"POST /api/clips HTTP/1.1\r\nHost: localhost\r\nContent-Length: 300000000\r\n\r\n"
    with socket.create_connection(("127.0.0.1", served.port), timeout=10) as connection:
        connection.sendall(head)
        assert connection.recv(4096).startswith(b"HTTP/1.1 413")
    video = write_clip(tmp_path / "a.mp4")
    monkeypatch.setattr(uploads, "_ALL_CLIPS", len(video) + 100)
    assert served.request("POST", "/api/clips", video).status == 200
    assert "larger than" in served.request("POST", "/api/clips", video).error
    monkeypatch.setattr(uploads, "_ALL_CLIPS", 1 << 30)
    monkeypatch.setattr(uploads, "_MOST_CLIPS", 1)
    assert "no more are kept" in served.request("POST", "/api/clips", video).error
    monkeypatch.setattr(uploads, "_MOST_CLIPS", 20)
    monkeypatch.setattr(uploads, "_SPARE", 1 << 62)
    assert "nearly full" in served.request("POST", "/api/clips", video).error
    assert len(list(served.live.library.folder.iterdir())) == 1


def test_uploads_that_are_being_received_count(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    served = serve()
    head = b"POST /api/clips HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n"
    monkeypatch.setattr(uploads, "_ALL_CLIPS", 1000)
    with socket.create_connection(("127.0.0.1", served.port), timeout=10) as connection:
        connection.sendall(head + bytes(900))
        wait_until(lambda: sum(served.live.library._sizes.values()) == 900)
        assert "larger than" in served.request("POST", "/api/clips", bytes(101)).error
        monkeypatch.setattr(uploads, "_MOST_CLIPS", 1)
        assert "no more are kept" in served.request("POST", "/api/clips", bytes(1)).error
    wait_until(lambda: not served.live.library._sizes)


def test_clips_have_a_largest_frame_and_duration(serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    served = serve()
    video = write_clip(tmp_path / "a.mp4")
    monkeypatch.setattr(uploads, "_LARGEST_FRAME", 64 * 48 - 1)
    assert "64 x 48 pixels" in served.request("POST", "/api/clips", video).error
    monkeypatch.setattr(uploads, "_LARGEST_FRAME", 64 * 48)
    monkeypatch.setattr(uploads, "_LONGEST_CLIP", 0.1)
    assert "send at most 0.1 s" in served.request("POST", "/api/clips", video).error
    assert list(served.live.library.folder.iterdir()) == []


def test_pages_cannot_name_paths_of_the_server(dog: Served) -> None:
    for source in ("/etc/passwd", "http://127.0.0.1:1/", "0"):
        assert dog.request("PUT", "/api/source", {"source": source}).status == 404


def test_recording_is_a_playable_video_of_what_was_seen(serve: Serve, tmp_path: Path) -> None:
    served = serve("the dog")
    served.after(2)
    name = served.request("POST", "/api/recording").json["recording"]
    again = served.request("POST", "/api/recording")
    assert (again.status, "running already" in again.error) == (409, True)
    served.after(8)
    assert served.request("DELETE", "/api/recording").json["recording"] == name
    path = tmp_path / name
    path.write_bytes(served.request("GET", f"/api/recordings/{name}").body)
    assert 7 <= cv2.VideoCapture(str(path)).get(cv2.CAP_PROP_FRAME_COUNT) < 1000
    assert served.request("DELETE", "/api/recording").status == 409
    assert served.request("GET", "/api/status").json["recording"]["files"] == [name]


def test_a_recording_that_cannot_go_on_does_not_end_the_stream(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    from rvos_edge.streaming.sinks import VideoSink

    served = serve("the dog")
    write = VideoSink.write
    written = 0

    def full(self: VideoSink, *arguments: Any) -> None:
        nonlocal written
        written += 1
        if written > 5:
            raise OSError(28, "No space left on device")
        write(self, *arguments)

    monkeypatch.setattr(VideoSink, "write", full)
    name = served.request("POST", "/api/recording").json["recording"]
    wait_until(lambda: not served.live.recorder.running)
    recording = served.request("GET", "/api/status").json["recording"]
    assert "No space left" in recording["trouble"]
    assert recording["files"] == [name]
    assert cv2.VideoCapture(str(served.live.recorder.path(name))).get(cv2.CAP_PROP_FRAME_COUNT) == 5
    served.after(2)
