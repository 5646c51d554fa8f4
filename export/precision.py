"""How weights are stored: narrower on disk, widened to float32 when a runtime loads the graph.

The arithmetic stays float32; what changes is the size of the bundle and, by the rounding, the parity that
``verify`` measures on the stored file.
"""

from __future__ import annotations

from typing import Literal, cast, get_args

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from rvos_edge.errors import UserError

Storage = Literal["float32", "float16", "int8"]

WEIGHT_STORAGE: dict[str, Storage] = {
    # 23 million parameters, run once per query: eight bits per weight, a scale per row.
    "text": "int8",
    "backbone": "float16",
    "aspp": "float16",
    "flow_encode": "float16",
    "flow_context": "float16",
    "flow_step": "float16",
    "flow_up": "float16",
    "gating": "float16",
}

_SMALLEST = 256
"""Tensors with fewer elements (biases, norms, scales) stay float32: they cost nothing and matter most."""


def parse_storage(name: str) -> Storage:
    """The storage of that name.

    Raises:
        UserError: There is none.
    """
    if name not in get_args(Storage):
        raise UserError(f"--weights {name}: choose one of {', '.join(get_args(Storage))}.")
    return cast("Storage", name)


def store_weights(model: onnx.ModelProto, storage: Storage) -> None:
    """Narrow the large float32 initialisers of a model in place.

    float16 goes through a Cast, which runtimes fold when they load the graph; int8 through a DequantizeLinear with one
    scale per output row (symmetric), which runtimes fold or run.
    """
    if storage == "float32":
        return
    graph = model.graph
    converted = []
    nodes = []
    used = {name for node in graph.node for name in node.input}
    for tensor in list(graph.initializer):
        if tensor.data_type != TensorProto.FLOAT or int(np.prod(tensor.dims)) < _SMALLEST or tensor.name not in used:
            continue
        values = numpy_helper.to_array(tensor)
        narrow = f"{tensor.name}_{storage}"
        if storage == "int8" and values.ndim == 2:
            axis = _row_axis(graph, tensor.name)
            quantised, scale = _quantise(values, axis)
            scale_name = f"{tensor.name}_scale"
            converted += [
                numpy_helper.from_array(quantised, narrow),
                numpy_helper.from_array(scale, scale_name),
            ]
            nodes.append(helper.make_node("DequantizeLinear", [narrow, scale_name], [tensor.name], axis=axis))
        else:
            narrow = f"{tensor.name}_float16"
            half = np.clip(values, -65504, 65504).astype(np.float16)
            converted.append(numpy_helper.from_array(half, narrow))
            nodes.append(helper.make_node("Cast", [narrow], [tensor.name], to=TensorProto.FLOAT))
        graph.initializer.remove(tensor)
    graph.initializer.extend(converted)
    # Nodes are in topological order: the wideners come first.
    old = list(graph.node)
    del graph.node[:]
    graph.node.extend([*nodes, *old])


def weight_bytes(model: onnx.ModelProto) -> int:
    """Bytes of all initialisers as stored."""
    return sum(numpy_helper.to_array(tensor).nbytes for tensor in model.graph.initializer)


def _row_axis(graph: onnx.GraphProto, name: str) -> int:
    """Axis that keeps its own scale: the output features of a MatMul or Gemm, the rows of an embedding."""
    for node in graph.node:
        if node.op_type == "MatMul" and len(node.input) > 1 and node.input[1] == name:
            return 1
        if node.op_type == "Gemm" and node.input[1] == name:
            transposed = any(item.name == "transB" and item.i for item in node.attribute)
            return 0 if transposed else 1
    return 0


def _quantise(values: NDArray[np.float32], axis: int) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    other = 1 - axis
    scale = np.maximum(np.abs(values).max(axis=other), 1e-12).astype(np.float32) / np.float32(127)
    shaped = scale[:, None] if axis == 0 else scale[None, :]
    return np.clip(np.rint(values / shaped), -127, 127).astype(np.int8), scale
