"""The part of CUDA that the runtime needs, as a protocol over the installed Python package for CUDA.

Handles and addresses are plain integers, which TensorRT takes as they are and tests can imitate.
"""

from __future__ import annotations

import contextlib
import ctypes
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rvos_edge.errors import UserError

NON_BLOCKING, DISABLE_TIMING = 1, 2
"""Flags of streams and events."""
REMEDY = "start again, or use device 'cpu'"
NO_DEVICE = "use a machine with an NVIDIA GPU and its driver, or device 'cpu'"
_REMEDIES = {
    "cudaErrorMemoryAllocation": "close other programs, or use a smaller size or fewer queries",
    "cudaErrorInsufficientDriver": "install the NVIDIA driver, or a newer one (on JetPack 6: pip install "
    "\"cuda-bindings<13\"), or use device 'cpu'",
    "cudaErrorNoDevice": NO_DEVICE,
}


class CudaError(UserError):
    """Failed CUDA call; the message names the call, the reason and the remedy."""


def check_index(index: int, devices: int) -> None:
    """Refuse an index of a device that is not there."""
    if devices == 0:
        raise CudaError(f"CUDA finds no device; {NO_DEVICE}.")
    if index >= devices:
        raise CudaError(
            f"device 'cuda:{index}' is not here; use cuda:0" + (f" to cuda:{devices - 1}." * (devices > 1) or ".")
        )


def host_view(address: int, nbytes: int) -> NDArray[np.uint8]:
    """View host memory, which the caller keeps alive, as uint8 [nbytes]."""
    return np.ctypeslib.as_array((ctypes.c_uint8 * nbytes).from_address(address))


class Cuda:
    """Memory, streams, events and graphs of one device, through NVIDIA's cuda-bindings, 12.9 (JetPack 6) to 13.

    Every method raises ``CudaError`` if CUDA reports an error, which may come from earlier work on a stream, and leaves
    the thread's current device as it was.
    """

    name = "cuda-bindings"

    def __init__(self, runtime: Any, index: int = 0) -> None:
        """Choose a device of ``cuda.bindings.runtime`` by its index.

        Raises:
            CudaError: There is no driver or no such device.
        """
        self._runtime = runtime
        self._index = index
        self._thread = threading.local()
        check_index(index, self._ask("cudaGetDeviceCount"))
        kinds = runtime.cudaMemcpyKind
        self._up, self._down = kinds.cudaMemcpyHostToDevice, kinds.cudaMemcpyDeviceToHost
        self._within = kinds.cudaMemcpyDeviceToDevice
        # Other threads may allocate during a capture.
        self._capture_mode = runtime.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal

    @contextlib.contextmanager
    def current(self) -> Iterator[None]:
        """Make the device current in this thread, and afterwards the one that was; calls of TensorRT need that too."""
        if getattr(self._thread, "inside", False):
            yield
            return
        before = self._ask("cudaGetDevice")
        if before != self._index:
            self._ask("cudaSetDevice", self._index)
        self._thread.inside = True
        try:
            yield
        finally:
            self._thread.inside = False
            if before != self._index:
                self._ask("cudaSetDevice", before)

    def _call(self, function: str, *arguments: Any) -> Any:
        with self.current():
            return self._ask(function, *arguments)

    def _ask(self, function: str, *arguments: Any) -> Any:
        code, *values = getattr(self._runtime, function)(*arguments)
        if int(code) != 0:
            _, text = self._runtime.cudaGetErrorString(code)
            remedy = _REMEDIES.get(code.name, REMEDY)
            raise CudaError(f"CUDA: {function} failed with {code.name} ({text.decode()}); {remedy}.")
        return values[0] if values else None

    def malloc(self, nbytes: int) -> int:
        """Allocate device memory, aligned to 256 bytes; returns its address."""
        return int(self._call("cudaMalloc", nbytes))

    def free(self, address: int) -> None:
        """Free device memory; all work that uses it must be done."""
        self._call("cudaFree", address)

    def malloc_host(self, nbytes: int) -> int:
        """Allocate pinned host memory, which asynchronous copies need; returns its address."""
        return int(self._call("cudaMallocHost", nbytes))

    def free_host(self, address: int) -> None:
        """Free pinned memory."""
        self._call("cudaFreeHost", address)

    def upload(self, target: int, source: int, nbytes: int, stream: int) -> None:
        """Queue a copy from pinned to device memory."""
        self._call("cudaMemcpyAsync", target, source, nbytes, self._up, stream)

    def download(self, target: int, source: int, nbytes: int, stream: int) -> None:
        """Queue a copy from device to pinned memory."""
        self._call("cudaMemcpyAsync", target, source, nbytes, self._down, stream)

    def copy(self, target: int, source: int, nbytes: int, stream: int) -> None:
        """Queue a copy within device memory."""
        self._call("cudaMemcpyAsync", target, source, nbytes, self._within, stream)

    def fill(self, target: int, value: int, nbytes: int, stream: int) -> None:
        """Queue a fill of device memory with the byte ``value``."""
        self._call("cudaMemsetAsync", target, value, nbytes, stream)

    def create_stream(self) -> int:
        """Create a stream that does not wait for the default stream."""
        return int(self._call("cudaStreamCreateWithFlags", NON_BLOCKING))

    def destroy_stream(self, stream: int) -> None:
        """Destroy a stream."""
        self._call("cudaStreamDestroy", stream)

    def synchronize(self, stream: int) -> None:
        """Wait for all work on a stream."""
        self._call("cudaStreamSynchronize", stream)

    def create_event(self, *, timed: bool) -> int:
        """Create an event."""
        return int(self._call("cudaEventCreateWithFlags", 0 if timed else DISABLE_TIMING))

    def destroy_event(self, event: int) -> None:
        """Destroy an event."""
        self._call("cudaEventDestroy", event)

    def record(self, event: int, stream: int) -> None:
        """Queue the recording of an event."""
        self._call("cudaEventRecord", event, stream)

    def synchronize_event(self, event: int) -> None:
        """Wait for an event; one that was never recorded is passed at once."""
        self._call("cudaEventSynchronize", event)

    def elapsed(self, start: int, end: int) -> float:
        """Return the milliseconds between two timed events that have passed."""
        return float(self._call("cudaEventElapsedTime", start, end))

    def begin_capture(self, stream: int) -> None:
        """Start a capture: work of this thread on ``stream`` is recorded instead of run."""
        self._call("cudaStreamBeginCapture", stream, self._capture_mode)

    def end_capture(self, stream: int) -> int:
        """End a capture and return the graph. The capture is over even if this fails."""
        return int(self._call("cudaStreamEndCapture", stream))

    def destroy_graph(self, graph: int) -> None:
        """Destroy a graph."""
        self._call("cudaGraphDestroy", graph)

    def instantiate(self, graph: int) -> int:
        """Make an executable from a graph; the graph may be destroyed afterwards."""
        return int(self._call("cudaGraphInstantiate", graph, 0))

    def launch(self, executable: int, stream: int) -> None:
        """Queue the work of an executable graph."""
        self._call("cudaGraphLaunch", executable, stream)

    def destroy_executable(self, executable: int) -> None:
        """Destroy an executable graph."""
        self._call("cudaGraphExecDestroy", executable)
