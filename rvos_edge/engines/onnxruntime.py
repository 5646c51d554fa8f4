"""ONNX Runtime: the backend that is always installed, on the CPU or on CUDA."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping
from copy import copy
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from rvos_edge.engines.base import HostFrames, graph_error
from rvos_edge.engines.board import Board
from rvos_edge.engines.device_names import Kind, device_kind, gpu_index, takes_tf32
from rvos_edge.errors import UserError, one_line
from rvos_edge.manifest import GraphSpec, TensorSpec

_CPU, _CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
_NUMPY_DTYPES = {"tensor(float)": "float32", "tensor(uint8)": "uint8", "tensor(int64)": "int64"}
_NUMPY_DTYPES["tensor(float16)"] = "float16"


def choose_device(device: str) -> tuple[Kind, str]:
    """Choose "cpu" or "cuda" for a device and give the reason.

    Raises:
        UserError: The device is unknown, or is a GPU that ONNX Runtime cannot use.
    """
    kind = device_kind(device)
    if kind == "cpu":
        return "cpu", "cpu was asked for"
    problem = _cuda_problem(gpu_index(device))
    if problem is None:
        return "cuda", "ONNX Runtime can use a CUDA device" if kind == "auto" else f"{device} was asked for"
    if kind == "auto":
        return "cpu", problem
    raise UserError(
        f"device '{device}' cannot be used because {problem}; install onnxruntime-gpu in place of onnxruntime, with "
        "the CUDA version it names, or use device 'cpu'."
    )


def _cuda_problem(index: int) -> str | None:
    if _CUDA not in ort.get_available_providers():
        return "the installed ONNX Runtime has no CUDA support"
    if hasattr(ort, "preload_dlls"):
        # CUDA and cuDNN of pip's nvidia-* packages; what it prints about missing ones, the check below says as well.
        with contextlib.redirect_stdout(io.StringIO()):
            ort.preload_dlls()
    try:
        ort.OrtValue.ortvalue_from_shape_and_type((1,), np.float32, "cuda", index)
    except Exception as error:  # the types differ by version
        return f"ONNX Runtime finds no CUDA device ({one_line(error)})"
    return None


class OrtBuffer:
    """A tensor in host or CUDA memory, as an OrtValue."""

    def __init__(self, dtype: str, shape: tuple[int, ...], kind: Kind, index: int = 0) -> None:
        self.dtype = dtype
        self.shape = shape
        self._on_host = kind == "cpu"
        # On the CPU this is the tensor itself, on CUDA the staging copy.
        self._host: NDArray[Any] = np.zeros(shape, dtype)
        self._view = self._host.view()
        self._view.flags.writeable = False
        try:
            self.value = ort.OrtValue.ortvalue_from_numpy(self._host, kind, index)
        except Exception as error:  # the exceptions of ONNX Runtime share no public base class
            raise UserError(
                f"ONNX Runtime gets no memory on {kind} ({one_line(error)}); use fewer queries, or device 'cpu'."
            ) from error

    @property
    def address(self) -> int:
        """Address of the data."""
        return int(self.value.data_ptr())

    def write(self, array: NDArray[Any]) -> None:
        """Copy an array in."""
        np.copyto(self._host, array, casting="same_kind")
        self._upload()

    def read(self) -> NDArray[Any]:
        """A read-only view on the CPU, a copy on CUDA."""
        return self._view if self._on_host else np.asarray(self.value.numpy())

    def zero(self) -> None:
        """Fill with zeros."""
        self._host.fill(0)
        self._upload()

    def copy_from(self, other: OrtBuffer) -> None:
        """Copy another buffer in."""
        self.write(other.read())

    def _upload(self) -> None:
        if not self._on_host:
            self.value.update_inplace(self._host)


class OrtGraph:
    """A session bound to slots of a board.

    One prepared binding is kept per combination of buffers, between which the states alternate, so that a run neither
    binds nor allocates.
    """

    def __init__(self, path: Path, session: ort.InferenceSession, spec: GraphSpec, board: Board[OrtBuffer]) -> None:
        self.inputs: tuple[TensorSpec, ...] = spec.inputs
        self.outputs: tuple[TensorSpec, ...] = spec.outputs
        self._path = path
        self._session = session
        self._board = board
        self._names = tuple(tensor.name for tensor in (*spec.inputs, *spec.outputs))
        # The keys hold the buffers themselves, so that no address is reused while a binding refers to it.
        self._bindings: dict[tuple[OrtBuffer, ...], ort.IOBinding] = {}

    def run(self) -> None:
        """Run on the buffers that the slots hold now."""
        key = tuple(map(self._board.buffer, self._names))
        try:
            binding = self._bindings.get(key) or self._bind(key)
            self._session.run_with_iobinding(binding)
        except Exception as error:  # the exceptions of ONNX Runtime share no public base class
            raise graph_error(self._path, "run", "ONNX Runtime", error) from error

    def _bind(self, key: tuple[OrtBuffer, ...]) -> ort.IOBinding:
        live = self._board.buffers()
        self._bindings = {known: binding for known, binding in self._bindings.items() if live.issuperset(known)}
        binding = self._session.io_binding()
        split = len(self.inputs)
        for name, buffer in zip(self._names[:split], key[:split], strict=True):
            binding.bind_ortvalue_input(name, buffer.value)
        for name, buffer in zip(self._names[split:], key[split:], strict=True):
            binding.bind_ortvalue_output(name, buffer.value)
        self._bindings[key] = binding
        return binding


class OrtHostGraph:
    """A session that runs on host arrays."""

    def __init__(self, path: Path, session: ort.InferenceSession, spec: GraphSpec) -> None:
        self._path = path
        self._session = session
        self._outputs = [tensor.name for tensor in spec.outputs]

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Run on named arrays and return the named outputs."""
        try:
            return dict(zip(self._outputs, self._session.run(self._outputs, dict(inputs)), strict=True))
        except Exception as error:  # as above
            raise graph_error(self._path, "run", "ONNX Runtime", error) from error


