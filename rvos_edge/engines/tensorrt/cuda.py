"""The part of CUDA that the runtime needs, over whichever Python package for it is installed.

Handles and addresses are plain integers: they pass to TensorRT as they are, and a test can stand in for a driver.
"""

from __future__ import annotations

import ctypes
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from rvos_edge.errors import UserError

NON_BLOCKING, DISABLE_TIMING = 1, 2
"""Flags of streams and of events."""
REMEDY = "start again, or use device 'cpu'"
NO_DEVICE = "use a machine with an NVIDIA GPU and its driver, or device 'cpu'"
_REMEDIES = {
    "cudaErrorMemoryAllocation": "close other programs, or use a smaller size or fewer queries",
    "cudaErrorInsufficientDriver": "install the NVIDIA driver, or a newer one (on JetPack 6: pip install "
    "\"cuda-bindings<13\"), or use device 'cpu'",
    "cudaErrorNoDevice": NO_DEVICE,
}


class CudaError(UserError):
    """A CUDA call failed: which one, why, and what to do."""


class Cuda(Protocol):
    """Memory, streams, events and graphs of the first device.

    Every method raises ``CudaError`` when CUDA reports an error, which may be that of earlier work on a stream.
    """

    @property
    def name(self) -> str:
        """The package behind it."""
        ...

    def malloc(self, nbytes: int) -> int:
        """Address of new device memory, aligned to 256 bytes."""
        ...

    def free(self, address: int) -> None:
        """Give device memory back, once all work that uses it is done."""
        ...

    def malloc_host(self, nbytes: int) -> int:
        """Address of new pinned host memory: what copies need to run beside other work."""
        ...

    def free_host(self, address: int) -> None:
        """Give pinned memory back."""
        ...

    def upload(self, target: int, source: int, nbytes: int, stream: int) -> None:
        """Queue a copy from pinned to device memory."""
        ...

    def download(self, target: int, source: int, nbytes: int, stream: int) -> None:
        """Queue a copy from device to pinned memory."""
        ...

    def copy(self, target: int, source: int, nbytes: int, stream: int) -> None:
        """Queue a copy within device memory."""
        ...

    def fill(self, target: int, value: int, nbytes: int, stream: int) -> None:
        """Queue setting every byte of device memory to ``value``."""
        ...

    def create_stream(self) -> int:
        """A stream that does not wait for the default stream."""
        ...

    def destroy_stream(self, stream: int) -> None:
        """Give a stream back."""
        ...

    def synchronize(self, stream: int) -> None:
        """Wait for all work on a stream."""
        ...

    def create_event(self, *, timed: bool) -> int:
        """A mark that streams can set and wait for."""
        ...

    def destroy_event(self, event: int) -> None:
        """Give an event back."""
        ...

    def record(self, event: int, stream: int) -> None:
        """Queue setting the mark."""
        ...

    def wait(self, stream: int, event: int) -> None:
        """Let later work on ``stream`` wait for the mark."""
        ...

    def synchronize_event(self, event: int) -> None:
        """Wait for the mark; one that was never set is passed at once."""
        ...

    def elapsed(self, start: int, end: int) -> float:
        """Milliseconds between two timed events that have passed."""
        ...

    def begin_capture(self, stream: int) -> None:
        """From now on this thread's work on ``stream`` is recorded instead of done."""
        ...

    def end_capture(self, stream: int) -> int:
        """The recorded graph. The capture is over even when this fails."""
        ...

    def destroy_graph(self, graph: int) -> None:
        """Give a recorded graph back."""
        ...

    def instantiate(self, graph: int) -> int:
        """A launchable form of a graph, which is not needed any more."""
        ...

    def launch(self, executable: int, stream: int) -> None:
        """Queue the recorded work."""
        ...

    def destroy_executable(self, executable: int) -> None:
        """Give a launchable graph back."""
        ...


def host_view(address: int, nbytes: int) -> NDArray[np.uint8]:
    """uint8 [nbytes] over host memory that the caller keeps alive."""
    return np.ctypeslib.as_array((ctypes.c_uint8 * nbytes).from_address(address))


