"""Verification of a backend against PyTorch: each graph by itself, then the masks of the whole chain."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rvos_edge.atomic import new_file
from rvos_edge.bundle import Bundle
from rvos_edge.engines.base import Backend
from rvos_edge.engines.onnxruntime import OnnxRuntimeBackend
from rvos_edge.errors import UserError
from rvos_edge.manifest import HOST_GRAPHS, QUERIES, Arithmetic, GraphSpec, Parity, Proof, read_manifest
from rvos_edge.parity.record import Arrays, Reference, sample
from rvos_edge.segmenter import Segmenter
from rvos_edge.streaming.sources import open_source

_ARITHMETIC: dict[Arithmetic, float] = {
    # Only the order of additions differs; over a hundred ReLU layers 1e-7 grows to about 1e-5.
    "float32": 1e-3,
    # 11 bits, 5e-4 per rounding; a hundred independent roundings add up to ten.
    "float16": 1e-2,
    # 8 bits, 4e-3 per rounding, likewise.
    "bfloat16": 6e-2,
    # 8 bits of the largest value of a tensor, in layers that were chosen by the masks.
    "int8": 2e-1,
}
_WEIGHTS: dict[str, float] = {
    "float32": 0.0,
    # 11 bits, 5e-4 per weight, which averages out over the inputs of a neuron.
    "float16": 1e-2,
    # 8 bits of the maximum of a row, about 1 % per weight, a few per cent after six transformer layers.
    "int8": 1e-1,
}

TF32 = "products in float32 are rounded to TensorFloat-32"
"""Note of a proof on a GPU."""
_HALF_ON_CPU = "ONNX Runtime's CPU provider runs float16 layers in float32 and rounds between them"

LEAST_IOU = 0.97
"""Smallest accepted IoU with the masks of PyTorch: only undecided pixels may differ."""

LEAST_IOU_NARROW = 0.9
"""The same with 8-bit weights or bfloat16 in the vision graphs, where J should be evaluated as well."""


def tolerance(spec: GraphSpec, *, tf32: bool = False) -> float:
    """Return the largest accepted relative L2 difference of an output, by arithmetic and storage of the weights.

    The two errors are independent, so their sum is an upper bound.

    Args:
        tf32: Products in float32 are rounded to TensorFloat-32, whose 11 bits are those of float16.
    """
    return _ARITHMETIC["float16" if tf32 and spec.precision == "float32" else spec.precision] + _WEIGHTS[spec.weights]


@dataclass(frozen=True)
class Footage:
    """Consecutive frames, uint8 [H,W,3] BGR, with the masks expected on them, bool [Q,H,W]; ``source`` says whose
    masks, unless they are PyTorch's.
    """

    source: str
    queries: Sequence[str]
    frames: Sequence[NDArray[np.uint8]]
    masks: Sequence[NDArray[np.bool_]]


def film(
    source: str,
    queries: Sequence[str],
    segment: Callable[[NDArray[np.uint8]], NDArray[np.bool_]],
    *,
    made_by: str,
    limit: int,
) -> Footage:
    """Read the first frames of a source and segment them with ``segment``.

    Raises:
        UserError: The source cannot be read.
    """
    with open_source(source) as opened:
        frames = [frame.image.copy() for frame in itertools.islice(opened, limit)]
        name = f"{opened.name}, compared with {made_by}"
    return Footage(name, queries, frames, [segment(frame) for frame in frames])


def prove(
    bundle: Bundle, reference: Reference, make_backend: Callable[[], Backend], *, footage: Footage | None = None
) -> Proof:
    """Compare a backend with PyTorch: its graphs on the reference, the chain on the frames of it or on footage.

    Args:
        make_backend: Creates a backend; the graphs and the chain each need a board of their own.

    Raises:
        UserError: A graph cannot be loaded.
    """
    backend = make_backend()
    graphs = measure_graphs(bundle, reference, backend)
    footage = footage or Footage(reference.source, reference.queries, list(reference.frames), list(reference.masks))
    half = any(spec.precision == "float16" for spec in bundle.manifest.graphs.values())
    half_on_cpu = half and isinstance(backend, OnnxRuntimeBackend) and backend.device == "cpu"
    found = chain_masks(bundle, make_backend(), footage.queries, footage.frames)
    return Proof(
        backend=backend.name,
        note=_HALF_ON_CPU if half_on_cpu else TF32 if backend.tf32 else "",
        graphs=graphs,
        mask_iou=mask_iou(found, footage.masks),
        frames=len(footage.frames),
        source=footage.source,
    )


def keep_proofs(bundle: Bundle, proofs: Mapping[str, Proof]) -> None:
    """Add proofs to the manifest of a bundle; those of other backends stay.

    Raises:
        UserError: The manifest cannot be written.
    """
    manifest = read_manifest(bundle.path)
    updated = manifest.model_copy(update={"proofs": {**manifest.proofs, **proofs}})
    path = bundle.path / "manifest.json"
    try:
        with new_file(path) as temporary:
            temporary.write_text(updated.model_dump_json(indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise UserError(
            f"{path} cannot be written ({error.strerror}); copy the bundle to a folder of your own, or give --no-write."
        ) from error


def measure_graphs(bundle: Bundle, reference: Reference, backend: Backend) -> dict[str, Parity]:
    """Measure the difference of the outputs of every graph from PyTorch's, on the recorded inputs."""
    found = {}
    for name, spec in bundle.manifest.graphs.items():
        outputs = _run(bundle, name, spec, reference.inputs[name], backend, len(reference.queries))
        found[name] = compare(outputs, reference.outputs[name])
    return found


