"""Sources and sinks of `rvos-edge run`, on a tiny bundle."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from support.fake_results import files
from typer.testing import CliRunner, Result

from rvos_edge.cli import app
from rvos_edge.streaming.sinks import video

QUERIES = ("--query", "the red ball", "--query", "a black car")
NOISE = np.random.default_rng(1).integers(0, 255, (64, 96, 3), np.uint8)


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    monkeypatch.setenv("RVOS_EDGE_CACHE", str(tmp_path_factory.mktemp("cache")))


def arguments(bundle: Path, source: object, *more: object) -> list[str]:
    given = ("run", "--bundle", bundle, "--source", source, "--device", "cpu", "--backend", "onnxruntime")
    return [str(argument) for argument in (*given, "--threads", 1, *QUERIES, *more)]


def run(bundle: Path, source: object, *more: object, stdin: bytes = b"") -> Result:
    return CliRunner().invoke(app, arguments(bundle, source, *more), input=stdin)


def refuses(result: Result, words: str) -> None:
    assert result.exit_code == 2, result.output
    assert result.stderr.startswith("Error: ")
    assert result.stderr.count("\n") == 1
    assert words in result.stderr


def read_lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def count_frames(path: Path) -> int:
    capture, count = cv2.VideoCapture(str(path)), 0
    while capture.read()[0]:
        count += 1
    return count


def test_any_number_of_sinks_take_pictures_of_any_size(tiny: Path, tmp_path: Path) -> None:
    """Resolution changes in the middle, twice; nothing that is written is broken by it."""
    (tmp_path / "in").mkdir()
    for index, size in enumerate(((96, 64), (96, 64), (50, 80), (96, 64))):
        cv2.imwrite(str(tmp_path / "in" / f"{index}.png"), cv2.resize(NOISE, size))
    out = tmp_path / "out"
    videos = ("--output", out / "a.mp4", "--output", out / "b.mp4", "--overlap", "higher")
    result = run(tiny, tmp_path / "in", *videos, "--rle", out / "r.jsonl", "--json", out / "o.jsonl", "--masks", out)
    assert result.exit_code == 0, result.output
    assert files(out) == ["0.png", "1.png", "2.png", "3.png", "a.mp4", "b.mp4", "o.jsonl", "r.jsonl"]
    assert count_frames(out / "a.mp4") == count_frames(out / "b.mp4") == 4
    assert [line["size"] for line in read_lines(out / "o.jsonl")] == [[64, 96], [64, 96], [80, 50], [64, 96]]
    assert len(read_lines(out / "r.jsonl")) == 8
    shapes = [cv2.imread(str(out / f"{index}.png")).shape[:2] for index in range(4)]
    assert shapes == [(64, 96), (64, 96), (80, 50), (64, 96)]


def test_later_query_wins_unless_overlap_is_kept(tiny: Path, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "0.png"), NOISE)
    twice = ("--query", "the red ball")  # the third query claims what the first one does
    areas = {}
    for rule in ("higher", "keep"):
        path = tmp_path / f"{rule}.jsonl"
        result = run(tiny, tmp_path / "0.png", *twice, "--overlap", rule, "--rle", path, "--masks", tmp_path / rule)
        assert result.exit_code == 0, result.output
        areas[rule] = [line["area"] for line in read_lines(path)]
    assert areas["keep"][0] == areas["keep"][2]
    assert areas["keep"][2] > 0
    assert areas["higher"] == [0, areas["higher"][1], areas["keep"][2]]
    assert files(tmp_path / "higher") == ["0.png"]
    assert files(tmp_path / "keep") == ["1", "1/0.png", "2", "2/0.png", "3", "3/0.png"]


def test_raw_frames_in_and_out(tiny: Path, tmp_path: Path) -> None:
    grey = cv2.cvtColor(NOISE, cv2.COLOR_BGR2GRAY)
    content = grey.tobytes() * 3 + b"half a frame"
    result = run(
        tiny, "-", "--raw", "96x64@10:gray", "--output", "-", "--opacity", 0, "--json", tmp_path / "o", stdin=content
    )
    assert result.exit_code == 0, result.output
    assert len(result.stdout_bytes) == 3 * NOISE.nbytes
    shown = np.frombuffer(result.stdout_bytes[: NOISE.nbytes], np.uint8).reshape(NOISE.shape)
    assert (shown == grey[..., None]).mean() > 0.3, "between outlines and legend the picture shines through"
    assert [line["timestamp"] for line in read_lines(tmp_path / "o")] == [0.0, 0.1, 0.2]
    assert "stdin ends inside a frame" in result.stderr
    assert "stdin: 3 frames" in result.stderr


def test_realtime_says_what_it_dropped(tiny: Path, tmp_path: Path) -> None:
    writer = cv2.VideoWriter(str(tmp_path / "c.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 1000.0, (96, 64))
    for _ in range(50):
        writer.write(NOISE)
    writer.release()
    result = run(tiny, tmp_path / "c.mp4", "--realtime", "--json", tmp_path / "o.jsonl")
    assert result.exit_code == 0, result.output
    taken = len(read_lines(tmp_path / "o.jsonl"))
    assert f"c.mp4: {taken} frames, {50 - taken} dropped" in result.stdout


def test_recording_that_ends_early_is_told_and_fails_the_command(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = [2**40, 2**40, 2**40, 2**40]  # at the start and for three frames; then nothing
    monkeypatch.setattr(video.VideoSink, "_free", lambda self: free.pop() if free else 0)
    out = tmp_path / "out"
    result = run(tiny, "synthetic", "--frames", 5, "--output", out / "o.mp4", "--json", out / "o.jsonl")
    assert result.exit_code == 2
    assert "o.mp4 ends after 3 frames: its disk is full; make room (the stream goes on without it)" in result.stderr
    assert result.stderr.rstrip().endswith("o.mp4 ends after 3 frames: its disk is full; make room")
    assert "5 frames" in result.stdout
    assert count_frames(out / "o.mp4") == 3
    assert len(read_lines(out / "o.jsonl")) == 5


def test_sigterm_finishes_what_run_writes(tiny: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "rvos_edge.cli"]
    more = arguments(tiny, "synthetic", "--no-flow", "--json", "-", "--output", tmp_path / "o.mp4")
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        [*command, *more], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        frames = 0
        for _ in process.stdout:
            frames += 1
            if frames == 5:
                process.send_signal(signal.SIGTERM)
        assert process.stderr is not None
        said = process.stderr.read()
    assert process.returncode == 0, said
    assert f"{frames} frames" in said
    assert "(interrupted)" in said
    assert files(tmp_path) == ["o.mp4"]
    assert count_frames(tmp_path / "o.mp4") == frames


@pytest.mark.parametrize(
    ("source", "more", "words"),
    [
        ("synthetic", ("--output", "-", "--json", "-"), "stdout can take one of --output, --json, --rle and --events"),
        ("synthetic", ("--output", "a.mp4", "--output", "a.mp4"), "a.mp4 is given for 2 outputs; give each its own"),
        ("synthetic", ("--reconnect", -1), "--reconnect -1 is out of range"),
        ("synthetic", ("--open-timeout", 0), "--open-timeout 0 is out of range"),
        ("synthetic", ("--read-timeout", "inf"), "--read-timeout inf is out of range"),
        ("synthetic", ("--transport", "sctp"), "--transport sctp is unknown; use tcp or udp"),
        ("synthetic", ("--raw", "64x48"), "--raw describes frames on stdin"),
        ("-", (), "give their layout with --raw"),
        ("-", ("--raw", "64"), "--raw 64 cannot be read"),
        ("csi://x", (), "is no CSI camera"),
        ("synthetic", ("--output", "/dev/video917"), "modprobe v4l2loopback"),
        ("synthetic", ("--window",), "or use the live page, --serve"),
    ],
)
def test_options_that_cannot_be(
    source: str, more: tuple[object, ...], words: str, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    refuses(run(tiny, source, "--masks", tmp_path / "masks", *more), words)
    assert files(tmp_path) == []
