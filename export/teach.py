"""The optional graph ``teach``: loss and gradient in the language vectors of one query, for one frame's features.

The language vectors are inputs of ``gating``, so a query can be learned on the device while every other graph stays as
it is. The loss is that of the decoder's own logits at its stride, as in training, before any refinement.

ONNX has no gradients: the backward pass is traced into an ordinary graph. Two of its operations exist in no runtime and
are written with those that do: the gradient of a convolution in its input is a transposed convolution, and bilinear
resizing, forwards and backwards, is a product with two constant matrices.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch._decomp import core_aten_decompositions
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn import functional as F

from rvos_edge.export.graphs import LANGUAGE, LEVELS, ExportGraph
from rvos_edge.manifest import GATING_GRAPH, GRADIENT, LOSS, TARGET, TEACH_GRAPH, WEIGHT
from rvos_edge.parity.record import Reference, sample
from rvos_edge.trainer.model.hinet import HINet

_aten = torch.ops.aten


def build_teach(model: HINet, size: tuple[int, int]) -> ExportGraph:
    """The graph of a float32 network for images of ``size`` (height, width)."""
    levels = tuple(LEVELS[index] for index in model.used_levels)
    language = tuple(LANGUAGE[index] for index in model.used_levels)
    flow = () if model.flow is None else ("flow",)
    inputs = (*levels, *flow, *language, TARGET, WEIGHT)
    outputs = (LOSS, *(f"{GRADIENT}{name.removeprefix('lang')}" for name in language))
    return ExportGraph(TEACH_GRAPH, Teach(model, inputs), inputs, outputs, {})


def teaching_loss(margin: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Binary cross-entropy over the weighted pixels, plus Dice where the object is there; all float [1,1,h,w], target
    0..1.
    """
    entropy = weight * (F.softplus(margin) - target * margin)
    loss = entropy.sum() / weight.sum().clamp(min=1e-6)
    probability, truth = torch.sigmoid(margin) * weight, target * weight
    dice = 1 - (2 * (probability * target).sum() + 1) / (probability.sum() + truth.sum() + 1)
    return loss + dice * (truth.sum() > 0).to(loss.dtype)


class Teach(nn.Module):
    """Inputs of ``gating`` for one query, target and weight -> loss [1] and gradient of each language vector."""

    def __init__(self, model: HINet, inputs: tuple[str, ...]) -> None:
        super().__init__()
        self.model, self.inputs = model, inputs

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        named = dict(zip(self.inputs, tensors, strict=True))
        given = {**named, "c2": named["c2"].permute(0, 3, 1, 2)} if "c2" in named else named
        levels = [given.get(name, tensors[0]) for name in LEVELS[:4]]
        visions, motions = self.model.condition(levels, named.get("flow"))
        spoken = tuple(named[LANGUAGE[index]] for index in self.model.used_levels)

        def loss_of(vectors: tuple[Tensor, ...]) -> Tensor:
            by_level = dict(zip(self.model.used_levels, vectors, strict=True))
            language = tuple(by_level.get(index, vectors[-1]).unsqueeze(0) for index in range(4))
            logits = self.model.answer(visions, motions, language)[0]
            return teaching_loss((logits[:, 1] - logits[:, 0]).unsqueeze(0), named[TARGET], named[WEIGHT])

        gradients, loss = torch.func.grad_and_value(loss_of)(spoken)
        return (loss.reshape(1), *gradients)


