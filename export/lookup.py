"""Tables of rows in four bits, such as word embeddings: rows are looked up as they are stored and widened after that.

Operators of opset 18 alone are used, so that every runtime reads them, and a table is never widened as a whole.
"""

from __future__ import annotations

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

_LEAST = 1 << 20
"""Elements of the smallest table that is worth it."""
_BLOCK = 64
"""Numbers of a row with a scale of their own."""
_BYTES, _SCALE = "_int4", "_int4_scale"
"""Suffixes of a table's initialisers."""


def is_table(graph: onnx.GraphProto, tensor: TensorProto) -> bool:
    """True for a large float32 table [n,c], c a multiple of 64, that only inputs [Q,L] of the graph look up."""
    ids = {value.name for value in graph.input if len(value.type.tensor_type.shape.dim) == 2}
    readers = [node for node in graph.node if tensor.name in node.input]
    return (
        tensor.data_type == TensorProto.FLOAT
        and len(tensor.dims) == 2
        and tensor.dims[1] % _BLOCK == 0
        and tensor.dims[0] * tensor.dims[1] >= _LEAST
        and all(node.op_type == "Gather" and node.input[1] in ids for node in readers)
    )


def narrow_table(graph: onnx.GraphProto, name: str, values: NDArray[np.float32]) -> list[TensorProto]:
    """Let the lookups in a table [n,c] read four bits; returns the initialisers that they read in its place.

    A byte holds a number of a block's first half below one of its second half. Each block has a float16 scale, and its
    largest value is -8 of them: to store again what was widened changes nothing.
    """
    blocks = values.reshape(len(values), -1, _BLOCK)
    peak = np.take_along_axis(blocks, np.abs(blocks).argmax(-1)[..., None], -1)
    scales = (peak / -8).astype(np.float16)
    scales[scales == 0] = 1
    whole = (np.clip(np.rint(blocks / scales.astype(np.float32)), -8, 7) + 8).astype(np.uint8)
    constants = {_BYTES: whole[..., : _BLOCK // 2] + 16 * whole[..., _BLOCK // 2 :], _SCALE: scales}
    constants |= {f"{_BYTES}_{number}": np.array(number, np.float32) for number in (8, 16)}
    constants[f"{_BYTES}_shape"] = np.array([0, 0, values.shape[1]])
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        nodes += _looked_up(name, node.input[1], node.output[0]) if name in node.input else [node]
    del graph.node[:]
    graph.node.extend(nodes)
    return [numpy_helper.from_array(value, name + suffix) for suffix, value in constants.items()]


def _looked_up(name: str, ids: str, result: str) -> list[onnx.NodeProto]:
    """Nodes that look up rows of a table in four bits and widen them; ``ids`` and ``result`` are tensors' names."""
    table, own = f"{name}{_BYTES}", f"{result}{_BYTES}"
    return [
        helper.make_node("Gather", [table, ids], [own]),
        helper.make_node("Cast", [own], [f"{own}_both"], to=TensorProto.FLOAT),
        helper.make_node("Div", [f"{own}_both", f"{table}_16"], [f"{own}_share"]),
        helper.make_node("Floor", [f"{own}_share"], [f"{own}_high"]),
        helper.make_node("Mul", [f"{own}_high", f"{table}_16"], [f"{own}_shifted"]),
        helper.make_node("Sub", [f"{own}_both", f"{own}_shifted"], [f"{own}_low"]),
        helper.make_node("Concat", [f"{own}_low", f"{own}_high"], [f"{own}_unsigned"], axis=-1),
        helper.make_node("Sub", [f"{own}_unsigned", f"{table}_8"], [f"{own}_signed"]),
        helper.make_node("Gather", [f"{name}{_SCALE}", ids], [f"{own}_half"]),
        helper.make_node("Cast", [f"{own}_half"], [f"{own}_scale"], to=TensorProto.FLOAT),
        helper.make_node("Mul", [f"{own}_signed", f"{own}_scale"], [f"{own}_blocks"]),
        helper.make_node("Reshape", [f"{own}_blocks", f"{table}_shape"], [result]),
    ]


def widen_tables(graph: onnx.GraphProto) -> None:
    """Undo ``narrow_table`` for every table of a graph, but for the rounding."""
    stored = {tensor.name: tensor for tensor in graph.initializer}
    names = [name.removesuffix(_SCALE) for name in stored if name.endswith(_SCALE)]
    if not names:
        return
    nodes = {node.output[0]: node for node in graph.node}
    for name in names:
        both, scales = (numpy_helper.to_array(stored[name + suffix]) for suffix in (_BYTES, _SCALE))
        blocks = (np.concatenate([both % 16, both // 16], -1) - np.float32(8)) * scales.astype(np.float32)
        graph.initializer.append(numpy_helper.from_array(blocks.reshape(len(blocks), -1), name))
        for output, node in nodes.items():
            if node.input[:1] == [name + _BYTES]:
                result = output.removesuffix(_BYTES)
                nodes[result].CopyFrom(helper.make_node("Gather", [name, node.input[1]], [result]))
    needed = {value.name for value in graph.output}
    for node in reversed(list(graph.node)):
        if needed.isdisjoint(node.output):
            graph.node.remove(node)
        else:
            needed.update(node.input)
