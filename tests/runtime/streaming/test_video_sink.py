"""Recordings: both encoders, their times, and disks that fill up."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import pytest
from support.fake_results import files, make_frame, make_result
from support.full_disk import files_at_most

from rvos_edge.errors import UserError
from rvos_edge.outputs import mark_video
from rvos_edge.streaming.sinks import VideoSink, video

GREY = np.zeros((48, 64, 3), np.uint8)


@pytest.fixture(params=["libx264", "opencv"])
def codec(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Writes with PyAV, and as if it were not installed."""
    if request.param == "opencv":
        monkeypatch.setitem(sys.modules, "av", None)
    else:
        pytest.importorskip("av")
    return str(request.param)


class Film(NamedTuple):
    images: list[np.ndarray]
    seconds: list[float]
    fps: float


def play(path: Path) -> Film:
    capture = cv2.VideoCapture(str(path))
    images, seconds = [], []
    while (read := capture.read())[0]:
        images.append(read[1])
        seconds.append(capture.get(cv2.CAP_PROP_POS_MSEC) / 1000)
    return Film(images, seconds, capture.get(cv2.CAP_PROP_FPS))


def put(sink: VideoSink, index: int, overlay: np.ndarray, *, seconds: float | None = None) -> None:
    frame = make_frame(index)
    sink.write(frame if seconds is None else replace(frame, timestamp=seconds), make_result(), overlay)


def test_video_appears_whole_on_close(tmp_path: Path, codec: str) -> None:
    path = tmp_path / "new" / "folder" / "out.mp4"
    sink = VideoSink(path, 10.0)
    for index in range(5):
        put(sink, index, np.full((48, 64, 3), index * 40, np.uint8), seconds=index / 10)
    assert not path.exists()
    sink.close()
    assert files(path.parent) == ["out.mp4"]
    film = play(path)
    assert film.fps == 10.0
    assert [round(float(image.mean()) / 40) for image in film.images] == [0, 1, 2, 3, 4]
    assert sink.codec in ({"libx264"} if codec == "libx264" else {"avc1", "mp4v"})


def test_recording_of_a_slow_model_plays_as_long_as_it_took(tmp_path: Path, codec: str) -> None:
    """A camera of 30 frames per second, of which the model took a few, at uneven times."""
    times = [2.0, 2.1, 2.5, 2.55, 3.3, 4.0]
    sink = VideoSink(tmp_path / "out.mp4", 30.0)
    for index, seconds in enumerate(times):
        put(sink, index, np.full((48, 64, 3), index * 40, np.uint8), seconds=seconds)
    sink.close()
    film = play(tmp_path / "out.mp4")
    values = [round(float(image.mean()) / 40) for image in film.images]
    starts = [film.seconds[values.index(index)] - film.seconds[0] for index in range(6)]
    assert starts == pytest.approx([seconds - 2.0 for seconds in times], abs=0.001 if codec == "libx264" else 0.018)
    assert values == sorted(values)


def test_long_silence_is_not_filled_with_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The camera was away for an hour: an encoder without times does not write a hundred thousand pictures for that."""
    monkeypatch.setitem(sys.modules, "av", None)
    sink = VideoSink(tmp_path / "out.mp4", 10.0)
    for index, seconds in enumerate((0.0, 3600.0, 3600.1, 3600.2)):
        put(sink, index, GREY, seconds=seconds)
    sink.close()
    assert len(play(tmp_path / "out.mp4").images) == 1 + 100 + 3


def test_video_keeps_the_size_of_its_first_frame(tmp_path: Path, codec: str) -> None:
    sink = VideoSink(tmp_path / "out.mp4", 25)
    white = [np.full((*size, 3), 255, np.uint8) for size in ((48, 64), (96, 64), (20, 30), (96, 128))]
    for index, overlay in enumerate(white):
        put(sink, index, overlay)
    sink.close()
    images = play(tmp_path / "out.mp4").images
    assert [image.shape for image in images] == [(48, 64, 3)] * 4
    assert images[3].mean() > 240, "the same proportions fill the picture"
    tall = images[1].mean(axis=(0, 2))
    assert tall[20:44].mean() > 220, "others are fitted in"
    assert max(tall[:10].mean(), tall[-10:].mean()) < 30, "with black borders"


@pytest.mark.parametrize("size", [(49, 63), (48, 63), (1, 1)])
def test_odd_sizes(tmp_path: Path, size: tuple[int, int]) -> None:
    pytest.importorskip("av")
    sink = VideoSink(tmp_path / "out.mp4", 25)
    put(sink, 0, np.full((*size, 3), 200, np.uint8))
    sink.close()
    (image,) = play(tmp_path / "out.mp4").images
    assert image.shape == (size[0] + size[0] % 2, size[1] + size[1] % 2, 3)
    assert image.min() > 180, "the edge is repeated, not black"


def test_times_that_stand_still_or_run_backwards(tmp_path: Path, codec: str) -> None:
    sink = VideoSink(tmp_path / "out.mp4", 25)
    for index, seconds in enumerate((1.0, 1.0, 0.5, 1.04)):
        put(sink, index, GREY, seconds=seconds)
    sink.close()
    assert len(play(tmp_path / "out.mp4").images) == 4


def test_aborted_video_leaves_neither_file_nor_folders_and_spares_the_older_one(tmp_path: Path, codec: str) -> None:
    (tmp_path / "old.mp4").touch()
    mark_video(tmp_path / "old.mp4")
    before = (tmp_path / "old.mp4").read_bytes()
    for path in (tmp_path / "new" / "folder" / "out.mp4", tmp_path / "old.mp4"):
        sink = VideoSink(path, 25)
        put(sink, 0, GREY)
        sink.abort()
    assert files(tmp_path) == ["old.mp4"]
    assert (tmp_path / "old.mp4").read_bytes() == before


def test_video_without_frames_is_not_written(tmp_path: Path) -> None:
    VideoSink(tmp_path / "out.mp4", 25).close()
    assert files(tmp_path) == []


@pytest.mark.parametrize(
    ("path", "fps", "message"), [("out.avi", 25, "must end in .mp4"), ("out.mp4", 0, "per second")]
)
def test_video_arguments_are_checked(tmp_path: Path, path: str, fps: float, message: str) -> None:
    with pytest.raises(UserError, match=message):
        VideoSink(tmp_path / path, fps)


def test_pyav_without_h264_gives_way_to_opencv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("av")
    monkeypatch.setattr(video._AvEncoder, "codec", "libnothing264")
    sink = VideoSink(tmp_path / "out.mp4", 25)
    put(sink, 0, GREY)
    sink.close()
    assert sink.codec in {"avc1", "mp4v"}
    assert len(play(tmp_path / "out.mp4").images) == 1


class Disk:
    """Free space as `shutil.disk_usage` reports it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, free: int) -> None:
        self.free = free
        usage = type(shutil.disk_usage("/"))
        monkeypatch.setattr(video.shutil, "disk_usage", lambda path: usage(2**40, 2**40 - self.free, self.free))


