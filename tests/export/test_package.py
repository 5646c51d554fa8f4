"""A checkpoint becomes a bundle that the runtime runs like PyTorch, or nothing at all."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from support.tiny_checkpoint import write_checkpoint
from typer.testing import CliRunner

import rvos_edge
from rvos_edge.bundle import Bundle, shipped_bundle
from rvos_edge.cli import app
from rvos_edge.engines.onnxruntime import OnnxRuntimeBackend
from rvos_edge.errors import UserError
from rvos_edge.export import package
from rvos_edge.export.package import ExportOptions, export_bundle
from rvos_edge.export.precision import arithmetic
from rvos_edge.export.reference import read_clip
from rvos_edge.manifest import Parity, Proof
from rvos_edge.parity.verify import LEAST_IOU, tolerance
from rvos_edge.segmenter import Segmenter
from rvos_edge.synthetic.camera import SyntheticCamera
from rvos_edge.trainer.checkpoint import Checkpoint, load_checkpoint
from rvos_edge.trainer.model.backbone import NarrowResNet
from rvos_edge.trainer.predictor import TorchSegmenter

GRAPHS = ["text", "backbone", "aspp", "flow_encode", "flow_context", "flow_step", "flow_up", "gating"]
WITHOUT_FLOW = ["text", "backbone", "aspp", "gating"]


@pytest.mark.slow
def test_the_bundle_holds_the_eight_graphs_at_opset_18(bundle: Path) -> None:
    opened = Bundle.open(bundle)
    assert list(opened.manifest.graphs) == GRAPHS
    for name in GRAPHS:
        model = onnx.load(str(opened.graph_path(name)))
        assert [(item.domain, item.version) for item in model.opset_import] == [("", 18)]
        assert "GridSample" not in {node.op_type for node in model.graph.node}


@pytest.mark.slow
def test_the_files_say_what_they_are(bundle: Path) -> None:
    opened = Bundle.open(bundle)
    assert "blue, green, red" in str(opened.manifest.network["image"])
    for name in GRAPHS:
        model = onnx.load(str(opened.graph_path(name)))
        assert (model.producer_name, model.graph.name) == ("rvos-edge", name)
        assert model.doc_string
        facts = {item.key: item.value for item in model.metadata_props}
        assert facts == {"name": "tested", "preset": "test", "licence": "not stated"}
        names = [node.name for node in model.graph.node]
        assert all(names)
        assert len(set(names)) == len(names)
        told = {value.name: value.doc_string for value in model.graph.input}
        assert "applied inside the graphs" in told.get("image", "applied inside the graphs")


def test_the_shipped_manifest_has_the_shapes_of_its_files() -> None:
    shipped = Bundle.open(shipped_bundle())
    assert {tensor.shape for tensor in shipped.manifest.graphs["text"].inputs} == {("Q", "L")}
    for name, spec in shipped.manifest.graphs.items():
        graph = onnx.load(str(shipped.graph_path(name))).graph
        for said, found in ((spec.inputs, graph.input), (spec.outputs, graph.output)):
            shapes = {value.name: value.type.tensor_type.shape.dim for value in found}
            assert {tensor.name: tensor.shape for tensor in said} == {
                key: tuple(dim.dim_param or dim.dim_value for dim in dims) for key, dims in shapes.items()
            }


@pytest.mark.slow
def test_text_takes_a_batch_as_the_manifest_says(bundle: Path) -> None:
    opened = Bundle.open(bundle)
    text = opened.manifest.graphs["text"]
    assert {tensor.shape for tensor in text.inputs} == {("Q", "L")}
    session = onnxruntime.InferenceSession(str(opened.graph_path("text")), providers=["CPUExecutionProvider"])
    assert [value.shape for value in session.get_inputs()] == [["Q", "L"]] * 2
    ids = np.array([[101, 5, 102, 0], [101, 7, 8, 102], [101, 9, 102, 0]])
    mask = (ids > 0).astype(np.int64)
    together = session.run(None, {"input_ids": ids, "attention_mask": mask})
    for row, length in enumerate(mask.sum(axis=1)):
        alone = {"input_ids": ids[row : row + 1, :length], "attention_mask": mask[row : row + 1, :length]}
        for many, one in zip(together, session.run(None, alone), strict=True):
            np.testing.assert_allclose(many[row], one[0], rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_the_manifest_proves_every_graph(bundle: Path) -> None:
    manifest = Bundle.open(bundle).manifest
    proof = manifest.proofs["onnxruntime"]
    for name, graph in manifest.graphs.items():
        assert proof.graphs[name].relative_l2 <= tolerance(graph), name
        assert proof.graphs[name].cosine > 0.999
        assert graph.weight_bytes > 0
    assert proof.mask_iou is not None
    assert proof.mask_iou >= LEAST_IOU
    assert manifest.network["frame_flops"] > 10_000_000
    assert manifest.name == "tested"


@pytest.mark.slow
def test_the_runtime_gives_the_masks_of_pytorch(bundle: Path, checkpoint: Path) -> None:
    queries = ["the red ball", "a dog", "the large star on the left"]
    ours = rvos_edge.open(bundle, device="cpu")
    theirs = TorchSegmenter(load_checkpoint(checkpoint))
    ours.set_queries(queries)
    theirs.set_queries(queries)
    for frame in itertools.islice(SyntheticCamera(seed=7, size=(90, 160)), 6):
        result = ours.step(frame.image)
        margins = theirs.margins(frame.image).numpy()
        assert result.margins.shape == margins.shape
        assert np.abs(result.margins - margins).max() < 2e-2 * np.abs(margins).max()
        assert result.masks.shape == (3, 90, 160)
    assert result.flow_used


@pytest.mark.parametrize(
    ("fusion", "flow", "graphs"),
    [("single", "none", WITHOUT_FLOW), ("hierarchical", "gate", GRAPHS)],
)
@pytest.mark.slow
def test_ablations_export_too(fusion: str, flow: str, graphs: list[str], tmp_path: Path) -> None:
    checkpoint = write_checkpoint(tmp_path / "checkpoint", fusion=fusion, flow=flow)
    bundle = export_bundle(checkpoint, tmp_path / "bundle")
    assert list(Bundle.open(bundle).manifest.graphs) == graphs
    if fusion == "single":  # answers so coarsely that the last windows of the refinement see odd sizes
        guided = export_bundle(checkpoint, tmp_path / "guided", ExportOptions(boundary="guided", sizes=[(96, 160)]))
        assert list(Bundle.open(guided).manifest.graphs) == [*graphs, "boundary"]


@pytest.mark.slow
def test_backbone_and_aspp_can_be_one_graph(checkpoint: Path, bundle: Path, tmp_path: Path) -> None:
    fused = export_bundle(checkpoint, tmp_path / "bundle", ExportOptions(fuse=True))
    assert list(Bundle.open(fused).manifest.graphs) == ["text", "vision", *GRAPHS[3:]]
    one, two = (rvos_edge.open(path, device="cpu", backend="onnxruntime") for path in (fused, bundle))
    for frame in itertools.islice(SyntheticCamera(seed=7, size=(90, 160)), 3):
        margins = []
        for segmenter in (one, two):
            segmenter.set_queries(["a dog"])
            result = segmenter.step(frame.image)
            margins.append(result.margins)
        np.testing.assert_allclose(*margins, atol=1e-3)
    assert list(one.step(frame.image).timings)[:3] == ["preprocess", "vision", "flow_encode"]


@pytest.mark.slow
def test_the_flow_may_be_computed_at_another_scale(checkpoint: Path, bundle: Path, tmp_path: Path) -> None:
    """The graphs are proven against PyTorch at that scale; gating reads a field of the size that it knows."""
    done = _invoke("export", checkpoint, "--output", tmp_path / "half", "--flow-scale", 2, "--size", "128x192")
    assert done.exit_code == 0, done.output
    half, full = Bundle.open(tmp_path / "half").manifest, Bundle.open(bundle).manifest
    assert half.flow is not None
    assert full.flow is not None
    assert (half.flow.scale, full.flow.scale) == (2, 1)
    shapes = {tensor.name: tensor.shape for graph in half.graphs.values() for tensor in graph.outputs}
    assert shapes["fmap"][2:] == (8, 12)
    assert shapes["flow"] == (1, 2, 128, 192)


@pytest.mark.parametrize("arguments", [("--fp16",), ("--bf16", "--fuse")])
@pytest.mark.slow
def test_presence_is_exported_in_narrow_types(arguments: tuple[str, ...], tmp_path: Path) -> None:
    backbone = {"name": "efficientnet_lite0", "stride": 16}
    network = {"backbone": backbone, "presence": True, "flow": "none"}
    checkpoint = write_checkpoint(tmp_path / "checkpoint", alike="--fp16" not in arguments, **network)
    done = _invoke("export", checkpoint, "--output", tmp_path / "refined", *arguments)
    assert done.exit_code == 0, done.output
    manifest = Bundle.open(tmp_path / "refined").manifest
    assert manifest.network["presence"] is True
    assert "presence" in {tensor.name for tensor in manifest.graphs["gating"].outputs}
    theirs = TorchSegmenter(load_checkpoint(checkpoint))
    for backend in ("onnxruntime", "openvino"):
        ours = rvos_edge.open(tmp_path / "refined", device="cpu", backend=backend)
        theirs.reset()
        for segmenter in (ours, theirs):
            segmenter.set_queries(["the red ball", "a dog"])
        for frame in itertools.islice(SyntheticCamera(seed=7, size=(90, 160)), 2):
            margins = theirs.margins(frame.image).numpy()
            assert np.abs(ours.step(frame.image).margins - margins).max() < 5e-2 * np.abs(margins).max()


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
@pytest.mark.slow
def test_masks_may_follow_the_edges_of_the_image(precision: str, bundle: Path, tmp_path: Path) -> None:
    """By a graph of its own, which computes in float32 whatever the others do."""
    checkpoint = write_checkpoint(tmp_path / "checkpoint", alike=precision != "fp16", flow="none")
    done = _invoke("export", checkpoint, "--output", tmp_path / "guided", "--boundary", "guided", f"--{precision}")
    assert done.exit_code == 0, done.output
    guided, plain = Bundle.open(tmp_path / "guided").manifest, Bundle.open(bundle).manifest
    assert [name for name in guided.graphs if name != "teach"] == [*WITHOUT_FLOW, "boundary"]
    assert guided.graphs["boundary"].precision == "float32"
    assert (guided.network["boundary"], plain.network["boundary"]) == ("guided", "none")
    assert (guided.stride, plain.stride) == (2, 4)
    theirs = TorchSegmenter(load_checkpoint(checkpoint))
    theirs.model.set_boundary("guided")
    for backend in ("onnxruntime", "openvino"):
        ours = rvos_edge.open(tmp_path / "guided", device="cpu", backend=backend)
        theirs.reset()
        for segmenter in (ours, theirs):
            segmenter.set_queries(["the red ball", "a dog"])
        for frame in itertools.islice(SyntheticCamera(seed=7, size=(90, 160)), 2):
            margins = theirs.margins(frame.image).numpy()
            assert margins.shape == (2, 32, 48)
            assert np.abs(ours.step(frame.image).margins - margins).max() < 3e-2 * np.abs(margins).max()


@pytest.mark.slow
def test_float16_is_typed_and_proven_at_every_size(checkpoint: Path, tmp_path: Path) -> None:
    sizes = [(96, 128), (64, 96)]
    options = ExportOptions(precision="float16", sizes=sizes, max_queries=2)
    path = export_bundle(checkpoint, tmp_path / "bundle", options)
    manifest = Bundle.open(path).manifest
    assert (manifest.size, manifest.max_queries) == ((96, 128), 2)
    dtypes = {tensor.name: tensor.dtype for graph in manifest.graphs.values() for tensor in graph.outputs}
    # Positions and what is summed over a whole image stay wide.
    assert {dtypes[name] for name in ("coords_next", "flow", "margin", "lang1")} == {"float32"}
    assert {dtypes[name] for name in ("c2", "v4", "fmap", "corr0", "hidden_next")} == {"float16"}
    assert [graph.precision for graph in manifest.graphs.values()] == [arithmetic(n, "float16") for n in GRAPHS]
    layers = onnx.load(str(path / "aspp.onnx")).graph
    assert {tensor.data_type for tensor in layers.initializer} <= {onnx.TensorProto.FLOAT16, onnx.TensorProto.INT64}
    # ONNX Runtime's CPU rounds to float16 between the layers only; PyTorch's proof computes in it.
    assert set(manifest.proofs) == {"onnxruntime", "pytorch"}
    assert "float32" in manifest.proofs["onnxruntime"].note
    for size in sizes:
        ours = Segmenter(bundle=Bundle.open(path, size=size), backend=OnnxRuntimeBackend(device="cpu"))
        theirs = TorchSegmenter(load_checkpoint(checkpoint), size=size)
        for segmenter in (ours, theirs):
            segmenter.set_queries(["a dog"])
        for frame in itertools.islice(SyntheticCamera(seed=7, size=(90, 160)), 2):
            margins = theirs.margins(frame.image).numpy()
            assert np.abs(ours.step(frame.image).margins - margins).max() < 3e-2 * np.abs(margins).max()


@pytest.mark.slow
def test_bfloat16_is_a_hint_and_eight_bits_are_a_way_to_store(checkpoint: Path, bundle: Path, tmp_path: Path) -> None:
    path = export_bundle(checkpoint, tmp_path / "bundle", ExportOptions(precision="bfloat16", weights="int8"))
    small, usual = Bundle.open(path).manifest.graphs, Bundle.open(bundle).manifest.graphs
    assert [graph.precision for graph in small.values()] == [arithmetic(name, "bfloat16") for name in GRAPHS]
    assert [graph.outputs for graph in small.values()] == [graph.outputs for graph in usual.values()]
    assert small["backbone"].weight_bytes < 0.6 * usual["backbone"].weight_bytes


@pytest.mark.slow
def test_a_graph_out_of_tolerance_is_named_and_nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = write_checkpoint(tmp_path / "checkpoint", flow="none")
    measure = package.prove

    def worse(*arguments: Any, **options: Any) -> Proof:
        proof = measure(*arguments, **options)
        far = Parity(max_abs=1.0, relative_l2=0.5, cosine=0.9)
        return proof.model_copy(update={"graphs": {**proof.graphs, "aspp": far}})

    monkeypatch.setattr(package, "prove", worse)
    with pytest.raises(UserError, match=r"Graph 'aspp' on ONNX Runtime \(cpu\) differs from PyTorch by 0\.5"):
        export_bundle(checkpoint, tmp_path / "bundle")
    assert list(tmp_path.iterdir()) == [checkpoint]


def test_bad_input_is_refused_before_anything_is_written(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match="--size 100x128: this network needs multiples of 32 from 64 up, for example 96x128"
    ):
        export_bundle(checkpoint, tmp_path / "bundle", ExportOptions(sizes=[(100, 128)]))
    with pytest.raises(UserError, match="--flow-scale 3: the flow's scale must be one of 1, 2, 4, got 3"):
        export_bundle(checkpoint, tmp_path / "bundle", ExportOptions(flow_scale=3))
    with pytest.raises(UserError, match="--max-queries 0 is out of range"):
        export_bundle(checkpoint, tmp_path / "bundle", ExportOptions(max_queries=0))
    with pytest.raises(UserError, match="--weights float32 contradicts --fp16"):
        export_bundle(checkpoint, tmp_path / "bundle", ExportOptions(precision="float16", weights="float32"))
    with pytest.raises(UserError, match="is not a checkpoint"):
        export_bundle(tmp_path / "nothing", tmp_path / "bundle")
    with pytest.raises(UserError, match="is of preset 'test', not 'edge'"):
        export_bundle(checkpoint, tmp_path / "bundle", ExportOptions(preset="edge"))
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "mine.txt").write_text("keep")
    with pytest.raises(UserError, match="holds what rvos-edge did not write"):
        export_bundle(checkpoint, photos)
    assert [path.name for path in tmp_path.rglob("*")] == ["photos", "mine.txt"]


def test_real_frames_serve_the_parity_measurement(checkpoint: Path, shared: Path) -> None:
    clip = read_clip(shared / "data/davis2016-train/JPEGImages/480p/bear", (64, 96), 3)
    assert [frame.shape for frame in clip.frames] == [(64, 96, 3)] * 3
    assert clip.source == "bear"


def test_a_preset_is_exported_from_official_weights_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Checkpoint] = []

    def fake(checkpoint: Path, output: Path, options: ExportOptions) -> Path:
        seen.append(load_checkpoint(checkpoint, preset=options.preset))
        return output

    monkeypatch.setattr(package, "export_bundle", fake)
    official = tmp_path / "official.pth"
    weights = NarrowResNet().state_dict()
    torch.save(weights, official)
    done = _invoke("export", "--preset", "test", "--backbone", official, "--output", tmp_path / "bundle")
    assert done.exit_code == 0, done.output
    (checkpoint,) = seen
    assert checkpoint.card["name"] == "test, not trained"
    assert checkpoint.card["trained"] is False
    first = next(iter(checkpoint.model.backbone.state_dict().values()))
    assert torch.equal(first, weights["conv1.weight"])


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((), "give a checkpoint directory, or --preset"),
        (("somewhere", "--raft", "raft.pth"), "are for an export without a checkpoint"),
        (("--preset", "huge"), "Unknown preset 'huge'"),
        (("--preset", "test", "--backbone", "nothing.pth"), "nothing.pth"),
    ],
)
def test_what_to_export_must_be_clear(arguments: tuple[str, ...], sentence: str, tmp_path: Path) -> None:
    done = _invoke("export", *arguments, "--output", tmp_path / "bundle")
    assert done.exit_code == 2
    assert sentence in " ".join(done.output.split())
    assert list(tmp_path.iterdir()) == []


def _invoke(*arguments: object) -> Any:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.mark.parametrize(("fusion", "flow"), [("hierarchical", "both"), ("single", "none")])
@pytest.mark.slow
def test_a_presence_head_is_an_output_of_gating(fusion: str, flow: str, tmp_path: Path) -> None:
    checkpoint = write_checkpoint(tmp_path / "checkpoint", fusion=fusion, flow=flow, presence=True)
    opened = Bundle.open(export_bundle(checkpoint, tmp_path / "bundle"))
    (found,) = (spec for spec in opened.manifest.graphs["gating"].outputs if spec.name == "presence")
    assert (found.dtype, found.shape) == ("float32", ("Q",))
    segmenter = rvos_edge.open(opened.path, device="cpu")
    queries = ["the red ball", "a dog"]
    segmenter.set_queries(queries)
    theirs = TorchSegmenter(load_checkpoint(checkpoint))
    theirs.set_queries(queries)
    for frame in itertools.islice(SyntheticCamera(seed=7, size=opened.manifest.size), 3):  # smoothed over time by both
        result = segmenter.step(frame.image)
        theirs.margins(frame.image)
        assert theirs.presence is not None
        assert np.allclose(result.presence, theirs.presence, atol=1e-3)
        assert np.array_equal(result.present, theirs.present)


@pytest.mark.slow
def test_without_the_head_nothing_is_said_of_presence(bundle: Path) -> None:
    segmenter = rvos_edge.open(bundle, device="cpu")
    segmenter.set_queries(["a dog"])
    assert segmenter.step(np.zeros((64, 96, 3), np.uint8)).presence.tolist() == [1.0]
