"""A bundle becomes a checkpoint again, whose network computes what the bundle does."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from rich.console import Console
from support.tiny_checkpoint import write_checkpoint
from torch import nn
from typer.testing import CliRunner

import rvos_edge
from rvos_edge.bundle import sha256_of
from rvos_edge.cli import app
from rvos_edge.errors import UserError
from rvos_edge.export import restore
from rvos_edge.export.flow_update import ContextShare, Update, split_update
from rvos_edge.export.package import ExportOptions, export_bundle
from rvos_edge.export.restore import restore_checkpoint
from rvos_edge.synthetic.camera import SyntheticCamera
from rvos_edge.trainer.checkpoint import load_checkpoint, save_checkpoint
from rvos_edge.trainer.data.sample import Batch
from rvos_edge.trainer.model.flow import FlowNetwork
from rvos_edge.trainer.model.presets import RaftConfig
from rvos_edge.trainer.predictor import TorchSegmenter


@pytest.fixture(scope="module")
def restored(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("restored") / "checkpoint"
    done = CliRunner().invoke(app, ["restore", str(bundle), "--output", str(folder)])
    assert done.exit_code == 0, done.output
    assert f"init_from={folder}" in done.output.replace("\n", "")
    assert "Approximate in this checkpoint: weights are rounded as the bundle stores them" in done.output
    modes = {path.stat().st_mode for path in folder.iterdir()}
    assert len(modes) == 1, "all files can be read by the same users"
    return folder


@pytest.mark.slow
def test_the_restored_network_draws_the_masks_of_the_bundle(restored: Path, bundle: Path) -> None:
    queries = ["the red ball", "a dog", "the large star on the left"]
    ours = rvos_edge.open(bundle, device="cpu", backend="onnxruntime")
    theirs = TorchSegmenter(load_checkpoint(restored))
    ours.set_queries(queries)
    theirs.set_queries(queries)
    for frame in itertools.islice(SyntheticCamera(seed=7, size=(90, 160)), 3):
        result = ours.step(frame.image)
        margins = theirs.margins(frame.image).numpy()
        # The bundle's weights, to the last bit: only the order of additions differs.
        assert np.abs(result.margins - margins).max() < 1e-3 * np.abs(margins).max()


@pytest.mark.slow
def test_nothing_is_lost_but_the_rounding_of_the_weights(restored: Path, checkpoint: Path) -> None:
    before, after = load_checkpoint(checkpoint), load_checkpoint(restored)
    assert after.model.config == before.model.config
    assert after.card == before.card
    assert after.tokenizer.get_vocab() == before.tokenizer.get_vocab()
    names = dict(before.model.named_modules())
    ours, theirs = before.model.state_dict(), after.model.state_dict()
    alone = [name for name in ours if name.startswith(("sentence.", "language.", "flow."))]
    assert len(alone) > 100
    for name in alone:  # all that has no batch norm
        torch.testing.assert_close(theirs[name], ours[name], rtol=1e-3, atol=1e-3, msg=name)
    assert isinstance(names["decoder.head.0.1"], nn.BatchNorm2d)


@pytest.mark.slow
def test_how_masks_are_drawn_is_restored_too(bundle: Path, tmp_path: Path) -> None:
    """The checkpoint's card says nothing of an option of export; bundles from before there was one draw plainly."""
    checkpoint = write_checkpoint(tmp_path / "checkpoint", flow="none")
    guided = export_bundle(checkpoint, tmp_path / "bundle", ExportOptions(boundary="guided"))
    restored = restore_checkpoint(guided, tmp_path / "guided")
    assert load_checkpoint(restored).model.config.boundary == "guided"
    old = Path(shutil.copytree(bundle, tmp_path / "old"))
    document = json.loads((old / "manifest.json").read_text())
    del document["network"]["boundary"]
    (old / "manifest.json").write_text(json.dumps(document))
    assert load_checkpoint(restore_checkpoint(old, tmp_path / "plain")).model.config.boundary == "none"


@pytest.mark.slow
def test_refinements_and_presence_are_restored(tmp_path: Path) -> None:
    backbone = {"name": "efficientnet_lite0", "stride": 16}
    changes = {"backbone": backbone, "flow": "none"}
    checkpoint = write_checkpoint(tmp_path / "checkpoint", **changes, presence=True)
    before = load_checkpoint(checkpoint)
    before.card["config"] = {"model": {"preset": "test", **changes}}
    save_checkpoint(checkpoint, before)
    bundle = export_bundle(checkpoint, tmp_path / "bundle")
    after = load_checkpoint(restore_checkpoint(bundle, tmp_path / "restored"))
    assert after.model.config == before.model.config
    assert after.model.presence is not None
    assert before.model.presence is not None
    ours, theirs = after.model.presence.match.weight, before.model.presence.match.weight
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)


