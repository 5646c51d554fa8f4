from __future__ import annotations

import threading
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from rvos_edge.errors import UserError
from rvos_edge.stream.sources import LiveCapture, open_source


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


class FakeCapture:
    """A camera of `frames` pictures; after the first, each waits for `go`."""

    def __init__(self, frames: int) -> None:
        self.frames, self.given = frames, 0
        self.go = threading.Semaphore(1)
        self.released = False

    def read(self) -> tuple[bool, np.ndarray | None]:
        assert self.go.acquire(timeout=5)
        if self.given == self.frames:
            return False, None
        self.given += 1
        return True, np.full((4, 4, 3), self.given % 256, np.uint8)

    def get(self, prop: int) -> float:
        return 30.0

    def release(self) -> None:
        self.released = True


def wait_until(condition) -> None:  # type: ignore[no-untyped-def]
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_live_capture_keeps_only_the_newest_frame_and_counts_the_rest() -> None:
    camera = FakeCapture(4)
    with LiveCapture(camera, name="camera 0") as source:  # type: ignore[arg-type]
        frames = iter(source)
        first = next(frames)
        camera.go.release(3)
        wait_until(lambda: source.dropped == 2)
        second = next(frames)
        camera.go.release()
        assert list(frames) == []  # the camera is gone: the stream ends
    assert [int(frame.image[0, 0, 0]) for frame in (first, second)] == [1, 4]
    assert [frame.index for frame in (first, second)] == [0, 1]
    assert second.timestamp > first.timestamp
    assert source.live
    assert camera.released


def test_closing_a_live_capture_ends_its_thread() -> None:
    camera = FakeCapture(10**9)
    camera.go.release(10**6)
    before = threading.active_count()
    source = LiveCapture(camera, name="camera 0")  # type: ignore[arg-type]
    next(iter(source))
    source.close()
    assert threading.active_count() == before
    assert camera.released


def test_camera_that_gives_nothing() -> None:
    with pytest.raises(UserError, match="gives no frame"):
        LiveCapture(FakeCapture(0), name="camera 0")  # type: ignore[arg-type]