@torch.no_grad()
def with_teach(model: HINet, size: tuple[int, int], reference: Reference) -> tuple[ExportGraph, Reference]:
    """The graph, and a recorded run that it takes part in: its first query, taught an object in the middle."""
    graph = build_teach(model, size)
    recorded = reference.inputs[GATING_GRAPH]
    inputs: dict[str, NDArray[Any]] = {
        name: recorded[name][:1] for name in graph.inputs if name not in (TARGET, WEIGHT)
    }
    height, width = (extent // model.decoder_stride for extent in size)
    target = np.zeros((1, 1, height, width), np.float32)
    target[:, :, height // 3 : 2 * height // 3, width // 3 : 2 * width // 3] = 1
    weight = np.ones_like(target)
    weight[..., : width // 8] = 0
    inputs |= {TARGET: target, WEIGHT: weight}
    results = graph.module(*(torch.from_numpy(np.asarray(inputs[name], np.float32)) for name in graph.inputs))
    outputs = {name: sample(tensor.numpy()) for name, tensor in zip(graph.outputs, results, strict=True)}
    return graph, replace(
        reference,
        inputs={**reference.inputs, TEACH_GRAPH: inputs},
        outputs={**reference.outputs, TEACH_GRAPH: outputs},
    )


def traced(graph: ExportGraph, example: tuple[Tensor, ...]) -> ExportGraph:
    """The graph with its backward pass written out, for the extents of ``example``."""
    with torch.no_grad(), _without_in_place(graph.module):
        module = make_fx(graph.module, decomposition_table=_decompositions())(*example)
    return ExportGraph(graph.name, module, graph.inputs, graph.outputs, graph.dynamic)


@contextlib.contextmanager
def _without_in_place(module: nn.Module) -> Iterator[None]:
    """Without ReLUs that write over their input, which cannot be traced backwards."""
    relus = [part for part in module.modules() if isinstance(part, nn.ReLU) and part.inplace]
    for relu in relus:
        relu.inplace = False
    try:
        yield
    finally:
        for relu in relus:
            relu.inplace = True


def _decompositions() -> dict[Any, Callable[..., Any]]:
    table: dict[Any, Callable[..., Any]] = dict(core_aten_decompositions())
    table[_aten.convolution_backward.default] = _convolution_backward
    table[_aten.upsample_bilinear2d.default] = _bilinear
    table[_aten.upsample_bilinear2d_backward.default] = _bilinear_backward
    return table


def _convolution_backward(
    gradient: Tensor,
    features: Tensor,
    weight: Tensor,
    bias_sizes: list[int] | None,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    transposed: bool,
    output_padding: list[int],
    groups: int,
    mask: list[bool],
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """The gradient in the input alone: weights are not taught."""
    if transposed or not mask[0]:
        raise ValueError("only the gradient of an ordinary convolution in its input is written out")
    if weight.shape[2:] == (1, 1) and groups == 1 and stride == [1, 1] and padding == [0, 0]:
        # As a product with the transposed weights: OpenVINO computes chains of 1x1 transposed convolutions wrongly.
        return F.conv2d(gradient, weight.transpose(0, 1)), None, None
    extra = [
        features.shape[2 + axis]
        - ((gradient.shape[2 + axis] - 1) * stride[axis] - 2 * padding[axis])
        - dilation[axis] * (weight.shape[2 + axis] - 1)
        - 1
        for axis in range(2)
    ]
    back = F.conv_transpose2d(gradient, weight, None, stride, padding, extra, groups, dilation)
    return back, None, None


def _bilinear(features: Tensor, output_size: list[int], align_corners: bool, *_: float | None) -> Tensor:
    """Bilinear resizing by two matrices: the exporter's tables of places would be larger than the weights."""
    rows = _resizing(features.shape[2], output_size[0], features)
    columns = _resizing(features.shape[3], output_size[1], features)
    return _times(_times(features, columns.mT).mT, rows.mT).mT


def _bilinear_backward(
    gradient: Tensor,
    output_size: list[int],
    input_size: list[int],
    align_corners: bool,
    *_: float | None,
) -> Tensor:
    rows = _resizing(input_size[2], output_size[0], gradient)
    columns = _resizing(input_size[3], output_size[1], gradient)
    return _times(_times(gradient, columns).mT, rows).mT


def _times(features: Tensor, matrix: Tensor) -> Tensor:
    """float [...,n] x [n,m] -> [...,m], as one product: a batched one would store the matrix per channel."""
    return (features.reshape(-1, len(matrix)) @ matrix).reshape(*features.shape[:-1], -1)


def _resizing(small: int, large: int, like: Tensor) -> Tensor:
    """float [large,small]: bilinear resizing of a row as a matrix, without aligned corners."""
    places = ((torch.arange(large, dtype=torch.float64) + 0.5) * small / large - 0.5).clamp(min=0)
    low = places.floor().long().clamp(max=small - 1)
    high = (low + 1).clamp(max=small - 1)
    share = places - low
    matrix = torch.zeros(large, small, dtype=torch.float64)
    matrix[torch.arange(large), low] += 1 - share
    matrix[torch.arange(large), high] += share
    return matrix.to(like.dtype)
