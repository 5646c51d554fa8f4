"""OpenVINO: the fastest backend on CPUs of the x86 family, in float32 or, where a CPU is made for it, bfloat16."""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
from numpy.typing import NDArray
from openvino import opset13 as ops

from rvos_edge.bundle import Arithmetic, GraphSpec, TensorSpec
from rvos_edge.engines.base import HostFrames
from rvos_edge.engines.board import Board
from rvos_edge.errors import UserError

_HINTS: dict[Arithmetic, str] = {"float32": "f32", "float16": "f16", "bfloat16": "bf16"}


@cache
def shared_core() -> Any:
    """The ``openvino.Core`` of this process, which is never given up.

    Each one gives its thread a stack for signals and puts the former one back at its end. Of two that end in the order
    in which they began, the second puts back the first one's, which is gone, and the next signal (Ctrl-C) is a crash.
    """
    return ov.Core()


class OpenVinoBuffer:
    """A tensor in host memory that OpenVINO reads and writes in place."""

    def __init__(self, dtype: str, shape: tuple[int, ...]) -> None:
        self.dtype = dtype
        self.shape = shape
        self._host: NDArray[Any] = np.zeros(shape, dtype)
        self._view = self._host.view()
        self._view.flags.writeable = False
        self.value = ov.Tensor(self._host, shared_memory=True)

    @property
    def address(self) -> int:
        """Where the data lies."""
        return int(self._host.ctypes.data)

    def write(self, array: NDArray[Any]) -> None:
        """Copy an array in."""
        np.copyto(self._host, array, casting="same_kind")

    def read(self) -> NDArray[Any]:
        """A read-only view."""
        return self._view

    def zero(self) -> None:
        """Fill with zeros."""
        self._host.fill(0)

    def copy_from(self, other: OpenVinoBuffer) -> None:
        """Copy another buffer in."""
        self.write(other.read())


class OpenVinoGraph:
    """A compiled graph bound to slots; only slots whose buffer has changed are bound again."""

    def __init__(self, request: Any, spec: GraphSpec, board: Board[OpenVinoBuffer]) -> None:
        self.inputs: tuple[TensorSpec, ...] = spec.inputs
        self.outputs: tuple[TensorSpec, ...] = spec.outputs
        self._request = request
        self._board = board
        self._bound: dict[str, OpenVinoBuffer] = {}

    def run(self) -> None:
        """Run on the buffers that the slots hold now."""
        for tensor in (*self.inputs, *self.outputs):
            buffer = self._board.buffer(tensor.name)
            if self._bound.get(tensor.name) is not buffer:
                self._request.set_tensor(tensor.name, buffer.value)
                self._bound[tensor.name] = buffer
        self._request.infer()


class OpenVinoHostGraph:
    """A compiled graph that runs on host arrays."""

    def __init__(self, compiled: Any, spec: GraphSpec) -> None:
        self._compiled = compiled
        self._outputs = [tensor.name for tensor in spec.outputs]

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Run on named arrays and return the named outputs."""
        results = self._compiled(dict(inputs))
        return {name: np.array(results[name]) for name in self._outputs}


class OpenVinoBackend(HostFrames):
    """Graphs compiled by OpenVINO for the CPU.

    Example:
        >>> backend = OpenVinoBackend()
        >>> graph = backend.load(bundle.graph_path("backbone"), bundle.manifest.graphs["backbone"])
        >>> backend.board.write("image", image)
        >>> graph.run()
    """

    def __init__(self, *, threads: int | None = None, bfloat16: bool = False, reason: str = "") -> None:
        """Start OpenVINO.

        Args:
            threads: CPU threads; None leaves it to OpenVINO (one per physical core).
            bfloat16: Compute in bfloat16 in the graphs whose manifest entry allows it.
            reason: Why this backend; that it was asked for when empty.

        Raises:
            UserError: ``threads`` is not positive.
        """
        if threads is not None and threads < 1:
            raise UserError(f"threads must be at least 1, not {threads}; leave it out to use every core.")
        self.name = f"OpenVINO {ov.__version__.split('-')[0]} (cpu{', bfloat16' if bfloat16 else ''})"
        self.reason = reason or "OpenVINO was asked for"
        self.board: Board[OpenVinoBuffer] = Board(OpenVinoBuffer)
        self._threads = threads
        self._bfloat16 = bfloat16

    def load(self, path: Path, spec: GraphSpec) -> OpenVinoGraph:
        """Load a graph, declare its slots and bind it to them; UserError names a file that cannot be loaded."""
        compiled = self._compile(path, spec)
        for tensor in (*spec.inputs, *spec.outputs):
            self.board.declare(tensor)
        return OpenVinoGraph(compiled.create_infer_request(), spec, self.board)

    def load_host(self, path: Path, spec: GraphSpec) -> OpenVinoHostGraph:
        """Load a graph that runs on host arrays; UserError names a file that cannot be loaded."""
        return OpenVinoHostGraph(self._compile(path, spec), spec)

    def _compile(self, path: Path, spec: GraphSpec) -> Any:
        precision = "float32" if spec.precision == "bfloat16" and not self._bfloat16 else spec.precision
        options = _options(precision)
        if self._threads:
            options["INFERENCE_NUM_THREADS"] = self._threads
        try:
            compiled = shared_core().compile_model(str(path), "CPU", options)
        except RuntimeError as error:
            detail = " ".join(str(error).split())[:200]
            raise UserError(f"{path} cannot be loaded by OpenVINO ({detail}); export the bundle again.") from error
        names = {name for port in (*compiled.inputs, *compiled.outputs) for name in port.names}
        missing = [tensor.name for tensor in (*spec.inputs, *spec.outputs) if tensor.name not in names]
        if missing:
            raise UserError(f"{path} has no tensor '{missing[0]}' as manifest.json says; export the bundle again.")
        return compiled


def bfloat16_pays() -> bool:
    """Whether this CPU convolves faster in bfloat16 than in float32; takes a sixth of a second to find out.

    Having the instructions says little: on a Xeon that shows AVX512-BF16 but no AMX it is 1.5 times slower.
    """
    core = shared_core()
    if "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        return False
    random = np.random.default_rng(0)
    image = random.standard_normal((1, 128, 32, 32), dtype=np.float32)
    kernel = random.standard_normal((128, 128, 3, 3), dtype=np.float32)
    fastest: dict[Arithmetic, float] = {}
    for precision in ("float32", "bfloat16"):
        source = ops.parameter(list(image.shape), np.float32)
        model = ov.Model([ops.convolution(source, ops.constant(kernel), [1, 1], [1, 1], [1, 1], [1, 1])], [source])
        request = core.compile_model(model, "CPU", _options(precision)).create_infer_request()
        request.set_input_tensor(ov.Tensor(image, shared_memory=True))
        times = []
        for _ in range(8):
            start = time.perf_counter()
            request.infer()
            times.append(time.perf_counter() - start)
        fastest[precision] = min(times)
    return fastest["bfloat16"] < fastest["float32"]


def _options(precision: Arithmetic) -> dict[str, Any]:
    return {
        "PERFORMANCE_HINT": "LATENCY",
        # Without the hint OpenVINO picks bfloat16 by itself where the CPU has it, and the flow goes wrong.
        "INFERENCE_PRECISION_HINT": _HINTS[precision],
        # Else what meets weights of eight bits is rounded to eight bits too: the sentence, which is encoded only once.
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0",
    }
