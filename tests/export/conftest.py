"""A small checkpoint and its bundle, exported once for all tests of this folder."""

from __future__ import annotations

import hashlib
import io
import pickle
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from support.tiny_checkpoint import write_checkpoint
from torch import Tensor

from rvos_edge.export import package
from rvos_edge.export.graphs import ExportGraph
from rvos_edge.export.package import export_bundle


class _Facts(pickle.Pickler):
    """Pickles equal tensors to equal bytes."""

    def reducer_override(self, value: Any) -> Any:
        if not isinstance(value, Tensor):
            return NotImplemented
        content = value.detach().reshape(-1).view(torch.uint8).numpy().tobytes()
        return list, ((str(value.dtype), tuple(value.shape), content),)


@pytest.fixture(scope="session", autouse=True)
def _equal_graphs_are_traced_once() -> Iterator[None]:
    """Modules that are equal to the last weight share a file: PyTorch's tracing is most of the time of an export."""
    known: dict[bytes, bytes] = {}
    export_onnx = package.export_onnx

    def remembered(graph: ExportGraph, example: Sequence[Tensor], path: Path) -> onnx.ModelProto:
        facts = io.BytesIO()
        try:
            _Facts(facts).dump((graph, [(tensor.shape, tensor.dtype) for tensor in example]))
        except (AttributeError, TypeError, pickle.PicklingError):
            return export_onnx(graph, example, path)
        key = hashlib.sha256(facts.getvalue()).digest()
        if key not in known:
            known[key] = export_onnx(graph, example, path).SerializeToString()
        path.write_bytes(known[key])
        return onnx.load_from_string(known[key])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(package, "export_onnx", remembered)
        yield


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("checkpoint") / "checkpoint")


@pytest.fixture(scope="session")
def bundle(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_bundle(checkpoint, tmp_path_factory.mktemp("bundle") / "bundle")
