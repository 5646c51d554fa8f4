"""RAFT in pieces: official weights, torchvision's numbers, streams."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from torchvision.models.optical_flow import raft_large

from rvos_edge.errors import UserError
from rvos_edge.trainer.model.flow import FlowNetwork, identity_grid, load_raft_weights, lookup, torchvision_raft_names
from rvos_edge.trainer.model.presets import RaftConfig


def _small(shared: Path, *, iterations: int = 12, scale: int = 1) -> FlowNetwork:
    network = FlowNetwork(config=RaftConfig(variant="small", iterations=iterations, scale=scale)).eval()  # type: ignore[arg-type]
    load_raft_weights(network, shared / "weights/raft-small/raft-small.pth")
    return network


def _frame(shared: Path, number: int, height: int, width: int) -> NDArray[np.uint8]:
    """Centre crop of a Sintel frame, BGR."""
    frame = cv2.imread(str(shared / f"weights/raft-small/frame_00{number}.png"))
    top, left = (frame.shape[0] - height) // 2, (frame.shape[1] - width) // 2
    return np.ascontiguousarray(frame[top : top + height, left : left + width], np.uint8)


def _tensor(frame: NDArray[np.uint8]) -> Tensor:
    return torch.from_numpy(frame[:, :, ::-1].copy()).permute(2, 0, 1)[None].float()


def _warp(frame: NDArray[np.uint8], flow: NDArray[np.float32]) -> NDArray[np.uint8]:
    """The current frame reconstructed from ``frame`` by the flow."""
    rows, columns = np.indices(flow.shape[1:], np.float32)
    warped = cv2.remap(frame, columns + flow[0], rows + flow[1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
    return np.asarray(warped, np.uint8)


def _difference(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    return float(np.abs(a.astype(np.float32) - b).mean())


@pytest.mark.slow
def test_official_small_weights_give_the_known_flow(shared: Path) -> None:
    first, second = (_frame(shared, number, 432, 1024) for number in (24, 25))
    with torch.inference_mode():
        flow = _small(shared)(_tensor(first), _tensor(second), iterations=20)[0][0].numpy()
    assert np.hypot(*flow).mean() == pytest.approx(4.998, abs=0.05)
    assert _difference(first, second) == pytest.approx(13.156, abs=0.05)
    assert _difference(first, _warp(second, flow)) == pytest.approx(5.366, abs=0.1)


def test_official_small_weights_give_torchvisions_flow(shared: Path) -> None:
    network = _small(shared)
    images = [_tensor(_frame(shared, number, 160, 256)) for number in (25, 24)]
    with torch.inference_mode():
        ours, _ = network(*images, iterations=6)
        theirs = network.raft(*(image / 127.5 - 1 for image in images), num_flow_updates=6)[-1]
    assert float((ours - theirs).abs().max()) < 1e-3


def _official_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """torchvision's names as princeton-vl's checkpoints have them, ``module.`` and the doubled norm3 included."""
    kinds = {"0": "conv", "1": "norm"}
    motion = {f"conv{kind}{n}": f"conv{kind[0]}{n}" for kind in ("corr", "flow") for n in (1, 2)} | {"conv": "conv"}
    official = {}
    for key, value in state.items():
        head, *rest = key.split(".")
        leaf = rest[-1]
        if head in ("feature_encoder", "context_encoder"):
            net = "fnet" if head == "feature_encoder" else "cnet"
            if rest[0] == "convnormrelu":
                name = f"{net}.{kinds[rest[1]]}1.{leaf}"
            elif rest[0] == "conv":
                name = f"{net}.conv2.{leaf}"
            elif rest[2] == "downsample":
                name = f"{net}.{'.'.join(rest)}"
                if rest[3] == "1":
                    official[f"module.{net}.{rest[0]}.{rest[1]}.norm3.{leaf}"] = value
            else:
                name = f"{net}.{rest[0]}.{rest[1]}.{kinds[rest[3]]}{rest[2][-1]}.{leaf}"
        elif head == "mask_predictor":
            name = f"update_block.mask.{0 if rest[0] == 'convrelu' else 2}.{leaf}"
        elif rest[0] == "motion_encoder":
            name = f"update_block.encoder.{motion[rest[1]]}.{leaf}"
        elif rest[0] == "recurrent_block":
            name = f"update_block.gru.{rest[2]}{rest[1][-1]}.{leaf}"
        else:
            name = f"update_block.{'.'.join(rest)}"
        official[f"module.{name}"] = value
    return official


def test_official_large_names_load_and_give_torchvisions_flow(tmp_path: Path) -> None:
    torch.manual_seed(0)
    theirs = raft_large(weights=None).eval()
    for module in theirs.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1)  # type: ignore[union-attr]
            module.running_var.uniform_(0.5, 1.5)  # type: ignore[union-attr]
    official = _official_names(theirs.state_dict())
    for name in ("fnet.conv1.weight", "cnet.norm1.running_var", "cnet.layer2.0.norm3.bias"):
        assert f"module.{name}" in official
    torch.save(official, tmp_path / "raft-things.pth")
    network = FlowNetwork(config=RaftConfig(variant="large", iterations=2)).eval()
    load_raft_weights(network, tmp_path / "raft-things.pth")
    images = torch.rand(2, 1, 3, 128, 136) * 255
    with torch.inference_mode():
        ours, _ = network(images[0], images[1])
        expected = theirs(images[0] / 127.5 - 1, images[1] / 127.5 - 1, num_flow_updates=2)[-1]
    assert float((ours - expected).abs().max()) < 1e-3
    # torchvision's own files need no renaming.
    assert torchvision_raft_names(theirs.state_dict()).keys() == theirs.state_dict().keys()
    with pytest.raises(UserError, match="does not hold the RAFT variant"):
        load_raft_weights(FlowNetwork(config=RaftConfig(variant="small")), tmp_path / "raft-things.pth")


@pytest.mark.parametrize("key", ["fnet.oops", "cnet.layer1.0.conv1.weight", "conv1.weight"])
def test_other_weights_are_refused(key: str, tmp_path: Path) -> None:
    torch.save({key: torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(UserError, match="does not hold the RAFT variant"):
        load_raft_weights(FlowNetwork(config=RaftConfig(variant="tiny")), tmp_path / "other.pth")


@pytest.mark.parametrize("spread", [1.0, 6.0, 1e6])
@pytest.mark.parametrize(("level_height", "level_width"), [(6, 8), (30, 40)], ids=["by products", "by gathering"])
def test_lookup_equals_grid_sample_also_far_outside(level_height: int, level_width: int, spread: float) -> None:
    torch.manual_seed(0)
    height, width, radius = 5, 7, 3
    level = torch.randn(2 * height * width, level_height, level_width)
    home = identity_grid(torch.empty(2, 1, height, width))
    flow = spread * torch.randn(2, 2, height, width)
    steps = torch.linspace(-radius, radius, 2 * radius + 1)
    offsets = torch.stack(torch.meshgrid(steps, steps, indexing="ij"), dim=-1)  # x major, as RAFT reads it
    centre = (home + flow).permute(0, 2, 3, 1).reshape(-1, 1, 1, 2)
    grid = 2 * (centre + offsets) / torch.tensor([level_width - 1.0, level_height - 1.0]) - 1
    sampled = F.grid_sample(level.unsqueeze(1), grid, align_corners=True)
    expected = sampled.flatten(1)
    assert float((lookup(level, flow, 1, radius) - expected).abs().max()) < 2e-5


@pytest.mark.parametrize(("height", "width"), [(18, 32), (34, 60)], ids=["by products", "by gathering"])
def test_a_small_motion_far_from_the_corner_survives_bfloat16(height: int, width: int) -> None:
    # Every map reads 1 at its own position alone: what is sampled there is 1 less the distance.
    level = torch.eye(height * width).view(height * width, height, width)
    flow = torch.zeros(1, 2, height, width)
    flow[:, 0] = 0.07
    read = lookup(level.bfloat16(), flow.bfloat16(), 1, 0).float()
    assert float((read - 0.93).abs().max()) < 0.005


def test_the_small_variant_is_upsampled_as_its_authors_do() -> None:
    torch.manual_seed(0)
    network = FlowNetwork(config=RaftConfig(variant="small"))
    flow = torch.randn(2, 2, 5, 7)
    expected = 8 * F.interpolate(flow, scale_factor=8, mode="bilinear", align_corners=True)
    up = network.upsample(torch.empty(0), identity_grid(flow) + flow)
    assert float((up - expected).abs().max()) < 1e-4


@pytest.mark.parametrize("scale", [1, 2])
def test_a_stream_equals_pairs_with_a_warm_start(scale: int) -> None:
    torch.manual_seed(0)
    network = FlowNetwork(config=RaftConfig(variant="tiny", iterations=2, scale=scale)).eval()  # type: ignore[arg-type]
    frames = [np.random.default_rng(i).integers(0, 256, (64, 96, 3), np.uint8) for i in range(4)]
    flows = list(network.stream(frames))
    assert flows[0].shape == (1, 2, 64 // scale, 96 // scale)
    assert not flows[0].any()
    coords = None
    with torch.inference_mode():
        for index in range(1, 4):
            expected, coords = network(_tensor(frames[index]), _tensor(frames[index - 1]), coords=coords)
            assert np.allclose(flows[index], expected.numpy(), atol=1e-4)
            assert flows[index].any()


def test_the_flow_points_to_where_a_pixel_was(shared: Path) -> None:
    """The scene moves 6 right and 4 down: a pixel was 6 to the left and 4 up in the frame before."""
    wide = _frame(shared, 24, 256, 384)
    before, now = wide[20:212, 20:276], wide[16:208, 14:270]
    flow = list(_small(shared).stream([before, now]))[1][0]
    assert float(np.median(flow[0])) == pytest.approx(-6, abs=0.3)
    assert float(np.median(flow[1])) == pytest.approx(-4, abs=0.3)
    # At half size the flow is still told in pixels of the full image.
    half = list(_small(shared, scale=2).stream([before, now]))[1][0]
    assert half.shape == (2, 96, 128)
    assert float(np.median(half[0])) == pytest.approx(-6, abs=1)


def test_the_authors_weights_are_never_trained() -> None:
    assert not any(parameter.requires_grad for parameter in FlowNetwork(config=RaftConfig(variant="tiny")).parameters())


@pytest.mark.parametrize("scale", [1, 2, 4])
def test_another_scale_gives_a_field_of_the_same_size_and_unit(scale: int) -> None:
    network = FlowNetwork(config=RaftConfig(variant="tiny", scale=2))
    network.scale = scale
    fmap = network.encode(network.prepare(torch.zeros(1, 3, 128, 192)))
    assert fmap.shape[2:] == (128 // (8 * scale), 192 // (8 * scale))
    # Everything was two positions to the right.
    field = network.upsample(fmap, identity_grid(fmap) + torch.tensor([2.0, 0.0]).view(1, 2, 1, 1))
    assert field.shape == (1, 2, 64, 96)
    torch.testing.assert_close(field[0, 0], torch.full((64, 96), 2.0 * 8 * scale))
    assert field[0, 1].abs().max() == 0


def test_the_coarsest_correlation_bounds_the_size() -> None:
    network = FlowNetwork(config=RaftConfig(variant="small", scale=4))
    assert network.least_size == 256
    fmap = network.encode(network.prepare(torch.zeros(1, 3, 256, 256)))
    assert network.correlate(fmap, fmap)[-1].shape[1:] == (1, 1)
