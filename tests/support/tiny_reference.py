"""The reference of a tiny bundle, recorded without PyTorch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from support.tiny_bundle import write_manifest

from rvos_edge.bundle import Bundle, sha256_of
from rvos_edge.engines.onnxruntime import OnnxRuntimeBackend
from rvos_edge.manifest import ReferenceSpec, TensorSpec
from rvos_edge.parity.record import Arrays, Reference, sample
from rvos_edge.parity.verify import chain_masks


def write_reference(directory: Path) -> None:
    """Record ONNX Runtime's outputs on random inputs as the bundle's reference, and its masks on random frames."""
    bundle = Bundle.open(directory)
    rng = np.random.default_rng(3)
    queries = ("a dog", "the red ball")
    inputs: dict[str, Arrays] = {}
    outputs: dict[str, Arrays] = {}
    for name, spec in bundle.manifest.graphs.items():
        inputs[name] = {tensor.name: _random(rng, tensor, len(queries)) for tensor in spec.inputs}
        session = onnxruntime.InferenceSession(str(directory / spec.file), providers=["CPUExecutionProvider"])
        names = [tensor.name for tensor in spec.outputs]
        outputs[name] = {n: sample(a) for n, a in zip(names, session.run(names, inputs[name]), strict=True)}
    frames = rng.integers(0, 256, (3, *bundle.manifest.size, 3), dtype=np.uint8)
    masks = np.stack(chain_masks(bundle, OnnxRuntimeBackend(device="cpu", threads=1), queries, frames))
    Reference("noise", queries, frames, masks, inputs, outputs).save(directory / "reference.npz")
    spec = ReferenceSpec(file="reference.npz", sha256=sha256_of(directory / "reference.npz"))
    write_manifest(directory, bundle.manifest.model_copy(update={"reference": spec}))


def _random(rng: np.random.Generator, tensor: TensorSpec, queries: int) -> NDArray[Any]:
    shape = tuple({"Q": queries, "L": 7}.get(dim, 1) if isinstance(dim, str) else dim for dim in tensor.shape)
    if tensor.dtype == "uint8":
        return rng.integers(0, 256, shape, dtype=np.uint8)
    if tensor.dtype == "int64":
        return np.ones(shape, np.int64)
    return rng.normal(0, 1, shape).astype(tensor.dtype)