@pytest.mark.slow
def test_training_starts_where_evaluation_stands(restored: Path) -> None:
    """The norms hold the statistics of real batches: with those of the batch the masks stay what they were."""
    model = load_checkpoint(restored).model
    norms = [module for module in model.backbone.modules() if isinstance(module, nn.BatchNorm2d)]
    norms += [module for module in model.decoder.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        assert norm.running_var is not None
        assert not torch.allclose(norm.running_var, torch.ones_like(norm.running_var))
    for conv in (model.backbone.stem.conv1, model.decoder.head[0][0]):
        size = conv.weight.square().sum(dim=(1, 2, 3))  # rms of 1/sqrt(fan in)
        torch.testing.assert_close(size, torch.ones_like(size), rtol=1e-4, atol=1e-4)
    image = torch.stack(
        [
            torch.from_numpy(np.ascontiguousarray(frame.image[:, :, ::-1])).permute(2, 0, 1)
            for seed in range(8)
            for frame in itertools.islice(SyntheticCamera(seed=seed, size=(64, 96)), 1)
        ]
    )
    language = tuple(torch.ones(len(image), 1, width) for width in model.config.channels)
    flow = torch.zeros(len(image), 2, 64, 96)
    with torch.no_grad():
        levels = model.backbone.eval()((image - model.mean) / model.std)
        by_batch = model.backbone.train()((image - model.mean) / model.std)
        assert torch.isfinite(model.train()(image, flow, language)).all()
    for stored, measured in zip(levels, by_batch, strict=True):
        gap = (stored - measured).norm() / stored.norm()
        assert gap < 0.5, gap


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("narrow")
    checkpoint = write_checkpoint(folder / "checkpoint", alike=False, fusion="single", flow="none")
    return checkpoint, export_bundle(
        checkpoint, folder / "bundle", ExportOptions(precision="float16", weights="int8", fuse=True)
    )


@pytest.mark.slow
def test_what_is_stored_in_eight_bits_is_read_too(narrow: tuple[Path, Path], tmp_path: Path) -> None:
    checkpoint, bundle = narrow
    after = load_checkpoint(restore_checkpoint(bundle, tmp_path / "restored")).model
    before = load_checkpoint(checkpoint).model
    assert after.config == before.config
    name = "sentence.bert.encoder.layer.1.output.dense.weight"  # transposed and nameless in the graph
    gap = (after.state_dict()[name] - before.state_dict()[name]).abs().max()
    assert 0 < gap < before.state_dict()[name].abs().max() / 120


@pytest.mark.slow
def test_a_bundle_that_lacks_a_weight_is_refused(narrow: tuple[Path, Path], tmp_path: Path) -> None:
    bundle = Path(shutil.copytree(narrow[1], tmp_path / "bundle"))
    for name, change in (("merged", "holds 'decoder.head.2.bias'"), ("changed", "'gating' differs from what")):
        model = onnx.load(str(narrow[1] / "gating.onnx"))
        tensor = next(item for item in model.graph.initializer if item.name == "model.decoder.head.2.bias")
        if name == "merged":
            tensor.name = "val_1000"
            for node in model.graph.node:
                for index, given in enumerate(node.input):
                    if given == "model.decoder.head.2.bias":
                        node.input[index] = tensor.name
        else:
            moved = numpy_helper.to_array(tensor) + np.array([0, 9], np.float16)
            tensor.CopyFrom(numpy_helper.from_array(moved, tensor.name))
        onnx.save(model, str(bundle / "gating.onnx"))
        manifest = json.loads((narrow[1] / "manifest.json").read_text())
        manifest["graphs"]["gating"]["sha256"] = sha256_of(bundle / "gating.onnx")
        (bundle / "manifest.json").write_text(json.dumps(manifest))
        with pytest.raises(UserError, match=change):
            restore_checkpoint(bundle, tmp_path / "restored")
        assert not (tmp_path / "restored").exists()


def test_statistics_of_a_crop_are_those_of_its_frame(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A crop that moves as a whole is bright where the frame around it stands still."""
    checkpoint = load_checkpoint(write_checkpoint(tmp_path / "checkpoint"))
    assert checkpoint.model.motion is not None
    norm = checkpoint.model.motion.steps[0][1]
    assert isinstance(norm, nn.BatchNorm2d)
    image, flow = torch.zeros(1, 3, 64, 96, dtype=torch.uint8), torch.full((1, 2, 64, 96), 4.0)
    means = []
    for camera in (None, torch.tensor([[0.0, 0.0, 1.0]])):
        batch = Batch(image, flow, torch.zeros(1, 1, 64, 96, dtype=torch.uint8), [["a dog"]], camera)
        monkeypatch.setattr(restore, "prepare_data", lambda *_, **__: None)
        monkeypatch.setattr(restore, "batches", lambda *_, batch=batch, **__: [batch])
        means.append(restore._statistics(checkpoint, [norm], None, Console(quiet=True))[norm][0])
    assert means[0].abs().max() < 1e-5, "without its frame it is dark"
    assert means[1].abs().max() > 0.01


@pytest.mark.parametrize("variant", ["tiny", "large"])
def test_rafts_gates_are_put_together_again(variant: str) -> None:
    raft = FlowNetwork(config=RaftConfig.model_validate({"variant": variant})).raft
    joined = dict(_named("share", ContextShare(raft))) | dict(_named("update", Update(raft)))
    split, own = split_update(raft, joined), raft.update_block.state_dict()
    assert split.keys() == own.keys()
    for name, tensor in own.items():
        assert torch.equal(split[name], tensor), name


def _named(prefix: str, module: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    for name, tensor in module.state_dict().items():
        yield f"{prefix}.{name}", tensor
