"""The findings of ``rvos-edge doctor``; no broken component can stop it."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console
from support.tiny_bundle import write_tiny_bundle
from typer.testing import CliRunner

from rvos_edge import bundle, cli, doctor
from rvos_edge.bundle import Bundle
from rvos_edge.engines.registry import available_backends, open_best
from rvos_edge.engines.tensorrt import api, gpu
from rvos_edge.errors import UserError


def finding(name: str) -> doctor.Finding:
    return doctor._safely(name, doctor._LOOKS[name])


def test_report_names_everything_and_exits_with_zero(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_tiny_bundle(tmp_path / "tiny")  # measured in a moment
    monkeypatch.setattr(bundle, "shipped_bundle", lambda: path)
    result = CliRunner().invoke(cli.app, ["doctor"])
    assert result.exit_code == 0
    for name in ("Python", "CPU", "memory", "ONNX Runtime", "OpenVINO", "TensorRT", "PyTorch", "OpenCV", "cameras"):
        assert name in result.stdout
    assert " ms" in result.stdout


def test_versions_of_the_runtime() -> None:
    assert finding("Python").found.startswith(".".join(map(str, sys.version_info[:3])))
    assert "CPU" in finding("ONNX Runtime").found
    assert "FFMPEG" in finding("OpenCV").found
    assert "GStreamer" in finding("OpenCV").found


def test_shipped_bundle_is_verified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_tiny_bundle(tmp_path / "tiny")
    monkeypatch.setattr(bundle, "shipped_bundle", lambda: path)
    assert finding("shipped bundle") == doctor.Finding("shipped bundle", "tiny, 64x96, 8 graphs, verified")
    (path / "aspp.onnx").write_bytes(b"damage")
    found = finding("shipped bundle")
    assert found.good is False
    assert "does not match its sha256" in found.found


def test_jetson_and_cameras(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    release = tmp_path / "nv_tegra_release"
    release.write_text("# R36 (release), REVISION: 4.3, GCID: 1\nmore\n")
    monkeypatch.setattr(doctor, "_TEGRA_FILE", release)
    for number in (10, 2):
        (tmp_path / f"video{number}").touch()
    monkeypatch.setattr(doctor, "_DEVICES", tmp_path)
    assert finding("Jetson release").found == "JetPack 6, R36 (release), REVISION: 4.3, GCID: 1"
    assert finding("cameras").found == f"{tmp_path}/video2, {tmp_path}/video10"


@pytest.mark.parametrize(
    ("release", "good"), [("R35", False), ("R36", True), ("R38", True), ("R39", True), ("R99", None)]
)
def test_a_jetpack_that_is_too_old_or_unknown(
    release: str, good: bool | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "nv_tegra_release"
    file.write_text(f"# {release} (release), REVISION: 1.0\n")
    monkeypatch.setattr(doctor, "_TEGRA_FILE", file)
    assert finding("Jetson release").good is good


def test_findings_on_tensorrt_and_the_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tensorrt_rtx")
    monkeypatch.setattr(gpu, "find_gpu", lambda *_: None)
    assert finding("NVIDIA GPU").good is None
    assert "compute capability 75, 80, 86" in finding("TensorRT-RTX").found
    assert finding("TensorRT-RTX").remedy == "running needs a GPU"
    monkeypatch.setattr(gpu, "find_gpu", lambda index=0: gpu.Gpu("Ada", "89") if index < 2 else None)
    assert finding("NVIDIA GPU").found == "Ada, compute capability 89; Ada, compute capability 89"
    assert finding("NVIDIA GPU").remedy == "the second one is --device cuda:1"
    assert finding("TensorRT-RTX").remedy == ""
    monkeypatch.setattr(gpu, "find_gpu", lambda *_: gpu.Gpu("NVIDIA H200", "90"))
    assert finding("TensorRT-RTX").remedy == "it cannot use NVIDIA H200, 90: take the full TensorRT"


@pytest.mark.parametrize(
    ("release", "version", "remedy"),
    [
        ("R36", "10.3.0", ""),
        ("R36", "8.6.2", "JetPack 6 has 10.3: sudo apt install nvidia-jetpack"),
        ("R36", "10.13.3", "JetPack 6 has 10.3, this is one for servers: pip uninstall tensorrt"),
        ("R38", "10.14.1", ""),
        ("R39", "10.3.0", "JetPack 7 has 10.13: sudo apt install nvidia-jetpack"),
    ],
)
def test_a_tensorrt_of_another_jetpack(
    release: str, version: str, remedy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "nv_tegra_release"
    file.write_text(f"# {release} (release), REVISION: 4.3\n")
    monkeypatch.setattr(doctor, "_TEGRA_FILE", file)
    monkeypatch.setattr(gpu, "find_gpu", lambda *_: gpu.Gpu("Orin", "87"))
    monkeypatch.setattr(api, "is_installed", lambda flavour: True)
    monkeypatch.setattr(api, "load", lambda flavour: SimpleNamespace(__version__=version))
    assert finding("TensorRT") == doctor.Finding(
        "TensorRT", f"{version}, builds for the GPU it finds", not remedy, remedy
    )


def test_absent_things_say_how_to_get_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_TEGRA_FILE", tmp_path / "none")
    monkeypatch.setattr(doctor, "_DEVICES", tmp_path)
    assert finding("Jetson release").good is None
    assert "--source synthetic" in finding("cameras").remedy
    look = doctor._distribution("pip install something", "no-such-distribution")
    assert look("X") == doctor.Finding("X", "not installed", None, "pip install something")


def test_a_check_that_fails_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> doctor.Finding:
        raise ImportError("libGL.so.1: cannot open [shared] object file")

    monkeypatch.setitem(doctor._LOOKS, "OpenCV", broken)
    monkeypatch.setattr(doctor, "measure_backends", lambda _: iter(()))
    text = io.StringIO()
    doctor.print_report(Console(file=text, width=200))
    assert "ImportError: libGL.so.1: cannot open [shared] object file" in text.getvalue()


def test_nothing_heavy_is_imported() -> None:
    code = "import sys; from rvos_edge import doctor; doctor.examine(); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_every_installed_backend_is_measured(tmp_path: Path) -> None:
    bundle = Bundle.open(write_tiny_bundle(tmp_path / "tiny"))
    rows = list(doctor.measure_backends(bundle))
    assert len({backend for backend, _ in rows}) == len(rows) == len(available_backends(bundle, "auto"))
    assert all(time.endswith(" ms") for _, time in rows)


def test_a_backend_that_does_not_work_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise UserError("no driver")

    monkeypatch.setattr("rvos_edge.engines.registry.open_backend", refuse)
    bundle = Bundle.open(write_tiny_bundle(tmp_path / "tiny"))
    assert {said for _, said in doctor.measure_backends(bundle)} == {"no driver"}


def test_an_opencv_that_cannot_be_loaded_breaks_neither_the_report_nor_the_sentence(tmp_path: Path) -> None:
    (tmp_path / "cv2.py").write_text('raise ImportError("libGL.so.1: cannot open shared object file")\n')
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "COLUMNS": "200"}

    def call(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", "from rvos_edge.cli import main; main()", *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment)

    report = call("doctor")
    assert report.returncode == 0, report.stderr
    assert "libGL.so.1" in report.stdout
    assert "pip install --force-reinstall --no-deps opencv-python-headless" in report.stdout
    run = call("run", "clip.mp4", "a dog")
    assert run.returncode == 2
    assert run.stderr.startswith("Error: a library cannot be loaded (libGL.so.1")
    assert "rvos-edge doctor" in run.stderr


@pytest.mark.skipif(find_spec("openvino") is None, reason="OpenVINO is not installed")
def test_an_openvino_that_cannot_be_loaded_gives_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rvos_edge.engines.openvino", None)
    bundle = Bundle.open(write_tiny_bundle(tmp_path / "tiny"))
    rows = dict(doctor.measure_backends(bundle))
    assert rows["openvino"].startswith("OpenVINO is installed and cannot be loaded")
    assert [name for name, time in rows.items() if time.endswith(" ms")] == ["ONNX Runtime (cpu)"]
    assert open_best(bundle, lambda backend: backend.name, device="cpu").startswith("ONNX Runtime")
