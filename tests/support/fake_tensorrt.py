"""TensorRT without a GPU: engines are the bundle's ONNX files, run by ONNX Runtime on the memory of a ``FakeCuda``.

Contexts are as strict as the real ones: every address and every free extent must be set, scratch memory must be there,
the first run after a change cannot be captured, a context that was changed ruins the graphs captured from it, and the
device must be the current one. TensorRT-RTX without an aim builds for 8.6, 8.9 and 12.0, wherever it runs.
"""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime as ort
from support.fake_cuda import FakeCuda

from rvos_edge.engines.tensorrt.cuda import CudaError

_DTYPES = {"tensor(float)": np.float32, "tensor(uint8)": np.uint8}


@lru_cache(maxsize=64)
def _session(path: str) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


class FakeContext:
    """An execution context whose scratch memory is given to it."""

    def __init__(self, engine: FakeEngine) -> None:
        self._engine = engine
        self._addresses: dict[str, int] = {}
        self._shapes = {item.name: tuple(item.shape) for item in engine.session.get_inputs()}
        self._scratch = (0, 0)
        self._needs = 0
        self._version = 0
        self._warm = False

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self._changed()
        self._shapes[name] = shape
        return True

    def set_tensor_address(self, name: str, address: int) -> bool:
        self._changed()
        self._addresses[name] = address
        return True

    def set_device_memory(self, address: int, nbytes: int) -> None:
        self._changed()
        self._engine.cuda.calls.append(("scratch", self._engine.name, address))
        self._scratch = (address, nbytes)

    def update_device_memory_size_for_shapes(self) -> int:
        if not self._specified() or self._engine.silent:
            self._engine._refuse("the shapes are not complete")
            return 0
        # Graphs with more inputs need more, so that the scratch memory has to grow over the first frames.
        self._needs = 256 * len(self._shapes)
        return self._needs

    def is_stream_capturable(self, stream: int) -> bool:
        return self._engine.capturable and (self._engine.fixed or not self._engine.allocates)

    def execute_async_v3(self, stream: int) -> bool:
        engine, cuda = self._engine, self._engine.cuda
        cuda.calls.append(("execute", engine.name, stream))
        outputs = [item.name for item in engine.session.get_outputs()]
        if not cuda.is_current:
            return engine._refuse("the stream belongs to another device")
        if engine.broken or not self._specified() or {*self._shapes, *outputs} - set(self._addresses):
            return engine._refuse("a tensor has no shape or no address")
        if self._scratch[1] < self._needs:
            return engine._refuse("there is too little scratch memory")
        if cuda.capturing(stream) and not self._warm:
            return engine._refuse("operation not permitted when stream is capturing")
        self._warm = True
        addresses, shapes, scratch, version = (dict(self._addresses), dict(self._shapes), self._scratch, self._version)

        def run() -> None:
            if version != self._version:
                raise CudaError(f"{engine.name}: the context was changed under its work.")
            cuda.bytes_at(*scratch)[: self._needs] = 0xAB
            feed = {
                item.name: _read(cuda, addresses[item.name], _DTYPES[item.type], shapes[item.name])
                for item in engine.session.get_inputs()
            }
            for name, array in zip(outputs, engine.session.run(outputs, feed), strict=True):
                cuda.bytes_at(addresses[name], array.nbytes)[:] = np.frombuffer(array.tobytes(), np.uint8)

        cuda.enqueue(stream, run)
        return True

    def _specified(self) -> bool:
        return all(isinstance(dim, int) for shape in self._shapes.values() for dim in shape)

    def _changed(self) -> None:
        self._version += 1
        self._warm = False


class FakeEngine:
    """A deserialised engine."""

    def __init__(self, cuda: FakeCuda, logger: Any, path: Path) -> None:
        self.cuda = cuda
        self.name = path.stem
        self.session = _session(str(path))
        self.broken = False
        self.capturable = True
        self.silent = False
        """True: the size of the scratch memory is not told."""
        self.allocates = False
        """True: built without REQUIRE_USER_ALLOCATION, which only matters for dynamic shapes."""
        self.contexts = 0
        self._logger = logger
        self._items = [*self.session.get_inputs(), *self.session.get_outputs()]
        self.num_io_tensors = len(self._items)
        self.fixed = all(isinstance(dim, int) for item in self._items for dim in item.shape)

    def get_tensor_name(self, index: int) -> str:
        return str(self._items[index].name)

    def get_tensor_mode(self, name: str) -> str:
        return "in" if name in {item.name for item in self.session.get_inputs()} else "out"

    def get_tensor_dtype(self, name: str) -> Any:
        return _DTYPES[next(item.type for item in self._items if item.name == name)]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        shape = next(item.shape for item in self._items if item.name == name)
        return tuple(dim if isinstance(dim, int) else -1 for dim in shape)

    def create_runtime_config(self) -> FakeConfig:
        return FakeConfig()

    def create_execution_context(self, how: Any) -> FakeContext:
        assert self.cuda.is_current, "a context is made on the current device"
        self.contexts += 1
        if isinstance(how, FakeConfig):
            assert how.strategy == "user managed"
            how.cache.compiled.add(self.name)
        else:
            assert how == "user managed"
        return FakeContext(self)

    def _refuse(self, why: str) -> bool:
        self._logger.log(1, f"{self.name}: {why}")
        return False


