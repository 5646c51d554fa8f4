"""Raw frames from pipes."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import threading
from pathlib import Path

import cv2
import numpy as np
import pytest

from rvos_edge.errors import UserError
from rvos_edge.streaming.sources import RawFormat, RawFrames, open_source

IMAGE = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8), (0, 0), 8)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1280x720@30:bgr24", RawFormat(720, 1280, 30.0, "bgr24")),
        ("64x48", RawFormat(48, 64, 25.0, "bgr24")),
        ("64x48@29.97", RawFormat(48, 64, 29.97, "bgr24")),
        ("64x48:nv12", RawFormat(48, 64, 25.0, "nv12")),
    ],
)
def test_layout_is_read(text: str, expected: RawFormat) -> None:
    assert RawFormat.parse(text) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "cannot be read; write WIDTHxHEIGHT"),
        ("0x48", "cannot be read"),
        ("64x48@", "cannot be read"),
        ("64x48@0", "out of range"),
        ("64x48:xyz", "'xyz' is unknown; choose one of bgr24"),
        ("63x48:nv12", "odd size"),
        ("64x47:yuv420p", "odd size"),
        ("63x48:yuyv422", "odd size"),
    ],
)
def test_layout_that_cannot_be(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        RawFormat.parse(text)


def _encodings() -> dict[str, bytes]:
    i420 = cv2.cvtColor(IMAGE, cv2.COLOR_BGR2YUV_I420)
    luma, chroma = i420[:48], i420[48:].reshape(2, -1)
    small_u, small_v = chroma.reshape(2, 24, 32)
    pairs = np.empty((48, 64, 2), np.uint8)
    pairs[..., 0] = luma
    pairs[:, 0::2, 1], pairs[:, 1::2, 1] = np.repeat(small_u, 2, 0), np.repeat(small_v, 2, 0)
    return {
        "bgr24": IMAGE.tobytes(),
        "rgb24": IMAGE[..., ::-1].tobytes(),
        "bgra": cv2.cvtColor(IMAGE, cv2.COLOR_BGR2BGRA).tobytes(),
        "rgba": cv2.cvtColor(IMAGE, cv2.COLOR_BGR2RGBA).tobytes(),
        "yuv420p": i420.tobytes(),
        "nv12": luma.tobytes() + chroma.T.tobytes(),
        "yuyv422": pairs.tobytes(),
        "uyvy422": pairs[..., ::-1].tobytes(),
    }


@pytest.mark.parametrize("pixels", list(_encodings()))
def test_pixel_formats(pixels: str) -> None:
    content = _encodings()[pixels]
    (frame,) = RawFrames(io.BytesIO(content), RawFormat(48, 64, pixels=pixels))
    assert frame.image.shape == (48, 64, 3)
    difference = np.abs(frame.image.astype(int) - IMAGE)
    # The colour formats share a colour among neighbours and do not use the whole range.
    assert difference.mean() < (0.01 if pixels in {"bgr24", "rgb24", "bgra", "rgba"} else 3)


def test_grey() -> None:
    (frame,) = RawFrames(io.BytesIO(bytes(range(12))), RawFormat(3, 4, pixels="gray"))
    assert frame.image.shape == (3, 4, 3)
    assert frame.image[2, 3].tolist() == [11, 11, 11]


def test_every_frame_of_a_pipe_in_pieces() -> None:
    """Whoever writes sends as much as fits: frames come in pieces, and the reader waits for the rest."""
    read, write = os.pipe()
    content = b"".join(np.full((48, 64, 3), value, np.uint8).tobytes() for value in range(20))

    def feed() -> None:
        with os.fdopen(write, "wb", buffering=0) as pipe:
            for start in range(0, len(content), 5000):
                pipe.write(content[start : start + 5000])

    thread = threading.Thread(target=feed)
    thread.start()
    with os.fdopen(read, "rb") as pipe:
        frames = list(RawFrames(pipe, RawFormat.parse("64x48@10")))
    thread.join()
    assert [int(frame.image[0, 0, 0]) for frame in frames] == list(range(20))
    assert frames[19].timestamp == pytest.approx(1.9)
    assert frames[19].name == "00019"


def test_frame_cut_short_is_told() -> None:
    told: list[str] = []
    stream = io.BytesIO(bytes(2 * 9216 + 100))
    frames = list(RawFrames(stream, RawFormat(48, 64), tell=told.append))
    assert len(frames) == 2
    assert told[0].startswith("stdin ends inside a frame, 100 of 9216 bytes")


def test_nothing_on_stdin() -> None:
    with pytest.raises(UserError, match="ends before its first frame of 9216 bytes"):
        RawFrames(io.BytesIO(b""), RawFormat(48, 64))


def test_layout_and_stdin_belong_together(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="give their layout with --raw"):
        open_source("-")
    with pytest.raises(UserError, match="--raw describes frames on stdin and the source is 'synthetic'"):
        open_source("synthetic", raw=RawFormat(48, 64))


def test_terminal_is_no_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
    with pytest.raises(UserError, match="stdin is a terminal"):
        open_source("-", raw=RawFormat(48, 64))


def test_stdin_as_it_is_and_as_a_live_source() -> None:
    """A live pipe is emptied as it comes: only the newest frames are handed out, and the others are counted."""
    script = (
        "import sys, time\n"
        "from rvos_edge.streaming.sources import RawFormat, open_source\n"
        "source = open_source('-', raw=RawFormat(48, 64, 5.0), realtime=sys.argv[1] == 'live')\n"
        "values = []\n"
        "for frame in source:\n"
        "    values.append(int(frame.image[0, 0, 0]))\n"
        "    while sys.argv[1] == 'live' and source.dropped < 98: time.sleep(0.001)\n"
        "print(source.live, values[-1], len(values) + source.dropped, source.dropped >= 98)\n"
    )
    content = b"".join(np.full((48, 64, 3), value, np.uint8).tobytes() for value in range(100))
    for mode, expected in (("file", "False 99 100 False"), ("live", "True 99 100 True")):
        done = subprocess.run([sys.executable, "-c", script, mode], input=content, capture_output=True, timeout=60)
        assert done.stdout.decode().strip() == expected, done.stderr.decode()
