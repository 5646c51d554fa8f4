"""Export of one graph to an ONNX file at opset 18, with checks for the exporter's silent failures."""

from __future__ import annotations

import contextlib
import io
import itertools
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import onnx
import torch
from torch import Tensor
from torch.export import Dim
from torch.utils.flop_counter import FlopCounterMode

from rvos_edge import __version__
from rvos_edge.errors import UserError
from rvos_edge.export.graphs import COARSE, LANGUAGE, ExportGraph
from rvos_edge.manifest import FRAME_INPUT, MARGIN_OUTPUT, PRESENCE_OUTPUT, TEACH_GRAPH, TensorSpec

OPSET = 18
"""Later opsets change operators such as GridSample in ways that TensorRT does not follow."""

MAX_QUERIES = 256
_ROWS = frozenset({*LANGUAGE, COARSE, MARGIN_OUTPUT, PRESENCE_OUTPUT})
"""Outputs with one row per query."""
_DOCS = {
    "text": "BERT and a projection per level: the tokens of a query to its language vectors, once per query.",
    "backbone": "The frame's features at four levels.",
    "aspp": "Atrous spatial pyramid pooling of c5.",
    "vision": "backbone and aspp in one.",
    "flow_encode": "RAFT's features of the frame, and the reduced frame.",
    "flow_context": "RAFT's context and the correlation of this frame with the previous one.",
    "flow_step": "One iteration of RAFT.",
    "flow_up": "The flow from this frame to the previous one, in pixels of the image.",
    "gating": "Motion gate, interaction with the language and decoder: object minus background logit per query.",
    "boundary": "Guided filter: the margin follows the edges of the image.",
    "teach": "Loss of one query and its gradient in the language vectors.",
}
IMAGE_RULE = (
    "uint8 [H,W,3] in the order blue, green, red; resized bilinearly with pixel centres at half-integers, without "
    "antialiasing; letterboxed where the aspect differs by more than 4/3; mean and std are applied inside the graphs, "
    "not before"
)
"""The form of ``image``, for people; docs/bundle.md has it exactly."""
_DTYPES = {torch.uint8: "uint8", torch.int64: "int64", torch.float16: "float16", torch.float32: "float32"}


def export_onnx(graph: ExportGraph, example: Sequence[Tensor], path: Path) -> onnx.ModelProto:
    """Export a graph and check the file; returns the model as it was written.

    Symbolic axes of the examples must be longer than 1, or they would be frozen; a single query is doubled.

    Raises:
        UserError: The exporter dropped or merged an input, or failed; the sentence names the graph.
    """
    shapes = tuple(
        {
            axis: Dim(symbol, min=1, max=MAX_QUERIES if symbol == "Q" else 512)
            for axis, symbol in graph.dynamic.get(name, {}).items()
        }
        for name in graph.inputs
    )
    example = [
        tensor.repeat_interleave(2, 0) if graph.dynamic.get(name, {}).get(0) == "Q" and len(tensor) == 1 else tensor
        for name, tensor in zip(graph.inputs, example, strict=True)
    ]
    # For forward(*tensors) the exporter expects shapes nested once more.
    nested = "tensors" in graph.module.forward.__code__.co_varnames[:2] and graph.module.forward.__code__.co_flags & 4
    try:
        with _quiet(), torch.no_grad():
            program = torch.onnx.export(
                graph.module,
                tuple(example),
                input_names=list(graph.inputs),
                output_names=list(graph.outputs),
                opset_version=OPSET,
                dynamo=True,
                dynamic_shapes=(shapes,) if nested else shapes,
                external_data=False,
            )
    except Exception as error:  # the exporter's errors share no base class
        raise UserError(f"Graph '{graph.name}' cannot be exported: {str(error).splitlines()[0]}") from error
    assert program is not None
    model: onnx.ModelProto = program.model_proto
    _name_symbols(model, graph)
    _check(model, graph)
    # The exporter stores a stack trace of this machine at every node.
    for item in (model.graph, *model.graph.node, *model.graph.value_info, *model.graph.input, *model.graph.output):
        del item.metadata_props[:]
    onnx.save(model, str(path))
    onnx.checker.check_model(str(path))
    return model


