"""Containers of uploaded videos are known by their structure."""

from __future__ import annotations

from pathlib import Path

import cv2
import pytest
from support.served import picture

from rvos_edge.server.containers import container_suffix

VIDEOS = {".mp4": "mp4v", ".mkv": "MJPG", ".webm": "VP80", ".avi": "MJPG"}


@pytest.fixture(params=VIDEOS, ids=lambda suffix: suffix[1:])
def video(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / f"video{request.param}"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*VIDEOS[request.param]), 25.0, (128, 96))
    if not writer.isOpened():
        pytest.skip(f"OpenCV has no encoder for {request.param}")
    for index in range(3):
        writer.write(picture(index))
    writer.release()
    return path


def test_videos_are_recognised(video: Path, tmp_path: Path) -> None:
    unnamed = video.rename(tmp_path / "upload.clip")
    assert container_suffix(unnamed) == video.suffix


def test_a_file_that_only_begins_like_a_video_is_none(video: Path) -> None:
    data = video.read_bytes()
    playlist = b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n/etc/passwd\n"
    for length in (4, 12, 40, len(data) // 2, len(data) - 1):
        video.write_bytes(data[:length])
        assert container_suffix(video) is None, length
        video.write_bytes(data[:length] + playlist * 100)
        assert container_suffix(video) is None, length


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0",
        b"#EXTM3U\n",
        b"RIFF\4\0\0\0WAVE",
        b"\0\0\0\1ftyp\0\0\0\0\0\0\0\0",
        b"\x1aE\xdf\xa3\x80",
        b"\x1aE\xdf\xa3\xff" + bytes(40),
        cv2.imencode(".png", picture(0))[1].tobytes(),
    ],
)
def test_anything_else_is_none(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "upload").write_bytes(data)
    assert container_suffix(tmp_path / "upload") is None
