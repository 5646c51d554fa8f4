"""Storage of weights: narrow on disk, widened to the graph's arithmetic when a runtime loads it.

Storage affects the size of the bundle and, by rounding, the parity; the arithmetic is chosen in ``precision``.
"""

from __future__ import annotations

from typing import Literal, cast, get_args

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from rvos_edge.errors import UserError
from rvos_edge.export.lookup import is_table, narrow_table, widen_tables
from rvos_edge.export.precision import Precision

Storage = Literal["float32", "float16", "int8"]

_STORAGE: dict[str, Storage] = {
    # 23 million parameters that run once per query.
    "text": "int8",
    "backbone": "float16",
    "aspp": "float16",
    "vision": "float16",
    "flow_encode": "float16",
    "flow_context": "float16",
    "flow_step": "float16",
    "flow_up": "float16",
    "gating": "float16",
    "teach": "float32",  # rounded weights change its gradients by 0.003
    "boundary": "float32",
}

QUANTISED = "_DequantizeLinear_Output"
"""Suffix of weights in eight bits of ``int8``, as ONNX Runtime's quantiser adds it."""

_SMALLEST = 256
"""Tensors with fewer elements (biases, norms, scales) stay float32."""


def parse_storage(name: str) -> Storage:
    """The storage of a name.

    Raises:
        UserError: The name is unknown.
    """
    if name not in get_args(Storage):
        raise UserError(f"--weights {name}: choose one of {', '.join(get_args(Storage))}.")
    return cast("Storage", name)


def storage_of(*, weights: Storage | None, precision: Precision, small: bool = False) -> dict[str, Storage]:
    """Storage by graph: ``weights`` for all, or the mix of ``_STORAGE``.

    Args:
        small: Bytes count more than the last digits of gradients: ``teach`` is stored as float16 too.

    Raises:
        UserError: The options contradict each other.
    """
    if weights == "float32" and precision == "float16":
        raise UserError("--weights float32 contradicts --fp16: a float16 graph holds float16 weights; leave one out.")
    if weights is not None:
        return dict.fromkeys(_STORAGE, weights)
    return {**_STORAGE, "teach": "float16"} if small else dict(_STORAGE)


def store_weights(model: onnx.ModelProto, storage: Storage, *, small_tables: bool = False) -> None:
    """Narrow the large floating-point initialisers of a model in place.

    float16 weights are followed by a Cast, which runtimes fold when they load the graph; int8 weights by a symmetric
    DequantizeLinear with one scale per output row or channel, which runtimes fold or run. With int8, tables of rows
    take four bits where ``small_tables`` is set (``lookup``).
    """
    if storage == "float32":
        return
    graph = model.graph
    converted = []
    nodes = []
    # Not the scales of quantised layers.
    used = {name for node in graph.node if "Linear" not in node.op_type for name in node.input}
    for tensor in list(graph.initializer):
        is_half = tensor.data_type == TensorProto.FLOAT16
        if not (is_half or tensor.data_type == TensorProto.FLOAT) or tensor.name not in used:
            continue
        values = numpy_helper.to_array(tensor)
        rows = storage == "int8" and values.ndim in (2, 4)
        if values.size < _SMALLEST or (is_half and not rows):
            continue
        narrow = f"{tensor.name}_{storage}"
        if rows and small_tables and is_table(graph, tensor):
            converted += narrow_table(graph, tensor.name, values)
        elif rows:
            axis = _row_axis(graph, tensor.name)
            quantised, scale = _quantise(values.astype(np.float32), axis)
            scale_name, wide = (f"{tensor.name}_scale", f"{tensor.name}_wide" if is_half else tensor.name)
            converted += [numpy_helper.from_array(quantised, narrow), numpy_helper.from_array(scale, scale_name)]
            nodes.append(helper.make_node("DequantizeLinear", [narrow, scale_name], [wide], axis=axis))
            if is_half:  # DequantizeLinear of opset 18 gives float32 only
                nodes.append(helper.make_node("Cast", [wide], [tensor.name], to=TensorProto.FLOAT16))
        else:
            narrow = f"{tensor.name}_float16"
            half = np.clip(values, -65504, 65504).astype(np.float16)
            converted.append(numpy_helper.from_array(half, narrow))
            nodes.append(helper.make_node("Cast", [narrow], [tensor.name], to=TensorProto.FLOAT))
        graph.initializer.remove(tensor)
    graph.initializer.extend(converted)
    # Topological order: the new nodes come first.
    old = list(graph.node)
    del graph.node[:]
    graph.node.extend([*nodes, *old])


def widen_weights(model: onnx.ModelProto) -> None:
    """Undo ``store_weights`` in place, but for the rounding: weights are initialisers of their names again."""
    graph = model.graph
    widen_tables(graph)
    stored = {tensor.name: tensor for tensor in graph.initializer}
    for node in list(graph.node):
        if node.op_type not in ("Cast", "DequantizeLinear") or not all(name in stored for name in node.input):
            continue
        values, *scale = (numpy_helper.to_array(stored[name]) for name in node.input[:2])
        found = {item.name: item.i for item in node.attribute}
        if scale:
            shape = [-1 if index == found["axis"] else 1 for index in range(values.ndim)]
            values = values.astype(np.float32) * scale[0].reshape(shape)
        wide = helper.tensor_dtype_to_np_dtype(found.get("to", TensorProto.FLOAT))
        stored[node.output[0]] = numpy_helper.from_array(values.astype(wide), node.output[0])
        graph.node.remove(node)
    used = {name for node in graph.node for name in node.input}
    del graph.initializer[:]
    graph.initializer.extend(tensor for name, tensor in stored.items() if name in used)


def weight_bytes(model: onnx.ModelProto) -> int:
    """Size of all initialisers in bytes, as stored."""
    return sum(numpy_helper.to_array(tensor).nbytes for tensor in model.graph.initializer)


def _row_axis(graph: onnx.GraphProto, name: str) -> int:
    """Axis with a scale per index: output features of a MatMul, Gemm or Conv, rows of an embedding."""
    for node in graph.node:
        if node.op_type == "MatMul" and len(node.input) > 1 and node.input[1] == name:
            return 1
        if node.op_type == "Gemm" and node.input[1] == name:
            transposed = any(item.name == "transB" and item.i for item in node.attribute)
            return 0 if transposed else 1
    return 0


def _quantise(values: NDArray[np.float32], axis: int) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    others = tuple(index for index in range(values.ndim) if index != axis)
    scale = np.maximum(np.abs(values).max(axis=others), 1e-12).astype(np.float32) / np.float32(127)
    shaped = np.expand_dims(scale, others)
    return np.clip(np.rint(values / shaped), -127, 127).astype(np.int8), scale
