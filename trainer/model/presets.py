"""Network configurations, and the presets built from them (a preset is a config; users add their own in YAML)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeVar, get_args

import torchvision
from pydantic import BaseModel, Field, ValidationError, model_validator
from torchvision.models import list_models

from rvos_edge.errors import UserError
from rvos_edge.strict import StrictModel

Fusion = Literal["single", "hierarchical"]
FlowUse = Literal["none", "vision", "gate", "both"]
Boundary = Literal["none", "guided"]
TextKind = Literal["bert", "roberta", "clip"]
PresetName = Literal["paper", "desktop", "edge", "test"]

TIMM = "timm/"
"""Prefix of the backbones of timm."""
NARROW = "resnet18_narrow"
"""Name of the backbone of the preset ``test``."""
_BASIC_BLOCKS = (NARROW, "resnet18", "resnet34")

_Model = TypeVar("_Model", bound=BaseModel)

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def is_resnet(name: str) -> bool:
    """True for the names of torchvision's ResNets, ResNeXts and wide ResNets."""
    return name.startswith(("resnet", "resnext", "wide_resnet"))


class BackboneConfig(StrictModel):
    """The image encoder."""

    name: str
    """``efficientnet_lite0``, a classifier of torchvision (``resnet50``, ``mobilenet_v3_large``, ...), or
    ``timm/NAME``."""
    stride: Literal[8, 16, 32] = 8
    """Total stride of C5, reached by dilation: of EfficientNet-Lite0, of ResNets with bottlenecks and of timm's
    networks; others have 32 only."""

    @model_validator(mode="after")
    def _the_network_exists_and_dilates(self) -> BackboneConfig:
        if self.name == "efficientnet_lite0" or self.name.startswith(TIMM):
            return self
        if self.name != NARROW and self.name not in list_models(module=torchvision.models):
            raise ValueError(f"no backbone is called {self.name}; give a classifier of torchvision, or {TIMM}NAME")
        if self.stride != 32 and (not is_resnet(self.name) or self.name in _BASIC_BLOCKS):
            raise ValueError(f"{self.name} has stride 32 only, got {self.stride}")
        return self


class TextConfig(StrictModel):
    """The sentence encoder; the facts of its configuration are stored so that a checkpoint stands alone."""

    kind: TextKind = "bert"
    vocab_size: int = 30522
    hidden_size: int
    layers: int
    heads: int
    intermediate_size: int
    activation: str = "gelu"
    layer_norm_eps: float = 1e-12
    positions: int = 512
    """Longest input of the text model, in tokens."""
    pooling: Literal["cls", "mean", "last"] = "cls"
    """Vector of the first token, mean of all, or vector of the last (CLIP's end of text)."""
    projection_hidden: int = Field(default=0, ge=0)
    """Width of a hidden layer in the projections to l_1..l_4; 0 makes them linear."""
    max_tokens: int = Field(default=64, gt=2, le=512)

    @model_validator(mode="after")
    def _heads_share_the_width(self) -> TextConfig:
        if self.heads < 1 or self.hidden_size % self.heads:
            raise ValueError(f"heads must divide hidden_size {self.hidden_size}, got {self.heads}")
        if self.max_tokens > self.positions:
            raise ValueError(f"max_tokens must be at most the {self.positions} positions, got {self.max_tokens}")
        return self


class RaftConfig(StrictModel):
    """The optical flow network and how it is run on a stream."""

    variant: Literal["large", "small", "tiny"] = "small"
    iterations: int = Field(default=12, ge=1)
    scale: Literal[1, 2, 4] = 1
    """Flow is computed on the image reduced by this factor."""


class ModelConfig(StrictModel):
    """Configuration of HINet; values are those of the supplement, section 1, unless stated otherwise."""

    preset: str
    backbone: BackboneConfig
    text: TextConfig
    raft: RaftConfig | None
    fusion: Fusion = "hierarchical"
    flow: FlowUse = "both"
    size: tuple[int, int]
    """Default height and width of the input, multiples of 32."""
    level_channels: tuple[int, int, int] = (48, 48, 48)
    """c_1, c_2, c_3: channels of the projections of C2, C3, C4 (supplement, section 1)."""
    aspp_channels: int = 256
    """c_4: channels of ASPP."""
    aspp_rates: tuple[int, int, int] = (12, 24, 36)
    motion_channels: int = 32
    """Width of the motion encoder."""
    decoder_channels: tuple[int, int, int] = (256, 256, 256)
    """Channels of D_1, D_2, D_3, finest first."""
    separable_levels: int = Field(default=0, ge=0, le=4)
    """Number of finest levels with depthwise-separable convolutions; these levels hold most of the pixels."""
    position: bool = False
    """Add two coordinate channels to ASPP's features, for expressions about places (beyond the paper)."""
    attention_heads: int = Field(default=0, ge=0)
    """Heads of a self-attention block after the interaction of the coarsest level, which compares candidates (beyond
    the paper); 0 leaves it out."""
    presence: bool = False
    """Add a head for the presence of the referred object (beyond the paper; trained by ``tasks.presence``)."""
    boundary: Boundary = "none"
    """``guided``: masks follow the image's edges, at twice the decoder's resolution (beyond the paper)."""

    @property
    def channels(self) -> tuple[int, int, int, int]:
        """c_1..c_4."""
        return (*self.level_channels, self.aspp_channels)

    @model_validator(mode="after")
    def _check(self) -> ModelConfig:
        if any(extent < 32 or extent % 32 for extent in self.size):
            raise ValueError(f"size must be multiples of 32, got {self.size[0]}x{self.size[1]}")
        if self.flow != "none" and self.raft is None:
            raise ValueError(f"flow: {self.flow} needs a raft section")
        if self.attention_heads and self.aspp_channels % self.attention_heads:
            raise ValueError(
                f"attention_heads must divide aspp_channels {self.aspp_channels}, got {self.attention_heads}"
            )
        return self


