"""A bundle proves itself on the machine where it runs: without PyTorch, against what was recorded at export."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.tiny_bundle import write_manifest, write_tiny_bundle, write_two_sizes
from support.tiny_reference import write_reference
from typer.testing import CliRunner

import rvos_edge
from rvos_edge.bundle import Bundle, sha256_of
from rvos_edge.cli import app
from rvos_edge.engines.onnxruntime import OnnxRuntimeBackend
from rvos_edge.errors import UserError
from rvos_edge.manifest import GraphSpec, ReferenceSpec
from rvos_edge.parity.record import load_reference, sample
from rvos_edge.parity.verify import check, difference, mask_iou, prove, tolerance
from rvos_edge.synthetic.camera import SyntheticCamera


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    write_tiny_bundle(tmp_path / "tiny")
    write_reference(tmp_path / "tiny")
    return tmp_path / "tiny"


def _cpu() -> OnnxRuntimeBackend:
    return OnnxRuntimeBackend(device="cpu", threads=1)


def _invoke(*arguments: object) -> Any:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "200"})


def test_a_backend_that_agrees_is_proven(tiny: Path) -> None:
    bundle = Bundle.open(tiny)
    proof = prove(bundle, load_reference(bundle), _cpu)
    check(bundle, proof)
    assert set(proof.graphs) == set(bundle.manifest.graphs)
    assert max(parity.relative_l2 for parity in proof.graphs.values()) < 1e-5
    assert min(parity.cosine for parity in proof.graphs.values()) > 0.999999
    assert proof.mask_iou == 1.0
    assert proof.frames == 3


def test_a_proof_of_float16_on_the_cpu_says_what_it_does_not_cover(tiny: Path) -> None:
    bundle = Bundle.open(tiny)
    reference = load_reference(bundle)
    assert prove(bundle, reference, _cpu).note == ""
    graphs = {n: s.model_copy(update={"precision": "float16"}) for n, s in bundle.manifest.graphs.items()}
    half = Bundle(bundle.path, bundle.manifest.model_copy(update={"graphs": graphs}))
    assert "runs float16 layers in float32" in prove(half, reference, _cpu).note


def test_a_graph_that_computes_something_else_is_named(tiny: Path) -> None:
    bundle = Bundle.open(tiny)
    reference = load_reference(bundle)
    wrong = {name: dict(tensors) for name, tensors in reference.outputs.items()}
    wrong["aspp"]["v4"] = wrong["aspp"]["v4"] * 1.1
    proof = prove(bundle, type(reference)(**{**vars(reference), "outputs": wrong}), _cpu)
    with pytest.raises(UserError, match=r"Graph 'aspp' on ONNX Runtime \(cpu\) differs from PyTorch by 0\.09"):
        check(bundle, proof)


def test_masks_that_differ_are_refused(tiny: Path) -> None:
    bundle = Bundle.open(tiny)
    reference = load_reference(bundle)
    proof = prove(bundle, type(reference)(**{**vars(reference), "masks": ~reference.masks}), _cpu)
    with pytest.raises(UserError, match=r"agree with PyTorch's only to 0\.000 IoU"):
        check(bundle, proof)


def test_masks_of_an_untrained_network_are_not_checked(tiny: Path) -> None:
    bundle = Bundle.open(tiny)
    untrained = Bundle(tiny, bundle.manifest.model_copy(update={"trained": False}))
    proof = prove(untrained, load_reference(untrained), _cpu)
    check(untrained, proof.model_copy(update={"mask_iou": 0.5}))
    bad = {name: parity.model_copy(update={"relative_l2": 0.5}) for name, parity in proof.graphs.items()}
    with pytest.raises(UserError, match=r"differs from PyTorch by 0\.5"):
        check(untrained, proof.model_copy(update={"graphs": bad}))
    write_manifest(tiny, untrained.manifest)
    assert "not trained, its masks mean nothing" in _invoke("inspect", tiny).output


def test_the_reference_comes_back_as_it_was_written(tiny: Path) -> None:
    bundle = Bundle.open(tiny)
    reference = load_reference(bundle)
    again = tiny / "again.npz"
    reference.save(again)
    assert again.stat().st_size == (tiny / "reference.npz").stat().st_size
    assert reference.queries == ("a dog", "the red ball")
    assert reference.masks.shape == (3, 2, 64, 96)
    assert reference.inputs["gating"]["flow"].shape == (1, 2, 64, 96)


def test_a_frame_that_graphs_read_is_written_once(tiny: Path) -> None:
    bundle, path = Bundle.open(tiny), tiny / "reference.npz"
    reference = load_reference(bundle)
    inputs = {name: dict(tensors) for name, tensors in reference.inputs.items()}
    before = path.stat().st_size
    for tensors in inputs.values():
        if "image" in tensors:
            tensors["image"] = reference.frames[1]
    type(reference)(**{**vars(reference), "inputs": inputs}).save(path)
    assert path.stat().st_size < before - 0.9 * reference.frames[1].size  # noise, which does not compress
    spec = ReferenceSpec(file=path.name, sha256=sha256_of(path))
    again = load_reference(Bundle(tiny, bundle.manifest.model_copy(update={"reference": spec})))
    np.testing.assert_array_equal(again.inputs["backbone"]["image"], reference.frames[1])


def test_a_frame_that_the_reference_has_not_is_refused(tiny: Path) -> None:
    bundle, path = Bundle.open(tiny), tiny / "reference.npz"
    with np.load(path) as file:
        arrays = dict(file)
    np.savez(path, allow_pickle=False, **{**arrays, "in/image": np.array(99)})
    spec = ReferenceSpec(file=path.name, sha256=sha256_of(path))
    with pytest.raises(UserError, match=r"reference\.npz cannot be read .*out of bounds"):
        load_reference(Bundle(tiny, bundle.manifest.model_copy(update={"reference": spec})))


@pytest.mark.parametrize("damage", ["cut", "gone", "other"])
def test_a_damaged_reference_is_named(tiny: Path, damage: str) -> None:
    path = tiny / "reference.npz"
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:500] if damage == "cut" else b"PK")
    with pytest.raises(UserError, match=r"reference"):
        load_reference(Bundle.open(tiny))


def test_differences_are_measured_in_three_ways() -> None:
    expected = np.array([3.0, 4.0, 0.0], np.float32)
    parity = difference(expected, np.array([3.0, 4.0, 0.5], np.float32))
    assert parity.max_abs == pytest.approx(0.5)
    assert parity.relative_l2 == pytest.approx(0.1)
    assert parity.cosine == pytest.approx(25 / (5 * np.sqrt(25.25)))
    assert difference(expected, expected).cosine == pytest.approx(1.0)
    assert difference(expected, -expected).cosine == pytest.approx(-1.0)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_values_that_are_not_finite_differ_infinitely(bad: float) -> None:
    parity = difference(np.ones(3, np.float32), np.array([1, 1, bad], np.float32))
    assert parity.relative_l2 == float("inf")


def test_a_sample_is_regular_and_bounded() -> None:
    assert sample(np.arange(10)).tolist() == list(range(10))
    large = sample(np.arange(100_000).reshape(10, -1))
    assert len(large) == 1 << 12
    assert (large[0], large[-1]) == (0, 99_999)
    assert np.diff(large).max() <= 25


def test_iou_counts_all_masks_together() -> None:
    full, half = np.ones((1, 2, 2), bool), np.array([[[True, True], [False, False]]])
    assert mask_iou([full, half], [full, full]) == pytest.approx(6 / 8)
    assert mask_iou([~full], [~full]) == 1.0


def test_tolerance_grows_with_what_was_rounded(tiny: Path) -> None:
    spec: GraphSpec = Bundle.open(tiny).manifest.graphs["aspp"]
    limits = [
        tolerance(spec.model_copy(update={"precision": precision, "weights": weights}))
        for precision, weights in (("float32", "float32"), ("float16", "float16"), ("float16", "int8"))
    ]
    assert limits == sorted(limits)
    assert limits[0] < 0.01 < limits[1] < 0.1 < limits[2]


def test_tensorfloat_32_has_the_tolerance_of_float16(tiny: Path) -> None:
    bundle = Bundle.open(tiny)

    def rounding() -> OnnxRuntimeBackend:
        backend = _cpu()
        backend.tf32 = True
        return backend

    proof = prove(bundle, load_reference(bundle), rounding)
    rounded = {name: parity.model_copy(update={"relative_l2": 4.5e-3}) for name, parity in proof.graphs.items()}
    check(bundle, proof.model_copy(update={"graphs": rounded}))
    with pytest.raises(UserError, match=r"by 0\.0045 \(relative L2\), more than 0\.001"):
        check(bundle, proof.model_copy(update={"graphs": rounded, "note": ""}))


def test_verify_writes_the_proof_into_the_manifest(tiny: Path) -> None:
    done = _invoke("verify", tiny, "--backend", "onnxruntime", "--no-write")
    assert done.exit_code == 0, done.output
    assert Bundle.open(tiny).manifest.proofs == {}
    done = _invoke("verify", tiny, "--backend", "onnxruntime")
    assert done.exit_code == 0, done.output
    assert "mask IoU 1.0000 over 3 frames: noise" in done.output
    assert list(Bundle.open(tiny).manifest.proofs) == ["onnxruntime"]


@pytest.mark.parametrize("presence", [False, True], ids=["", "of an absent query"])
def test_a_source_of_the_user_is_compared_with_onnx_runtime(tmp_path: Path, presence: bool) -> None:
    pytest.importorskip("openvino")
    tiny = write_tiny_bundle(tmp_path / "tiny", presence=presence)
    write_reference(tiny)
    with rvos_edge.open(tiny, threads=1) as segmenter:
        segmenter.set_queries(["a cat"])
        first = segmenter.step(SyntheticCamera(seed=3).render(0).image)
    assert first.present[0] == (not presence)
    done = _invoke(
        "verify", tiny, "--backend", "openvino", "--source", "synthetic:3", "--query", "a cat", "--frames", 4
    )
    assert done.exit_code == 0, done.output
    proof = Bundle.open(tiny).manifest.proofs["openvino"]
    assert proof.frames == 4
    assert proof.source.endswith("compared with ONNX Runtime")
    assert proof.mask_iou > 0.99


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--backend", "tpu"], "backend 'tpu' is unknown; use onnxruntime or openvino"),
        (["--query", "a dog"], "belong to --source"),
        (["--source", "nothing.mp4"], "nothing.mp4"),
    ],
)
def test_bad_options_get_a_sentence(tiny: Path, arguments: list[str], sentence: str) -> None:
    done = _invoke("verify", tiny, *arguments)
    assert done.exit_code == 2
    assert sentence in done.output
    assert Bundle.open(tiny).manifest.proofs == {}


def test_a_bundle_without_reference_says_so(tmp_path: Path) -> None:
    done = _invoke("verify", write_tiny_bundle(tmp_path / "tiny"))
    assert done.exit_code == 2
    assert "has no reference for 64x96" in done.output


def test_a_read_only_bundle_says_so(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(os, "replace", refuse)
    done = _invoke("verify", tiny, "--backend", "onnxruntime")
    assert done.exit_code == 2
    assert "Read-only file system" in done.output
    assert "--no-write" in done.output
    assert not list(tiny.glob(".*"))


def test_inspect_shows_graphs_and_proofs(tiny: Path) -> None:
    assert _invoke("verify", tiny, "--backend", "onnxruntime").exit_code == 0
    shown = _invoke("inspect", tiny).output
    for word in ("flow_step", "margin", "Qx16x24", "64x96", "relative L2", "noise"):
        assert word in shown
    document = json.loads(_invoke("inspect", tiny, "--json", "-").output)
    assert document["fingerprint"] == Bundle.open(tiny).fingerprint
    assert document["proofs"]["onnxruntime"]["mask_iou"] == 1.0
    assert document["file_bytes"]["aspp"] == (tiny / "aspp.onnx").stat().st_size


def test_another_size_of_a_bundle_can_be_opened(tmp_path: Path) -> None:
    small = write_two_sizes(tmp_path / "both")
    assert Bundle.open(small).manifest.size == (64, 96)
    bundle = Bundle.open(small, size=(96, 128))
    assert bundle.graph_path("gating").parent.name == "96x128"
    assert bundle.graph_path("text").parent == small
    assert rvos_edge.open(small, size=(96, 128), device="cpu").bundle.manifest.size == (96, 128)
    with pytest.raises(UserError, match="no graphs for 64x64; it was exported for 64x96, 96x128"):
        Bundle.open(small, size=(64, 64))
    (small / "96x128" / "aspp.onnx").write_bytes(b"")
    with pytest.raises(UserError, match="damaged"):
        Bundle.open(small, size=(96, 128))
