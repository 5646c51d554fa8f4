"""Several sinks of one stream: one that cannot go on does not cost the others, and signals cost no output."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from support.fake_results import MASKS, files, make_frame, make_result
from support.full_disk import files_at_most

from rvos_edge.errors import UserError
from rvos_edge.result import Overlap, exclusive, resolve_overlap
from rvos_edge.rle import encode_rle
from rvos_edge.streaming.sinks import (
    FfmpegSink,
    JsonSink,
    MaskSink,
    Outputs,
    RawSink,
    RleSink,
    VideoSink,
    open_output,
    video,
)

GREY = np.zeros((48, 64, 3), np.uint8)


def test_sink_that_cannot_go_on_is_finished_and_the_stream_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    sinks = [VideoSink(tmp_path / "o.mp4", 25), JsonSink(tmp_path / "o.jsonl")]
    outputs = Outputs(sinks, tell=told.append)
    for index in range(6):
        if index == 3:
            monkeypatch.setattr(video, "_RESERVE", 2**60)
        outputs.write(make_frame(index), make_result(), GREY)
    assert files(tmp_path)[-1] == "o.mp4", "the recording has its name before the stream ends"
    outputs.close()
    assert cv2.VideoCapture(str(tmp_path / "o.mp4")).get(cv2.CAP_PROP_FRAME_COUNT) == 3
    assert len((tmp_path / "o.jsonl").read_text().splitlines()) == 6
    (failure,) = outputs.failures
    assert failure.startswith(f"{tmp_path / 'o.mp4'} ends after 3 frames: its disk is full")
    assert told == [f"{failure} (the stream goes on without it)"]


def test_last_sink_and_first_frame_end_the_stream(tmp_path: Path) -> None:
    class Broken(JsonSink):
        def write(self, *_: object) -> None:
            raise UserError("broken")

    outputs = Outputs([Broken(tmp_path / "b.jsonl"), JsonSink(tmp_path / "o.jsonl")])
    with pytest.raises(UserError, match="broken"):
        outputs.write(make_frame(), make_result(), None)
    outputs.abort()
    assert files(tmp_path) == []
    only = JsonSink(tmp_path / "o.jsonl")
    outputs = Outputs([only])
    outputs.write(make_frame(), make_result(), None)
    only.write = Broken.write.__get__(only)  # type: ignore[method-assign]
    with pytest.raises(UserError, match="broken"):
        outputs.write(make_frame(1), make_result(), None)
    outputs.close()
    assert len((tmp_path / "o.jsonl").read_text().splitlines()) == 1


def test_all_or_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sinks = [VideoSink(tmp_path / "o.mp4", 25), JsonSink(tmp_path / "o.jsonl")]
    outputs = Outputs(sinks, together=True)
    outputs.write(make_frame(), make_result(), GREY)
    monkeypatch.setattr(video, "_RESERVE", 2**60)
    with pytest.raises(UserError, match="its disk is full"):
        outputs.write(make_frame(1), make_result(), GREY)
    outputs.abort()
    assert files(tmp_path) == []


def test_lines_on_a_full_disk_are_whole(tmp_path: Path) -> None:
    sink, written = JsonSink(tmp_path / "o.jsonl"), 0
    refused = pytest.raises(UserError, match=r"o\.jsonl cannot be written: File too")
    with files_at_most(5000), refused:
        for written in range(100):
            sink.write(make_frame(written), make_result(), None)
    sink.close()
    lines = (tmp_path / "o.jsonl").read_text(encoding="utf-8").splitlines()
    assert 5 < len(lines) == written
    assert [json.loads(line)["frame"] for line in lines] == list(range(written))


def test_later_query_overrides_an_earlier_one() -> None:
    result = make_result()
    kept, resolved = resolve_overlap(result, Overlap.KEEP), resolve_overlap(result, Overlap.HIGHER)
    assert kept is result
    np.testing.assert_array_equal(resolved.masks[1], MASKS[1])
    np.testing.assert_array_equal(resolved.masks[0], MASKS[0] & ~MASKS[1])
    np.testing.assert_array_equal(result.masks, MASKS, "the segmenter's own result is left alone")
    random = np.random.default_rng(0).random((5, 9, 11)) < 0.5
    apart = exclusive(random)
    assert apart.sum(axis=0).max() == 1
    np.testing.assert_array_equal(apart.any(axis=0), random.any(axis=0))
    np.testing.assert_array_equal(np.where(apart.any(axis=0), apart.argmax(axis=0), -1), _last(random))


def _last(masks: np.ndarray) -> np.ndarray:
    return np.where(masks.any(axis=0), len(masks) - 1 - masks[::-1].argmax(axis=0), -1)


def decode_rle(counts: str, size: tuple[int, int]) -> np.ndarray:
    """COCO's format read as it is described, one character after the other."""
    runs: list[int] = []
    value = shift = 0
    for character in counts:
        code = ord(character) - 48
        value |= (code & 0x1F) << shift
        shift += 5
        if not code & 0x20:
            if code & 0x10:
                value -= 1 << shift
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            value = shift = 0
    flat = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    return flat.reshape(size[::-1]).T


