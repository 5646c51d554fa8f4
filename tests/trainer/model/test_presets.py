"""Presets build, say what is wrong, and keep to the edge budget."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from rvos_edge.errors import UserError
from rvos_edge.export.flow_update import ContextShare, Update
from rvos_edge.trainer.losses.segmentation import LossConfig, segmentation_loss
from rvos_edge.trainer.model.flow import identity_grid
from rvos_edge.trainer.model.hinet import HINet
from rvos_edge.trainer.model.presets import model_config


@pytest.mark.parametrize(
    ("preset", "changes", "message"),
    [
        ("huge", {}, "Unknown preset 'huge'"),
        ("test", {"fusoin": "single"}, "unknown key 'fusoin'"),
        ("test", {"backbone": {"layers": 3}}, "unknown key 'backbone.layers'"),
        ("test", {"size": (100, 96)}, "multiples of 32, got 100x96"),
        ("test", {"raft": None}, "flow: both needs a raft section"),
        ("test", {"backbone": {"stride": 8}}, "resnet18_narrow has stride 32 only"),
        ("test", {"text": {"heads": 3}}, "heads must divide hidden_size 32, got 3"),
        ("test", {"attention_heads": 3}, "attention_heads must divide aspp_channels 16, got 3"),
        ("test", {"fusion": "flat"}, "'fusion'"),
    ],
)
def test_a_wrong_configuration_is_refused(preset: str, changes: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        model_config(preset, **changes)
    assert "\n" not in str(caught.value)


def test_nested_changes_keep_the_other_values() -> None:
    config = model_config("edge", raft={"iterations": 6})
    assert config.raft is not None
    assert (config.raft.iterations, config.raft.scale) == (6, 2)


@pytest.mark.parametrize("preset", ["paper", "desktop", "edge", "test"])
def test_every_preset_builds_and_tells_its_shapes(preset: str) -> None:
    config = model_config(preset)
    with torch.device("meta"):
        model = HINet(config=config).eval()
        height, width = config.size
        levels = model.encode_image(torch.zeros(1, 3, height, width, dtype=torch.uint8))
        assert [level.shape[2:] for level in levels] == [(height // s, width // s) for s in model.backbone.strides]
        assert config.raft is not None
        flow = torch.zeros(1, 2, height // config.raft.scale, width // config.raft.scale)
        language = tuple(torch.zeros(1, 3, channels) for channels in config.channels)
        assert model.decode(levels, flow, language).shape == (1, 3, 2, height // 4, width // 4)


@pytest.mark.parametrize(
    ("fusion", "flow"), list(itertools.product(["single", "hierarchical"], ["none", "vision", "gate", "both"]))
)
def test_every_ablation_trains(fusion: str, flow: str) -> None:
    torch.manual_seed(0)
    model = HINet(config=model_config("test", fusion=fusion, flow=flow)).train()
    assert (model.flow is None) == (flow == "none")
    image = torch.randint(0, 256, (2, 3, 64, 96), dtype=torch.uint8)
    language = model.encode_text(torch.tensor([[2, 5, 9, 3]] * 4), torch.ones(4, 4, dtype=torch.int64))
    logits = model(image, torch.randn(2, 2, 64, 96), tuple(level.unflatten(0, (2, 2)) for level in language))
    masks = (torch.rand(2, 2, 64, 96) > 0.7).to(torch.uint8)
    segmentation_loss(logits, masks, LossConfig(dice=1.0)).backward()  # type: ignore[no-untyped-call]
    unused = 0 if fusion == "hierarchical" else 3
    for name, parameter in model.named_parameters():
        if name.startswith("flow.") or any(name.startswith(f"language.levels.{i}.") for i in range(unused)):
            assert parameter.grad is None, name
        else:
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name


def test_edge_stays_within_its_budget() -> None:
    """At most 10 GFLOP a frame with flow and one query, 2 of them for what a query costs.

    RAFT's update is counted as exported: its context is used once a frame, and not in every iteration.
    """
    config = model_config("edge")
    assert config.raft is not None
    with torch.device("meta"):
        model = HINet(config=config).eval()
        flow = model.flow
        assert flow is not None
        image = torch.zeros(1, 3, 288, 512, dtype=torch.uint8)
        with FlopCounterMode(display=False) as frame:
            levels = model.encode_image(image)
            prepared = flow.prepare(image.float())
            fmap = flow.encode(prepared)
            pyramid = flow.correlate(fmap, torch.zeros_like(fmap))
            hidden, context = flow.context(prepared)
            share, update = ContextShare(flow.raft)(context), Update(flow.raft)
            coords = identity_grid(fmap)
            for _ in range(config.raft.iterations):
                hidden, delta = update(hidden, share, *flow.look_up(pyramid, coords))
                coords = coords + delta
            field = flow.upsample(hidden, coords)
        language = tuple(torch.zeros(1, 1, channels) for channels in config.channels)
        with FlopCounterMode(display=False) as gate:
            model.decode(levels, field, language)
    assert gate.get_total_flops() <= 2e9
    assert frame.get_total_flops() + gate.get_total_flops() <= 10e9
    # The counter must have seen the convolutions: a count of nearly nothing would pass as well.
    assert frame.get_total_flops() > 1e9
