"""The graph with which queries learn on the device: proven like every other, and of use."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from support.tiny_checkpoint import write_checkpoint
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn import functional as F
from typer.testing import CliRunner

import rvos_edge
from rvos_edge import Segmenter
from rvos_edge.bundle import Bundle
from rvos_edge.cli import app
from rvos_edge.export import teach
from rvos_edge.export.package import ExportOptions, export_bundle, network_id
from rvos_edge.export.teach import teaching_loss
from rvos_edge.parity.verify import tolerance
from rvos_edge.synthetic.camera import SyntheticCamera
from rvos_edge.trainer.checkpoint import load_checkpoint, save_checkpoint


@pytest.fixture(scope="module")
def taught(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_bundle(checkpoint, tmp_path_factory.mktemp("taught") / "bundle", ExportOptions(teach=True))


@pytest.mark.slow
def test_its_loss_and_gradients_are_those_of_autograd(taught: Path) -> None:
    manifest = Bundle.open(taught).manifest
    spec = manifest.graphs["teach"]
    assert spec.precision == "float32"
    assert [tensor.name for tensor in spec.outputs] == ["loss", "grad1", "grad2", "grad3", "grad4"]
    assert manifest.proofs["onnxruntime"].graphs["teach"].relative_l2 <= tolerance(spec)


@pytest.mark.slow
def test_a_query_learns_with_it(taught: Path, checkpoint: Path) -> None:
    """Even an untrained network answers better after one shown frame."""
    segmenter = rvos_edge.open(taught, device="cpu", backend="onnxruntime", threads=1)
    assert isinstance(segmenter, Segmenter)
    frame = next(iter(SyntheticCamera(seed=3, size=(64, 96)))).image
    mask = np.zeros((64, 96), np.bool_)
    mask[16:48, 20:60] = True
    query = segmenter.teach([frame], [mask], like="the red ball")
    assert query.network == network_id(load_checkpoint(checkpoint).model)
    assert query.j is not None
    assert query.sentence_j is not None
    assert query.j >= query.sentence_j


@pytest.mark.slow
def test_attention_is_exported_forwards_and_backwards(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path / "checkpoint", attention_heads=2, size=(128, 128))
    loaded = load_checkpoint(path)
    assert loaded.model.attention is not None
    torch.nn.init.normal_(loaded.model.attention.output.weight, std=0.1)  # a new block does nothing
    save_checkpoint(path, loaded)
    bundle = export_bundle(path, tmp_path / "bundle", ExportOptions(teach=True))
    for backend in ("onnxruntime", "openvino"):
        done = CliRunner().invoke(app, ["verify", str(bundle), "--backend", backend])
        assert done.exit_code == 0, done.output
        manifest = Bundle.open(bundle).manifest
        for name in ("gating", "teach"):
            assert manifest.proofs[backend].graphs[name].relative_l2 <= tolerance(manifest.graphs[name])


def test_other_weights_are_another_network(checkpoint: Path, tmp_path: Path) -> None:
    model = load_checkpoint(checkpoint).model
    before = network_id(model)
    assert before == network_id(load_checkpoint(checkpoint).model)
    with torch.no_grad():
        model.decoder.head[-1].bias[0] += 0.5
    assert network_id(model) != before
    assert network_id(load_checkpoint(write_checkpoint(tmp_path / "other", flow="none")).model) != before


@pytest.mark.parametrize(("size", "scale"), [((3, 5), (6, 10)), ((4, 4), (7, 9))])
def test_resizing_backwards_is_that_of_autograd(size: tuple[int, int], scale: tuple[int, int]) -> None:
    features = torch.randn(1, 2, *size, requires_grad=True)
    resized = F.interpolate(features, size=scale, mode="bilinear", align_corners=False)
    gradient = torch.randn_like(resized)
    resized.backward(gradient)
    ours = teach._bilinear_backward(gradient, list(scale), [1, 2, *size], False)
    torch.testing.assert_close(ours, features.grad)


def test_resizing_is_that_of_pytorch_and_stores_a_matrix_once() -> None:
    features = torch.randn(1, 2, 3, 5)
    expected = F.interpolate(features, size=(6, 10), mode="bilinear", align_corners=False)
    torch.testing.assert_close(teach._bilinear(features, [6, 10], False), expected)
    table = teach._decompositions()
    resize = make_fx(lambda x: F.interpolate(x, size=(6, 10), mode="bilinear"), decomposition_table=table)(features)
    kinds = {str(node.target) for node in resize.graph.nodes if node.op == "call_function"}
    assert "aten.mm.default" in kinds
    assert kinds.isdisjoint({"aten.bmm.default", "aten.expand.default", "aten.upsample_bilinear2d.default"})


@pytest.mark.parametrize(("stride", "padding", "groups"), [(1, 1, 1), (2, 1, 1), (1, 1, 4), (2, 0, 2)])
def test_convolving_backwards_is_that_of_autograd(stride: int, padding: int, groups: int) -> None:
    features, weight = torch.randn(1, 4, 8, 9, requires_grad=True), torch.randn(8, 4 // groups, 3, 3)
    out = F.conv2d(features, weight, None, stride, padding, 1, groups)
    gradient = torch.randn_like(out)
    out.backward(gradient)
    pair = [stride, stride], [padding, padding], [1, 1]
    ours, *_ = teach._convolution_backward(
        gradient, features, weight, None, *pair, False, [0, 0], groups, [True, False, False]
    )
    torch.testing.assert_close(ours, features.grad)


def test_what_is_not_known_does_not_count() -> None:
    margin, target = torch.randn(1, 1, 4, 6), (torch.rand(1, 1, 4, 6) > 0.5).float()
    weight = torch.ones(1, 1, 4, 6)
    weight[..., 3:] = 0
    other = margin.clone()
    other[..., 3:] += 7
    assert teaching_loss(margin, target, weight) == teaching_loss(other, target, weight)
    absent = teaching_loss(margin, torch.zeros_like(target), weight)
    torch.testing.assert_close(absent, F.softplus(margin[..., :3]).mean())
