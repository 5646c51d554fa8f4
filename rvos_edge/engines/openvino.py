"""OpenVINO: the fastest backend on x86 CPUs, in float32 or, on CPUs with fast instructions for it, bfloat16."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from copy import copy
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
from numpy.typing import NDArray
from openvino import opset13 as ops

from rvos_edge.atomic import new_file
from rvos_edge.engines.base import HostFrames, graph_error
from rvos_edge.engines.board import Board
from rvos_edge.engines.openvino_cache import compile_once, memory_folder
from rvos_edge.errors import UserError
from rvos_edge.manifest import Arithmetic, GraphSpec, TensorSpec

# Of an int8 graph it is the type of the layers that are not quantised.
_HINTS: dict[Arithmetic, str] = {"float32": "f32", "float16": "f16", "bfloat16": "bf16", "int8": "bf16"}


@cache
def shared_core() -> Any:
    """The one ``openvino.Core`` of this process, which is never freed.

    A Core installs a signal stack for its thread and restores the former one when it is freed. Two that are freed in
    the order of their creation leave a stack that no longer exists, and the next signal (Ctrl-C) crashes the process.
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
        """Address of the data."""
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

    def __init__(self, path: Path, request: Any, spec: GraphSpec, board: Board[OpenVinoBuffer]) -> None:
        self.inputs: tuple[TensorSpec, ...] = spec.inputs
        self.outputs: tuple[TensorSpec, ...] = spec.outputs
        self._path = path
        self._request = request
        self._board = board
        self._bound: dict[str, OpenVinoBuffer] = {}

    def run(self) -> None:
        """Run on the buffers that the slots hold now."""
        try:
            for tensor in (*self.inputs, *self.outputs):
                buffer = self._board.buffer(tensor.name)
                if self._bound.get(tensor.name) is not buffer:
                    self._request.set_tensor(tensor.name, buffer.value)
                    self._bound[tensor.name] = buffer
            self._request.infer()
        except (RuntimeError, MemoryError) as error:
            raise graph_error(self._path, "run", "OpenVINO", error) from error


