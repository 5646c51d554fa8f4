"""One nn.Module per graph of the bundle, composed from the network's own parts.

The names of inputs and outputs are the wiring: an output feeds the input of the same name. What does not change from
one ``flow_step`` to the next is an output of ``flow_context``, built once per frame: the correlation pyramid, and
``context``, the context's share of every update. ``flow_image``, the image as RAFT reads it, is made once for both
encoders. ``flow_step`` writes ``hidden_next`` and ``coords_next`` because an ONNX output cannot bear the name of an
input; the runtime swaps them.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rvos_edge.export.flow_update import ContextShare, Update
from rvos_edge.manifest import MARGIN_OUTPUT, PRESENCE_OUTPUT
from rvos_edge.trainer.model.flow import FlowNetwork
from rvos_edge.trainer.model.hinet import HINet

LANGUAGE = ("lang1", "lang2", "lang3", "lang4")
LEVELS = ("c2", "c3", "c4", "v4")
COARSE = "coarse"
"""Name of the margin of ``gating`` where ``boundary`` gives a finer one."""
STATES = {"fmap_prev": "fmap", "hidden": "hidden_next", "coords": "coords_next"}


@dataclass(frozen=True)
class ExportGraph:
    """A module to export with the names of its tensors.

    Attributes:
        dynamic: Input name -> axis -> symbolic extent.
    """

    name: str
    module: nn.Module
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    dynamic: dict[str, dict[int, str]]


class _Part(nn.Module):
    """A part of the network; what a graph does not use of it is dropped by the exporter."""

    def __init__(self, model: HINet) -> None:
        super().__init__()
        self.model = model

    @property
    def flow(self) -> FlowNetwork:
        assert self.model.flow is not None
        return self.model.flow


class _Text(_Part):
    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, ...]:
        return self.model.encode_text(input_ids, attention_mask)


class _Backbone(_Part):
    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        pixels = (planes(image) - self.model.mean) / self.model.std
        c2, *levels = self.model.backbone(pixels.to(_dtype(self.model.backbone)))
        return (c2.permute(0, 2, 3, 1), *levels)


class _Aspp(_Part):
    def forward(self, c5: Tensor) -> tuple[Tensor]:
        return (self.model.aspp(c5),)


class _Vision(_Part):
    """Backbone and ASPP in one."""

    def __init__(self, model: HINet) -> None:
        super().__init__(model)
        self.backbone = _Backbone(model)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        *levels, c5 = self.backbone(image)
        return (*levels, self.model.aspp(c5))


class _FlowEncode(_Part):
    def __init__(self, model: HINet) -> None:
        super().__init__(model)
        # One strided convolution takes means of squares and turns BGR to RGB: no runtime does these two as fast.
        scale = self.flow.scale
        mean = torch.eye(3).flip(0).view(3, 3, 1, 1).expand(3, 3, scale, scale) / scale**2
        self.shrink = nn.Parameter(mean.to(_dtype(self.flow.raft)).contiguous(), requires_grad=False)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        pixels = image.to(self.shrink.dtype).unsqueeze(0).permute(0, 3, 1, 2)
        # Means of four or sixteen whole numbers are exact in float16 too; the quotient is not.
        small = F.conv2d(pixels, self.shrink, stride=self.flow.scale).float()
        prepared = self.flow.normalise(small)
        return self.flow.encode(prepared), prepared


class _FlowContext(_Part):
    def __init__(self, model: HINet) -> None:
        super().__init__(model)
        self.share = ContextShare(self.flow.raft)

    def forward(self, flow_image: Tensor, fmap: Tensor, fmap_prev: Tensor) -> tuple[Tensor, ...]:
        hidden, context = self.flow.context(flow_image)
        return (hidden, self.share(context), *self.flow.correlate(fmap, fmap_prev))


class _FlowStep(_Part):
    def __init__(self, model: HINet) -> None:
        super().__init__(model)
        self.update = Update(self.flow.raft)

    def forward(self, *tensors: Tensor) -> tuple[Tensor, Tensor]:
        *pyramid, hidden, context, coords = tensors
        hidden, delta = self.update(hidden, context, *self.flow.look_up(tuple(pyramid), coords))
        return hidden, coords + delta.to(coords.dtype)


class _FlowUp(_Part):
    """Takes hidden and coords, or coords alone where the variant upsamples without the hidden state (RAFT-small)."""

    def forward(self, *tensors: Tensor) -> tuple[Tensor]:
        return (self.flow.upsample(tensors[0], tensors[-1]),)


class _Gating(_Part):
    """c2, c3, c4, v4, flow, lang1..4 (those the configuration uses) -> margin [Q,h,w] and, where there is such
    a head, presence [Q].
    """

    def __init__(self, model: HINet, inputs: tuple[str, ...]) -> None:
        super().__init__(model)
        self.inputs = inputs

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        named = dict(zip(self.inputs, tensors, strict=True))
        if "c2" in named:
            named["c2"] = named["c2"].permute(0, 3, 1, 2)
        # fusion: single uses level 4 alone; nothing reads the others' place-holders.
        levels = [named.get(name, tensors[0]) for name in LEVELS]
        last = named[LANGUAGE[3]]
        language = tuple(named.get(name, last).unsqueeze(0).to(_dtype(self.model.decoder)) for name in LANGUAGE)
        visions, motions = self.model.condition(levels, named.get("flow"))
        answer = self.model.answer(visions, motions, language)
        logits = answer.float()
        # Upsampling is linear: the upsampled margin's sign is the argmax of the upsampled logits, at half the cost.
        margin = logits[0, :, 1] - logits[0, :, 0]
        if self.model.presence is None:
            return (margin,)
        return margin, self.model.present(visions, named.get("flow"), language, answer)[0]


class _Boundary(_Part):
    """A graph of its own, because it must compute in float32 whatever the others do."""

    def __init__(self, model: HINet) -> None:
        super().__init__(model)
        # As in ``_FlowEncode``; the four pixels under each of the coarse margin are channels, and four ones follow.
        ones = torch.ones(model.stride, model.stride)
        places = torch.stack([torch.kron(place.view(2, 2), ones) for place in torch.eye(4)])
        means = torch.eye(3).flip(0).view(3, 1, 3, 1, 1) * places.view(1, 4, 1, *places.shape[1:])
        kernel = F.pad(means.flatten(0, 1), (0, 0, 0, 0, 0, 0, 0, 4)) / (255 * model.stride**2)
        self.shrink = nn.Parameter(kernel, requires_grad=False)
        self.ones = nn.Parameter(torch.tensor([0.0] * 12 + [1.0] * 4), requires_grad=False)

    def forward(self, image: Tensor, coarse: Tensor) -> tuple[Tensor]:
        pixels = image.to(torch.float32).unsqueeze(0).permute(0, 3, 1, 2)
        fine = F.conv2d(pixels, self.shrink, self.ones, stride=2 * self.model.stride)
        assert self.model.boundary is not None
        return (self.model.boundary.margin(fine, coarse.unsqueeze(1), 1)[:, 0],)


def _dtype(module: nn.Module) -> torch.dtype:
    return next(module.parameters()).dtype


def planes(image: Tensor) -> Tensor:
    """uint8 [H,W,3] BGR -> float32 [1,3,H,W] RGB 0..255."""
    return image.to(torch.float32).unsqueeze(0).permute(0, 3, 1, 2).flip(1)


def build_graphs(model: HINet, *, fuse: bool = False) -> tuple[ExportGraph, ...]:
    """The graphs of a network in the order in which a frame runs them; without flow the four flow graphs are absent."""
    vision = [
        ExportGraph("backbone", _Backbone(model), ("image",), ("c2", "c3", "c4", "c5"), {}),
        ExportGraph("aspp", _Aspp(model), ("c5",), ("v4",), {}),
    ]
    if fuse:
        vision = [ExportGraph("vision", _Vision(model), ("image",), LEVELS, {})]
    graphs = [
        ExportGraph(
            "text",
            _Text(model),
            ("input_ids", "attention_mask"),
            LANGUAGE,
            {"input_ids": {0: "Q", 1: "L"}, "attention_mask": {0: "Q", 1: "L"}},
        ),
        *vision,
    ]
    if model.flow is not None:
        pyramid = tuple(f"corr{index}" for index in range(model.flow.levels))
        graphs += [
            ExportGraph("flow_encode", _FlowEncode(model), ("image",), ("fmap", "flow_image"), {}),
            ExportGraph(
                "flow_context",
                _FlowContext(model),
                ("flow_image", "fmap", "fmap_prev"),
                ("hidden", "context", *pyramid),
                {},
            ),
            ExportGraph(
                "flow_step",
                _FlowStep(model),
                (*pyramid, "hidden", "context", "coords"),
                ("hidden_next", "coords_next"),
                {},
            ),
            ExportGraph("flow_up", _FlowUp(model), _flow_up_inputs(model), ("flow",), {}),
        ]
    presence = model.presence is not None
    levels = tuple(LEVELS[index] for index in model.used_levels)
    language = tuple(LANGUAGE[index] for index in model.used_levels)
    inputs = (*levels, *(("flow",) if model.flow is not None else ()), *language)
    rows = {name: {0: "Q"} for name in language}
    margin = MARGIN_OUTPUT if model.boundary is None else COARSE
    outputs = (margin, PRESENCE_OUTPUT) if presence else (margin,)
    graphs.append(ExportGraph("gating", _Gating(model, inputs), inputs, outputs, rows))
    if model.boundary is not None:
        graphs.append(
            ExportGraph(
                "boundary", _Boundary(model), ("image", COARSE), (MARGIN_OUTPUT,), {"image": {}, COARSE: {0: "Q"}}
            )
        )
    return tuple(graphs)


def _flow_up_inputs(model: HINet) -> tuple[str, ...]:
    """RAFT-small upsamples without looking at the hidden state: an unused input would be refused by TensorRT."""
    assert model.flow is not None
    return ("coords",) if model.flow.raft.mask_predictor is None else ("hidden", "coords")
