"""The check of a GPU, tried with CUDA played: it passes here, and sees what a broken driver or runtime would do."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from support.fake_cuda import FakeCuda
from support.tiny_bundle import write_tiny_bundle
from support.tiny_reference import write_reference

from rvos_edge.benchmarks import gpu_check
from rvos_edge.benchmarks.gpu_check import Check, check_machine
from rvos_edge.bundle import Bundle

FRAMES = 14


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    path = write_tiny_bundle(tmp_path / "tiny")
    write_reference(path)
    return Bundle.open(path)


def _checked(bundle: Bundle, make_cuda: Callable[[], FakeCuda]) -> dict[str, Check]:
    return {finding.name: finding for finding in check_machine(bundle, make_cuda, "cpu", FRAMES)}


def test_the_command_writes_a_table_and_json(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--cpu", "--bundle", str(bundle.path), "--frames", str(FRAMES), "--json", str(tmp_path / "gpu.json")]
    assert gpu_check.main(arguments) == 0
    assert "CUDA is played" in capsys.readouterr().out
    report = json.loads((tmp_path / "gpu.json").read_text())
    passed = {each["name"]: each["passed"] for each in report["checks"]}
    made = ("CUDA calls", "captures", "frames, plain", "frames, recorded", "frames, two streams", "ONNX Runtime (cpu)")
    assert passed == {**dict.fromkeys(made, True), "tensorrt": None, "tensorrt-rtx": None}
    monkeypatch.setitem(sys.modules, "support.fake_cuda", None)
    assert gpu_check.main(arguments) == 2
    assert "start it in the checkout's folder tests" in capsys.readouterr().err


def test_a_replay_that_does_nothing_is_seen(bundle: Bundle) -> None:
    class Forgetful(FakeCuda):
        def launch(self, executable: int, stream: int) -> None:
            self._call("launch", executable, stream)

    found = _checked(bundle, Forgetful)
    assert [name for name, finding in found.items() if finding.passed is False] == [
        "CUDA calls",
        "frames, recorded",
        "frames, two streams",
    ]
    assert "differs from plain by" in found["frames, recorded"].found


def test_a_driver_that_cannot_capture_is_seen(bundle: Bundle) -> None:
    def make() -> FakeCuda:
        cuda = FakeCuda()
        cuda.fail = {"begin_capture": "CUDA: cudaStreamBeginCapture failed."}
        return cuda

    found = _checked(bundle, make)
    assert found["CUDA calls"] == Check("CUDA calls", False, "CudaError: CUDA: cudaStreamBeginCapture failed")
    assert found["frames, plain"].passed is True
    assert found["frames, recorded"].passed is False
    assert "without CUDA graphs (CUDA: cudaStreamBeginCapture failed)" in found["frames, recorded"].found


@pytest.mark.skipif(gpu_check.find_gpu() is not None, reason="there is a GPU")
def test_without_a_gpu_it_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu_check.main([]) == 2
    assert "no NVIDIA GPU with a driver is here; try the check itself with --cpu" in capsys.readouterr().err
