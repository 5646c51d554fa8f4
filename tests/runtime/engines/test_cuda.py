"""The CUDA interface over stand-ins for its Python packages, and tensors over a fake device; no GPU is needed."""

from __future__ import annotations

import enum
import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from support.fake_cuda import FakeCuda

from rvos_edge.engines.tensorrt.cuda import Cuda, CudaError, host_view
from rvos_edge.engines.tensorrt.device import CudaDevice, DeviceBuffer
from rvos_edge.engines.tensorrt.gpu import find_gpu
from rvos_edge.engines.tensorrt.open_cuda import open_cuda
from rvos_edge.engines.tensorrt.pycuda import PyCuda
from rvos_edge.errors import UserError


class _Code(enum.IntEnum):
    cudaSuccess = 0  # noqa: N815
    cudaErrorMemoryAllocation = 2  # noqa: N815
    cudaErrorInvalidResourceHandle = 400  # noqa: N815
    cudaErrorStreamCaptureInvalidated = 901  # noqa: N815


class FakeBindings:
    """``cuda.bindings.runtime``: every function returns its code first, and works on the current device alone."""

    cudaMemcpyKind = SimpleNamespace(  # noqa: N815
        cudaMemcpyHostToDevice=1, cudaMemcpyDeviceToHost=2, cudaMemcpyDeviceToDevice=3
    )
    cudaStreamCaptureMode = SimpleNamespace(cudaStreamCaptureModeThreadLocal=1)  # noqa: N815

    def __init__(self, devices: int = 1, index: int = 0) -> None:
        self.index = index
        self.device = 0
        self.calls: list[tuple[Any, ...]] = []
        self.returns: dict[str, Any] = {"cudaGetDeviceCount": devices, "cudaEventElapsedTime": 2.5}
        self.fails: dict[str, _Code] = {}

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: Any) -> tuple[Any, ...]:
            if name == "cudaGetErrorString":
                return (_Code.cudaSuccess, f"text of {int(arguments[0])}".encode())
            if name == "cudaGetDevice":
                return (_Code.cudaSuccess, self.device)
            self.calls.append((name, *arguments))
            if name == "cudaSetDevice":
                self.device = arguments[0]
            elif name != "cudaGetDeviceCount" and self.device != self.index:
                return (_Code.cudaErrorInvalidResourceHandle,)
            return (self.fails.get(name, _Code.cudaSuccess), self.returns.get(name, 77))

        return call


def test_cuda_bindings_are_called_as_cuda_expects() -> None:
    runtime = FakeBindings()
    cuda = Cuda(runtime)
    assert (cuda.malloc(16), cuda.malloc_host(16), cuda.create_stream()) == (77, 77, 77)
    cuda.upload(1, 2, 16, 5)
    cuda.download(1, 2, 16, 5)
    cuda.copy(1, 2, 16, 5)
    cuda.fill(1, 0, 16, 5)
    cuda.create_event(timed=True)
    cuda.create_event(timed=False)
    assert cuda.elapsed(6, 7) == 2.5
    cuda.begin_capture(5)
    cuda.instantiate(cuda.end_capture(5))
    assert runtime.calls == [
        ("cudaGetDeviceCount",),
        ("cudaMalloc", 16),
        ("cudaMallocHost", 16),
        ("cudaStreamCreateWithFlags", 1),
        ("cudaMemcpyAsync", 1, 2, 16, 1, 5),
        ("cudaMemcpyAsync", 1, 2, 16, 2, 5),
        ("cudaMemcpyAsync", 1, 2, 16, 3, 5),
        ("cudaMemsetAsync", 1, 0, 16, 5),
        ("cudaEventCreateWithFlags", 0),
        ("cudaEventCreateWithFlags", 2),
        ("cudaEventElapsedTime", 6, 7),
        ("cudaStreamBeginCapture", 5, 1),
        ("cudaStreamEndCapture", 5),
        ("cudaGraphInstantiate", 77, 0),
    ]


