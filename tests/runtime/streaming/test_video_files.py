"""Video files as people have them come out as players show them."""

from __future__ import annotations

import itertools
import os
import wave
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from support.clips import trim, turn, write_clip

from rvos_edge.errors import UserError
from rvos_edge.streaming.sources import Frame, VideoFile, glob_files, open_source, source_files

RED, GREEN, BLACK = (0, 0, 255), (0, 255, 0), (0, 0, 0)


def corners(height: int = 64, width: int = 96) -> np.ndarray:
    """Red at the top left, green at the bottom right."""
    picture = np.zeros((height, width, 3), np.uint8)
    picture[: height // 2, : width // 2], picture[height // 2 :, width // 2 :] = RED, GREEN
    return picture


def read(path: Path) -> list[Frame]:
    with open_source(str(path)) as source:
        return list(source)


def assert_corners(picture: np.ndarray, *expected: tuple[int, int, int]) -> None:
    """Compare the colours top left, top right, bottom left, bottom right."""
    found = np.array([picture[y, x] for y in (8, -8) for x in (8, -8)], int)
    assert np.abs(found - np.array(expected)).max() <= 8, found


def combing(picture: np.ndarray) -> float:
    """Mean difference of every other row from those beside it."""
    rows = picture[16:48].astype(int)
    return float(np.abs(2 * rows[1:-1] - rows[:-2] - rows[2:]).mean())


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_a_video_is_wound_forth_and_back(tmp_path: Path, name: str) -> None:
    write_clip(tmp_path / name, [np.full((64, 96, 3), 40 + 5 * index, np.uint8) for index in range(40)])
    whole = [frame.image for frame in read(tmp_path / name)]
    found = []
    with VideoFile(tmp_path / name) as video:
        assert video.seconds == pytest.approx(1.6, abs=0.05)
        for frame in video:
            found.append(round(25 * frame.timestamp))
            assert np.array_equal(frame.image, whole[found[-1]])
            if len(found) in (3, 6, 9):
                video.seek({3: 30 / 25, 6: 5 / 25, 9: 99.0}[len(found)])
        video.seek(5 / 25)
        found += [round(25 * frame.timestamp) for frame in itertools.islice(video, 2)]
    assert found == [0, 1, 2, 30, 31, 32, 5, 6, 7, 39, 5, 6]


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("a.mp4", "libx264", {"x264-params": "interlaced=1:tff=1"}),
        ("a.mpg", "mpeg2video", {"flags": "+ildct+ilme", "top": "1", "qmax": "2"}),
    ],
)
def test_interlaced_video_is_deinterlaced(tmp_path: Path, name: str, codec: str, options: dict[str, str]) -> None:
    """A bar moves 4 pixels from field to field; without a filter its edges are combs."""
    fields = np.full((24, 64, 96, 3), 40, np.uint8)
    for index, field in enumerate(fields):
        field[:, 4 * index : 4 * index + 24] = 220
    woven = fields[::2].copy()
    woven[:, 1::2] = fields[1::2, 1::2]
    path = write_clip(tmp_path / name, list(woven), codec=codec, **options)
    frames = read(path)
    assert len(frames) == 12
    assert [frame.timestamp for frame in frames] == pytest.approx(np.arange(12) / 25, abs=1e-3)
    assert combing(woven[5]) > 20
    assert combing(frames[5].image) < 0.7 * combing(woven[5])
    assert abs(int(frames[5].image[32, 50, 0]) - 220) < 12, "what is shown is the bar, no noise"


@pytest.mark.parametrize(
    ("aspect", "size"), [(Fraction(4, 3), (64, 128)), (Fraction(8, 9), (72, 96)), (Fraction(640, 639), (64, 96))]
)
def test_pixels_become_square(tmp_path: Path, aspect: Fraction, size: tuple[int, int]) -> None:
    """DVDs store wide films in narrow pictures; a ratio that is only rounding changes nothing."""
    (frame,) = read(write_clip(tmp_path / "a.mp4", [corners()], aspect=aspect))
    assert frame.image.shape == (*size, 3)
    assert_corners(frame.image, RED, BLACK, BLACK, GREEN)


