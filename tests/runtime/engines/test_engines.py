"""The board and ONNX Runtime behind the backend protocol."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from support.tiny_bundle import write_tiny_bundle

import rvos_edge
from rvos_edge.bundle import Bundle
from rvos_edge.engines.base import Backend
from rvos_edge.engines.onnxruntime import OnnxRuntimeBackend
from rvos_edge.errors import UserError
from rvos_edge.manifest import TensorSpec


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return Bundle.open(write_tiny_bundle(tmp_path_factory.mktemp("tiny")))


@pytest.fixture
def backend() -> OnnxRuntimeBackend:
    return OnnxRuntimeBackend(device="cpu", threads=1)


def _load(backend: OnnxRuntimeBackend, bundle: Bundle, name: str) -> Any:
    return backend.load(bundle.graph_path(name), bundle.manifest.graphs[name])


def _spec(name: str, *shape: int | str, dtype: Any = "float32") -> TensorSpec:
    return TensorSpec(name=name, dtype=dtype, shape=shape)


def test_a_slot_holds_what_was_written(backend: OnnxRuntimeBackend) -> None:
    board = backend.board
    board.declare(_spec("x", 2, 3))
    assert not board.read("x").any()
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    board.write("x", array)
    array[:] = 0  # written by copy
    assert board.read("x").ravel().tolist() == [0, 1, 2, 3, 4, 5]
    board.zero("x")
    assert not board.read("x").any()


def test_a_view_is_read_only(backend: OnnxRuntimeBackend) -> None:
    backend.board.declare(_spec("x", 2))
    with pytest.raises(ValueError, match="read-only"):
        backend.board.read("x")[0] = 1


def test_a_slot_refuses_other_shapes_and_kinds(backend: OnnxRuntimeBackend) -> None:
    board = backend.board
    board.declare(_spec("x", 2, 3))
    board.declare(_spec("n", 2, dtype="int64"))
    board.declare(_spec("half", 2, dtype="float16"))
    with pytest.raises(ValueError, match="'x' has shape"):
        board.write("x", np.zeros((1, 3), np.float32))
    with pytest.raises(TypeError):
        board.write("n", np.zeros(2, np.float32))
    board.write("half", np.full(2, 0.5, np.float32))
    assert board.read("half").tolist() == [0.5, 0.5]


def test_slots_swap_by_pointer(backend: OnnxRuntimeBackend) -> None:
    board = backend.board
    for name, value in (("now", 1), ("before", 2)):
        board.declare(_spec(name, 2))
        board.write(name, np.full(2, value, np.float32))
    addresses = board.address("now"), board.address("before")
    board.swap("now", "before")
    assert (board.address("before"), board.address("now")) == addresses
    assert board.read("before").tolist() == [1, 1]
    board.declare(_spec("other", 3))
    with pytest.raises(ValueError, match="cannot swap"):
        board.swap("now", "other")


def test_slots_are_copied_and_their_arrangement_is_restored(backend: OnnxRuntimeBackend) -> None:
    board = backend.board
    for name, value in (("start", 1), ("now", 2), ("next", 3)):
        board.declare(_spec(name, 2))
        board.write(name, np.full(2, value, np.float32))
    arrangement = board.arrangement()
    board.copy("start", "now")
    board.swap("now", "next")
    assert [board.read(name)[0] for name in ("start", "now", "next")] == [1, 3, 1]
    board.arrange(arrangement)
    assert [board.read(name)[0] for name in ("start", "now", "next")] == [1, 1, 3]


def test_resize_reallocates_only_what_uses_the_symbol(backend: OnnxRuntimeBackend) -> None:
    board = backend.board
    board.declare(_spec("margin", "Q", 4))
    board.declare(_spec("image", 4))
    fixed = board.address("image")
    assert board.shape("margin") == (1, 4)
    board.resize("Q", 3)
    assert board.shape("margin") == (3, 4)
    assert board.address("image") == fixed
    before = board.address("margin")
    board.resize("Q", 3)
    assert board.address("margin") == before
    board.declare(_spec("lang", "Q", 2))  # declared later, same extent
    assert board.shape("lang") == (3, 2)


def test_a_slot_cannot_be_declared_differently(backend: OnnxRuntimeBackend) -> None:
    backend.board.declare(_spec("x", 2))
    backend.board.declare(_spec("x", 2))
    with pytest.raises(ValueError, match="'x'"):
        backend.board.declare(_spec("x", 3))


def test_a_graph_follows_swapped_buffers(backend: OnnxRuntimeBackend, bundle: Bundle) -> None:
    protocol: Backend = backend
    assert "cpu" in protocol.name
    step, board = _load(backend, bundle, "flow_step"), backend.board
    rng = np.random.default_rng(0)
    for name in ("coords", "hidden", "context", "corr0", "corr1"):
        board.write(name, rng.normal(size=board.shape(name)).astype(np.float32))
    session = ort.InferenceSession(str(bundle.graph_path("flow_step")), providers=["CPUExecutionProvider"])
    expected = {spec.name: board.read(spec.name).copy() for spec in step.inputs}
    addresses = {board.address(name) for name in ("coords", "coords_next", "hidden", "hidden_next")}
    for _ in range(5):
        step.run()
        board.swap("coords", "coords_next")
        board.swap("hidden", "hidden_next")
        expected["hidden"], expected["coords"] = session.run(["hidden_next", "coords_next"], expected)
        np.testing.assert_allclose(board.read("coords"), expected["coords"], rtol=1e-6)
        np.testing.assert_allclose(board.read("hidden"), expected["hidden"], rtol=1e-6)
    assert {board.address(name) for name in ("coords", "coords_next", "hidden", "hidden_next")} == addresses
    assert len(step._bindings) == 2  # one per side of the ping-pong


def test_bindings_of_freed_buffers_are_forgotten(backend: OnnxRuntimeBackend, bundle: Bundle) -> None:
    gating = _load(backend, bundle, "gating")
    for count in (1, 2, 5, 3, 1, 4):
        backend.board.resize("Q", count)
        gating.run()
        assert backend.board.read("margin").shape == (count, 16, 24)
        assert len(gating._bindings) == 1


def test_the_text_graph_takes_any_length(backend: OnnxRuntimeBackend, bundle: Bundle) -> None:
    text = backend.load_host(bundle.graph_path("text"), bundle.manifest.graphs["text"])
    for length in (3, 9):
        ids = np.ones((1, length), np.int64)
        outputs = text.run({"input_ids": ids, "attention_mask": ids})
        assert [outputs[f"lang{i}"].shape for i in range(1, 5)] == [(1, 4), (1, 4), (1, 4), (1, 6)]


def test_a_corrupt_graph_is_named(backend: OnnxRuntimeBackend, bundle: Bundle, tmp_path: Path) -> None:
    path = tmp_path / "aspp.onnx"
    path.write_bytes(bundle.graph_path("aspp").read_bytes()[:100])
    with pytest.raises(UserError, match=r"aspp\.onnx cannot be loaded"):
        backend.load(path, bundle.manifest.graphs["aspp"])


def test_a_graph_must_be_what_the_manifest_says(backend: OnnxRuntimeBackend, bundle: Bundle) -> None:
    path, spec = bundle.graph_path("aspp"), bundle.manifest.graphs["aspp"]
    with pytest.raises(UserError, match=r"aspp\.onnx has the inputs \['c5'\]"):
        backend.load(path, bundle.manifest.graphs["backbone"])
    wrong = spec.model_copy(update={"outputs": (_spec("v4", 1, 7, 8, 12),)})
    with pytest.raises(UserError, match="output 'v4' is float32"):
        backend.load(path, wrong)


def test_the_device_is_chosen_with_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    assert OnnxRuntimeBackend(device="cpu").reason == "cpu was asked for"
    with pytest.raises(UserError, match="'npu' is unknown"):
        OnnxRuntimeBackend(device="npu")
    with pytest.raises(UserError, match="threads"):
        OnnxRuntimeBackend(threads=0)
    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CPUExecutionProvider"])
    automatic = OnnxRuntimeBackend(device="auto")
    assert automatic.name == "ONNX Runtime (cpu)"
    assert "no CUDA" in automatic.reason
    with pytest.raises(UserError, match="install onnxruntime-gpu"):
        OnnxRuntimeBackend(device="cuda")


@pytest.fixture
def half_a_gpu(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """ONNX Runtime for CUDA on a machine that lacks cuDNN: there is device memory, and no session can be opened."""
    devices: list[int] = []
    real = ort.InferenceSession

    def memory(shape: Any, dtype: Any, kind: str, index: int) -> None:
        devices.append(index)
        if index > 1:
            raise RuntimeError("invalid device ordinal")

    def session(path: str, options: Any, providers: list[Any], enable_fallback: int = 1) -> Any:
        if providers[0] == "CPUExecutionProvider":
            return real(path, options, providers=providers)
        assert enable_fallback == 0, "the error would be printed, and a session on the CPU be returned"
        raise RuntimeError(f"{providers[0][1]}: libcudnn.so.9: cannot open shared object file")

    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"])
    monkeypatch.setattr(ort, "preload_dlls", lambda: print("Failed to load libcufft.so.11"))
    monkeypatch.setattr(ort.OrtValue, "ortvalue_from_shape_and_type", memory)
    monkeypatch.setattr(ort, "InferenceSession", session)
    return devices


def test_half_a_gpu_gives_way_to_the_cpu_and_keeps_the_reason(
    bundle: Bundle, half_a_gpu: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    segmenter = rvos_edge.open(bundle.path)
    assert "cuda" not in segmenter.backend_name
    assert "onnxruntime cannot be used (" in segmenter.backend_reason
    assert "{'device_id': 0}: libcudnn.so.9: cannot open shared object file" in segmenter.backend_reason
    with pytest.raises(UserError, match=r"device_id': 1}: libcudnn\.so\.9"):
        rvos_edge.open(bundle.path, device="cuda:1")
    with pytest.raises(UserError, match=r"finds no CUDA device \(invalid device ordinal\)"):
        rvos_edge.open(bundle.path, device="cuda:2")
    assert half_a_gpu[0] == 0
    assert capsys.readouterr().out == ""


def test_a_gpu_may_round_to_tf32_unless_it_is_told_not_to(
    half_a_gpu: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not OnnxRuntimeBackend(device="cpu").tf32
    assert OnnxRuntimeBackend(device="cuda").tf32
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "0")
    assert not OnnxRuntimeBackend(device="cuda").tf32
