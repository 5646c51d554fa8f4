"""The example programs, where the C++ library has been built with them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import cv2
import pytest
from support.cpp_probe import Probe
from support.tiny_bundle import write_tiny_bundle

from rvos_edge.synthetic.camera import SyntheticCamera


def find(probe: Probe, name: str) -> Path:
    """A program beside the probe, or a skip."""
    path = probe.path.parents[1] / "examples" / name
    if not path.is_file():
        pytest.skip(f"needs {name}: build cpp_bindings with RVOS_EDGE_EXAMPLES=ON, and OpenCV for rvos_stream")
    return path


def call(program: Path, *words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(program), *map(str, words)], capture_output=True, text=True, check=False, timeout=120)


def write_video(path: Path, frames: int) -> None:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 10, (120, 80))
    for frame in SyntheticCamera(seed=2, size=(80, 120), frames=frames):
        writer.write(frame.image)
    writer.release()


def test_stream_draws_every_frame(probe: Probe, tmp_path: Path) -> None:
    program = find(probe, "rvos_stream")
    write_video(tmp_path / "in.mp4", 6)
    output = tmp_path / "out.mp4"
    directory = write_tiny_bundle(tmp_path / "tiny")
    words = ("--query", "the red ball", "--query", "le chien rouge")
    done = call(program, "--bundle", directory, "--source", tmp_path / "in.mp4", *words, "--output", output)
    assert done.returncode == 0, done.stderr
    assert "Warning: 'le chien rouge' does not look like English" in done.stderr
    assert "the red ball" not in done.stderr
    assert "6 frames" in done.stdout
    capture = cv2.VideoCapture(str(output))
    shapes = []
    while (read := capture.read())[0]:
        shapes.append(read[1].shape)
    assert shapes == [(80, 120, 3)] * 6
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.mp4", "out.mp4", "tiny"]


def test_stream_refuses(probe: Probe, tmp_path: Path) -> None:
    program = find(probe, "rvos_stream")
    directory = write_tiny_bundle(tmp_path / "tiny")
    missing = tmp_path / "missing.mp4"
    done = call(program, "--bundle", directory, "--source", missing, "--query", "a dog", "--output", tmp_path / "o.mp4")
    sentence = f"{missing} cannot be read as a video; give a video file or a camera's number."
    assert (done.returncode, done.stderr) == (2, f"Error: {sentence}\n")
    assert not (tmp_path / "o.mp4").exists()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--frames", "0"), "--frames 0 is out of range; give a whole number of at least 1."),
        (("--size", "64"), "--size 64: write it as HxW, height first, for example 288x512."),
        (("--magic",), "option --magic is unknown or lacks its value; see --help."),
    ],
)
def test_stream_refuses_options(probe: Probe, tmp_path: Path, words: tuple[str, ...], sentence: str) -> None:
    program = find(probe, "rvos_stream")
    write_video(tmp_path / "in.mp4", 2)
    directory = write_tiny_bundle(tmp_path / "tiny")
    done = call(program, "--bundle", directory, "--source", tmp_path / "in.mp4", "--query", "a dog", *words)
    assert (done.returncode, done.stderr) == (2, f"Error: {sentence}\n")
