"""The example programs, where the C++ library has been built with them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import cv2
import numpy as np
import pytest
from support.cpp_probe import Probe
from support.tiny_bundle import write_tiny_bundle

from rvos_edge.benchmarks.schema import read_result
from rvos_edge.bundle import Bundle, frame_flops
from rvos_edge.synthetic.camera import SyntheticCamera


def find(probe: Probe, name: str) -> Path:
    """A program beside the probe, or a skip."""
    path = probe.path.parents[1] / "examples" / name
    if not path.is_file():
        pytest.skip(f"needs {name}: build cpp_bindings with RVOS_EDGE_EXAMPLES=ON, and OpenCV for rvos_stream")
    return path


def call(program: Path, *words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(program), *map(str, words)], capture_output=True, text=True, check=False, timeout=120)


def test_bench_writes_what_python_reads(probe: Probe, tmp_path: Path) -> None:
    program = find(probe, "rvos_bench")
    directory = write_tiny_bundle(tmp_path / "tiny")
    words = ("--bundle", directory, "--backend", "openvino", "--frames", "25", "--warmup", "5", "--queries", "3")
    done = call(program, *words, "--threads", "1", "--json", tmp_path / "result.json")
    assert done.returncode == 0, done.stderr
    result = read_result(tmp_path / "result.json")
    bundle = Bundle.open(directory)
    flow = bundle.manifest.flow
    assert flow is not None
    assert result.bundle.fingerprint == bundle.fingerprint
    assert result.bundle.size == bundle.manifest.size
    assert result.bundle.frame_flops == frame_flops(bundle.manifest.graphs, flow.iterations)
    assert result.bundle.precision == {name: spec.precision for name, spec in bundle.manifest.graphs.items()}
    work = result.workload
    assert (work.frames, work.warmup, work.queries, work.threads, work.interleaved) == (25, 5, 3, 1, False)
    run = result.run("openvino")
    assert run.times is not None
    assert sum(run.times.frame_us) > 0
    assert run.end_to_end.p50 == pytest.approx(np.percentile(run.times.frame_us, 50) / 1e3, abs=2e-3)
    assert {"preprocess", "gating", "postprocess", "flow_step"} <= set(run.stages)
    assert run.start_up is not None
    assert run.start_up.total_s >= run.start_up.open_s > 0
    assert run.memory is not None
    assert run.memory.host_mib > 1


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--frames", "0"), "--frames 0 is out of range; give a whole number of at least 1."),
        (("--size", "64"), "--size 64: write it as HxW, height first, for example 288x512."),
        (("--magic",), "option --magic is unknown; --help lists them."),
        (("--queries", "65"), "--queries 65 is more than this bundle's 64; ask for fewer."),
        (("--json", "/nowhere/x.json"), "--json /nowhere/x.json cannot be written; choose another place."),
    ],
)
def test_bench_refuses(probe: Probe, tmp_path: Path, words: tuple[str, ...], sentence: str) -> None:
    directory = write_tiny_bundle(tmp_path / "tiny")
    usual = ("--bundle", directory, "--backend", "openvino", "--frames", "2", "--warmup", "1")
    done = call(find(probe, "rvos_bench"), *usual, *words)
    assert (done.returncode, done.stderr) == (2, f"Error: {sentence}\n")


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
    done = call(
        program, "--bundle", directory, "--source", tmp_path / "in.mp4", "--query", "the red ball", "--output", output
    )
    assert done.returncode == 0, done.stderr
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
