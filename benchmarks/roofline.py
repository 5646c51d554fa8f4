"""Lower bounds: no device runs a graph faster than its arithmetic and its bytes allow.

A graph takes at least the longer of FLOPs / peak and bytes / bandwidth. FLOPs are the manifest's (2 x multiply-add).
Bytes are the weights, at the width that the graph computes in, and what the manifest says goes in and comes out;
tensors inside a graph are taken to stay in caches, which they do not always, and weights to come from memory once per
run, which they need not where the cache is large: so this is an estimate of a bound and not a proof of one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from rvos_edge.benchmarks.devices import DEVICES, DevicePeak
from rvos_edge.bundle import HOST_GRAPHS, Arithmetic, GraphSpec, Manifest, TensorSpec
from rvos_edge.errors import UserError

_BYTES = {"uint8": 1, "int8": 1, "float16": 2, "bfloat16": 2, "float32": 4, "int64": 8}
_STEP_GRAPH = "flow_step"


@dataclass(frozen=True)
class Bound:
    """The least time of one graph in one frame.

    Attributes:
        graph: Its name.
        runs: How often a frame runs it.
        precision: What it computes in.
        flops: Of all its runs.
        bytes: Of all its runs.
        compute_ms: Milliseconds of the arithmetic.
        memory_ms: Milliseconds of the bytes.
    """

    graph: str
    runs: int
    precision: Arithmetic
    flops: int
    bytes: int
    compute_ms: float
    memory_ms: float

    @property
    def milliseconds(self) -> float:
        """The longer of the two."""
        return max(self.compute_ms, self.memory_ms)

    @property
    def limit(self) -> str:
        """Which of the two it is."""
        return "FLOP" if self.compute_ms >= self.memory_ms else "bytes"


def bounds(manifest: Manifest, device: DevicePeak, *, precision: Arithmetic | None = None) -> list[Bound]:
    """The bound of every graph that a frame with flow and one query runs.

    Args:
        manifest: Of the bundle.
        device: What it would run on.
        precision: What all graphs would compute in; None for what each states.
    """
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
    """Bytes of one run: weights as wide as the arithmetic, inputs and outputs.

    Floating tensors follow the arithmetic where it is narrower than what the manifest states.
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
    """Milliseconds of a frame whose graphs run one after the other."""
    return sum(bound.milliseconds for bound in found)


def share(bound_ms: float, measured_ms: float) -> float:
    """The part of the roof that was reached: 1 is as fast as can be."""
    return bound_ms / measured_ms


def frame_share(found: Sequence[Bound], stages: Mapping[str, float]) -> float | None:
    """The share over all graphs that were measured; None if none was.

    Args:
        found: Bounds.
        stages: Milliseconds by stage.
    """
    both = [bound for bound in found if stages.get(bound.graph)]
    if not both:
        return None
    return share(total_ms(both), sum(stages[bound.graph] for bound in both))


def choose_devices(key: str) -> list[DevicePeak]:
    """The devices that a key names; the CPU is measured and not among them.

    Raises:
        UserError: There is no such device.
    """
    if key == "all":
        return list(DEVICES)
    known = {device.key: device for device in DEVICES}
    if key not in known:
        raise UserError(f"--roofline {key}: there is no such device; choose cpu, all, {', '.join(known)}.")
    return [known[key]]
