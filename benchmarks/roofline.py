"""Roofline estimates: lower bounds on a graph's time from its arithmetic and its memory traffic.

A graph takes at least max(FLOPs / peak, bytes / bandwidth). FLOPs are the manifest's (2 x multiply-add). Bytes are the
weights, at the width the graph computes in, plus the inputs and outputs of the manifest. Tensors inside a graph are
assumed to stay in caches and weights to be read once per run; neither holds on every device, so the bound is an
estimate.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from rvos_edge.benchmarks.devices import DEVICES, DevicePeak
from rvos_edge.errors import UserError
from rvos_edge.manifest import HOST_GRAPHS, Arithmetic, GraphSpec, Manifest, TensorSpec

_BYTES = {"uint8": 1, "int8": 1, "float16": 2, "bfloat16": 2, "float32": 4, "int64": 8}
_STEP_GRAPH = "flow_step"


@dataclass(frozen=True)
class Bound:
    """Lower bound on the time of one graph in one frame, of all its runs together."""

    graph: str
    runs: int
    precision: Arithmetic
    flops: int
    bytes: int
    compute_ms: float
    memory_ms: float

    @property
    def milliseconds(self) -> float:
        """The larger of the two times."""
        return max(self.compute_ms, self.memory_ms)

    @property
    def limit(self) -> str:
        """The limiting resource, "FLOP" or "bytes"."""
        return "FLOP" if self.compute_ms >= self.memory_ms else "bytes"


def bounds(manifest: Manifest, device: DevicePeak, *, precision: Arithmetic | None = None) -> list[Bound]:
    """Bounds of the graphs of a frame with flow and one query, in the arithmetic that each graph states by default."""
    found = []
    for name, spec in manifest.graphs.items():
        if name in HOST_GRAPHS:
            continue
        arithmetic = precision or spec.precision
        runs = manifest.flow.iterations if name == _STEP_GRAPH and manifest.flow else 1
        flops, moved = runs * spec.flops, runs * graph_bytes(spec, arithmetic)
        compute = 1e3 * flops / device.flops(arithmetic)
        memory = 1e3 * moved / (1e9 * device.bandwidth)
        found.append(Bound(name, runs, arithmetic, flops, moved, compute, memory))
    return found


def graph_bytes(spec: GraphSpec, arithmetic: Arithmetic) -> int:
    """Bytes of one run: weights at the width of the arithmetic, inputs and outputs.

    Floating-point tensors count at the narrower of the arithmetic and the manifest's type.
    """
    weights = spec.weight_bytes * _BYTES[arithmetic] // _BYTES[spec.weights]
    return weights + sum(_tensor_bytes(tensor, arithmetic) for tensor in (*spec.inputs, *spec.outputs))


def _tensor_bytes(tensor: TensorSpec, arithmetic: Arithmetic) -> int:
    width = _BYTES[tensor.dtype]
    if tensor.dtype == "float32":
        width = min(width, _BYTES[arithmetic])
    for extent in tensor.shape:
        width *= extent if isinstance(extent, int) else 1
    return width


def total_ms(found: Iterable[Bound]) -> float:
    """Milliseconds of a frame whose graphs run in sequence."""
    return sum(bound.milliseconds for bound in found)


def frame_share(found: Sequence[Bound], stages: Mapping[str, float]) -> float | None:
    """Share of the attainable speed that was reached by milliseconds of stages; None if no graph was measured."""
    both = [bound for bound in found if stages.get(bound.graph)]
    return total_ms(both) / sum(stages[bound.graph] for bound in both) if both else None


def choose_devices(key: str) -> list[DevicePeak]:
    """The devices of a key: one, or with "all" every device of the table (the CPU is measured instead)."""
    if key == "all":
        return list(DEVICES)
    known = {device.key: device for device in DEVICES}
    if key not in known:
        raise UserError(f"--roofline {key}: there is no such device; choose cpu, all, {', '.join(known)}.")
    return [known[key]]
