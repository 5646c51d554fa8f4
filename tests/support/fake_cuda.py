"""A CUDA device without a GPU: memory is NumPy arrays, streams are queues that run only when somebody waits.

The device has an index, and the calling thread another current device: what is TensorRT's must find its own current.
It keeps the promises that CUDA keeps and no others. Work runs as late as it may; with ``eager=True`` other streams run
ahead of the one that is waited for, with ``eager=False`` they lag behind, so that work on a stream that nothing waits
for gives wrong numbers in one of the two. Memory is checked when work runs. What may not happen during a capture ends
it.

Example:
    >>> cuda = FakeCuda()
    >>> stream, address = cuda.create_stream(), cuda.malloc(4)
    >>> cuda.fill(address, 7, 4, stream)
    >>> cuda.memory[address].tolist()
    [0, 0, 0, 0]
    >>> cuda.synchronize(stream)
    >>> cuda.memory[address].tolist()
    [7, 7, 7, 7]
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rvos_edge.engines.tensorrt.cuda import CudaError

Mark = tuple[int, int]
"""An event and the number of times that it was recorded."""


@dataclass(eq=False)
class _Op:
    run: Callable[[], None] | None = None
    sets: Mark | None = None


@dataclass(eq=False)
class _Capture:
    origin: int
    streams: set[int]
    ops: list[tuple[int, _Op]] = field(default_factory=list)
    marks: dict[Mark, int] = field(default_factory=dict)
    loose: set[int] = field(default_factory=set)
    broken: str = ""


class _Timeline:
    """The queues of several streams, and which marks have passed."""

    def __init__(self, tick: Callable[[], float], *, eager: bool) -> None:
        self.queues: dict[int, deque[_Op]] = {}
        self.passed: dict[Mark, float] = {}
        self._tick = tick
        self._eager = eager

    def push(self, stream: int, op: _Op) -> None:
        self.queues.setdefault(stream, deque()).append(op)

    def drain(self, stream: int, until: Mark | None = None) -> None:
        queue = self.queues.setdefault(stream, deque())
        while queue and until not in self.passed:
            if self._eager:
                self._others(stream)
            self._run(queue)

    def _others(self, stream: int, steps: int = 10**6) -> int:
        done = 0
        moving = True
        while moving and done < steps:
            moving = False
            for other, queue in self.queues.items():
                if other != stream and queue and done < steps:
                    self._run(queue)
                    moving, done = True, done + 1
        return done

    def _run(self, queue: deque[_Op]) -> None:
        op = queue.popleft()
        now = self._tick()
        if op.run is not None:
            op.run()
        if op.sets is not None:
            self.passed[op.sets] = now


class FakeCuda:
    """Implements ``rvos_edge.engines.tensorrt.cuda.Cuda`` and writes down what is asked of it."""

    name = "fake CUDA"

    def __init__(self, *, eager: bool = True, index: int = 0) -> None:
        self.index = index
        self.selected = 0
        """Current device of the calling thread."""
        self.calls: list[tuple[Any, ...]] = []
        """Name and arguments of every call, in order."""
        self.fail: dict[str, str] = {}
        """Method -> message: these calls raise."""
        self.memory: dict[int, NDArray[np.uint8]] = {}
        self.pinned: dict[int, NDArray[np.uint8]] = {}
        self.alive: set[tuple[str, int]] = set()
        """Streams, events, graphs and executables that were not given back."""
        self._eager = eager
        self._time = 0.0
        self._next = 0x1000
        self._timeline = _Timeline(self._tick, eager=eager)
        self._recorded: dict[int, int] = {}
        self._capture: _Capture | None = None
        self._graphs: dict[int, list[tuple[int, _Op]]] = {}
        self._executables: dict[int, list[tuple[int, _Op]]] = {}

    # What tests ask.

    def names(self, since: int = 0) -> list[str]:
        """Names of the calls, from the ``since``-th on."""
        return [call[0] for call in self.calls[since:]]

    @property
    def held(self) -> int:
        """Everything that was not given back."""
        return len(self.memory) + len(self.pinned) + len(self.alive)

    # What the fake TensorRT asks.

    @property
    def is_current(self) -> bool:
        """True if this device is the current one, as TensorRT needs it."""
        return self.selected == self.index

    def capturing(self, stream: int) -> bool:
        """True while work on a stream is captured."""
        return self._capture is not None and stream in self._capture.streams

    def enqueue(self, stream: int, run: Callable[[], None]) -> None:
        """Queue or record some work."""
        self._push(stream, _Op(run))

    def bytes_at(self, address: int, nbytes: int) -> NDArray[np.uint8]:
        """Device memory, if it is there."""
        block = self.memory.get(address)
        if block is None or len(block) < nbytes:
            raise CudaError(f"an illegal memory access was encountered at {address:#x}.")
        return block[:nbytes]

    # The interface.

    @contextlib.contextmanager
    def current(self) -> Iterator[None]:
        before, self.selected = self.selected, self.index
        try:
            yield
        finally:
            self.selected = before

    def malloc(self, nbytes: int) -> int:
        self._call("malloc", nbytes, capture=False)
        self.memory[address := self._new()] = np.zeros(nbytes, np.uint8)
        return address

    def free(self, address: int) -> None:
        self._call("free", address, capture=False)
        for stream in self._timeline.queues:
            self._timeline.drain(stream)
        del self.memory[address]

    def malloc_host(self, nbytes: int) -> int:
        self._call("malloc_host", nbytes, capture=False)
        array = np.zeros(nbytes, np.uint8)
        self.pinned[address := int(array.ctypes.data)] = array
        return address

    def free_host(self, address: int) -> None:
        self._call("free_host", address, capture=False)
        del self.pinned[address]

    def upload(self, target: int, source: int, nbytes: int, stream: int) -> None:
        self._call("upload", target, source, nbytes, stream)
        pinned = self.pinned[source]  # anything else would not be copied beside other work
        self._push(stream, _Op(lambda: np.copyto(self.bytes_at(target, nbytes), pinned[:nbytes])))

    def download(self, target: int, source: int, nbytes: int, stream: int) -> None:
        self._call("download", target, source, nbytes, stream)
        pinned = self.pinned[target]
        self._push(stream, _Op(lambda: np.copyto(pinned[:nbytes], self.bytes_at(source, nbytes))))

    def copy(self, target: int, source: int, nbytes: int, stream: int) -> None:
        self._call("copy", target, source, nbytes, stream)
        self._push(stream, _Op(lambda: np.copyto(self.bytes_at(target, nbytes), self.bytes_at(source, nbytes))))

    def fill(self, target: int, value: int, nbytes: int, stream: int) -> None:
        self._call("fill", target, value, nbytes, stream)
        self._push(stream, _Op(lambda: self.bytes_at(target, nbytes).fill(value)))

    def create_stream(self) -> int:
        return self._make("stream")

    def destroy_stream(self, stream: int) -> None:
        self._destroy("stream", stream)

    def synchronize(self, stream: int) -> None:
        if self._capture is None:
            self._timeline.drain(stream)
        self._call("synchronize", stream, capture=False)  # if this fails, it is the work that failed

    def create_event(self, *, timed: bool) -> int:
        return self._make("event")

    def destroy_event(self, event: int) -> None:
        self._destroy("event", event)

    def record(self, event: int, stream: int) -> None:
        self._call("record", event, stream)
        self._recorded[event] = self._recorded.get(event, 0) + 1
        mark = (event, self._recorded[event])
        if self._capture is not None and self.capturing(stream):
            self._capture.marks[mark] = stream
        self._push(stream, _Op(sets=mark), loosens=False)

    def synchronize_event(self, event: int) -> None:
        self._call("synchronize_event", event, capture=False)
        if event in self._recorded:
            mark = (event, self._recorded[event])
            for stream, queue in self._timeline.queues.items():
                if any(op.sets == mark for op in queue):
                    self._timeline.drain(stream, until=mark)

    def elapsed(self, start: int, end: int) -> float:
        self._call("elapsed", start, end)
        passed = self._timeline.passed
        return passed[end, self._recorded[end]] - passed[start, self._recorded[start]]

    def begin_capture(self, stream: int) -> None:
        self._call("begin_capture", stream, capture=False)
        self._capture = _Capture(stream, {stream})

    def end_capture(self, stream: int) -> int:
        capture, self._capture = self._capture, None
        assert capture is not None, "no capture to end"
        assert capture.origin == stream, "a capture ends where it began"
        self._call("end_capture", stream)
        if capture.broken or capture.loose:
            raise CudaError(f"the capture is invalid ({capture.broken or 'a stream was not joined'}).")
        graph = self._make("graph")
        self._graphs[graph] = capture.ops
        return graph

    def destroy_graph(self, graph: int) -> None:
        self._destroy("graph", graph)
        del self._graphs[graph]

    def instantiate(self, graph: int) -> int:
        self._call("instantiate", graph, capture=False)
        executable = self._make("executable")
        self._executables[executable] = list(self._graphs[graph])
        return executable

    def launch(self, executable: int, stream: int) -> None:
        self._call("launch", executable, stream)
        ops = self._executables[executable]

        def replay() -> None:
            timeline = _Timeline(self._tick, eager=self._eager)
            for origin, op in ops:
                timeline.push(origin, op)
            for origin in list(timeline.queues):
                timeline.drain(origin)

        self._push(stream, _Op(replay))

    def destroy_executable(self, executable: int) -> None:
        self._destroy("executable", executable)
        del self._executables[executable]

    def _call(self, name: str, *arguments: Any, capture: bool = True) -> None:
        self.calls.append((name, *arguments))
        if name in self.fail:
            raise CudaError(self.fail[name])
        if self._capture is not None and not capture:
            self._capture.broken = f"{name} is not permitted when a stream is capturing"
            raise CudaError(f"{self._capture.broken}.")

    def _make(self, kind: str) -> int:
        self._call(f"create_{kind}", capture=kind == "graph")
        self.alive.add((kind, handle := self._new()))
        return handle

    def _destroy(self, kind: str, handle: int) -> None:
        self._call(f"destroy_{kind}", handle)
        self.alive.remove((kind, handle))

    def _new(self) -> int:
        self._next += 0x1000
        return self._next

    def _tick(self) -> float:
        self._time += 1.0
        return self._time

    def _push(self, stream: int, op: _Op, *, loosens: bool = True) -> None:
        assert ("stream", stream) in self.alive, "there is no such stream"
        if self._capture is None or not self.capturing(stream):
            self._timeline.push(stream, op)
            return
        self._capture.ops.append((stream, op))
        if loosens and stream != self._capture.origin:
            self._capture.loose.add(stream)
