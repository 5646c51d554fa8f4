from __future__ import annotations

import threading
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from support.live_fakes import wait_until, write_h264

from rvos_edge.errors import UserError
from rvos_edge.streaming.sources import Frame, open_source


def write_video(path: Path, *, frames: int = 5, fps: float = 10.0, size: tuple[int, int] = (48, 64)) -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), fps, size[::-1])
    for index in range(frames):
        writer.write(np.full((*size, 3), index * 40 % 256, np.uint8))
    writer.release()
    return path


def write_image(path: Path, value: int = 0, *, size: tuple[int, int] = (8, 12)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((*size, 3), value, np.uint8))
    return path


def test_video_yields_every_frame_in_order(tmp_path: Path) -> None:
    with open_source(str(write_video(tmp_path / "clip.mp4"))) as source:
        assert (source.name, source.fps, source.length, source.live) == ("clip.mp4", 10.0, 5, False)
        frames = list(source)
    assert [frame.index for frame in frames] == [0, 1, 2, 3, 4]
    assert [frame.name for frame in frames] == ["00000", "00001", "00002", "00003", "00004"]
    assert [frame.timestamp for frame in frames] == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])
    assert [round(float(frame.image.mean()) / 40) for frame in frames] == [0, 1, 2, 3, 4]
    assert all(frame.image.shape == (48, 64, 3) and frame.image.dtype == np.uint8 for frame in frames)


def test_real_clip(shared: Path) -> None:
    with open_source(str(shared / "data/clips/dog.mp4")) as source:
        assert source.length == 289
        assert source.fps == pytest.approx(29.97, abs=0.01)
        first, second = next(iterator := iter(source)), next(iterator)
    assert first.image.shape == (720, 1280, 3)
    assert not np.array_equal(first.image, second.image)


def test_folder_is_read_in_natural_order_and_named_by_stem(tmp_path: Path) -> None:
    for number in (10, 2, 1):
        write_image(tmp_path / f"frame{number}.png", number)
    (tmp_path / "notes.txt").write_text("not an image")
    source = open_source(str(tmp_path))
    frames = list(source)
    assert source.length == 3
    assert [frame.name for frame in frames] == ["frame1", "frame2", "frame10"]
    assert [int(frame.image[0, 0, 0]) for frame in frames] == [1, 2, 10]


def test_glob_with_equal_stems_numbers_the_frames(tmp_path: Path) -> None:
    write_image(tmp_path / "a" / "0.png", 1)
    write_image(tmp_path / "b" / "0.png", 2)
    write_image(tmp_path / "b" / "1.jpg", 3)
    assert [frame.name for frame in open_source(str(tmp_path / "*" / "*.*"))] == ["00000", "00001", "00002"]
    assert [frame.name for frame in open_source(str(tmp_path / "b" / "*.png"))] == ["0"]


def test_grey_image_becomes_bgr(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "grey.png"), np.full((8, 12), 7, np.uint8))
    (frame,) = open_source(str(tmp_path / "grey.png"))
    assert frame.image.shape == (8, 12, 3)


def test_synthetic_camera_repeats_with_its_seed() -> None:
    first = next(iter(open_source("synthetic:3", size=(64, 96))))
    again = next(iter(open_source("synthetic:3", size=(64, 96))))
    other = next(iter(open_source("synthetic", size=(64, 96))))
    assert first.image.shape == (64, 96, 3)
    np.testing.assert_array_equal(first.image, again.image)
    assert not np.array_equal(first.image, other.image)


def test_missing_file_is_named() -> None:
    with pytest.raises(UserError, match=r"nowhere\.mp4' does not exist"):
        open_source("nowhere.mp4")


@pytest.mark.parametrize("content", [b"", b"this is text, not a video\n" * 100])
def test_file_that_is_no_video_is_refused_quietly(
    tmp_path: Path, content: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "broken.mp4"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"broken\.mp4 holds no video"):
        open_source(str(path))
    assert capfd.readouterr().err == ""


def test_video_without_its_index_is_refused(tmp_path: Path) -> None:
    path = write_video(tmp_path / "cut.mp4", frames=30)
    path.write_bytes(path.read_bytes()[:-200])  # the index at the end is gone
    with pytest.raises(UserError, match="holds no video"):
        open_source(str(path))


