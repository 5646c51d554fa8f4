"""OpenVINO behind the backend protocol gives what ONNX Runtime gives."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from support.tiny_bundle import write_tiny_bundle

from rvos_edge.bundle import Bundle, shipped_bundle
from rvos_edge.engines.base import Backend
from rvos_edge.engines.onnxruntime import OnnxRuntimeBackend
from rvos_edge.engines.registry import open_backend
from rvos_edge.errors import UserError
from rvos_edge.segmenter import Segmenter
from rvos_edge.synthetic.camera import SyntheticCamera

pytest.importorskip("openvino")

import openvino as ov

from rvos_edge.engines import openvino, openvino_cache
from rvos_edge.engines.openvino import OpenVinoBackend, bfloat16_pays


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return Bundle.open(write_tiny_bundle(tmp_path_factory.mktemp("tiny")))


def test_a_video_with_changing_queries_gives_the_same_margins(bundle: Bundle) -> None:
    backends: tuple[Backend, ...] = (OpenVinoBackend(threads=1), OnnxRuntimeBackend(device="cpu", threads=1))
    ours, theirs = (Segmenter(bundle=bundle, backend=backend) for backend in backends)
    camera = SyntheticCamera(seed=2, size=(64, 96))
    for index, frame in zip(range(8), camera, strict=False):
        if index % 3 == 0:
            for segmenter in (ours, theirs):
                segmenter.set_queries(["a dog", "the red ball", "a cat"][: 1 + index // 3])
        got, expected = ours.step(frame.image), theirs.step(frame.image)
        np.testing.assert_allclose(got.margins, expected.margins, atol=1e-3)
        assert got.flow_used == expected.flow_used


def test_states_swap_without_a_copy(bundle: Bundle) -> None:
    backend = OpenVinoBackend(threads=1)
    step = backend.load(bundle.graph_path("flow_step"), bundle.manifest.graphs["flow_step"])
    board = backend.board
    addresses = [board.address(name) for name in ("coords", "coords_next")]
    step.run()
    before = board.read("coords_next").copy()
    board.swap("coords", "coords_next")
    assert [board.address(name) for name in ("coords_next", "coords")] == addresses
    np.testing.assert_array_equal(board.read("coords"), before)


def test_a_file_that_cannot_be_loaded_is_named(bundle: Bundle, tmp_path: Path) -> None:
    path = tmp_path / "aspp.onnx"
    path.write_bytes(bundle.graph_path("aspp").read_bytes()[:100])
    aspp, backbone = (bundle.manifest.graphs[name].model_copy(update={"sha256": ""}) for name in ("aspp", "backbone"))
    with pytest.raises(UserError, match=r"aspp\.onnx cannot be loaded by OpenVINO"):
        OpenVinoBackend().load(path, aspp)
    with pytest.raises(UserError, match="has no tensor 'image'"):
        OpenVinoBackend().load(bundle.graph_path("aspp"), backbone)


def test_it_runs_on_the_cpu_only() -> None:
    assert "OpenVINO" in open_backend("openvino").name
    with pytest.raises(UserError, match="cannot use device 'cuda'"):
        open_backend("openvino", device="cuda")
    with pytest.raises(UserError, match="threads"):
        OpenVinoBackend(threads=0)


@pytest.mark.parametrize("again", [False, True])
def test_a_few_threads_are_not_tied_to_cores(bundle: Bundle, again: bool) -> None:
    """Two processes of one thread each would share the first core, also where the graph is read and not compiled."""
    compiled = OpenVinoBackend(threads=1)._compile(bundle.graph_path("aspp"), bundle.manifest.graphs["aspp"])
    assert (compiled.get_property("INFERENCE_NUM_THREADS"), compiled.get_property("ENABLE_CPU_PINNING")) == (1, False)


def test_bfloat16_is_for_the_graphs_that_allow_it(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(openvino._HINTS, "bfloat16", "bf16")
    graphs = bundle.manifest.graphs
    asked: dict[tuple[bool, str], str] = {}
    compile_model = ov.Core.compile_model

    def noted(core: Any, path: str, device: str, options: dict[str, Any]) -> Any:
        asked[bfloat16, Path(path).stem] = options["INFERENCE_PRECISION_HINT"]
        return compile_model(core, path, device, {**options, "INFERENCE_PRECISION_HINT": "f32"})  # on every CPU

    monkeypatch.setattr(ov.Core, "compile_model", noted)
    for bfloat16 in (False, True):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / str(bfloat16)))  # nothing is compiled yet
        backend = OpenVinoBackend(threads=1, bfloat16=bfloat16)
        for name, precision in (("backbone", "bfloat16"), ("flow_step", "float32")):
            backend.load(bundle.graph_path(name), graphs[name].model_copy(update={"precision": precision}))
    assert asked == {
        (False, "backbone"): "f32",
        (False, "flow_step"): "f32",
        (True, "backbone"): "bf16",
        (True, "flow_step"): "f32",
    }


def test_sentences_are_not_rounded_to_eight_bits() -> None:
    """The text graph's weights are of eight bits; what they are multiplied with must not be."""
    bundle = Bundle.open(shipped_bundle())
    spec, path = bundle.manifest.graphs["text"], bundle.graph_path("text")
    inputs = {tensor.name: np.ones((1, 6), np.int64) * (tensor.name == "attention_mask") for tensor in spec.inputs}
    inputs["input_ids"] += np.arange(100, 106)
    expected = OnnxRuntimeBackend().load_host(path, spec).run(inputs)
    for name, vector in OpenVinoBackend().load_host(path, spec).run(inputs).items():
        assert np.linalg.norm(vector - expected[name]) < 1e-4 * np.linalg.norm(expected[name])


