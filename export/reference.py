"""Recording of the parity reference: inputs and outputs of every graph in PyTorch float32."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rvos_edge.errors import UserError
from rvos_edge.export.graphs import COARSE, STATES, ExportGraph
from rvos_edge.export.precision import wired
from rvos_edge.manifest import FLOW_OUTPUT, FRAME_INPUT, TEXT_GRAPH, Parity, Proof
from rvos_edge.parity.record import Reference, sample
from rvos_edge.parity.verify import compare
from rvos_edge.streaming.sources import open_source
from rvos_edge.synthetic.camera import SyntheticCamera
from rvos_edge.trainer.checkpoint import Checkpoint
from rvos_edge.trainer.model.flow import identity_grid
from rvos_edge.trainer.model.language import tokenize
from rvos_edge.trainer.predictor import TorchSegmenter

QUERIES = ("a dog", "the person on the left", "a red car")
_BRIEF = (FLOW_OUTPUT, COARSE)
"""Tensors that are float32 in every precision and need no more than eight bits here."""
_GRAPH_FRAMES = 3
"""Number of the recorded frame, on which the flow already starts warm."""


@dataclass(frozen=True)
class ReferenceClip:
    """Frames uint8 [H,W,3] BGR at the network's size, the name of their source, and queries about them."""

    frames: Sequence[NDArray[np.uint8]]
    source: str
    queries: tuple[str, ...]


def at_size(
    frames: Iterable[NDArray[np.uint8]], size: tuple[int, int], source: str, queries: tuple[str, ...]
) -> ReferenceClip:
    """A clip of frames of any size, uint8 [H,W,3]."""
    resized = (cv2.resize(frame, (size[1], size[0]), interpolation=cv2.INTER_LINEAR) for frame in frames)
    return ReferenceClip([np.asarray(frame, np.uint8) for frame in resized], source, queries)


def read_clip(source: Path | None, size: tuple[int, int], count: int) -> ReferenceClip:
    """Read ``count`` consecutive frames of a video or an image folder; of the synthetic camera when None.

    Raises:
        UserError: The source cannot be read or has fewer than two frames.
    """
    with open_source("synthetic:0" if source is None else str(source), size=size) as opened:
        frames = [frame.image.copy() for frame in islice(opened, count)]
    if len(frames) < 2:
        raise UserError(f"--source {source} has fewer than two frames; give a video or a folder of consecutive images.")
    if source is not None:
        return at_size(frames, size, source.name, QUERIES)
    # Queries about visible objects: a proof on nearly empty masks would be weak.
    queries = [said[0] for said in SyntheticCamera(seed=0, size=size).expressions(0) if said]
    return at_size(frames, size, "synthetic camera, seed 0", tuple(queries[: len(QUERIES)]) or QUERIES)