class FakeCache:
    """Stand-in for the runtime cache of TensorRT-RTX."""

    def __init__(self) -> None:
        self.compiled: set[str] = set()

    def serialize(self) -> bytes:
        return ",".join(sorted(self.compiled)).encode()

    def deserialize(self, data: bytes) -> bool:
        self.compiled.update(data.decode().split(","))
        return True


class FakeConfig:
    """Stand-in for the runtime configuration of TensorRT-RTX."""

    def __init__(self) -> None:
        self.strategy = "static"
        self.dynamic_shapes_kernel_specialization_strategy = "lazy"
        self.cache = FakeCache()

    def set_execution_context_allocation_strategy(self, strategy: str) -> None:
        self.strategy = strategy

    def create_runtime_cache(self) -> FakeCache:
        return FakeCache()

    def set_runtime_cache(self, cache: FakeCache) -> bool:
        self.cache = cache
        return True


def fake_tensorrt(cuda: FakeCuda, *, rtx: bool = False, capability: str = "86") -> Any:
    """A module that builds and runs on a GPU of a capability; ``engines`` holds what was deserialised, by graph."""
    engines: dict[str, FakeEngine] = {}

    class ILogger:
        Severity = SimpleNamespace(ERROR=1, INTERNAL_ERROR=0, WARNING=2)

    class Network:
        path = ""

        @property
        def num_inputs(self) -> int:
            return len(_session(self.path).get_inputs())

        def get_input(self, index: int) -> Any:
            return _session(self.path).get_inputs()[index]

    class Config:
        num_compute_capabilities = 0
        user_allocation = False

        def __init__(self) -> None:
            self.aims: dict[int, str] = {}

        def set_flag(self, flag: str) -> None:
            self.user_allocation = self.user_allocation or flag == "user allocation"

        def add_optimization_profile(self, profile: Any) -> None: ...

        def set_compute_capability(self, capability: str, index: int) -> None:
            assert index < self.num_compute_capabilities
            self.aims[index] = capability

    class Builder:
        def __init__(self, logger: Any) -> None: ...

        def create_network(self, flags: int) -> Network:
            return Network()

        def create_builder_config(self) -> Config:
            return Config()

        def create_optimization_profile(self) -> Any:
            return SimpleNamespace(set_shape=lambda *_: None)

        def build_serialized_network(self, network: Network, config: Config) -> bytes:
            assert rtx or cuda.is_current, "full TensorRT builds for the current device"
            built_for = [*config.aims.values()] or ["86", "89", "120"]
            plan = {"path": network.path, "allocates": rtx and not config.user_allocation, "for": built_for}
            return json.dumps(plan).encode()

    class OnnxParser:
        def __init__(self, network: Network, logger: Any) -> None:
            self._network = network

        def parse_from_file(self, path: str) -> bool:
            self._network.path = path
            return True

    class Runtime:
        def __init__(self, logger: Any) -> None:
            self._logger = logger

        def deserialize_cuda_engine(self, plan: bytes) -> FakeEngine | None:
            assert cuda.is_current, "an engine is deserialised on the current device"
            try:
                stored = json.loads(plan)
            except ValueError:
                self._logger.log(1, "the plan is of another version")
                return None
            if rtx and capability not in stored["for"]:
                self._logger.log(1, f"the plan is for {stored['for']}")
                return None
            path = Path(stored["path"])
            engines[path.stem] = FakeEngine(cuda, self._logger, path)
            engines[path.stem].allocates = stored["allocates"]
            return engines[path.stem]

    trt = SimpleNamespace(
        __version__="1.7.1" if rtx else "10.3.0",
        ILogger=ILogger,
        Builder=Builder,
        OnnxParser=OnnxParser,
        Runtime=Runtime,
        NetworkDefinitionCreationFlag=SimpleNamespace(STRONGLY_TYPED=1),
        TensorIOMode=SimpleNamespace(INPUT="in", OUTPUT="out"),
        ExecutionContextAllocationStrategy=SimpleNamespace(USER_MANAGED="user managed"),
        nptype=lambda dtype: dtype,
        engines=engines,
    )
    if rtx:
        trt.IRuntimeCache = FakeCache
        trt.BuilderFlag = SimpleNamespace(REQUIRE_USER_ALLOCATION="user allocation")
        trt.DynamicShapesKernelSpecializationStrategy = SimpleNamespace(EAGER="eager")
        trt.ComputeCapability = SimpleNamespace(SM75="75", SM86="86", SM89="89", SM120="120")
    return trt


def _read(cuda: FakeCuda, address: int, dtype: Any, shape: tuple[int, ...]) -> Any:
    nbytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
    return cuda.bytes_at(address, nbytes).view(dtype).reshape(shape).copy()