def test_a_cpu_without_bfloat16_is_not_asked_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert bfloat16_pays() in (False, True)
    compiled = []
    monkeypatch.setattr(ov.Core, "get_property", lambda *_: ["FP32", "INT8"])
    monkeypatch.setattr(ov.Core, "compile_model", lambda *_: compiled.append(1))
    assert not bfloat16_pays()
    assert not compiled


@pytest.mark.parametrize(("has", "said"), [(True, "bfloat16"), (False, "float32 in place of bfloat16")])
def test_a_name_says_what_the_cpu_computes_in(has: bool, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ov.Core, "get_property", lambda *_: ["FP32", *(["BF16"] if has else [])])
    assert OpenVinoBackend(bfloat16=True).name.endswith(f"(cpu, {said})")
    assert OpenVinoBackend().name.endswith("(cpu)")


def test_the_measurement_of_bfloat16_is_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [True, False]
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(ov.Core, "get_property", lambda _, device, name: {"FULL_DEVICE_NAME": "x"}.get(name, ["BF16"]))
    monkeypatch.setattr("rvos_edge.engines.openvino._is_faster_in_bfloat16", lambda core: answers.pop(0))
    assert bfloat16_pays()
    assert bfloat16_pays(), "measured once"
    (tmp_path / "rvos-edge" / "bfloat16").write_text("another CPU OpenVINO 2025 yes\n")
    assert not bfloat16_pays()
    assert not answers


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of compiled graphs, an empty one."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "rvos-edge" / "openvino"


def _margins(bundle: Bundle) -> NDArray[np.float32]:
    segmenter = Segmenter(bundle=bundle, backend=OpenVinoBackend(threads=1))
    segmenter.set_queries(["a dog", "the red ball"])
    camera = SyntheticCamera(seed=2, size=(64, 96))
    return np.stack([segmenter.step(frame.image).margins for frame, _ in zip(camera, range(3), strict=False)])


def test_a_graph_is_compiled_once(bundle: Bundle, kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = _margins(bundle)
    assert len(list(kept.iterdir())) == len(bundle.manifest.graphs)
    monkeypatch.delattr(ov.Core, "compile_model")
    np.testing.assert_array_equal(_margins(bundle), expected)


@pytest.mark.parametrize("damage", [lambda content: content[:-1], lambda content: b"", lambda content: content[::-1]])
def test_a_damaged_graph_is_compiled_again(bundle: Bundle, kept: Path, damage: Callable[[bytes], bytes]) -> None:
    expected = _margins(bundle)
    for file in kept.iterdir():
        file.write_bytes(damage(file.read_bytes()))
    np.testing.assert_array_equal(_margins(bundle), expected)
    assert all(openvino_cache._read(file) for file in kept.iterdir())


def test_a_folder_that_cannot_be_written_keeps_nothing(bundle: Bundle, kept: Path) -> None:
    kept.parent.mkdir()
    kept.write_text("a file where the folder would be")
    assert _margins(bundle).shape[:2] == (3, 2)


def test_the_graphs_used_longest_ago_go_first(bundle: Bundle, kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openvino_cache, "_MOST", 2)
    backend, graphs = OpenVinoBackend(threads=1), bundle.manifest.graphs
    for age, name in enumerate(("backbone", "aspp", "gating")):
        backend.load(bundle.graph_path(name), graphs[name])
        newest = max(kept.iterdir(), key=lambda file: file.stat().st_ctime_ns)
        os.utime(newest, (age, age))
    assert sorted(file.stat().st_mtime for file in kept.iterdir()) == [1, 2]


@pytest.mark.slow
@pytest.mark.skipif(
    "BF16" not in ov.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"), reason="this CPU has no bfloat16"
)
def test_masks_in_bfloat16_are_those_of_pytorch(tmp_path: Path) -> None:
    copy = shutil.copytree(shipped_bundle(), tmp_path / "bundle")
    command = [sys.executable, "-m", "rvos_edge.cli", "verify", str(copy), "--backend", "openvino-bf16"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    proof = Bundle.open(copy).manifest.proofs["openvino-bf16"]
    assert proof.graphs["aspp"].relative_l2 > 1e-4  # float32 is closer


TWO_THAT_END_IN_ORDER = """
import gc, signal, sys
import rvos_edge
seen = []
signal.signal(signal.SIGINT, lambda number, frame: seen.append(number))
first, second = (rvos_edge.open(sys.argv[1], backend="openvino", runtime=sys.argv[2]) for _ in range(2))
del first
gc.collect()
del second
gc.collect()
signal.raise_signal(signal.SIGINT)
assert seen == [signal.SIGINT]
"""


@pytest.mark.parametrize("runtime", ["python", "cpp"])
def test_signals_arrive_after_two_backends_were_freed(runtime: str, bundle: Bundle, tmp_path: Path) -> None:
    """OpenVINO leaves a thread with a stack for signals that is gone, unless it is kept from it."""
    if runtime == "cpp":
        pytest.importorskip("rvos_edge_cpp")
    command = [sys.executable, "-X", "faulthandler", "-c", TWO_THAT_END_IN_ORDER, str(bundle.path), runtime]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
