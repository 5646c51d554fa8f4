"""Cheaper exports in tests: PyTorch's tracing, most of their time, is done once for graphs that compute the same."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from rvos_edge.export import package
from rvos_edge.export.graphs import ExportGraph


@contextmanager
def equal_graphs_traced_once() -> Iterator[None]:
    """Graphs with the same `identity` share a file. Every bundle's own proof still compares it with its network."""
    known: dict[bytes, bytes] = {}
    export_onnx = package.export_onnx

    def remembered(graph: ExportGraph, example: Sequence[Tensor], path: Path) -> onnx.ModelProto:
        key = identity(graph, example)
        if key not in known:
            known[key] = export_onnx(graph, example, path).SerializeToString()
        path.write_bytes(known[key])
        return onnx.load_from_string(known[key])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(package, "export_onnx", remembered)
        yield


def identity(graph: ExportGraph, example: Sequence[Tensor]) -> bytes:
    """Hash of a run of the graph: its operators, their constants, and the weights they read, by name and content."""
    weights = {**dict(graph.module.named_parameters()), **dict(graph.module.named_buffers())}
    about = repr((type(graph.module), graph.name, graph.inputs, graph.outputs, graph.dynamic))
    run = _Run({tensor.data_ptr(): name for name, tensor in weights.items()}, about)
    with torch.no_grad(), run:
        given = [run.new(tensor) for tensor in example]
        results = tree_leaves(graph.module(*example))
    run.facts += [str(given), str([run.name(tensor) for tensor in results])]
    return hashlib.sha256("\n".join(run.facts).encode()).digest()


class _Run(TorchDispatchMode):
    """Records every operator of PyTorch; tensors are named by their weight, or numbered in the order they come."""

    def __init__(self, weights: dict[int, str], about: str) -> None:
        super().__init__()
        self.facts = [about]
        self._weights = weights
        self._seen: list[Tensor] = []  # kept: the id of a tensor that is gone would come again
        self._numbers: dict[int, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = tree_map_only(Tensor, self.name, (args, kwargs or {}))
        result = func(*args, **(kwargs or {}))
        made = [self.new(leaf) for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        self.facts.append(f"{func} {given} {made}")
        return result

    def new(self, tensor: Tensor) -> str:
        if id(tensor) not in self._numbers:
            self._numbers[id(tensor)] = len(self._seen)
            self._seen.append(tensor)
        return f"{self.name(tensor)} {tensor.dtype} {tuple(tensor.shape)}"

    def name(self, tensor: Tensor) -> str:
        if id(tensor) in self._numbers:
            return f"#{self._numbers[id(tensor)]}"
        content = hashlib.sha256(tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        return f"{self._weights.get(tensor.data_ptr())} {tensor.dtype} {tuple(tensor.shape)} {content.hexdigest()}"
