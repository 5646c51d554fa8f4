"""The fastest backend that works is taken, and says why it was."""

from __future__ import annotations

import platform
import sys
from pathlib import Path

import pytest
from support.tiny_bundle import write_tiny_bundle

import rvos_edge
from rvos_edge.bundle import Bundle
from rvos_edge.engines import registry
from rvos_edge.engines.base import Backend, graph_error
from rvos_edge.engines.registry import available_backends, open_best, settled_backend
from rvos_edge.errors import UserError

_OPENVINOS = registry._openvinos
"""The real choice, which other tests do without (``tests/conftest.py``)."""


@pytest.fixture
def intel(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("openvino")
    monkeypatch.setattr(registry, "_openvinos", _OPENVINOS)
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return Bundle.open(write_tiny_bundle(tmp_path / "tiny"))


def _itself(backend: Backend) -> Backend:
    return backend


@pytest.mark.usefixtures("intel")
def test_openvino_is_taken_on_an_intel_cpu(bundle: Bundle) -> None:
    segmenter = rvos_edge.open(bundle.path, device="cpu")
    assert segmenter.backend_name.startswith("OpenVINO")
    assert segmenter.backend_reason == "cpu was asked for; on a CPU of this kind OpenVINO is the fastest"


def test_without_openvino_the_reason_says_what_is_missed(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "find_spec", lambda name: None if name == "openvino" else object())
    backend = open_best(bundle, _itself, device="cpu")
    assert backend.name == "ONNX Runtime (cpu)"
    assert backend.reason == "cpu was asked for; OpenVINO, which is often faster, is not installed"


def test_no_claim_is_made_for_cpus_that_were_not_measured(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    monkeypatch.setattr(registry, "find_spec", lambda name: object())
    assert open_best(bundle, _itself, device="cpu").reason == (
        "cpu was asked for; OpenVINO was not measured on this kind of CPU"
    )


@pytest.mark.usefixtures("intel")
def test_a_backend_that_fails_is_skipped_and_its_error_is_shown(bundle: Bundle) -> None:
    def load(backend: Backend) -> Backend:
        if backend.name.startswith("OpenVINO"):
            raise UserError("an operator is missing")
        return backend

    backend = open_best(bundle, load, device="cpu")
    assert backend.name == "ONNX Runtime (cpu)"
    assert "openvino cannot be used (an operator is missing)" in backend.reason
    with pytest.raises(UserError, match="an operator is missing"):
        open_best(bundle, load, device="cpu", backend="openvino")


@pytest.mark.usefixtures("intel")
@pytest.mark.parametrize("pays", [False, True])
def test_bfloat16_is_taken_where_the_bundle_allows_it_and_it_pays(
    bundle: Bundle, pays: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rvos_edge.engines.openvino.bfloat16_pays", lambda: pays)
    assert "openvino-bf16" not in available_backends(bundle)
    assert "bfloat16" not in open_best(bundle, _itself, device="cpu").name
    graphs = dict(bundle.manifest.graphs)
    graphs["aspp"] = graphs["aspp"].model_copy(update={"precision": "bfloat16"})
    narrow = Bundle(bundle.path, bundle.manifest.model_copy(update={"graphs": graphs}))
    assert "openvino-bf16" in available_backends(narrow)
    assert ("bfloat16" in open_best(narrow, _itself, device="cpu").name) is pays


def test_a_backend_that_was_asked_for_is_taken_or_refused(bundle: Bundle) -> None:
    assert rvos_edge.open(bundle.path, backend="onnxruntime").backend_name == "ONNX Runtime (cpu)"
    with pytest.raises(UserError, match="backend 'tpu' is unknown; use onnxruntime or openvino"):
        rvos_edge.open(bundle.path, backend="tpu")


@pytest.mark.usefixtures("intel")
def test_a_probe_that_fails_is_told_and_float32_is_taken(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """ONEDNN_MAX_CPU_ISA=AVX2 on a CPU that has bfloat16 fails like this."""

    def fail() -> bool:
        raise RuntimeError("Exception from src/inference/src/cpp/core.cpp:117:\nobject is not initialized\n\n")

    monkeypatch.setattr("rvos_edge.engines.openvino.bfloat16_pays", fail)
    graphs = dict(bundle.manifest.graphs)
    graphs["aspp"] = graphs["aspp"].model_copy(update={"precision": "bfloat16"})
    narrow = Bundle(bundle.path, bundle.manifest.model_copy(update={"graphs": graphs}))
    backend = open_best(narrow, _itself, device="cpu")
    assert backend.name.startswith("OpenVINO")
    assert backend.reason.endswith("; bfloat16 could not be tried (object is not initialized)")


@pytest.mark.usefixtures("intel")
def test_a_backend_for_which_memory_is_short_gives_way(bundle: Bundle) -> None:
    def load(backend: Backend) -> Backend:
        if backend.name.startswith("OpenVINO"):
            raise MemoryError
        return backend

    backend = open_best(bundle, load, device="cpu")
    assert backend.reason.startswith("openvino cannot be used (memory ran out) and cpu was asked for")


@pytest.mark.usefixtures("intel")
def test_a_broken_onnx_runtime_gives_way_to_openvino(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rvos_edge.engines.onnxruntime", None)
    backend = open_best(bundle, _itself)
    assert backend.name.startswith("OpenVINO")
    assert backend.reason.startswith("ONNX Runtime is installed and cannot be loaded (")
    with pytest.raises(UserError, match="ONNX Runtime is installed and cannot be loaded"):
        open_best(bundle, _itself, device="cuda")


@pytest.mark.usefixtures("intel")
def test_workers_settle_on_a_backend_that_can_be_loaded(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    assert settled_backend(bundle, "cpu") == "openvino"
    monkeypatch.setitem(sys.modules, "rvos_edge.engines.openvino", None)
    assert settled_backend(bundle, "cpu") == "onnxruntime"


@pytest.mark.parametrize(
    "error",
    [MemoryError(), RuntimeError("failed:std::bad_alloc"), RuntimeError("Failed to allocate memory for the buffer")],
)
def test_short_memory_is_no_fault_of_the_bundle(error: Exception) -> None:
    message = str(graph_error(Path("b/backbone.onnx"), "run", "OpenVINO", error))
    assert message.startswith("b/backbone.onnx cannot be run by OpenVINO: memory ran out")
    assert "export" not in message
    assert "export the bundle again" in str(graph_error(Path("x"), "run", "OpenVINO", RuntimeError("no operator")))