def compare(outputs: Arrays, expected: Arrays) -> Parity:
    """Return the largest difference among the outputs of a graph; ``expected`` are samples."""
    each = [difference(expected[name], sample(outputs[name], expected[name].size)) for name in expected]
    return Parity(
        max_abs=max(parity.max_abs for parity in each),
        relative_l2=max(parity.relative_l2 for parity in each),
        cosine=min(parity.cosine for parity in each),
    )


def difference(expected: NDArray[np.float32], actual: NDArray[np.float32]) -> Parity:
    """Measure the difference of two arrays float32 [n]; it is infinite if ``actual`` is not finite."""
    wide, theirs = actual.astype(np.float64), expected.astype(np.float64)
    if not np.isfinite(wide).all():
        return Parity(max_abs=float("inf"), relative_l2=float("inf"), cosine=-1.0)
    gap, norm = wide - theirs, float(np.linalg.norm(theirs))
    lengths = norm * float(np.linalg.norm(wide))
    return Parity(
        max_abs=float(np.abs(gap).max()),
        relative_l2=float(np.linalg.norm(gap)) / max(norm, 1e-12),
        cosine=float(wide @ theirs) / lengths if lengths else float(norm == 0 and not wide.any()),
    )


def chain_masks(
    bundle: Bundle, backend: Backend, queries: Sequence[str], frames: Iterable[NDArray[np.uint8]]
) -> list[NDArray[np.bool_]]:
    """Segment frames with the runtime; returns the masks bool [Q,H,W] of each."""
    segmenter = Segmenter(bundle=bundle, backend=backend, min_presence=0)
    segmenter.set_queries(queries)
    return [segmenter.step(frame).masks for frame in frames]


def mask_iou(found: Iterable[NDArray[np.bool_]], expected: Iterable[NDArray[np.bool_]]) -> float:
    """Return the IoU of all masks together; that of a nearly absent query alone would depend on a few pixels."""
    overlap = union = 0
    for ours, theirs in zip(found, expected, strict=True):
        overlap += int((ours & theirs).sum())
        union += int((ours | theirs).sum())
    return overlap / union if union else 1.0


def check(bundle: Bundle, proof: Proof) -> None:
    """Check a proof against the tolerances. Of an untrained network only the graphs are checked, not the masks.

    Raises:
        UserError: A difference is too large; the message names the graph and the difference.
    """
    for name, parity in proof.graphs.items():
        spec = bundle.manifest.graphs[name]
        limit = tolerance(spec, tf32=proof.note == TF32)
        if not parity.relative_l2 <= limit:
            raise UserError(
                f"Graph '{name}' on {proof.backend} differs from PyTorch by {parity.relative_l2:.2g} (relative L2), "
                f"more than {limit:.2g} for {spec.precision} with {spec.weights} weights; export it with --fp32, or "
                "use another backend."
            )
    if not bundle.manifest.trained:
        # Its margins are noise around zero, so that any rounding flips pixels.
        return
    vision = [spec for name, spec in bundle.manifest.graphs.items() if name not in HOST_GRAPHS]
    narrow = any(spec.weights == "int8" or spec.precision in ("bfloat16", "int8") for spec in vision)
    least = LEAST_IOU_NARROW if narrow else LEAST_IOU
    if proof.mask_iou is not None and proof.mask_iou < least:
        raise UserError(
            f"The masks of {proof.backend} agree with PyTorch's only to {proof.mask_iou:.3f} IoU, less than "
            f"{least}; export with --fp32, or use another backend."
        )


def _run(
    bundle: Bundle, name: str, spec: GraphSpec, inputs: Mapping[str, NDArray[Any]], backend: Backend, queries: int
) -> Arrays:
    if name in HOST_GRAPHS:
        # Inputs are recorded in float16 (``record``); a host graph is given what it reads.
        dtypes = {tensor.name: tensor.dtype for tensor in spec.inputs}
        typed = {tensor: array.astype(dtypes[tensor]) for tensor, array in inputs.items() if tensor in dtypes}
        return backend.load_host(bundle.graph_path(name), spec).run(typed)
    graph = backend.load(bundle.graph_path(name), spec)
    backend.board.resize(QUERIES, queries)
    for tensor, array in inputs.items():
        backend.board.write(tensor, array)
    graph.run()
    return {tensor.name: backend.board.read(tensor.name).copy() for tensor in graph.outputs}
