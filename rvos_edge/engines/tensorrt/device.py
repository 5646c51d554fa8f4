"""Tensors in the memory of a CUDA device, and the stream on which work is queued."""

from __future__ import annotations

import contextlib
import math
import weakref
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rvos_edge.engines.tensorrt.cuda import Cuda, CudaError, host_view

_RING = 2
"""Pinned copies per written slot: one is filled while the other is still being transferred."""


class CudaDevice:
    """Memory and one stream of a device; a resource is released after its owner, at the latest with this object."""

    def __init__(self, cuda: Cuda) -> None:
        """Create the stream.

        Raises:
            CudaError: CUDA fails.
        """
        self.cuda = cuda
        self.in_frame = False
        """True while the work of a frame is queued, in which the host must not take part."""
        self._held: dict[tuple[str, int], Callable[[int], None]] = {}
        # A finalizer may run at any moment, also during a capture: it only lists what can be released.
        self._dead: deque[tuple[str, int]] = deque()
        weakref.finalize(self, _release_all, self._held)
        self.stream = self.hold(self, "stream", cuda.create_stream(), cuda.destroy_stream)

    def hold(self, owner: object, kind: str, handle: int, release: Callable[[int], None]) -> int:
        """Schedule ``release(handle)`` for some time after ``owner`` is freed; returns ``handle``."""
        self._held[kind, handle] = release
        weakref.finalize(owner, self._dead.append, (kind, handle)).atexit = False
        return handle

    def malloc(self, owner: object, nbytes: int) -> int:
        """Allocate device memory that lives as long as ``owner``; returns its address."""
        self.sweep()
        return self.hold(owner, "memory", self.cuda.malloc(nbytes), self.cuda.free)

    def pinned(self, owner: object, nbytes: int) -> int:
        """Allocate pinned host memory that lives as long as ``owner``; returns its address."""
        return self.hold(owner, "pinned", self.cuda.malloc_host(nbytes), self.cuda.free_host)

    def event(self, owner: object, *, timed: bool) -> int:
        """Create an event that lives as long as ``owner``."""
        return self.hold(owner, "event", self.cuda.create_event(timed=timed), self.cuda.destroy_event)

    def sweep(self) -> None:
        """Release resources without an owner; must not be called during a capture."""
        if not self._dead:
            return
        self.synchronize()
        while self._dead:
            kind, handle = self._dead.popleft()
            self._held.pop((kind, handle))(handle)

    def synchronize(self) -> None:
        """Wait for all queued work."""
        self.cuda.synchronize(self.stream)


class DeviceBuffer:
    """Tensor in device memory. Writing, zeroing and copying are queued; reading waits for the stream."""

    def __init__(self, device: CudaDevice, dtype: str, shape: tuple[int, ...]) -> None:
        self.dtype = dtype
        self.shape = shape
        self.nbytes = math.prod(shape) * np.dtype(dtype).itemsize
        self._device = device
        self.address = device.malloc(self, self.nbytes)
        self._outgoing: _PinnedRing | None = None
        self._incoming: _Pinned | None = None
        self.zero()

    def write(self, array: NDArray[Any]) -> None:
        """Queue a copy of an array into the buffer; the array may be changed as soon as this returns."""
        self._check_outside("written")
        if self._outgoing is None:
            self._outgoing = _PinnedRing(self._device, self)
        self._outgoing.send(array, self)

    def read(self) -> NDArray[Any]:
        """Wait and return the contents: a read-only view of pinned memory, valid until the next read."""
        self._check_outside("read")
        if self._incoming is None:
            self._incoming = _Pinned(self._device, self)
        cuda = self._device.cuda
        cuda.download(self._incoming.address, self.address, self.nbytes, self._device.stream)
        self._device.synchronize()
        view = self._incoming.array.view()
        view.flags.writeable = False
        return view

    def zero(self) -> None:
        """Fill with zeros."""
        self._device.cuda.fill(self.address, 0, self.nbytes, self._device.stream)

    def copy_from(self, other: DeviceBuffer) -> None:
        """Copy another buffer in."""
        self._device.cuda.copy(self.address, other.address, self.nbytes, self._device.stream)

    def _check_outside(self, what: str) -> None:
        if self._device.in_frame:
            raise RuntimeError(f"a slot was {what} within the work of a frame, which may be replayed without the host")


class Scratch:
    """Working memory shared by all graphs, which run one after the other."""

    def __init__(self, device: CudaDevice) -> None:
        self.buffer: DeviceBuffer | None = None
        self._device = device

    def at_least(self, nbytes: int) -> DeviceBuffer | None:
        """Return the memory, replaced by a larger one if it is too small; None for 0 bytes."""
        if nbytes and (self.buffer is None or self.buffer.nbytes < nbytes):
            self.buffer = DeviceBuffer(self._device, "uint8", (nbytes,))
        return self.buffer if nbytes else None


class _Pinned:
    """Pinned host memory of the size of a buffer, with an event that is recorded after a copy from it."""

    def __init__(self, device: CudaDevice, buffer: DeviceBuffer) -> None:
        self.address = device.pinned(self, buffer.nbytes)
        self.array = host_view(self.address, buffer.nbytes).view(buffer.dtype).reshape(buffer.shape)
        self.sent = device.event(self, timed=False)


class _PinnedRing:
    """Pinned staging memory from which writes are copied, so that the host does not wait."""

    def __init__(self, device: CudaDevice, buffer: DeviceBuffer) -> None:
        self._device = device
        self._ring = deque(_Pinned(device, buffer) for _ in range(_RING))

    def send(self, array: NDArray[Any], target: DeviceBuffer) -> None:
        cuda, stream = self._device.cuda, self._device.stream
        pinned = self._ring[0]
        self._ring.rotate()
        cuda.synchronize_event(pinned.sent)
        np.copyto(pinned.array, array, casting="same_kind")
        cuda.upload(target.address, pinned.address, target.nbytes, stream)
        cuda.record(pinned.sent, stream)


def _release_all(held: dict[tuple[str, int], Callable[[int], None]]) -> None:
    """Release everything, newest first, so that the stream goes last; the driver may be unloaded already."""
    while held:
        (_, handle), release = held.popitem()
        with contextlib.suppress(CudaError):
            release(handle)