class CudaBindings:
    """CUDA's runtime through NVIDIA's cuda-bindings, 12.9 (JetPack 6) to 13."""

    name = "cuda-bindings"

    def __init__(self, runtime: Any) -> None:
        """Choose the first device of ``cuda.bindings.runtime``.

        Raises:
            CudaError: There is no driver or no device.
        """
        self._runtime = runtime
        if self._call("cudaGetDeviceCount") == 0:
            raise CudaError(f"CUDA finds no device; {NO_DEVICE}.")
        self._call("cudaSetDevice", 0)
        kinds = runtime.cudaMemcpyKind
        self._up, self._down = kinds.cudaMemcpyHostToDevice, kinds.cudaMemcpyDeviceToHost
        self._within = kinds.cudaMemcpyDeviceToDevice
        # Other threads may allocate meanwhile: only what this one does is refused.
        self._capture_mode = runtime.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal

    def _call(self, function: str, *arguments: Any) -> Any:
        code, *values = getattr(self._runtime, function)(*arguments)
        if int(code) != 0:
            _, text = self._runtime.cudaGetErrorString(code)
            remedy = _REMEDIES.get(code.name, REMEDY)
            raise CudaError(f"CUDA: {function} failed with {code.name} ({text.decode()}); {remedy}.")
        return values[0] if values else None

    def malloc(self, nbytes: int) -> int:
        return int(self._call("cudaMalloc", nbytes))

    def free(self, address: int) -> None:
        self._call("cudaFree", address)

    def malloc_host(self, nbytes: int) -> int:
        return int(self._call("cudaMallocHost", nbytes))

    def free_host(self, address: int) -> None:
        self._call("cudaFreeHost", address)

    def upload(self, target: int, source: int, nbytes: int, stream: int) -> None:
        self._call("cudaMemcpyAsync", target, source, nbytes, self._up, stream)

    def download(self, target: int, source: int, nbytes: int, stream: int) -> None:
        self._call("cudaMemcpyAsync", target, source, nbytes, self._down, stream)

    def copy(self, target: int, source: int, nbytes: int, stream: int) -> None:
        self._call("cudaMemcpyAsync", target, source, nbytes, self._within, stream)

    def fill(self, target: int, value: int, nbytes: int, stream: int) -> None:
        self._call("cudaMemsetAsync", target, value, nbytes, stream)

    def create_stream(self) -> int:
        return int(self._call("cudaStreamCreateWithFlags", NON_BLOCKING))

    def destroy_stream(self, stream: int) -> None:
        self._call("cudaStreamDestroy", stream)

    def synchronize(self, stream: int) -> None:
        self._call("cudaStreamSynchronize", stream)

    def create_event(self, *, timed: bool) -> int:
        return int(self._call("cudaEventCreateWithFlags", 0 if timed else DISABLE_TIMING))

    def destroy_event(self, event: int) -> None:
        self._call("cudaEventDestroy", event)

    def record(self, event: int, stream: int) -> None:
        self._call("cudaEventRecord", event, stream)

    def wait(self, stream: int, event: int) -> None:
        self._call("cudaStreamWaitEvent", stream, event, 0)

    def synchronize_event(self, event: int) -> None:
        self._call("cudaEventSynchronize", event)

    def elapsed(self, start: int, end: int) -> float:
        return float(self._call("cudaEventElapsedTime", start, end))

    def begin_capture(self, stream: int) -> None:
        self._call("cudaStreamBeginCapture", stream, self._capture_mode)

    def end_capture(self, stream: int) -> int:
        return int(self._call("cudaStreamEndCapture", stream))

    def destroy_graph(self, graph: int) -> None:
        self._call("cudaGraphDestroy", graph)

    def instantiate(self, graph: int) -> int:
        return int(self._call("cudaGraphInstantiate", graph, 0))

    def launch(self, executable: int, stream: int) -> None:
        self._call("cudaGraphLaunch", executable, stream)

    def destroy_executable(self, executable: int) -> None:
        self._call("cudaGraphExecDestroy", executable)
