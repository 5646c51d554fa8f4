"""Videos: their kinds, times and sound, and disks that fill up."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import av
import cv2
import numpy as np
import pytest
from support.clips import write_clip
from support.fake_results import files, make_frame, make_result
from support.full_disk import files_at_most

from rvos_edge.errors import UserError
from rvos_edge.outputs import is_ours, mark_file
from rvos_edge.streaming.sinks import Look, VideoSink, open_cutout, open_mask_video, video
from rvos_edge.streaming.sources import VideoFile

GREY = np.zeros((48, 64, 3), np.uint8)


class Film(NamedTuple):
    images: list[np.ndarray]
    seconds: list[float]
    fps: float


def play(path: Path) -> Film:
    with VideoFile(path) as video:
        frames = list(video)
    return Film([frame.image for frame in frames], [frame.timestamp for frame in frames], video.fps or 0.0)


def put(sink: VideoSink, index: int, overlay: np.ndarray, *, seconds: float | None = None) -> None:
    frame = make_frame(index)
    sink.write(frame if seconds is None else replace(frame, timestamp=seconds), make_result(), overlay)


def test_video_appears_whole_on_close(tmp_path: Path) -> None:
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
    assert sink.codec == "libx264"


def test_recording_of_a_slow_model_plays_as_long_as_it_took(tmp_path: Path) -> None:
    """A camera of 30 frames per second, of which the model took a few, at uneven times."""
    times = [2.0, 2.1, 2.5, 2.55, 3.3, 4.0]
    sink = VideoSink(tmp_path / "out.mp4", 30.0)
    for index, seconds in enumerate(times):
        put(sink, index, np.full((48, 64, 3), index * 40, np.uint8), seconds=seconds)
    sink.close()
    film = play(tmp_path / "out.mp4")
    values = [round(float(image.mean()) / 40) for image in film.images]
    starts = [film.seconds[values.index(index)] - film.seconds[0] for index in range(6)]
    assert starts == pytest.approx([seconds - 2.0 for seconds in times], abs=0.001)
    assert values == sorted(values)


def test_video_keeps_the_size_of_its_first_frame(tmp_path: Path) -> None:
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
    sink = VideoSink(tmp_path / "out.mp4", 25)
    put(sink, 0, np.full((*size, 3), 200, np.uint8))
    sink.close()
    (image,) = play(tmp_path / "out.mp4").images
    assert image.shape == (size[0] + size[0] % 2, size[1] + size[1] % 2, 3)
    assert image.min() > 180, "the edge is repeated, not black"


def test_times_that_stand_still_or_run_backwards(tmp_path: Path) -> None:
    sink = VideoSink(tmp_path / "out.mp4", 25)
    for index, seconds in enumerate((1.0, 1.0, 0.5, 1.04)):
        put(sink, index, GREY, seconds=seconds)
    sink.close()
    assert len(play(tmp_path / "out.mp4").images) == 4


def test_aborted_video_leaves_neither_file_nor_folders_and_spares_the_older_one(tmp_path: Path) -> None:
    (tmp_path / "old.mp4").touch()
    mark_file(tmp_path / "old.mp4")
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
    ("path", "fps", "message"),
    [("out.avi", 25, r"must end in one of the kinds .*: \.mp4, "), ("out.mp4", 0, "per second")],
)
def test_video_arguments_are_checked(tmp_path: Path, path: str, fps: float, message: str) -> None:
    with pytest.raises(UserError, match=message):
        VideoSink(tmp_path / path, fps)


def test_pyav_without_x264_writes_mpeg_4(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = video.av.codec.Codec

    def codec(name: str, mode: str) -> object:
        if name in ("libx264", "libopenh264"):
            raise ValueError(name)
        return known(name, mode)

    monkeypatch.setattr(video.av.codec, "Codec", codec)
    sink = VideoSink(tmp_path / "out.mp4", 25)
    put(sink, 0, GREY)
    sink.close()
    assert sink.codec == "mpeg4"
    assert len(play(tmp_path / "out.mp4").images) == 1


class Disk:
    """Free space as `shutil.disk_usage` reports it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, free: int) -> None:
        self.free = free
        usage = type(shutil.disk_usage("/"))
        monkeypatch.setattr(video.shutil, "disk_usage", lambda path: usage(2**40, 2**40 - self.free, self.free))


def test_recording_ends_whole_before_the_disk_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_recording_of_a_killed_process_can_be_played(tmp_path: Path) -> None:
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


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mov", ".webm"])
def test_what_a_slow_camera_loses_in_a_crash_is_one_picture(tmp_path: Path, suffix: str) -> None:
    sink = VideoSink(tmp_path / f"out{suffix}", 25.0)
    for index in range(8):
        put(sink, index, GREY, seconds=1.5 * index)
    (growing,) = tmp_path.glob(f".out.part-*{suffix}")
    with av.open(str(growing)) as container:
        assert sum(1 for _ in container.decode(video=0)) == 7
    sink.abort()


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mov", ".webm", ".gif"])
def test_kinds_of_videos(tmp_path: Path, suffix: str) -> None:
    """Each is played as it was written, and known again as ours."""
    path = tmp_path / f"out{suffix}"
    pictures = np.zeros((5, 48, 64, 3), np.uint8)
    for index, picture in enumerate(pictures):
        picture[:, 8 * index : 8 * index + 16] = 40, 120, 240
    for _ in range(2):  # the second time over the first
        sink = VideoSink(path, 10.0)
        for index, picture in enumerate(pictures):
            put(sink, index, picture, seconds=index / 10)
        sink.close()
    film = play(path)
    assert film.seconds == pytest.approx([0, 0.1, 0.2, 0.3, 0.4], abs=0.001)
    assert np.abs(np.array(film.images[3], int) - pictures[3])[8:-8, 28:36].max() < 30
    assert film.images[3][24, 8].max() < 30
    assert is_ours(path)