def test_recording_ends_whole_before_the_disk_is_full(
    tmp_path: Path, codec: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk(monkeypatch, free=2**30)
    sink = VideoSink(tmp_path / "out.mp4", 25)
    for index in range(5):
        put(sink, index, GREY)
    disk.free = 2**20
    with pytest.raises(UserError, match=r"out\.mp4 ends after 5 frames: its disk is full"):
        put(sink, 5, GREY)
    sink.close()
    assert len(play(tmp_path / "out.mp4").images) == 5


def test_full_disk_is_refused_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Disk(monkeypatch, free=2**20)
    with pytest.raises(UserError, match="less than 32 MiB left; make room"):
        VideoSink(tmp_path / "new" / "out.mp4", 25)
    assert files(tmp_path) == []


def noise(index: int) -> np.ndarray:
    return np.random.default_rng(index).integers(0, 255, (120, 160, 3), np.uint8)


def test_write_that_the_system_refuses_leaves_what_came_before(tmp_path: Path) -> None:
    """The disk was filled by somebody else, faster than we could look: real errors of real writes."""
    pytest.importorskip("av")
    sink, taken = VideoSink(tmp_path / "out.mp4", 10), 0
    with files_at_most(1_000_000):
        full = pytest.raises(UserError, match=r"out\.mp4 ends after \d+ frames: .*; make room on")
        with full:
            for taken in range(300):
                put(sink, taken, noise(taken), seconds=taken / 10)
        with pytest.raises(UserError, match="can be played but misses its end"):
            sink.close()
    sink.abort()
    assert files(tmp_path) == ["out.mp4"]
    assert 10 < len(play(tmp_path / "out.mp4").images) <= taken


def test_opencv_recording_that_cannot_be_finished_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    sink = VideoSink(tmp_path / "out.mp4", 10)
    with files_at_most(50_000):
        for index in range(40):
            put(sink, index, noise(index), seconds=index / 10)
        with pytest.raises(UserError, match="check the free space of its disk"):
            sink.close()
    assert files(tmp_path) == []


def test_recording_of_a_killed_process_can_be_played(tmp_path: Path) -> None:
    pytest.importorskip("av")
    script = (
        "import os, signal, sys, numpy as np\n"
        "sys.path[:0] = sys.argv[2:]\n"
        "from support.fake_results import make_frame, make_result\n"
        "from rvos_edge.streaming.sinks import VideoSink\n"
        "sink = VideoSink(sys.argv[1], 10.0)\n"
        "for index in range(150):\n"
        "    picture = np.random.default_rng(index).integers(0, 255, (48, 64, 3), np.uint8)\n"
        "    sink.write(make_frame(index, fps=10.0), make_result(), picture)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    here = [str(Path(__file__).parents[2])]
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path / "out.mp4"), *here], timeout=60)
    assert done.returncode == -signal.SIGKILL
    (left,) = tmp_path.glob(".out.part-*.mp4")
    assert len(play(left).images) >= 100