def describe(model: onnx.ModelProto, name: str, facts: Mapping[str, str]) -> None:
    """Say what a model is: names of the graph and of every node, doc strings, producer, and ``facts`` as metadata."""
    model.producer_name, model.producer_version = "rvos-edge", __version__
    model.doc_string = model.graph.doc_string = _DOCS[name]
    model.graph.name = name
    onnx.helper.set_model_props(model, dict(facts))
    for value in model.graph.input:
        if value.name == FRAME_INPUT:
            value.doc_string = IMAGE_RULE
    taken = {node.name for node in model.graph.node}
    free = (f"node_{number}" for number in itertools.count() if f"node_{number}" not in taken)
    for node in model.graph.node:
        node.name = node.name or next(free)


def specs(graph: ExportGraph, names: Sequence[str], tensors: Sequence[Tensor]) -> tuple[TensorSpec, ...]:
    """Manifest entries of a graph's tensors; language vectors are [Q,c] as outputs and as inputs."""
    result = []
    for name, tensor in zip(names, tensors, strict=True):
        shape: list[int | str] = list(tensor.shape)
        for axis, symbol in graph.dynamic.get(name, {}).items():
            shape[axis] = symbol
        if graph.name != TEACH_GRAPH and name in _ROWS:
            shape[0] = "Q"
        result.append(TensorSpec.model_validate({"name": name, "dtype": _DTYPES[tensor.dtype], "shape": shape}))
    return tuple(result)


def count_flops(graph: ExportGraph, inputs: Sequence[Tensor]) -> int:
    """FLOPs (2 x multiply-add) of one run: one query, or a text of 20 tokens."""
    single = []
    for name, tensor in zip(graph.inputs, inputs, strict=True):
        symbols = graph.dynamic.get(name, {})
        if "L" in symbols.values():
            tensor = torch.ones(1, 20, dtype=tensor.dtype)
        single.append(tensor[:1] if "Q" in symbols.values() else tensor)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        graph.module(*single)
    return int(counter.get_total_flops())


def _name_symbols(model: onnx.ModelProto, graph: ExportGraph) -> None:
    """Replace the exporter's names of symbolic extents by the documented ones."""
    for value in model.graph.input:
        for axis, symbol in graph.dynamic.get(value.name, {}).items():
            value.type.tensor_type.shape.dim[axis].dim_param = symbol
    for value in model.graph.output:
        dims = value.type.tensor_type.shape.dim
        if value.name in _ROWS and dims and not dims[0].HasField("dim_value"):
            dims[0].dim_param = "Q"


def _check(model: onnx.ModelProto, graph: ExportGraph) -> None:
    inputs = [value.name for value in model.graph.input]
    outputs = [value.name for value in model.graph.output]
    if tuple(inputs) != graph.inputs or tuple(outputs) != graph.outputs:
        raise UserError(
            f"Graph '{graph.name}' was exported with {inputs} -> {outputs}, expected {list(graph.inputs)} -> "
            f"{list(graph.outputs)}; two inputs may have been one tensor."
        )
    # The exporter silently replaces an input by a parameter of the same name.
    merged = set(inputs) & {item.name for item in model.graph.initializer}
    if merged:
        raise UserError(f"Graph '{graph.name}': input '{merged.pop()}' merged with the parameter of that name.")
    read = {name for node in model.graph.node for name in node.input} | set(outputs)
    unused = [name for name in inputs if name not in read]
    if unused:
        raise UserError(f"Graph '{graph.name}': input '{unused[0]}' is read by no node; leave it out of the graph.")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporter's output, logging and warnings; its result is checked instead."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(logging.NOTSET)