def test_rle_lines_are_coco_results(tmp_path: Path) -> None:
    sink = RleSink(tmp_path / "o.jsonl")
    sink.write(make_frame(4, "dog_4"), make_result(), None)
    sink.write(make_frame(5), make_result(np.zeros_like(MASKS)), None)
    sink.close()
    lines = [json.loads(line) for line in (tmp_path / "o.jsonl").read_text(encoding="utf-8").splitlines()]
    # The counts are what pycocotools 2.0.11 writes.
    assert lines[1] == {
        "image_id": 4,
        "file_name": "dog_4",
        "timestamp": 0.16,
        "time": None,
        "category_id": 2,
        "text": "der große Ball",
        "score": 0.5,
        "area": 72,
        "segmentation": {"size": [16, 24], "counts": "V46:000000000000000000000j1"},
    }
    assert [line["area"] for line in lines[2:]] == [0, 0]
    for line, mask in zip(lines, MASKS, strict=False):
        np.testing.assert_array_equal(decode_rle(line["segmentation"]["counts"], (16, 24)), mask)
    random = np.random.default_rng(0)
    for size in ((1, 1), (7, 1), (480, 31)):
        for share in (0.0, 0.003, 0.5, 1.0):
            mask = random.random(size) < share
            np.testing.assert_array_equal(decode_rle(encode_rle(mask), size), mask)


def test_raw_overlays_on_stdout(capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    sink = RawSink()
    for index, size in enumerate(((4, 6), (4, 6), (8, 12))):
        sink.write(make_frame(), make_result(), np.full((*size, 3), index + 1, np.uint8))
    sink.close()
    assert capfdbinary.readouterr().out == b"".join(bytes([value]) * 72 for value in (1, 2, 3))
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    with pytest.raises(UserError, match="stdout is a terminal"):
        RawSink()


def test_status_on_the_terminal_does_not_catch_what_goes_to_stdout(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    from rich.console import Console
    from rich.live import Live

    sinks = [RawSink(), JsonSink("-"), RleSink("-")]
    with Live(console=Console(stderr=True, force_terminal=True)):
        for sink in sinks:
            sink.write(make_frame(), make_result(), np.full((2, 2, 3), 65, np.uint8))
    captured = capfdbinary.readouterr()
    assert captured.out.startswith(b"A" * 12)
    assert captured.out.count(b"\n") == 1 + 2
    assert b"category_id" not in captured.err


def test_reader_of_stdout_that_goes_away() -> None:
    script = (
        "import sys, numpy as np\n"
        "sys.path.append(sys.argv[1])\n"
        "from support.fake_results import make_frame, make_result\n"
        "from rvos_edge.errors import UserError\n"
        "from rvos_edge.streaming.sinks import RawSink\n"
        "sink = RawSink()\n"
        "try:\n"
        "    while True: sink.write(make_frame(), make_result(), np.zeros((480, 640, 3), np.uint8))\n"
        "except UserError as error:\n"
        "    print(error, file=sys.stderr)\n"
    )
    command = [sys.executable, "-c", script, str(Path(__file__).parents[2])]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.read(1000)
        process.stdout.close()
        said = process.stderr.read().decode()
    assert said == "raw frames on stdout end: Broken pipe; check the program that reads them\n"
    assert process.returncode == 0


def test_outputs_by_name(tmp_path: Path, capsys: pytest.CaptureFixture[str], fake_ffmpeg: Path) -> None:
    assert isinstance(open_output("-", 25), RawSink)
    assert isinstance(open_output("RTMP://host/live", 25), FfmpegSink)
    with pytest.raises(UserError, match="sudo modprobe v4l2loopback video_nr=917 exclusive_caps=1"):
        open_output("/dev/video917", 25)
    sink = open_output(str(tmp_path / "o.mp4"), 25)
    assert isinstance(sink, VideoSink)
    sink.abort()


@pytest.mark.parametrize("make", [lambda path: MaskSink(path / "masks"), lambda path: RleSink(path / "o.jsonl")])
def test_frames_of_any_size_reach_every_file(tmp_path: Path, make: Callable[[Path], MaskSink | RleSink]) -> None:
    """The camera changes its resolution in the middle."""
    sink = make(tmp_path)
    for index, size in enumerate(((16, 24), (32, 20))):
        sink.write(make_frame(index), make_result(np.ones((1, *size), bool)), None)
    sink.close()
    if isinstance(sink, MaskSink):
        assert [cv2.imread(str(path)).shape[:2] for path in sorted((tmp_path / "masks").iterdir())] == [
            (16, 24),
            (32, 20),
        ]
    else:
        lines = [json.loads(line) for line in (tmp_path / "o.jsonl").read_text().splitlines()]
        assert [line["segmentation"]["size"] for line in lines] == [[16, 24], [32, 20]]
