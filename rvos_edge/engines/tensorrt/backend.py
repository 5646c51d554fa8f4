"""The backend for TensorRT and TensorRT-RTX: engines on an NVIDIA GPU, whole frames as CUDA graphs."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from rvos_edge.bundle import Bundle
from rvos_edge.engines.base import Lap
from rvos_edge.engines.board import Board
from rvos_edge.engines.device_names import takes_tf32
from rvos_edge.engines.onnxruntime import OnnxRuntimeBackend, OrtHostGraph
from rvos_edge.engines.tensorrt import api
from rvos_edge.engines.tensorrt.build import BuildOptions, check_options, ensure_engines
from rvos_edge.engines.tensorrt.cuda import REMEDY, Cuda, CudaError
from rvos_edge.engines.tensorrt.cuda_graphs import DeviceFrames
from rvos_edge.engines.tensorrt.device import CudaDevice, DeviceBuffer, Scratch
from rvos_edge.engines.tensorrt.engine_cache import EngineCache
from rvos_edge.engines.tensorrt.gpu import find_gpu
from rvos_edge.engines.tensorrt.open_cuda import open_cuda
from rvos_edge.errors import UserError, one_line
from rvos_edge.manifest import GraphSpec, TensorSpec

_REBUILD = "delete it, and it will be built again"


@dataclass(eq=False)
class _Bound:
    """A context bound to one combination of buffers; only its scratch memory changes."""

    context: Any
    needs: int
    scratch: DeviceBuffer | None = None


class TensorRtGraph:
    """An engine whose inputs and outputs are slots.

    It has one context per combination of buffers, because a context must not change after a capture.
    """

    def __init__(
        self,
        path: Path,
        spec: GraphSpec,
        *,
        contexts: api.ContextMaker,
        log: api.Log,
        device: CudaDevice,
        board: Board[DeviceBuffer],
        scratch: Scratch,
    ) -> None:
        self.inputs: tuple[TensorSpec, ...] = spec.inputs
        self.outputs: tuple[TensorSpec, ...] = spec.outputs
        self.contexts = contexts
        self._path = path
        self._log = log
        self._device = device
        self._board = board
        self._scratch = scratch
        self._names = tuple(tensor.name for tensor in (*spec.inputs, *spec.outputs))
        self._bound: dict[tuple[DeviceBuffer, ...], _Bound] = {}

    def run(self) -> None:
        """Queue a run on the buffers that the slots hold now."""
        with self._device.cuda.current():
            key = tuple(map(self._board.buffer, self._names))
            bound = self._bound.get(key) or self._bind(key)
            scratch = self._scratch.at_least(bound.needs)
            if scratch is not bound.scratch and scratch is not None:
                bound.context.set_device_memory(scratch.address, scratch.nbytes)
                bound.scratch = scratch
            self._must(bound.context.execute_async_v3(self._device.stream), "cannot be run", REMEDY)

    def check_capture(self) -> None:
        """Ask TensorRT-RTX if a capture would succeed; a CudaError names an engine with which it would not."""
        for bound in self._bound.values():
            able = getattr(bound.context, "is_stream_capturable", None)
            if able is not None and not able(self._device.stream):
                raise CudaError(f"{self._path} cannot be part of a CUDA graph.")

    def _bind(self, key: tuple[DeviceBuffer, ...]) -> _Bound:
        live = self._board.buffers()
        self._bound = {known: bound for known, bound in self._bound.items() if live.issuperset(known)}
        context = self.contexts.make()
        self._must(context is not None, "gets no execution context")
        for tensor, buffer in zip(self.inputs, key, strict=False):
            if any(isinstance(dim, str) for dim in tensor.shape):
                self._must(
                    context.set_input_shape(tensor.name, buffer.shape), f"takes no '{tensor.name}' of this shape"
                )
        for name, buffer in zip(self._names, key, strict=True):
            self._must(context.set_tensor_address(name, buffer.address), f"takes no address for '{name}'")
        errors = len(self._log.errors)
        needs = context.update_device_memory_size_for_shapes()
        # 0 means either that no scratch memory is needed or that the call failed, which TensorRT logs.
        self._must(needs > 0 or len(self._log.errors) == errors, "does not tell its scratch memory")
        bound = _Bound(context, needs)
        self._bound[key] = bound
        return bound

    def _must(self, worked: bool, problem: str, remedy: str = _REBUILD) -> None:
        if not worked:
            raise UserError(f"{self._path} {problem} ({_reason(self._log)}); {remedy}.")


@dataclass(frozen=True)
class Parts:
    """TensorRT, CUDA and the engines by graph; ``benchmarks.gpu_check`` gives engines that need no TensorRT."""

    trt: Any
    cuda: Cuda
    engines: Mapping[str, Path]


class TensorRtBackend:
    """Runs the engines of a bundle on the GPU of this machine, and the text graph in ONNX Runtime on the host.

    Engines are taken from the cache of the bundle and built if none fits.
    """

    def __init__(
        self,
        *,
        bundle: Bundle,
        flavour: api.Flavour,
        gpu: int = 0,
        build: bool = True,
        record: bool = True,
        threads: int | None = None,
        reason: str = "",
        parts: Parts | None = None,
    ) -> None:
        """Start TensorRT and find or build the engines.

        Args:
            gpu: Index of the GPU.
            build: False to refuse if an engine is missing instead of building it.
            record: Replay frames as CUDA graphs.
            parts: Used instead of what is found on the machine.

        Raises:
            UserError: TensorRT, a driver or a GPU is missing, or there is no engine and none can be built.
        """
        if parts is None:
            trt, cuda = api.load(flavour), open_cuda(gpu)
            parts = Parts(trt, cuda, find_engines(bundle, flavour, gpu=gpu, build=build))
        self._trt, cuda, self._paths = parts.trt, parts.cuda, parts.engines
        self._bundle = bundle
        found = find_gpu(gpu)
        self._version = f"{'TensorRT-RTX' if flavour == 'tensorrt-rtx' else 'TensorRT'} {api.version(self._trt)}"
        self.name = f"{self._version} ({found.name if found is not None else 'cuda'})"
        self._reason = reason or f"{flavour} was asked for"
        self.tf32 = takes_tf32()
        self._log = api.Log(self._trt)
        with cuda.current():
            self._runtime = self._trt.Runtime(self._log.logger)
        # Nothing below may refer back to this object, so that memory is freed with it and not by the garbage collector.
        self._device = device = CudaDevice(cuda)
        self.board: Board[DeviceBuffer] = Board(partial(DeviceBuffer, device))
        self._graphs = graphs = list[TensorRtGraph]()
        self._scratch = Scratch(device)
        self._frames = DeviceFrames(
            device,
            self.board,
            self._scratch,
            record=record,
            before_capture=partial(_check_capture, graphs),
            after_first=partial(_save_caches, graphs),
        )
        self._host = OnnxRuntimeBackend(device="cpu", threads=threads)

    @property
    def reason(self) -> str:
        """Reason for the choice of this backend and, if it failed, for frames not being replayed."""
        problem = self._frames.problem
        return f"{self._reason}, without CUDA graphs ({problem})" if problem else self._reason

    def load(self, path: Path, spec: GraphSpec) -> TensorRtGraph:
        """Load the engine of a graph of the bundle and declare its slots; a ``UserError`` names a file that fails."""
        names = [name for name, known in self._bundle.manifest.graphs.items() if known == spec]
        if not names or names[0] not in self._paths:
            raise UserError(f"{path} has no engine, because it is no graph of {self._bundle.path}; open that bundle.")
        engine_path = self._paths[names[0]]
        with self._device.cuda.current():
            engine = self._runtime.deserialize_cuda_engine(engine_path.read_bytes())
        if engine is None:
            raise UserError(f"{engine_path} cannot be loaded by {self._version} ({_reason(self._log)}); {_REBUILD}.")
        _check_tensors(self._trt, engine_path, engine, spec)
        for tensor in (*spec.inputs, *spec.outputs):
            self.board.declare(tensor)
        graph = TensorRtGraph(
            engine_path,
            spec,
            contexts=api.ContextMaker(self._trt, engine, engine_path.with_suffix(".runtime-cache")),
            log=self._log,
            device=self._device,
            board=self.board,
            scratch=self._scratch,
        )
        self._graphs.append(graph)
        return graph

    def load_host(self, path: Path, spec: GraphSpec) -> OrtHostGraph:
        """Load a graph that runs on host arrays; a ``UserError`` names a file that cannot be loaded."""
        return self._host.load_host(path, spec)

    def frame(self, key: Hashable, work: Callable[[Lap], None]) -> None:
        """Queue the work of a frame, or replay its recording."""
        with self._device.cuda.current():
            self._frames.run(key, work)

    def timings(self) -> dict[str, float]:
        """Return the milliseconds by stage of the last frame; a replayed frame is one stage, ``graph``."""
        return self._frames.timings()


def find_engines(bundle: Bundle, flavour: api.Flavour, *, gpu: int = 0, build: bool = True) -> dict[str, Path]:
    """Find engines for a GPU of this machine, by its index: built elsewhere for its compute capability, or else here.

    Raises:
        UserError: There is no GPU, or there is no engine and none can be built.
    """
    check_options(BuildOptions(flavour, gpu=gpu))
    found = find_gpu(gpu)
    entries = [entry.key for _, entry in EngineCache(bundle).entries() if entry.key.flavour == flavour]
    aims = {
        key.capabilities
        for key in entries
        if not key.gpu and found is not None and found.capability in key.capabilities
    }
    for capabilities in sorted(aims):
        try:
            return ensure_engines(bundle, BuildOptions(flavour, capabilities), build=False)
        except UserError:
            continue
    return ensure_engines(bundle, BuildOptions(flavour, gpu=gpu), build=build)


def _check_capture(graphs: Iterable[TensorRtGraph]) -> None:
    for graph in graphs:
        graph.check_capture()


def _save_caches(graphs: Iterable[TensorRtGraph]) -> None:
    for graph in graphs:
        graph.contexts.save()


def _check_tensors(trt: Any, path: Path, engine: Any, spec: GraphSpec) -> None:
    modes = {trt.TensorIOMode.INPUT: spec.inputs, trt.TensorIOMode.OUTPUT: spec.outputs}
    expected = {(tensor.name, mode): tensor for mode, tensors in modes.items() for tensor in tensors}
    names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    found = {(name, engine.get_tensor_mode(name)) for name in names}
    if found != set(expected):
        raise UserError(
            f"{path} has the tensors {sorted(names)} where manifest.json has {sorted(name for name, _ in expected)}; "
            f"{_REBUILD}."
        )
    for (name, _), tensor in expected.items():
        dtype, shape = (trt.nptype(engine.get_tensor_dtype(name)).__name__, tuple(engine.get_tensor_shape(name)))
        if dtype != tensor.dtype or len(shape) != len(tensor.shape) or any(map(_contradict, shape, tensor.shape)):
            raise UserError(
                f"{path}: tensor '{name}' is {dtype}{list(shape)} where manifest.json has {tensor.dtype}"
                f"{list(tensor.shape)}; {_REBUILD}."
            )


def _contradict(actual: int, expected: int | str) -> bool:
    return isinstance(expected, int) and actual not in (-1, expected)


def _reason(log: api.Log) -> str:
    return one_line(log.errors[-1]) if log.errors else "no reason given"