def heard(path: Path) -> tuple[str, float, float]:
    """Codec, first and last second of the sound of a file; an empty codec where there is none."""
    with av.open(str(path)) as container:
        stream = container.streams.best("audio")
        if stream is None:
            return "", 0.0, 0.0
        times = [float(packet.pts * packet.time_base) for packet in container.demux(stream) if packet.pts is not None]
        return stream.codec_context.name, times[0], times[-1]


@pytest.mark.parametrize(
    ("codec", "suffix", "becomes"),
    [("aac", ".mp4", "aac"), ("libopus", ".webm", "opus"), ("aac", ".webm", "opus"), ("pcm_s16le", ".mp4", "aac")],
)
def test_the_sound_of_the_source_is_kept(tmp_path: Path, codec: str, suffix: str, becomes: str) -> None:
    """Copied where players know it in that container, else encoded anew."""
    clip = write_clip(tmp_path / "clip.mkv", [GREY] * 50, sound=codec)
    told: list[str] = []
    with VideoFile(clip) as source:
        sink = VideoSink(tmp_path / f"out{suffix}", 25.0, sound=source.sound, tell=told.append)
        for frame in source:
            put(sink, frame.index, frame.image, seconds=frame.timestamp)
            if frame.index == 24:
                break
    sink.close()
    name, first, last = heard(tmp_path / f"out{suffix}")
    assert name.removeprefix("lib") == becomes
    assert first == pytest.approx(0, abs=0.07)
    assert last == pytest.approx(1.0, abs=0.1), "for as long as the video is"
    assert len(play(tmp_path / f"out{suffix}").images) == 25
    assert told == []


def test_a_sound_that_cannot_be_kept_is_told(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mkv", [GREY] * 3, sound="aac")
    told: list[str] = []
    with VideoFile(clip) as source:
        sink = VideoSink(tmp_path / "out.gif", 25.0, sound=source.sound, tell=told.append)
        for frame in source:
            put(sink, frame.index, frame.image, seconds=frame.timestamp)
    sink.close()
    assert told == [f"{tmp_path}/out.gif: the sound of the source is left out (a .gif has none)"]


def test_sound_begins_with_the_video_of_a_trimmed_clip(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mkv", [GREY] * 50, sound="aac")
    with VideoFile(clip) as source:
        assert source.sound is not None
        late = source.sound._replace(start=1.0)
        sink = VideoSink(tmp_path / "out.mp4", 25.0, sound=late)
        for frame in source:
            put(sink, frame.index, frame.image, seconds=frame.timestamp)
    sink.close()
    _, first, last = heard(tmp_path / "out.mp4")
    assert first == pytest.approx(0, abs=0.08)
    assert last < 1.2, "the sound of the second before is left out"


@pytest.mark.parametrize("name", ["out.mov", "out.webm", "out.png", "folder"])
def test_a_cut_out_is_transparent_where_no_query_is(tmp_path: Path, name: str) -> None:
    result, path = make_result(), tmp_path / name
    height, width = result.masks.shape[1:]
    picture = np.full((height, width, 3), (40, 120, 240), np.uint8)
    sink = open_cutout(str(path), 25.0)
    assert not sink.wants_overlay
    sink.write(replace(make_frame(0), image=picture), result, None)
    sink.close()
    if name.endswith(("png", "folder")):
        shown = cv2.imread(str(path if name == "out.png" else path / "00000.png"), cv2.IMREAD_UNCHANGED)
    else:
        with av.open(str(path)) as container:
            codec = av.CodecContext.create("libvpx-vp9" if name == "out.webm" else "prores", "r")
            stream = container.streams.video[0]
            codec.extradata = stream.codec_context.extradata
            codec.width, codec.height = width, height
            codec.codec_tag = stream.codec_context.codec_tag
            packets = [packet for packet in container.demux(stream) if packet.size]
            frames = [frame for packet in [*packets, None] for frame in codec.decode(packet)]
            plane = frames[0].reformat(format="yuva444p").planes[3]
            alpha = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[:height, :width]
            shown = np.dstack([frames[0].reformat(format="bgr24").to_ndarray(), alpha])
    inside = result.masks.any(axis=0)
    inner = cv2.erode(inside.astype(np.uint8), np.ones((5, 5))) > 0
    assert inner.any()
    assert shown[inner][:, 3].min() > 240
    assert shown[cv2.dilate(inside.astype(np.uint8), np.ones((5, 5))) == 0][:, 3].max() < 15
    assert np.abs(shown[inner][:, :3].astype(int) - picture[0, 0]).max() < 40


@pytest.mark.parametrize("name", ["out.mp4", "out.png"])
def test_a_mask_video_is_white_where_a_query_is(tmp_path: Path, name: str) -> None:
    result = make_result()
    sink = open_mask_video(str(tmp_path / name), 25.0)
    sink.write(make_frame(0), result, None)
    sink.close()
    shown = cv2.imread(str(tmp_path / name)) if name == "out.png" else play(tmp_path / name).images[0]
    assert ((shown[..., 0] > 128) == result.masks.any(axis=0)).mean() > 0.99
    assert is_ours(tmp_path / name)


def test_kinds_that_hold_no_alpha_are_refused_for_cut_outs(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"must end in .*\.mov, \.webm, \.png or a folder"):
        VideoSink(tmp_path / "out.mp4", 25, look=Look.CUTOUT)