class OpenVinoHostGraph:
    """A compiled graph that runs on host arrays."""

    def __init__(self, path: Path, compiled: Any, spec: GraphSpec) -> None:
        self._path = path
        # Not the compiled graph itself, whose one request siblings would share.
        self._request = compiled.create_infer_request()
        self._outputs = [tensor.name for tensor in spec.outputs]

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Run on named arrays and return the named outputs."""
        try:
            results = self._request.infer(dict(inputs))
        except (RuntimeError, MemoryError) as error:
            raise graph_error(self._path, "run", "OpenVINO", error) from error
        return {name: np.array(results[name]) for name in self._outputs}


class OpenVinoBackend(HostFrames):
    """Graphs compiled by OpenVINO for the CPU."""

    def __init__(self, *, threads: int | None = None, bfloat16: bool = False, reason: str = "") -> None:
        """Start OpenVINO; ``threads`` None is one per physical core, ``bfloat16`` concerns graphs whose manifest entry
        allows it.

        Raises:
            UserError: ``threads`` is not positive.
        """
        if threads is not None and threads < 1:
            raise UserError(f"threads must be at least 1, not {threads}; leave it out to use every core.")
        # A CPU without such instructions computes in float32, whatever the hint: proofs must not say otherwise.
        how = "" if not bfloat16 else ", bfloat16" if has_bfloat16() else ", float32 in place of bfloat16"
        self.name = f"OpenVINO {ov.__version__.split('-')[0]} (cpu{how})"
        self.reason = reason or "OpenVINO was asked for"
        self.board: Board[OpenVinoBuffer] = Board(OpenVinoBuffer)
        self._threads = threads
        self._bfloat16 = bfloat16
        self._compiled: dict[Path, Any] = {}

    def sibling(self) -> OpenVinoBackend:
        """A backend for another video: a board of its own, and the same compiled graphs, which may run at once."""
        other = copy(self)
        other.board = Board(OpenVinoBuffer)
        return other

    def load(self, path: Path, spec: GraphSpec) -> OpenVinoGraph:
        """Load a graph, declare its slots and bind it to them; a ``UserError`` names a file that cannot be loaded."""
        compiled = self._compile(path, spec)
        for tensor in (*spec.inputs, *spec.outputs):
            self.board.declare(tensor)
        return OpenVinoGraph(path, compiled.create_infer_request(), spec, self.board)

    def load_host(self, path: Path, spec: GraphSpec) -> OpenVinoHostGraph:
        """Load a graph that runs on host arrays; a ``UserError`` names a file that cannot be loaded."""
        return OpenVinoHostGraph(path, self._compile(path, spec), spec)

    def _compile(self, path: Path, spec: GraphSpec) -> Any:
        if path not in self._compiled:
            self._compiled[path] = self._start(path, spec)
        return self._compiled[path]

    def _start(self, path: Path, spec: GraphSpec) -> Any:
        wide = spec.precision in ("bfloat16", "int8") and not self._bfloat16
        options = _options("float32" if wide else spec.precision)
        if self._threads:
            # Fewer threads than cores leave room for others, which OpenVINO would tie to the same cores.
            options |= {"INFERENCE_NUM_THREADS": self._threads, "ENABLE_CPU_PINNING": False}
        try:
            compiled = compile_once(shared_core(), path, spec.sha256, options)
        except (RuntimeError, MemoryError) as error:
            raise graph_error(path, "loaded", "OpenVINO", error) from error
        ports = {name: port for port in (*compiled.inputs, *compiled.outputs) for name in port.names}
        for tensor in (*spec.inputs, *spec.outputs):
            if tensor.name not in ports:
                raise UserError(f"{path} has no tensor '{tensor.name}' as manifest.json says; export the bundle again.")
            port = ports[tensor.name]
            shape, dtype = port.get_partial_shape(), port.get_element_type().to_dtype().name
            # A shape that becomes known only at run time is refused: OpenVINO may then write to memory of its own.
            fits = len(shape) == len(tensor.shape) and all(
                isinstance(dim, str) or (not found.is_dynamic and found.get_length() == dim)
                for found, dim in zip(shape, tensor.shape, strict=True)
            )
            if dtype != tensor.dtype or not fits:
                raise UserError(
                    f"{path}: '{tensor.name}' is {dtype}{shape} where manifest.json has {tensor.dtype}"
                    f"{list(tensor.shape)}; export the bundle again."
                )
        return compiled


def has_bfloat16() -> bool:
    """True if OpenVINO computes in bfloat16 on this CPU."""
    return "BF16" in shared_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def bfloat16_pays() -> bool:
    """Measure if this CPU convolves faster in bfloat16 than in float32; takes a sixth of a second.

    The answer is remembered in the user's cache for this CPU and version of OpenVINO, so that other load on the machine
    cannot change it from run to run. The instruction set alone does not tell: a Xeon with AVX512-BF16 but without AMX
    is 1.5 times slower in bfloat16.
    """
    if not has_bfloat16():
        return False
    core = shared_core()
    key, known = f"{core.get_property('CPU', 'FULL_DEVICE_NAME')} OpenVINO {ov.__version__}", ""
    memory = memory_folder() / "bfloat16"
    with suppress(OSError, ValueError):
        known = memory.read_text(encoding="utf-8")
    if known in (f"{key} yes\n", f"{key} no\n"):
        return known.endswith("yes\n")
    pays = _is_faster_in_bfloat16(core)
    with suppress(OSError), new_file(memory) as temporary:  # where nothing can be kept it is measured again
        temporary.write_text(f"{key} {'yes' if pays else 'no'}\n", encoding="utf-8")
    return pays


def _is_faster_in_bfloat16(core: Any) -> bool:
    random = np.random.default_rng(0)
    image = random.standard_normal((1, 128, 32, 32), dtype=np.float32)
    kernel = random.standard_normal((128, 128, 3, 3), dtype=np.float32)
    requests: dict[Arithmetic, Any] = {}
    for precision in ("float32", "bfloat16"):
        source = ops.parameter(list(image.shape), np.float32)
        model = ov.Model([ops.convolution(source, ops.constant(kernel), [1, 1], [1, 1], [1, 1], [1, 1])], [source])
        requests[precision] = core.compile_model(model, "CPU", _options(precision)).create_infer_request()
        requests[precision].set_input_tensor(ov.Tensor(image, shared_memory=True))
    times: dict[Arithmetic, list[float]] = {precision: [] for precision in requests}
    for _ in range(8):  # in turn, so that other load meets both
        for precision, request in requests.items():
            start = time.perf_counter()
            request.infer()
            times[precision].append(time.perf_counter() - start)
    return min(times["bfloat16"]) < min(times["float32"])


def _options(precision: Arithmetic) -> dict[str, Any]:
    return {
        "PERFORMANCE_HINT": "LATENCY",
        # Without the hint OpenVINO chooses bfloat16 on CPUs that have it, which breaks the flow.
        "INFERENCE_PRECISION_HINT": _HINTS[precision],
        # Otherwise activations that meet 8-bit weights are rounded to 8 bits too, at the cost of the text graph.
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0",
    }