_BERT_BASE = TextConfig(hidden_size=768, layers=12, heads=12, intermediate_size=3072)
_MINILM_L6 = TextConfig(hidden_size=384, layers=6, heads=12, intermediate_size=1536, pooling="mean")

_PRESETS: dict[str, ModelConfig] = {
    "paper": ModelConfig(
        preset="paper",
        backbone=BackboneConfig(name="resnet101", stride=8),
        text=_BERT_BASE,
        raft=RaftConfig(variant="large", iterations=12),
        size=(480, 864),
    ),
    "desktop": ModelConfig(
        preset="desktop",
        backbone=BackboneConfig(name="resnet50", stride=8),
        text=_MINILM_L6,
        raft=RaftConfig(variant="small", iterations=12),
        size=(480, 864),
        decoder_channels=(128, 128, 128),
    ),
    "edge": ModelConfig(
        preset="edge",
        backbone=BackboneConfig(name="efficientnet_lite0", stride=16),
        text=_MINILM_L6.model_copy(update={"projection_hidden": 256}),
        # Few iterations from a warm start: the flow of a stream converges over frames, not within one.
        raft=RaftConfig(variant="small", iterations=3, scale=2),
        size=(288, 512),
        level_channels=(24, 32, 64),
        aspp_channels=128,
        aspp_rates=(3, 6, 9),
        motion_channels=16,
        decoder_channels=(32, 48, 96),
        separable_levels=2,
        position=True,
        attention_heads=4,
        boundary="guided",
    ),
    "test": ModelConfig(
        preset="test",
        backbone=BackboneConfig(name=NARROW, stride=32),
        text=TextConfig(vocab_size=512, hidden_size=32, layers=2, heads=2, intermediate_size=64, max_tokens=32),
        raft=RaftConfig(variant="tiny", iterations=2),
        size=(64, 96),
        level_channels=(8, 8, 8),
        aspp_channels=16,
        aspp_rates=(1, 2, 3),
        motion_channels=8,
        decoder_channels=(16, 16, 16),
    ),
}


def model_config(preset: str, **changes: object) -> ModelConfig:
    """The configuration of a preset, with some top-level fields replaced.

    Raises:
        UserError: The preset or a key does not exist, or a value is out of range.

    Example:
        >>> model_config("test", fusion="single", flow="none").fusion
        'single'
    """
    if preset not in _PRESETS:
        raise UserError(f"Unknown preset '{preset}'; choose one of {', '.join(get_args(PresetName))}.")
    document = _PRESETS[preset].model_dump()
    for key, value in changes.items():
        if isinstance(value, dict) and isinstance(document.get(key), dict):
            document[key] = {**document[key], **value}
        else:
            document[key] = value
    return parse_config(ModelConfig, document, f"model preset '{preset}'")


def parse_config(kind: type[_Model], document: object, where: str) -> _Model:
    """Validate a document against a config class, turning the first fault into one sentence."""
    try:
        return kind.model_validate(document)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            known = ", ".join(_known_keys(kind, first["loc"][:-1]))
            raise UserError(f"{where}: unknown key '{key}'; known keys there are {known}.") from error
        message = first["msg"].removeprefix("Value error, ")
        raise UserError(": ".join([where, *([f"'{key}'"] if key else []), f"{message}."])) from error


def _known_keys(kind: type[BaseModel], location: Sequence[int | str]) -> list[str]:
    """Keys that a configuration has at a location of an error, such as ``("data", "sources", 0, "coco")``."""
    models = [kind]
    for part in location:
        if any(part in model.model_fields for model in models):
            fields = [model.model_fields[str(part)] for model in models if part in model.model_fields]
            models = [inner for field in fields for inner in _models_in(field.annotation)]
        elif isinstance(part, str):  # the tag or the class of a union
            tags = [
                (
                    model.__name__,
                    *(get_args(model.model_fields["kind"].annotation) if "kind" in model.model_fields else ()),
                )
                for model in models
            ]
            models = [model for model, names in zip(models, tags, strict=True) if part in names] or models
    return sorted({name for model in models for name in model.model_fields})


def _models_in(annotation: object) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in get_args(annotation) for model in _models_in(argument)]