@pytest.mark.parametrize(
    ("matrix", "shape", "shown"),
    [
        ((0, 1, -1, 0), (96, 64, 3), (BLACK, RED, GREEN, BLACK)),
        ((-1, 0, 0, -1), (64, 96, 3), (GREEN, BLACK, BLACK, RED)),
        ((0, -1, 1, 0), (96, 64, 3), (BLACK, GREEN, RED, BLACK)),
        ((-1, 0, 0, 1), (64, 96, 3), (BLACK, RED, GREEN, BLACK)),
    ],
    ids=["quarter", "half", "three quarters", "mirrored"],
)
def test_telephones_hold_a_film_any_way_up(
    tmp_path: Path, matrix: tuple[int, int, int, int], shape: tuple[int, ...], shown: tuple[tuple[int, int, int], ...]
) -> None:
    path = write_clip(tmp_path / "a.mp4", [corners()])
    turn(path, matrix)
    (frame,) = read(path)
    assert frame.image.shape == shape
    assert_corners(frame.image, *shown)
    with VideoFile(path, upright=False) as stored:
        assert_corners(next(iter(stored)).image, RED, BLACK, BLACK, GREEN)


@pytest.mark.parametrize("matrix", [1, 5, 9])
@pytest.mark.parametrize("full_range", [False, True])
def test_colours_follow_the_stated_matrix_and_range(tmp_path: Path, matrix: int, full_range: bool) -> None:
    tags = {"matrix": matrix, "full_range": full_range, "pixels": "yuv444p"}
    path = write_clip(tmp_path / "a.mp4", [corners()], crf="1", **tags)
    assert_corners(read(path)[0].image, RED, BLACK, BLACK, GREEN)


@pytest.mark.parametrize(("height", "matrix"), [(64, 5), (720, 1)])
def test_colours_that_are_not_stated_depend_on_the_size(tmp_path: Path, height: int, matrix: int) -> None:
    """The rule of players: BT.601 for small pictures, BT.709 from 720 rows on."""
    path = write_clip(tmp_path / "a.mp4", [corners(height)], matrix=matrix, stated=False, crf="1")
    assert_corners(read(path)[0].image, RED, BLACK, BLACK, GREEN)


@pytest.mark.parametrize(
    ("codec", "pixels", "options"),
    [
        ("libx265", "yuv420p10le", {"x265-params": "log-level=none"}),
        ("libsvtav1", "yuv420p", {"preset": "12"}),
        ("libvpx-vp9", "yuv420p", {"deadline": "realtime"}),
        ("mpeg4", "yuv420p", {}),
    ],
)
def test_codecs(tmp_path: Path, codec: str, pixels: str, options: dict[str, str]) -> None:
    # SVT-AV1 gives the thread that calls it real-time priority where it may (root): a thread of its own ends with it.
    with ThreadPoolExecutor(1) as pool:
        made = pool.submit(write_clip, tmp_path / "a.mkv", [corners()] * 3, codec=codec, pixels=pixels, **options)
    assert os.sched_getscheduler(0) == os.SCHED_OTHER
    frames = read(made.result())
    assert len(frames) == 3
    assert np.abs(frames[2].image.astype(int) - corners())[8:24, 8:40].mean() < 12


def test_a_trimmed_clip_shows_what_its_edit_list_says_and_is_not_damaged(tmp_path: Path) -> None:
    pictures = [np.full((64, 96, 3), 8 * index, np.uint8) for index in range(30)]
    path = write_clip(tmp_path / "a.mp4", pictures, g="10")
    trim(path, 7 / 25, 15 / 25)
    told: list[str] = []
    with open_source(str(path), tell=told.append) as source:
        frames = list(source)
    assert source.length == len(frames) == 15
    assert [round(frame.image.mean() / 8) for frame in frames] == list(range(7, 22))
    assert frames[0].timestamp == 0
    assert told == []


def test_a_download_that_broke_off_is_told(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (20, 64, 96, 3), np.uint8)
    path = write_clip(tmp_path / "a.mp4", list(noise), muxer={"movflags": "faststart"})
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    told: list[str] = []
    with open_source(str(path), tell=told.append) as source:
        count = len(list(source))
    assert 5 < count < 15
    assert told == [
        f"a.mp4: {count} of the 20 frames that it states could be decoded, the others are damaged or missing"
    ]


def test_names_with_colons_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_clip(tmp_path / "2024-05-01T10:30:00.mp4", [corners()])
    monkeypatch.chdir(tmp_path)
    assert len(read(Path("2024-05-01T10:30:00.mp4"))) == 1


