"""A checkpoint becomes a bundle that the runtime runs like PyTorch, or nothing at all."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import onnx
import pytest
from tiny_checkpoint import write_checkpoint

import rvos_edge
from rvos_edge.bundle import Bundle, Parity
from rvos_edge.errors import UserError
from rvos_edge.export import package, verify
from rvos_edge.export.package import export_bundle
from rvos_edge.stream.synthetic import SyntheticCamera
from rvos_edge.trainer.checkpoint import load_checkpoint
from rvos_edge.trainer.predictor import TorchSegmenter

GRAPHS = ["text", "backbone", "aspp", "flow_encode", "flow_context", "flow_step", "flow_up", "gating"]


def test_the_bundle_holds_the_eight_graphs_at_opset_18(bundle: Path) -> None:
    opened = Bundle.open(bundle)
    assert list(opened.manifest.graphs) == GRAPHS
    for name in GRAPHS:
        model = onnx.load(str(opened.graph_path(name)))
        assert [(item.domain, item.version) for item in model.opset_import] == [("", 18)]
        assert "GridSample" not in {node.op_type for node in model.graph.node}


def test_the_manifest_proves_every_graph(bundle: Path) -> None:
    manifest = Bundle.open(bundle).manifest
    for name, graph in manifest.graphs.items():
        assert graph.parity.relative_l2 <= verify.TOLERANCE[graph.weights], name
        assert graph.weight_bytes > 0
    assert manifest.end_to_end is not None
    assert manifest.end_to_end.mask_iou >= verify.LEAST_IOU
    assert manifest.network["frame_flops"] > 100_000_000
    assert manifest.name == "tested"


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
    [("single", "none", ["text", "backbone", "aspp", "gating"]), ("hierarchical", "gate", GRAPHS)],
)
def test_ablations_export_too(fusion: str, flow: str, graphs: list[str], tmp_path: Path) -> None:
    checkpoint = write_checkpoint(tmp_path / "checkpoint", fusion=fusion, flow=flow)
    bundle = export_bundle(checkpoint, tmp_path / "bundle")
    assert list(Bundle.open(bundle).manifest.graphs) == graphs


def test_another_size_may_be_chosen(checkpoint: Path, tmp_path: Path) -> None:
    bundle = export_bundle(checkpoint, tmp_path / "bundle", size=(96, 128))
    assert Bundle.open(bundle).manifest.size == (96, 128)


def test_a_graph_out_of_tolerance_is_named_and_nothing_is_left(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measure = verify.measure_parity

    def worse(*arguments: object) -> dict[str, Parity]:
        parity = measure(*arguments)  # type: ignore[arg-type]
        return {**parity, "aspp": Parity(max_abs=1.0, relative_l2=0.5)}

    monkeypatch.setattr(package, "measure_parity", worse)
    with pytest.raises(UserError, match=r"Graph 'aspp' differs from PyTorch by 0\.5"):
        export_bundle(checkpoint, tmp_path / "bundle")
    assert list(tmp_path.iterdir()) == []


def test_bad_input_is_refused_before_anything_is_written(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="multiples of 32"):
        export_bundle(checkpoint, tmp_path / "bundle", size=(100, 128))
    with pytest.raises(UserError, match="is not a checkpoint"):
        export_bundle(tmp_path / "nothing", tmp_path / "bundle")
    with pytest.raises(UserError, match="is of preset 'test', not 'edge'"):
        export_bundle(checkpoint, tmp_path / "bundle", preset="edge")
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "mine.txt").write_text("keep")
    with pytest.raises(UserError, match="is not a bundle"):
        export_bundle(checkpoint, photos)
    assert [path.name for path in tmp_path.rglob("*")] == ["photos", "mine.txt"]


def test_real_frames_serve_the_parity_measurement(checkpoint: Path, shared: Path) -> None:
    frames, source = verify.real_frames(shared / "data/davis2016-train/JPEGImages/480p/bear", (64, 96), 3)
    assert [frame.shape for frame in frames] == [(64, 96, 3)] * 3
    assert source == "bear"
