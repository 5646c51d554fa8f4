"""Image encoders by name: those of ``backbone``, torchvision's classifiers, and timm's (optional)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
import torchvision
from torch import Tensor, nn

from rvos_edge.errors import UserError
from rvos_edge.trainer.model.backbone import Backbone, EfficientNetLite0, Levels, ResNet, load_strict
from rvos_edge.trainer.model.presets import TIMM, BackboneConfig, is_resnet

_STRIDES = (4, 8, 16, 32)
_PROBE = 64


def build_backbone(config: BackboneConfig) -> Backbone:
    """The backbone of a config, with random weights.

    Raises:
        UserError: There is no such network, or it has no feature maps of the strides that are needed.
    """
    if config.name == "efficientnet_lite0":
        return EfficientNetLite0(stride=config.stride)
    if is_resnet(config.name):
        return ResNet(name=config.name, stride=config.stride)
    if config.name.startswith(TIMM):
        return TimmBackbone(name=config.name.removeprefix(TIMM), stride=config.stride)
    return TorchvisionBackbone(name=config.name)


class TorchvisionBackbone(Backbone):
    """A classifier of torchvision whose body is a sequence of modules: MobileNet, EfficientNet, ConvNeXt and others.

    C2..C5 are the last outputs at strides 4, 8, 16 and 32.
    """

    def __init__(self, *, name: str) -> None:
        super().__init__()
        try:
            body = torchvision.models.get_model(name, weights=None).features
            self.ends, self.channels = _levels(body)
        except (ValueError, AttributeError, KeyError, RuntimeError) as error:
            raise UserError(
                f"backbone.name: {name} of torchvision has no sequence of feature maps of strides 4 to 32; choose "
                f"mobilenet_v3_large, efficientnet_b0, convnext_tiny, a ResNet, or {TIMM}NAME."
            ) from error
        self.strides = _STRIDES
        self.features = body[: self.ends[-1] + 1]

    def forward(self, image: Tensor) -> Levels:
        found = []
        for index, module in enumerate(self.features):
            image = module(image)
            if index in self.ends:
                found.append(image)
        return cast("Levels", tuple(found))

    def early(self) -> list[nn.Module]:
        return list(self.features[: self.ends[0] + 1])

    def load_pretrained(self, state: Mapping[str, Tensor]) -> None:
        load_strict(self, {key: value for key, value in state.items() if key.startswith("features.")}, "backbone")


class TimmBackbone(Backbone):
    """A network of timm by its last four feature maps; ``stride`` is its output stride, where it can be chosen."""

    def __init__(self, *, name: str, stride: int) -> None:
        super().__init__()
        try:
            import timm
        except ImportError as error:
            raise UserError(f"backbone.name: {TIMM}{name} needs the package timm; pip install timm.") from error
        chosen = {} if stride == _STRIDES[-1] else {"output_stride": stride}
        try:
            self.body: Any = timm.create_model(name, pretrained=False, features_only=True, **chosen)
            info = self.body.feature_info
            strides, channels = tuple(info.reduction()[-4:]), tuple(info.channels()[-4:])
        except Exception as error:  # timm raises a different class for every kind of network
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise UserError(f"backbone.name: timm does not make a backbone of {name} ({reason}).") from error
        if strides != tuple(min(own, stride) for own in _STRIDES):
            raise UserError(f"backbone.name: {TIMM}{name} has strides {strides}, not 4 to {stride}; choose another.")
        self.strides = cast("tuple[int, int, int, int]", strides)
        self.channels = cast("tuple[int, int, int, int]", channels)
        self._second = str(info.module_name()[-4]).replace(".", "_")

    def forward(self, image: Tensor) -> Levels:
        return cast("Levels", tuple(self.body(image)[-4:]))

    def early(self) -> list[nn.Module]:
        found: list[nn.Module] = []
        for name, module in self.body.named_children():
            found.append(module)
            if name.replace(".", "_") == self._second:
                break
        return found

    def load_pretrained(self, state: Mapping[str, Tensor]) -> None:
        # timm flattens some names of a network that gives features: stages.0 becomes stages_0.
        given = {key.replace(".", "_"): value for key, value in state.items()}
        own = self.body.state_dict()
        found = {key: given[key.replace(".", "_")] for key in own if key.replace(".", "_") in given}
        load_strict(self.body, found, "backbone")


def _levels(body: Sequence[nn.Module]) -> tuple[tuple[int, ...], tuple[int, int, int, int]]:
    """Positions and channels of the last outputs at strides 4, 8, 16 and 32."""
    ends: dict[int, tuple[int, int]] = {}
    image = torch.zeros(1, 3, _PROBE, _PROBE)
    with torch.no_grad():
        for index, module in enumerate(body):
            image = module.eval()(image)
            module.train()
            if image.ndim == 4 and image.shape[2] == image.shape[3] and _PROBE % image.shape[2] == 0:
                ends[_PROBE // image.shape[2]] = index, image.shape[1]
    found = [ends[stride] for stride in _STRIDES]
    return tuple(index for index, _ in found), cast("tuple[int, int, int, int]", tuple(count for _, count in found))
