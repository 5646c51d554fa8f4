"""Proof that the exported graphs are right: each against PyTorch float32, and the chain against the network."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
import onnxruntime as ort
import torch
from numpy.typing import NDArray
from torch import Tensor

from rvos_edge.bundle import EndToEnd, Parity
from rvos_edge.errors import UserError
from rvos_edge.export.graphs import STATES, Graph
from rvos_edge.export.precision import Storage
from rvos_edge.segmenter import open_segmenter
from rvos_edge.stream.sources import open_source
from rvos_edge.trainer.checkpoint import Checkpoint
from rvos_edge.trainer.model.flow import identity_grid
from rvos_edge.trainer.model.hinet import HINet
from rvos_edge.trainer.model.language import tokenize
from rvos_edge.trainer.predictor import TorchSegmenter

TOLERANCE: dict[Storage, float] = {
    # Only the order of additions differs; a ReLU network of a hundred layers turns 1e-7 into about 1e-5.
    "float32": 1e-3,
    # Rounding to 11 bits is 5e-4 per weight and averages out over the inputs of a neuron.
    "float16": 1e-2,
    # Eight bits of the row's maximum: about 1 % per weight, a few per cent after six transformer layers.
    "int8": 1e-1,
}
"""Largest relative L2 difference of any output, by how the weights are stored."""

LEAST_IOU = 0.97
"""Smallest IoU of the runtime's masks with PyTorch's: only undecided pixels may differ."""

QUERIES = ("a dog", "the person on the left", "a red car")


def real_frames(source: Path | None, size: tuple[int, int], count: int) -> tuple[list[NDArray[np.uint8]], str]:
    """``count`` consecutive frames at the network's size, and what they are.

    Args:
        source: A video or an image folder; the synthetic camera without one.
        size: Height and width.
        count: How many.

    Raises:
        UserError: The source cannot be read or has fewer than two frames.
    """
    frames: list[NDArray[np.uint8]] = []
    with open_source("synthetic:0" if source is None else str(source), size=size) as opened:
        for frame in opened:
            resized = cv2.resize(frame.image, (size[1], size[0]), interpolation=cv2.INTER_LINEAR)
            frames.append(np.asarray(resized, np.uint8))
            if len(frames) == count:
                break
    if len(frames) < 2:
        raise UserError(f"--frames {source} has fewer than two frames; give a video or a folder of consecutive images.")
    return frames, "synthetic camera, seed 0" if source is None else source.name


class Reference:
    """Runs the graphs' modules in PyTorch on a stream and hands out the inputs and outputs of every one.

    Args:
        graphs: The graphs in order.
        checkpoint: Network and tokenizer.
    """

    def __init__(self, graphs: Sequence[Graph], checkpoint: Checkpoint) -> None:
        self.graphs = graphs
        self.model: HINet = checkpoint.model
        self.tokenizer = checkpoint.tokenizer

    @torch.no_grad()
    def frames(
        self, frames: Sequence[NDArray[np.uint8]]
    ) -> Iterator[tuple[Graph, tuple[Tensor, ...], tuple[Tensor, ...]]]:
        """uint8 [H,W,3] BGR frames -> (graph, inputs, outputs) of every run in PyTorch from the second frame on."""
        board: dict[str, Tensor] = {}
        text, *rest = self.graphs
        vectors = []
        for query in QUERIES:
            inputs: tuple[Tensor, ...] = tokenize(self.tokenizer, [query], self.model.config.text.max_tokens)
            outputs: tuple[Tensor, ...] = text.module(*inputs)
            yield text, inputs, outputs
            vectors.append(outputs)
        for name, levels in zip(text.outputs, zip(*vectors, strict=True), strict=True):
            board[name] = torch.cat(levels)
        for index, frame in enumerate(frames):
            board["image"] = torch.from_numpy(frame)
            for graph in rest:
                if index == 0 and graph.name != "flow_encode":
                    continue
                is_step = graph.name == "flow_step"
                for _ in range(self.model.flow.iterations if is_step and self.model.flow else 1):
                    if is_step and "coords" not in board:
                        board["coords"] = identity_grid(board["fmap"])
                    inputs = tuple(board[name] for name in graph.inputs)
                    outputs = graph.module(*inputs)
                    yield graph, inputs, outputs
                    board.update(zip(graph.outputs, outputs, strict=True))
                    if is_step:
                        for state in ("hidden", "coords"):
                            board[state] = board[STATES[state]]
            if "fmap" in board:
                board["fmap_prev"] = board["fmap"]


def measure_parity(
    reference: Reference, frames: Sequence[NDArray[np.uint8]], files: Mapping[str, Path]
) -> dict[str, Parity]:
    """Worst difference of every ONNX file's outputs from PyTorch's, on the inputs that PyTorch's chain gives it."""
    providers = ["CPUExecutionProvider"]
    sessions = {name: ort.InferenceSession(str(path), providers=providers) for name, path in files.items()}
    worst: dict[str, Parity] = {}
    for graph, inputs, expected in reference.frames(frames):
        feeds = {name: tensor.numpy() for name, tensor in zip(graph.inputs, inputs, strict=True)}
        actual = sessions[graph.name].run(list(graph.outputs), feeds)
        for theirs, ours in zip(expected, actual, strict=True):
            parity = _difference(theirs.numpy(), ours)
            before = worst.get(graph.name, parity)
            worst[graph.name] = Parity(
                max_abs=max(before.max_abs, parity.max_abs), relative_l2=max(before.relative_l2, parity.relative_l2)
            )
    return worst


def check_parity(parity: Mapping[str, Parity], storage: Mapping[str, Storage]) -> None:
    """Refuse graphs out of tolerance.

    Raises:
        UserError: The sentence names the graph and its difference.
    """
    for name, value in parity.items():
        limit = TOLERANCE[storage[name]]
        if not value.relative_l2 <= limit:  # also catches NaN
            raise UserError(
                f"Graph '{name}' differs from PyTorch by {value.relative_l2:.2g} (relative L2), more than {limit:g} "
                f"for {storage[name]} weights; export it with --weights float32."
            )


def measure_end_to_end(
    bundle: Path, checkpoint: Checkpoint, frames: Sequence[NDArray[np.uint8]], source: str, size: tuple[int, int]
) -> EndToEnd:
    """IoU of the runtime's masks with those of the network in PyTorch over consecutive frames.

    Raises:
        UserError: It is too low.
    """
    ours = open_segmenter(bundle, device="cpu")
    theirs = TorchSegmenter(checkpoint, size=size)
    ours.set_queries(QUERIES)
    theirs.set_queries(QUERIES)
    overlap = union = 0
    for frame in frames:
        got, expected = ours.step(frame).masks, theirs.masks(frame)
        overlap += int((got & expected).sum())
        union += int((got | expected).sum())
    # All masks together: the IoU of a query that is almost absent hangs on a handful of pixels.
    iou = overlap / union if union else 1.0
    if iou < LEAST_IOU:
        raise UserError(f"The chained graphs' masks agree with PyTorch's only to {iou:.3f} IoU, less than {LEAST_IOU}.")
    return EndToEnd(mask_iou=iou, frames=len(frames), source=source)


def _difference(expected: NDArray[np.float32], actual: NDArray[np.float32]) -> Parity:
    difference = actual.astype(np.float64) - expected
    norm = float(np.linalg.norm(expected.astype(np.float64)))
    return Parity(
        max_abs=float(np.abs(difference).max()),
        relative_l2=float(np.linalg.norm(difference)) / max(norm, 1e-12),
    )
