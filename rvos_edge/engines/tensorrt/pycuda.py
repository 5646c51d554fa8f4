"""CUDA through pycuda, used if cuda-bindings is not installed or does not fit the driver; it cannot capture graphs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from rvos_edge.engines.tensorrt.cuda import (
    DISABLE_TIMING,
    NO_DEVICE,
    NON_BLOCKING,
    REMEDY,
    Cuda,
    CudaError,
    check_index,
    host_view,
)


class PyCuda(Cuda):
    """The CUDA driver through pycuda, in the primary context of the device, which TensorRT uses too.

    Each call pushes the context and pops it: pycuda aborts the process if a thread ends with a current context. No
    release of pycuda, up to 2026.1, has the calls for CUDA graphs: frames are queued graph by graph.
    """

    name = "pycuda"

    def __init__(self, driver: Any, index: int = 0) -> None:
        """Retain the primary context of a device of ``pycuda.driver``.

        Raises:
            CudaError: There is no driver or no such device.
        """
        self._driver = driver
        # pycuda's objects free themselves when they are dropped; they are kept here under their handles.
        self._objects: dict[int, Any] = {}
        try:
            driver.init()
            check_index(index, driver.Device.count())
            self._context = driver.Device(index).retain_primary_context()
        except driver.Error as error:
            raise CudaError(f"pycuda finds no CUDA device ({error}); {NO_DEVICE}.") from error

    @contextlib.contextmanager
    def current(self) -> Iterator[None]:
        """Make the primary context of the device current in this thread, and afterwards what was."""
        with self._current():
            yield

    @contextlib.contextmanager
    def _current(self) -> Iterator[Any]:
        try:
            self._context.push()
            try:
                yield self._driver
            finally:
                self._context.pop()
        except self._driver.Error as error:
            raise CudaError(f"CUDA, through pycuda: {' '.join(str(error).split())}; {REMEDY}.") from error

    def _keep(self, thing: Any, handle: int | None = None) -> int:
        handle = id(thing) if handle is None else handle
        self._objects[handle] = thing
        return handle

    def malloc(self, nbytes: int) -> int:
        with self._current() as driver:
            memory = driver.mem_alloc(nbytes)
            return self._keep(memory, int(memory))

    def free(self, address: int) -> None:
        with self._current():
            self._objects.pop(address).free()

    def malloc_host(self, nbytes: int) -> int:
        with self._current() as driver:
            array = driver.pagelocked_empty(nbytes, np.uint8)
            return self._keep(array, int(array.ctypes.data))

    def free_host(self, address: int) -> None:
        with self._current():
            self._objects.pop(address).base.free()

    def upload(self, target: int, source: int, nbytes: int, stream: int) -> None:
        with self._current() as driver:
            driver.memcpy_htod_async(target, host_view(source, nbytes), self._objects[stream])

    def download(self, target: int, source: int, nbytes: int, stream: int) -> None:
        with self._current() as driver:
            driver.memcpy_dtoh_async(host_view(target, nbytes), source, self._objects[stream])

    def copy(self, target: int, source: int, nbytes: int, stream: int) -> None:
        with self._current() as driver:
            driver.memcpy_dtod_async(target, source, nbytes, self._objects[stream])

    def fill(self, target: int, value: int, nbytes: int, stream: int) -> None:
        with self._current() as driver:
            driver.memset_d8_async(target, value, nbytes, self._objects[stream])

    def create_stream(self) -> int:
        with self._current() as driver:
            stream = driver.Stream(NON_BLOCKING)
            return self._keep(stream, int(stream.handle))

    def destroy_stream(self, stream: int) -> None:
        self._drop(stream)

    def synchronize(self, stream: int) -> None:
        with self._current():
            self._objects[stream].synchronize()

    def create_event(self, *, timed: bool) -> int:
        with self._current() as driver:
            return self._keep(driver.Event(0 if timed else DISABLE_TIMING))

    def destroy_event(self, event: int) -> None:
        self._drop(event)

    def record(self, event: int, stream: int) -> None:
        with self._current():
            self._objects[event].record(self._objects[stream])

    def synchronize_event(self, event: int) -> None:
        with self._current():
            self._objects[event].synchronize()

    def elapsed(self, start: int, end: int) -> float:
        with self._current():
            return float(self._objects[start].time_till(self._objects[end]))

    def begin_capture(self, stream: int) -> None:
        raise CudaError('pycuda cannot capture CUDA graphs; for that pip install "rvos-edge[cuda]".')

    def _drop(self, handle: int) -> None:
        with self._current():
            del self._objects[handle]