def test_every_error_code_becomes_a_sentence() -> None:
    runtime = FakeBindings()
    cuda = Cuda(runtime)
    runtime.fails = {"cudaMalloc": _Code.cudaErrorMemoryAllocation}
    with pytest.raises(CudaError, match=r"cudaMalloc failed with cudaErrorMemoryAllocation \(text of 2\); close other"):
        cuda.malloc(1 << 40)
    runtime.fails = dict.fromkeys(
        ("cudaStreamSynchronize", "cudaGraphLaunch", "cudaMemcpyAsync"), _Code.cudaErrorStreamCaptureInvalidated
    )
    for call in (lambda: cuda.synchronize(5), lambda: cuda.launch(8, 5), lambda: cuda.copy(1, 2, 3, 5)):
        with pytest.raises(CudaError, match=r"failed with cudaErrorStreamCaptureInvalidated .*; start again"):
            call()
    with pytest.raises(CudaError, match="CUDA finds no device; use a machine with an NVIDIA GPU"):
        Cuda(FakeBindings(devices=0))
    with pytest.raises(CudaError, match="device 'cuda:2' is not here; use cuda:0 to cuda:1"):
        Cuda(FakeBindings(devices=2), 2)


def test_every_call_is_made_on_the_device_and_leaves_the_callers_current() -> None:
    runtime = FakeBindings(devices=2, index=1)
    cuda = Cuda(runtime, 1)
    stream = cuda.create_stream()
    cuda.fill(cuda.malloc(16), 0, 16, stream)
    assert runtime.device == 0
    runtime.fails = {"cudaGraphLaunch": _Code.cudaErrorStreamCaptureInvalidated}
    with pytest.raises(CudaError, match="cudaGraphLaunch"), cuda.current():
        cuda.launch(8, stream)
    assert runtime.device == 0
    start = len(runtime.calls)
    with cuda.current():  # once for a whole frame
        cuda.synchronize(stream)
        cuda.synchronize(stream)
    assert [call[0] for call in runtime.calls[start:]].count("cudaSetDevice") == 2


class FakePyCuda:
    """``pycuda.driver``: its objects work only while the primary context is current."""

    class Error(Exception):
        """The base of all of pycuda's exceptions."""

    def __init__(self) -> None:
        self.pushed = 0
        self.log: list[tuple[Any, ...]] = []
        self.context = SimpleNamespace(push=lambda: self._push(1), pop=lambda: self._push(-1))
        self.Device = lambda index: SimpleNamespace(retain_primary_context=lambda: self.context)
        self.Device.count = lambda: 1  # type: ignore[attr-defined]
        self.init = lambda: None

    def _push(self, step: int) -> None:
        self.pushed += step

    def _do(self, *what: Any) -> None:
        if self.pushed < 1:
            raise self.Error(f"{what[0]}: no context")
        self.log.append(what)

    def mem_alloc(self, nbytes: int) -> Any:
        self._do("mem_alloc", nbytes)
        driver = self

        class Allocation:
            def __int__(self) -> int:
                return 0x4000

            def free(self) -> None:
                driver._do("free")

        return Allocation()

    def Stream(self, flags: int) -> Any:  # noqa: N802
        self._do("Stream", flags)
        return SimpleNamespace(handle=0x5000, synchronize=lambda: self._do("synchronize"))

    def Event(self, flags: int) -> Any:  # noqa: N802
        return SimpleNamespace(record=lambda stream: self._do("record", flags), time_till=lambda end: 1.5)

    def memcpy_htod_async(self, target: int, source: Any, stream: Any) -> None:
        self._do("htod", target, bytes(source), stream.handle)

    def memset_d8_async(self, target: int, value: int, count: int, stream: Any) -> None:
        raise self.Error("cuMemsetD8Async failed:\n out of luck")


def test_pycuda_works_in_the_primary_context_and_leaves_none_behind() -> None:
    driver = FakePyCuda()
    cuda: Cuda = PyCuda(driver)
    address, stream = cuda.malloc(4), cuda.create_stream()
    assert (address, stream) == (0x4000, 0x5000)
    source = np.arange(4, dtype=np.uint8)
    cuda.upload(address, int(source.ctypes.data), 4, stream)
    start, end = cuda.create_event(timed=True), cuda.create_event(timed=False)
    cuda.record(start, stream)
    assert cuda.elapsed(start, end) == 1.5
    with cuda.current():
        assert driver.pushed == 1
    cuda.synchronize(stream)
    with pytest.raises(CudaError, match=r"pycuda cannot capture CUDA graphs; for that pip install"):
        cuda.begin_capture(stream)
    cuda.free(address)
    for event in (start, end):
        cuda.destroy_event(event)
    cuda.destroy_stream(stream)
    assert driver.log == [
        ("mem_alloc", 4),
        ("Stream", 1),
        ("htod", 0x4000, bytes(range(4)), 0x5000),
        ("record", 0),
        ("synchronize",),
        ("free",),
    ]
    stream = cuda.create_stream()
    with pytest.raises(CudaError, match=r"through pycuda: cuMemsetD8Async failed: out of luck; start again"):
        cuda.fill(address, 0, 4, stream)
    assert driver.pushed == 0