class OnnxRuntimeBackend(HostFrames):
    """Graphs in ONNX Runtime sessions on one device."""

    def __init__(self, *, device: str = "auto", threads: int | None = None, reason: str = "") -> None:
        """Choose the device, "auto", "cpu", "cuda" or "cuda:1"; ``threads`` None is one per physical core.

        Raises:
            UserError: The device cannot be used, or ``threads`` is not positive.
        """
        if threads is not None and threads < 1:
            raise UserError(f"threads must be at least 1, not {threads}; leave it out to use every core.")
        self.device, why = choose_device(device)
        self.reason = reason or why
        self.tf32 = self.device == "cuda" and takes_tf32()
        self._index = index = gpu_index(device)
        self.name = f"ONNX Runtime ({self.device}{f':{index}' if index else ''})"
        self.board: Board[OrtBuffer] = Board(lambda dtype, shape: OrtBuffer(dtype, shape, self.device, index))
        self._threads = threads
        self._sessions: dict[tuple[Path, Kind], ort.InferenceSession] = {}

    def sibling(self) -> OnnxRuntimeBackend:
        """A backend for another video: a board of its own, and the same sessions, which may run at once."""
        other = copy(self)
        other.board = Board(lambda dtype, shape: OrtBuffer(dtype, shape, self.device, self._index))
        return other

    def load(self, path: Path, spec: GraphSpec) -> OrtGraph:
        """Load a graph, declare its slots and bind it to them; a ``UserError`` names a file that cannot be loaded."""
        session = self._open(path, spec, self.device)
        for tensor in (*spec.inputs, *spec.outputs):
            self.board.declare(tensor)
        return OrtGraph(path, session, spec, self.board)

    def load_host(self, path: Path, spec: GraphSpec) -> OrtHostGraph:
        """Load a graph that runs on host arrays; a ``UserError`` names a file that cannot be loaded."""
        # Always on the CPU: it runs once per query and its inputs change length.
        return OrtHostGraph(path, self._open(path, spec, "cpu"), spec)

    def _open(self, path: Path, spec: GraphSpec, device: Kind) -> ort.InferenceSession:
        if (path, device) not in self._sessions:
            self._sessions[path, device] = self._start(path, spec, device)
        return self._sessions[path, device]

    def _start(self, path: Path, spec: GraphSpec, device: Kind) -> ort.InferenceSession:
        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.intra_op_num_threads = self._threads or 0
        options.log_severity_level = 4  # an error is in its exception too
        # The graphs run one after the other: the idle threads of one must not spin while the next one works.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        # Weights of 8 bits are widened once, at load, instead of running quantised operators on every frame.
        options.add_session_config_entry("session.disable_quant_qdq", "1")
        if spec.precision == "int8":
            # Its kernels for symmetric activations take twice float32's time: it computes in float32 instead.
            options.add_session_config_entry("session.enable_quant_qdq_cleanup", "1")
        providers: list[Any] = [_CPU] if device == "cpu" else [(_CUDA, {"device_id": self._index}), _CPU]
        try:
            # Without the fallback, which would print the error of a GPU and go on without it.
            session = ort.InferenceSession(str(path), options, providers=providers, enable_fallback=0)
        except Exception as error:  # the exceptions of ONNX Runtime share no public base class
            raise graph_error(path, "loaded", "ONNX Runtime", error) from error
        if device == "cuda" and _CUDA not in session.get_providers():
            raise UserError(
                f"{path} cannot run on cuda: ONNX Runtime could not start its CUDA provider; install the CUDA and "
                "cuDNN versions it was built for, or use device 'cpu'."
            )
        _check_session(path, session.get_inputs(), spec.inputs, "input")
        _check_session(path, session.get_outputs(), spec.outputs, "output")
        return session


def _check_session(path: Path, arguments: list[Any], specs: tuple[TensorSpec, ...], kind: str) -> None:
    actual = {argument.name: argument for argument in arguments}
    if set(actual) != {spec.name for spec in specs}:
        raise UserError(
            f"{path} has the {kind}s {sorted(actual)} where manifest.json has {sorted(s.name for s in specs)}; "
            "export the bundle again."
        )
    for spec in specs:
        dtype = _NUMPY_DTYPES.get(actual[spec.name].type, actual[spec.name].type)
        shape = actual[spec.name].shape
        if dtype != spec.dtype or len(shape) != len(spec.shape) or any(map(_contradict, shape, spec.shape)):
            raise UserError(
                f"{path}: {kind} '{spec.name}' is {dtype}{shape} where manifest.json has "
                f"{spec.dtype}{list(spec.shape)}; export the bundle again."
            )


def _contradict(actual: int | str | None, expected: int | str) -> bool:
    return isinstance(actual, int) and isinstance(expected, int) and actual != expected