def test_folder_without_images(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no images"):
        open_source(str(tmp_path))


def test_glob_without_matches(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="matches no images"):
        open_source(str(tmp_path / "*.png"))


def test_unreadable_image_is_named(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    write_image(tmp_path / "0.png")
    (tmp_path / "1.png").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"1\.png cannot be read"):
        list(open_source(str(tmp_path)))
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("spec", ["97", "/dev/video97"])
def test_missing_camera(spec: str, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match="camera 97 cannot be opened"):
        open_source(spec)
    assert capfd.readouterr().err == ""


def test_unreachable_stream_does_not_tell_the_password() -> None:
    with pytest.raises(UserError, match=r"rtsp://127\.0\.0\.1:9/live cannot be opened") as error:
        open_source("rtsp://user:secret@127.0.0.1:9/live")
    assert "secret" not in str(error.value)


def test_bad_seed() -> None:
    with pytest.raises(UserError, match="seed"):
        open_source("synthetic:abc")


def read_all(path: Path, told: list[str]) -> list[Frame]:
    with open_source(str(path), tell=told.append) as source:
        return list(source)


def test_times_of_a_variable_frame_rate_are_exact(tmp_path: Path) -> None:
    """The file starts at half a second, has B-frames and gaps of 10 to 400 ms."""
    times = 0.5 + np.cumsum(np.random.default_rng(0).uniform(0.01, 0.4, 30))
    path = write_h264(tmp_path / "clip.mp4", times)
    frames = read_all(path, [])
    assert [frame.timestamp for frame in frames] == pytest.approx(list(times - times[0]), abs=1e-4)
    assert [round(float(frame.image.mean()) / 8) for frame in frames] == list(range(30))


def test_times_never_run_backwards(tmp_path: Path) -> None:
    """Two transport streams with overlapping clocks and of different sizes, joined as a recorder cuts them."""
    parts = [
        write_h264(tmp_path / f"{number}.ts", np.arange(10) / 25, size=size)
        for number, size in enumerate(((48, 64), (96, 128)))
    ]
    joined = tmp_path / "joined.ts"
    joined.write_bytes(b"".join(part.read_bytes() for part in parts))
    frames = read_all(joined, [])
    assert len(frames) == 20
    assert np.diff([frame.timestamp for frame in frames]) == pytest.approx(np.full(19, 0.04), abs=0.001)


@pytest.mark.parametrize("damage", ["noise", "zeros"])
@pytest.mark.parametrize(("share", "at_least"), [(0.1, 40), (0.5, 20)])
def test_damaged_packets_cost_their_frames_and_no_others(
    tmp_path: Path, damage: str, share: float, at_least: int, capfd: pytest.CaptureFixture[str]
) -> None:
    noise = np.random.default_rng(3)
    texture = noise.integers(0, 255, (96, 128, 3), np.uint8)
    path = tmp_path / "clip.mp4"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 25, (128, 96))
    for index in range(60):
        writer.write(np.roll(texture, 3 * index, 1))
    writer.release()
    whole = read_all(path, [])
    content = bytearray(path.read_bytes())
    start, stop = round(0.4 * len(content)), round((0.4 + share) * len(content))
    content[start:stop] = noise.bytes(stop - start) if damage == "noise" else bytes(stop - start)
    path.write_bytes(content)
    told: list[str] = []
    frames = read_all(path, told)
    assert at_least <= len(frames) < 60
    assert frames[-1].timestamp == whole[-1].timestamp, "frames after the damage keep their time"
    np.testing.assert_array_equal(frames[0].image, whole[0].image)
    counts = f"{len(frames)} of the 60 frames that it states could be decoded"
    assert told == [f"clip.mp4: {counts}, the others are damaged or missing"]
    assert capfd.readouterr().err == ""


def test_undamaged_videos_say_nothing(tmp_path: Path) -> None:
    told: list[str] = []
    assert len(read_all(write_video(tmp_path / "clip.mp4"), told)) == 5
    assert told == []


def test_realtime_plays_at_the_speed_of_the_file_and_drops_what_is_not_taken(tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.mp4", frames=12, fps=40.0)
    with open_source(str(path), realtime=True) as source:
        assert (source.live, source.fps, source.length) == (True, 40.0, None)
        frames = iter(source)
        started = time.perf_counter()
        first = next(frames)
        wait_until(lambda: source.dropped == 4)  # the model takes its time
        rest = list(frames)
        seconds = time.perf_counter() - started
    assert first.timestamp == 0
    assert seconds > 0.25, "the last frame is due after 275 ms"
    assert len(rest) + 1 + source.dropped == 12
    assert rest[-1].timestamp == pytest.approx(11 / 40)
    assert [frame.index for frame in (first, *rest)] == list(range(len(rest) + 1))
    assert rest[-1].name == "00011", "outputs are named after the frame of the file"
    assert all(frame.captured - started >= frame.timestamp - 0.001 for frame in rest)


def test_realtime_loses_nothing_to_a_model_that_keeps_up(tmp_path: Path) -> None:
    with open_source(str(write_video(tmp_path / "clip.mp4", fps=100.0)), realtime=True) as source:
        assert [frame.name for frame in source][-1] == "00004"


def test_realtime_can_be_closed_before_and_while_it_plays(tmp_path: Path) -> None:
    path, before = write_video(tmp_path / "clip.mp4", fps=1.0), threading.active_count()
    open_source(str(path), realtime=True).close()
    with open_source(str(path), realtime=True) as source:
        next(iter(source))
    assert threading.active_count() == before


def test_error_of_a_source_reaches_who_plays_it(tmp_path: Path) -> None:
    write_image(tmp_path / "0.png")
    (tmp_path / "1.png").write_bytes(b"no image")
    with open_source(str(tmp_path), realtime=True) as source, pytest.raises(UserError, match=r"1\.png cannot be read"):
        list(source)