def test_cuda_bindings_come_before_pycuda(monkeypatch: pytest.MonkeyPatch) -> None:
    modules: dict[str, Any] = {"cuda.bindings.runtime": FakeBindings(), "pycuda.driver": FakePyCuda()}

    def load(name: str) -> Any:
        if name not in modules:
            raise ImportError(name)
        return modules[name]

    monkeypatch.setattr("rvos_edge.engines.tensorrt.open_cuda.import_module", load)
    assert open_cuda().name == "cuda-bindings"
    # Installed, but not for this driver.
    modules["cuda.bindings.runtime"].fails = {"cudaGetDeviceCount": _Code.cudaErrorMemoryAllocation}
    assert open_cuda().name == "pycuda"
    del modules["pycuda.driver"]
    with pytest.raises(CudaError, match="cudaGetDeviceCount failed"):
        open_cuda()
    modules.clear()
    with pytest.raises(UserError, match=r'CUDA for Python is not installed: pip install "rvos-edge\[cuda\]"'):
        open_cuda()


@pytest.mark.skipif(find_gpu() is not None, reason="there is a GPU")
def test_the_real_cuda_bindings_report_a_missing_driver() -> None:
    pytest.importorskip("cuda.bindings.runtime")
    assert "pycuda" not in sys.modules
    with pytest.raises(UserError, match=r"cudaGetDeviceCount failed with cudaError\w+ \(.+\); .*or .*device 'cpu'"):
        open_cuda()


def test_host_memory_is_seen_in_place() -> None:
    array = np.arange(8, dtype=np.float32)
    view = host_view(int(array.ctypes.data), array.nbytes).view(np.float32)
    view[3] = 30
    assert array[3] == 30


def test_a_buffer_takes_the_array_as_it_was_when_it_was_written() -> None:
    device = CudaDevice(cuda := FakeCuda())
    buffer = DeviceBuffer(device, "float16", (2, 3))
    array = np.ones((2, 3), np.float32)
    for value in range(5):
        array[:] = value
        buffer.write(array)
        array[:] = -1
    # The fifth write had to wait for the third; the copies after that have not been made yet.
    assert cuda.memory[buffer.address].view(np.float16).tolist() == [2] * 6
    np.testing.assert_array_equal(buffer.read(), np.full((2, 3), 4, np.float16))
    # Two for what is written and one for what is read.
    assert len(cuda.pinned) == 3
    with pytest.raises(ValueError, match="read-only"):
        buffer.read()[0, 0] = 1
    with pytest.raises(TypeError):
        DeviceBuffer(device, "int64", (1,)).write(np.zeros(1, np.float32))


def test_buffers_are_copied_and_zeroed_on_the_device() -> None:
    device = CudaDevice(cuda := FakeCuda())
    first, second = (DeviceBuffer(device, "float32", (4,)) for _ in range(2))
    first.write(np.arange(4, dtype=np.float32))
    second.copy_from(first)
    first.zero()
    assert (first.read().tolist(), second.read().tolist()) == ([0, 0, 0, 0], [0, 1, 2, 3])
    assert cuda.names().count("upload") == 1


def test_memory_is_freed_outside_of_captures() -> None:
    device = CudaDevice(cuda := FakeCuda())
    kept, dropped = (DeviceBuffer(device, "float32", (4,)) for _ in range(2))
    dropped.write(np.zeros(4, np.float32))
    del dropped
    # Not by the finalizer, which may run while a graph is captured.
    assert len(cuda.memory) == 2
    assert "free" not in cuda.names()
    device.sweep()
    assert len(cuda.memory) == 1
    assert not cuda.pinned
    assert kept.read().tolist() == [0, 0, 0, 0]
    del kept, device
    assert cuda.held == 0
