"""Convolutions in eight bits: symmetric, only where the policy allows it and the masks stay."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from rich.console import Console
from support.layouts import write_davis16
from support.tiny_checkpoint import write_checkpoint

from rvos_edge.bundle import Bundle
from rvos_edge.engines.registry import open_backend
from rvos_edge.errors import UserError
from rvos_edge.export import int8
from rvos_edge.export.int8 import Clip, Layer, calibrate, quantise, read_clips
from rvos_edge.export.package import ExportOptions, export_bundle
from rvos_edge.export.precision import POLICY
from rvos_edge.export.weights import store_weights, widen_weights
from rvos_edge.parity.record import load_reference
from rvos_edge.parity.verify import check, prove
from rvos_edge.synthetic.camera import SyntheticCamera

QUIET = Console(quiet=True)


@pytest.fixture(scope="module")
def clips() -> list[Clip]:
    frames = [frame.image for frame, _ in zip(SyntheticCamera(seed=1, size=(64, 96)), range(8), strict=False)]
    return [Clip(frames[start : start + 2], ["a red ball"]) for start in range(0, 8, 2)]


def _values(model: onnx.ModelProto) -> dict[str, Any]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def test_quantisation_is_that_of_tensorrt(tiny: Path, clips: list[Clip], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(int8, "LEAST_IOU", 0.0)
    outcome = quantise(Bundle.open(tiny), clips, "camera", QUIET)
    assert set(outcome.graphs) == {"backbone", "aspp"}, "positions and margins stay wide"
    for name, model in outcome.graphs.items():
        assert POLICY[name].int8 is not None
        values = _values(model)
        made = {node.output[0]: node for node in model.graph.node}
        assert all(not values[node.input[2]].any() for node in model.graph.node if node.op_type == "QuantizeLinear")
        for conv in (node for node in model.graph.node if node.op_type == "Conv"):
            seen, weight = made[conv.input[0]], made[conv.input[1]]
            assert {seen.op_type, weight.op_type} == {"DequantizeLinear"}
            assert values[seen.input[1]].shape == ()
            kernel, scale = (values[tensor] for tensor in weight.input[:2])
            assert kernel.dtype == np.int8
            assert scale.shape == kernel.shape[:1], "a scale for every output channel"
    assert outcome.proof.mask_iou is not None
    assert outcome.proof.mask_iou > 0.9
    assert (outcome.proof.frames, outcome.proof.source, outcome.proof.j) == (2, "camera", None)


def test_a_convolution_of_a_concatenation_stays_wide() -> None:
    shape = [1, 1, 2, 2]
    x, y = (helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name in "xy")
    kernels = [numpy_helper.from_array(np.ones((1, seen, 1, 1), np.float32), f"kernel{seen}") for seen in (1, 2)]
    nodes = [
        helper.make_node("Conv", ["x", "kernel1"], ["plain"], "first"),
        helper.make_node("Concat", ["x", "plain"], ["joined"], axis=1),
        helper.make_node("Relu", ["joined"], ["positive"]),
        helper.make_node("Conv", ["positive", "kernel2"], ["y"], "second"),
    ]
    graph = helper.make_graph(nodes, "aspp", [x], [y], kernels)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    part = calibrate("aspp", model, [{"x": np.ones(shape, np.float32)}])
    assert part.layers == ("first",), "OpenVINO would compute something else"


def test_the_layer_that_costs_the_masks_is_left_out(
    tiny: Path, clips: list[Clip], monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = int8._Trial.masks

    def worse(trial: int8._Trial, kept: Sequence[Layer], clips: Sequence[Clip]) -> int8.Masks:
        masks = honest(trial, [], clips)
        return [~mask for mask in masks] if any(name == "aspp" for name, _ in kept) else masks

    monkeypatch.setattr(int8._Trial, "masks", worse)
    outcome = quantise(Bundle.open(tiny), clips, "camera", QUIET)
    assert set(outcome.graphs) == {"backbone"}
    assert "left out: aspp/" in outcome.proof.note
    assert outcome.proof.mask_iou == 1


def test_the_proof_is_on_clips_that_the_search_has_not_seen(
    tiny: Path, clips: list[Clip], monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = int8._Trial.masks

    def worse(trial: int8._Trial, kept: Sequence[Layer], seen: Sequence[Clip]) -> int8.Masks:
        masks = honest(trial, [], seen)
        return [~mask for mask in masks] if kept and seen[0] is clips[2] else masks

    monkeypatch.setattr(int8._Trial, "masks", worse)
    with pytest.raises(
        UserError, match=r"with \d of \d layers .* only to 0\.000 IoU .* on camera; calibrate on frames"
    ):
        quantise(Bundle.open(tiny), clips, "camera", QUIET)


def test_masks_that_no_layer_leaves_as_they_are_end_it(
    tiny: Path, clips: list[Clip], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(int8, "LEAST_IOU", 1.1)
    with pytest.raises(UserError, match=r"with 0 of \d layers in eight bits the masks agree only to 1\.000 IoU"):
        quantise(Bundle.open(tiny), clips, "camera", QUIET)


def test_true_masks_give_j(tiny: Path, clips: list[Clip], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(int8, "LEAST_IOU", 0.0)
    everything = [Clip(clip.frames, clip.queries, [np.ones((1, 64, 96), np.bool_)] * 2) for clip in clips]
    proof = quantise(Bundle.open(tiny), everything, "camera", QUIET).proof
    assert proof.j is not None
    assert proof.j_before is not None
    assert 0 < proof.j < 1
    assert abs(proof.j - proof.j_before) <= int8.MOST_J


def test_clips_are_read_of_a_data_set_with_its_sentences_and_masks(tmp_path: Path) -> None:
    root = write_davis16(tmp_path, {"bear": ["a bear", "it"], "camel": ["a camel"], "dog": ["a dog"]}, frames=6)
    first, second, third = read_clips(root, ["not asked"])
    assert (len(first.frames), first.queries, second.queries, third.queries) == (3, ["a bear"], ["a camel"], ["a dog"])
    assert [mask.shape for mask in first.truth] == [(1, *first.frames[0].shape[:2])] * 3


def test_clips_are_read_of_a_folder_of_pictures(tmp_path: Path) -> None:
    for index in range(17):
        cv2.imwrite(str(tmp_path / f"{index:05d}.png"), np.full((8, 8, 3), index, np.uint8))
    read = read_clips(tmp_path, ["a dog"])
    assert [[int(frame[0, 0, 0]) for frame in clip.frames] for clip in read] == [[0, 1, 2, 3], [8, 9, 10, 11], [16]]
    (tmp_path / "00016.png").unlink()
    with pytest.raises(UserError, match="has too few frames; give a video of at least 17 frames"):
        read_clips(tmp_path, ["a dog"])


def test_stored_weights_are_widened_to_their_names(tiny: Path) -> None:
    model = onnx.load(str(tiny / "text.onnx"))
    before = _values(model)
    monkeypatched = pytest.MonkeyPatch()
    with monkeypatched.context() as patch:
        patch.setattr("rvos_edge.export.weights._SMALLEST", 1)
        store_weights(model, "float16")
    assert {value.dtype for value in _values(model).values() if value.dtype.kind == "f"} == {np.dtype("float16")}
    widen_weights(model)
    after = _values(model)
    assert set(after) == set(before)
    for name, value in before.items():
        np.testing.assert_allclose(after[name], value, atol=2e-3)


@pytest.mark.slow
def test_an_exported_bundle_says_what_is_quantised_and_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The network is not trained: its masks are noise.
    monkeypatch.setattr(int8, "LEAST_IOU", 0.0)
    monkeypatch.setattr("rvos_edge.parity.verify.LEAST_IOU_NARROW", 0.0)
    frames = tmp_path / "frames"
    frames.mkdir()
    for frame, index in zip(SyntheticCamera(seed=1, size=(64, 96)), range(18), strict=False):
        cv2.imwrite(str(frames / f"{index:05d}.png"), frame.image)
    options = ExportOptions(precision="float16", calibrate=frames)
    path = export_bundle(
        write_checkpoint(tmp_path / "checkpoint", alike=False, flow="none"), tmp_path / "bundle", options
    )
    bundle = Bundle.open(path)
    assert [name for name, spec in bundle.manifest.graphs.items() if spec.precision == "int8"] == [
        "backbone",
        "aspp",
        "gating",
    ]
    assert {proof.source for proof in bundle.manifest.proofs.values()} == {"frames"}, "not the synthetic camera"
    for backend in ("onnxruntime", "openvino"):
        check(bundle, prove(bundle, load_reference(bundle), lambda name=backend: open_backend(name, device="cpu")))