def test_sound_alone_is_no_video(tmp_path: Path) -> None:
    with wave.open(str(tmp_path / "a.wav"), "wb") as sound:
        sound.setparams((1, 2, 8000, 800, "NONE", ""))
        sound.writeframes(bytes(1600))
    with pytest.raises(UserError, match=r"a\.wav holds no video"):
        open_source(str(tmp_path / "a.wav"))


def test_playlists_are_not_opened_where_formats_are_named(tmp_path: Path) -> None:
    """An upload must not make the server read other files."""
    write_clip(tmp_path / "a.mp4", [corners()])
    (tmp_path / "a.txt").write_text("ffconcat version 1.0\nfile a.mp4\n")
    assert len(read(tmp_path / "a.txt")) == 1
    with pytest.raises(UserError, match="holds no video"):
        VideoFile(tmp_path / "a.txt", formats="mov,mp4")


@pytest.mark.parametrize("suffix", [".gif", ".png", ".webp"])
def test_animated_pictures_are_all_frames(tmp_path: Path, suffix: str) -> None:
    pictures = [Image.fromarray(np.full((48, 64, 3), (40 * index, 20, 30), np.uint8)) for index in range(5)]
    path = tmp_path / f"a{suffix}"
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=100, lossless=True)
    frames = read(path)
    assert [round(frame.image[5, 5, 2] / 40) for frame in frames] == [0, 1, 2, 3, 4]
    assert [frame.timestamp for frame in frames] == pytest.approx([0, 0.1, 0.2, 0.3, 0.4], abs=0.001)


def test_an_old_opencv_says_that_it_cannot_read_an_animated_webp(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture = Image.new("RGB", (8, 8))
    picture.save(tmp_path / "a.webp", save_all=True, append_images=[Image.new("RGB", (8, 8), "red")], duration=100)
    monkeypatch.delattr(cv2, "imreadanimation", raising=False)
    with pytest.raises(UserError, match=r"a\.webp is an animated WebP"):
        open_source(str(tmp_path / "a.webp"))


def test_brackets_in_names_are_not_patterns_where_they_are_names(tmp_path: Path) -> None:
    folder = tmp_path / "trip [2024]"
    folder.mkdir()
    for name in ("shot[1].png", "shot[2].png", "shot10.png"):
        Image.new("RGB", (8, 8)).save(folder / name)
    assert [path.name for path in glob_files(f"{folder}/*.png")] == ["shot10.png", "shot[1].png", "shot[2].png"]
    assert [path.name for path in glob_files(f"{folder}/shot[*.png")] == ["shot[1].png", "shot[2].png"]
    assert [path.name for path in glob_files(f"{folder}/shot[0-9]*.png")] == ["shot10.png"]
    assert len(read(folder / "shot[1].png")) == len(read(folder / "shot[1]*.png")) == 1
    assert [path.name for path in source_files(f"{folder}/shot1*")] == ["shot10.png"]


def test_a_folder_says_what_it_leaves_out(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "1.png")
    write_clip(tmp_path / "clip10.mp4", [corners()])
    write_clip(tmp_path / "clip9.mp4", [corners()])
    told: list[str] = []
    with open_source(str(tmp_path), tell=told.append) as source:
        assert len(list(source)) == 1
    assert told == [f"{tmp_path}: its pictures are one clip; 2 other files are left out, such as clip9.mp4, clip10.mp4"]


def test_frames_that_grow_beyond_the_limit_are_not_decoded(tmp_path: Path) -> None:
    small, large = np.zeros((48, 64, 3), np.uint8), np.zeros((960, 1440, 3), np.uint8)
    parts = [write_clip(tmp_path / f"{len(picture)}.ts", [picture] * 3).read_bytes() for picture in (small, large)]
    path = tmp_path / "grows.ts"
    path.write_bytes(b"".join(parts))
    assert [len(frame.image) for frame in VideoFile(path, upright=False)] == [48, 48, 48, 960, 960, 960]
    assert {len(frame.image) for frame in VideoFile(path, tell=lambda _: None, limit=64 * 48)} == {48}


def test_the_duration_is_that_of_the_packets(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mkv", [np.zeros((48, 64, 3), np.uint8)] * 50)
    content = path.read_bytes()
    assert VideoFile(path).duration() == pytest.approx(2.0, abs=0.1)
    # Matroska's element Duration (0x4489, eight bytes): the file states nothing, or a moment.
    at = content.index(b"\x44\x89\x88") + 3
    path.write_bytes(content[:at] + bytes(8) + content[at + 8 :])
    assert VideoFile(path).duration() == pytest.approx(2.0, abs=0.1)