@torch.no_grad()
def record(graphs: Sequence[ExportGraph], checkpoint: Checkpoint, clip: ReferenceClip) -> Reference:
    """Run the float32 graphs over a clip; record their inputs and outputs on one frame, and all masks."""
    board: dict[str, Tensor] = {}
    inputs: dict[str, dict[str, NDArray[Any]]] = {}
    outputs: dict[str, dict[str, NDArray[np.float32]]] = {}
    text, *rest = graphs
    tokens: list[tuple[Tensor, ...]] = [
        tokenize(checkpoint.tokenizer, [query], checkpoint.model.config.text.max_tokens) for query in clip.queries
    ]
    vectors = [text.module(*ids) for ids in tokens]
    inputs[TEXT_GRAPH] = _arrays(text.inputs, tokens[0])
    outputs[TEXT_GRAPH] = _samples(text.outputs, vectors[0])
    for name, levels in zip(text.outputs, zip(*vectors, strict=True), strict=True):
        board[name] = torch.cat(levels)
    seen = clip.frames[:_GRAPH_FRAMES]
    iterations = checkpoint.model.flow.iterations if checkpoint.model.flow is not None else 0
    for index, frame in enumerate(seen):
        board[FRAME_INPUT] = torch.from_numpy(frame)
        last = index == len(seen) - 1
        for graph in rest:
            if index and graph.name == "flow_step":
                board.setdefault("coords", identity_grid(board["fmap"]))
            elif index == 0 and graph.name != "flow_encode":
                continue
            for run in range(iterations if graph.name == "flow_step" else 1):
                given = tuple(board[name] for name in graph.inputs)
                if last:
                    given = _rounded(graph.inputs, given)
                results = graph.module(*given)
                if last and run == 0:
                    inputs[graph.name] = _arrays(graph.inputs, given)
                    outputs[graph.name] = _samples(graph.outputs, results)
                board.update(zip(graph.outputs, results, strict=True))
                if graph.name == "flow_step":
                    board.update({state: board[STATES[state]] for state in ("hidden", "coords")})
        if "fmap" in board:
            board["fmap_prev"] = board["fmap"]
    # Verification compares the masks of absent queries too.
    segmenter = TorchSegmenter(checkpoint, size=clip.frames[0].shape[:2], min_presence=0)
    segmenter.set_queries(clip.queries)
    masks = np.stack([segmenter.masks(frame) for frame in clip.frames])
    return Reference(clip.source, clip.queries, np.stack(clip.frames), masks, inputs, outputs)


@torch.no_grad()
def run_once(graph: ExportGraph, reference: Reference) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Inputs and outputs of a float32 graph on the recorded frame."""
    inputs = _rounded(graph.inputs, _tensors(graph, reference))
    return inputs, graph.module(*inputs)


@torch.no_grad()
def prove_in_pytorch(graphs: Sequence[ExportGraph], reference: Reference) -> Proof:
    """Parity of float16 graphs in PyTorch's float16 arithmetic, which rounds after every layer."""
    parity: dict[str, Parity] = {}
    for graph in graphs:
        results = graph.module(*wired(graph.inputs, _tensors(graph, reference), "float16"))
        found = {name: tensor.numpy() for name, tensor in zip(graph.outputs, results, strict=True)}
        parity[graph.name] = compare(found, reference.outputs[graph.name])
    return Proof(
        backend=f"PyTorch {torch.__version__} (cpu)",
        note="every layer rounds to float16, sums inside a layer are float32",
        graphs=parity,
        mask_iou=None,
        frames=1,
        source=reference.source,
    )


def _tensors(graph: ExportGraph, reference: Reference) -> tuple[Tensor, ...]:
    return tuple(torch.from_numpy(np.array(reference.inputs[graph.name][name])) for name in graph.inputs)


def _rounded(names: Sequence[str], tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Floating-point tensors rounded as the record keeps them, in float32."""
    narrow = _narrow(names, tensors)
    return tuple(tensor.float() if tensor.is_floating_point() else tensor for tensor in narrow)


def _arrays(names: Sequence[str], tensors: Sequence[Tensor]) -> dict[str, NDArray[Any]]:
    return {name: tensor.numpy() for name, tensor in zip(names, _narrow(names, tensors), strict=True)}


def _narrow(names: Sequence[str], tensors: Sequence[Tensor]) -> list[Tensor]:
    """Tensors as the record keeps them: large ones in eight bits of their largest value, which compress well."""
    wires = zip(names, wired(names, tensors, "float16"), strict=True)
    return [_brief(tensor) if tensor.dtype == torch.float16 or name in _BRIEF else tensor for name, tensor in wires]


def _brief(tensor: Tensor) -> Tensor:
    """A float tensor rounded to multiples of a power of two, 256 of which reach its largest value."""
    largest = float(tensor.abs().max())
    step = 2.0 ** (math.ceil(math.log2(largest)) - 8) if largest else 1.0
    return ((tensor.float() / step).round() * step).to(tensor.dtype)


def _samples(names: Sequence[str], tensors: Sequence[Tensor]) -> dict[str, NDArray[np.float32]]:
    return {name: sample(tensor.numpy()) for name, tensor in zip(names, tensors, strict=True)}
