"""Frames on a CUDA device: queued graph by graph at first, then replayed as one CUDA graph."""

from __future__ import annotations

import contextlib
import itertools
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any

from rvos_edge.engines.base import Lap
from rvos_edge.engines.board import Board
from rvos_edge.engines.tensorrt.cuda import CudaError
from rvos_edge.engines.tensorrt.device import CudaDevice, DeviceBuffer, Scratch

GRAPH_STAGE = "graph"
"""Name of the only stage of a replayed frame."""
_MOST = 16
"""Number of recordings kept: at most four arrangements of the states, times the kinds of frames."""

Arrangement = dict[str, DeviceBuffer]


@dataclass(eq=False)
class _Recording:
    """A frame that has run once, and its executable graph once it is captured."""

    executable: int | None = None
    after: Arrangement = field(default_factory=dict)


class DeviceFrames:
    """Runs frames, captures those that recur as CUDA graphs, and replays them.

    A frame is identified by its key and by all memory that it uses: the buffers in the slots of the board, and scratch.
    The first time it is queued graph by graph, during which TensorRT makes the preparations that a capture forbids. The
    second time it is captured and launched. From then on it is replayed, and the slots get the buffers that the swaps
    of its work would have left there. After a failed capture all frames are queued graph by graph.
    """

    def __init__(
        self,
        device: CudaDevice,
        board: Board[DeviceBuffer],
        scratch: Scratch,
        *,
        record: bool = True,
        before_capture: Callable[[], None] = lambda: None,
        after_first: Callable[[], None] = lambda: None,
    ) -> None:
        """Prepare an empty set of recordings.

        Args:
            before_capture: Called before a capture; raises if the capture would fail.
            after_first: Called after the first run of a frame.
        """
        self.problem = ""
        """Reason why frames are no longer captured; empty if no capture has failed."""
        self._device = device
        self._board = board
        self._scratch = scratch
        self._record = record
        self._before_capture = before_capture
        self._after_first = after_first
        # The keys hold the buffers themselves, so that no address is reused while a recording refers to it.
        self._known: OrderedDict[tuple[Any, ...], _Recording] = OrderedDict()
        self._clock = _EventClock(device)

    def run(self, key: Hashable, work: Callable[[Lap], None]) -> None:
        """Queue a frame, capture it or replay its recording.

        Raises:
            UserError: The work fails.
        """
        self._device.sweep()
        if not self._record:
            self._plain(work)
            return
        before = self._board.arrangement()
        whole = (key, self._scratch.buffer, *before.values())
        recording = self._known.get(whole)
        if recording is None:
            self._first(whole, work)
            return
        self._known.move_to_end(whole)
        if recording.executable is None:
            self._capture(recording, before, work)
        else:
            self._launch(recording.executable)
            self._board.arrange(recording.after)

    def timings(self) -> dict[str, float]:
        """Return the milliseconds by stage of the last frame, measured by the device; waits for its end."""
        return self._clock.read()

    def _first(self, whole: tuple[Any, ...], work: Callable[[Lap], None]) -> None:
        live = {self._scratch.buffer, *self._board.buffers()}
        for known in [known for known in self._known if not live.issuperset(known[1:])]:
            del self._known[known]
        self._plain(work)
        self._device.synchronize()
        self._after_first()
        self._known[whole] = _Recording()
        if len(self._known) > _MOST:
            self._known.popitem(last=False)

    def _plain(self, work: Callable[[Lap], None]) -> None:
        self._clock.start()
        try:
            self._queue(work, self._clock.lap)
        except BaseException:
            # The rest of an interrupted frame must not run into the next one.
            with contextlib.suppress(CudaError):
                self._device.synchronize()
            raise

    def _queue(self, work: Callable[[Lap], None], lap: Lap) -> None:
        self._device.in_frame = True
        try:
            work(lap)
        finally:
            self._device.in_frame = False

    def _capture(self, recording: _Recording, before: Arrangement, work: Callable[[Lap], None]) -> None:
        try:
            executable = self._captured(work)
            recording.executable = self._device.hold(
                recording, "graph", executable, self._device.cuda.destroy_executable
            )
            recording.after = self._board.arrangement()
            self._launch(executable)
        except Exception as error:  # of any kind: if it is not only the capture, the plain run raises it again
            self._record = False
            self._known.clear()
            self.problem = str(error).rstrip(".")
            self._board.arrange(before)
            self._plain(work)

    def _captured(self, work: Callable[[Lap], None]) -> int:
        cuda, stream = self._device.cuda, self._device.stream
        self._before_capture()
        cuda.begin_capture(stream)
        try:
            self._queue(work, lambda name: None)
        except BaseException:
            with contextlib.suppress(CudaError):
                cuda.destroy_graph(cuda.end_capture(stream))
            raise
        graph = cuda.end_capture(stream)
        try:
            return cuda.instantiate(graph)
        finally:
            cuda.destroy_graph(graph)

    def _launch(self, executable: int) -> None:
        self._clock.start()
        self._device.cuda.launch(executable, self._device.stream)
        self._clock.lap(GRAPH_STAGE)


class _EventClock:
    """Times of stages, measured by events on the stream."""

    def __init__(self, device: CudaDevice) -> None:
        self._device = device
        self._events: list[int] = []
        self._stages: list[str] = []

    def start(self) -> None:
        self._stages.clear()
        self._mark(0)

    def lap(self, name: str) -> None:
        self._stages.append(name)
        self._mark(len(self._stages))

    def read(self) -> dict[str, float]:
        if not self._stages:
            return {}
        self._device.synchronize()
        elapsed = self._device.cuda.elapsed
        return {
            name: elapsed(start, end)
            for name, (start, end) in zip(self._stages, itertools.pairwise(self._events), strict=False)
        }

    def _mark(self, index: int) -> None:
        if index == len(self._events):
            self._events.append(self._device.event(self, timed=True))
        self._device.cuda.record(self._events[index], self._device.stream)
