"""The fastest backend that works is taken, and says why it was."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest
from tiny_bundle import write_tiny_bundle

import rvos_edge
from rvos_edge.engines import choose
from rvos_edge.engines.base import Backend
from rvos_edge.engines.choose import open_best
from rvos_edge.errors import UserError


@pytest.fixture
def intel(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("openvino")
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")


def _itself(backend: Backend) -> Backend:
    return backend


@pytest.mark.usefixtures("intel")
def test_openvino_is_taken_on_an_intel_cpu(tmp_path: Path) -> None:
    segmenter = rvos_edge.open(write_tiny_bundle(tmp_path / "tiny"), device="cpu")
    assert segmenter.backend_name.startswith("OpenVINO")
    assert segmenter.backend_reason == "cpu was asked for, where OpenVINO is the fastest"


def test_without_openvino_the_reason_says_what_is_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choose, "find_spec", lambda name: None if name == "openvino" else object())
    backend = open_best(_itself, device="cpu")
    assert backend.name == "ONNX Runtime (cpu)"
    assert backend.reason == "cpu was asked for; OpenVINO, which is often faster, is not installed"


def test_no_claim_is_made_for_cpus_that_were_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    monkeypatch.setattr(choose, "find_spec", lambda name: object())
    assert open_best(_itself, device="cpu").reason == (
        "cpu was asked for; OpenVINO was not measured on this kind of CPU"
    )


@pytest.mark.usefixtures("intel")
def test_a_backend_that_fails_is_passed_over_with_what_it_said() -> None:
    def load(backend: Backend) -> Backend:
        if backend.name.startswith("OpenVINO"):
            raise UserError("an operator is missing")
        return backend

    backend = open_best(load, device="cpu")
    assert backend.name == "ONNX Runtime (cpu)"
    assert "openvino failed (an operator is missing)" in backend.reason
    with pytest.raises(UserError, match="an operator is missing"):
        open_best(load, device="cpu", backend="openvino")


def test_a_backend_that_was_asked_for_is_taken_or_refused(tmp_path: Path) -> None:
    bundle = write_tiny_bundle(tmp_path / "tiny")
    assert rvos_edge.open(bundle, backend="onnxruntime").backend_name == "ONNX Runtime (cpu)"
    with pytest.raises(UserError, match="backend 'tpu' is unknown; use onnxruntime or openvino"):
        rvos_edge.open(bundle, backend="tpu")
