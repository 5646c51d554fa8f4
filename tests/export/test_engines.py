"""Every graph of the edge preset becomes an engine, in every precision, for the GPUs that people have."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from rvos_edge.bundle import Bundle, shipped_bundle
from rvos_edge.engines.tensorrt.build import BuildJob, BuildOptions, build_plan
from rvos_edge.errors import UserError
from rvos_edge.export.int8 import calibrate
from rvos_edge.export.package import ExportOptions, export_bundle
from rvos_edge.parity.record import load_reference
from rvos_edge.trainer.checkpoint import save_checkpoint
from rvos_edge.trainer.model.weights import InitialWeights
from rvos_edge.trainer.tasks.from_parts import assemble

pytest.importorskip("tensorrt_rtx")

DEAR = ("text", "backbone", "flow_context", "flow_step", "gating")
GRAPHS = ("aspp", "flow_encode", "flow_up", *(pytest.param(name, marks=pytest.mark.slow) for name in DEAR))
# Turing has no float32 matrix product in TensorRT-RTX.
TURING_REFUSES = {"float32": {"text", "flow_context", "flow_step", "flow_up", "gating"}, "float16": {"text"}}
# bfloat16 is a hint for OpenVINO: the files of the shipped bundle are float32.
TYPES_IN_FILE = {"float32": "float32", "bfloat16": "float32", "float16": "float16"}


@pytest.fixture(scope="module")
def typed(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The edge preset with ImageNet weights, in float16."""
    folder = tmp_path_factory.mktemp("edge")
    weights = InitialWeights(backbone="package")
    save_checkpoint(folder / "checkpoint", assemble("edge", weights))
    options = ExportOptions(precision="float16", max_queries=16)
    return Bundle.open(export_bundle(folder / "checkpoint", folder / "bundle", options))


@pytest.fixture(params=["float32", pytest.param("float16", marks=pytest.mark.slow)])
def bundle(request: pytest.FixtureRequest) -> Bundle:
    if request.param == "float32":
        return Bundle.open(shipped_bundle())
    opened: Bundle = request.getfixturevalue("typed")
    return opened


def _build(bundle: Bundle, graph: str, *capabilities: str) -> bytes:
    spec = bundle.manifest.graphs[graph]
    options = BuildOptions("tensorrt-rtx", capabilities)
    return build_plan(BuildJob(graph, bundle.graph_path(graph), spec, 16, 64, None, options), lambda share: None)


@pytest.mark.parametrize("graph", GRAPHS)
def test_graphs_build_for_ampere_ada_and_blackwell(bundle: Bundle, graph: str) -> None:
    assert len(_build(bundle, graph, "86", "89", "120")) > 10_000


@pytest.mark.parametrize("graph", GRAPHS)
def test_graphs_build_for_turing_where_supported(bundle: Bundle, graph: str) -> None:
    if graph in TURING_REFUSES[TYPES_IN_FILE[bundle.manifest.graphs["backbone"].precision]]:
        with pytest.raises(UserError, match=f"Graph '{graph}' \\(float32\\) cannot be built by tensorrt-rtx: .*SM75"):
            _build(bundle, graph, "75")
    else:
        assert len(_build(bundle, graph, "75")) > 10_000


@pytest.mark.parametrize("graph", ["aspp", *(pytest.param(g, marks=pytest.mark.slow) for g in ("backbone", "gating"))])
def test_quantised_graphs_build_for_ampere_ada_and_blackwell(bundle: Bundle, graph: str, tmp_path: Path) -> None:
    spec, read = bundle.manifest.graphs[graph], load_reference(bundle).inputs[graph]
    sample = {tensor.name: read[tensor.name].astype(tensor.dtype) for tensor in spec.inputs}
    part = calibrate(graph, onnx.load(str(bundle.graph_path(graph))), [sample])
    onnx.save(part.quantised(part.layers), str(tmp_path / spec.file))
    assert len(_build(Bundle(tmp_path, bundle.manifest), graph, "86", "89", "120")) > 10_000
