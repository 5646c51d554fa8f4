"""A frame's work queued on a CUDA device: plainly, and then as one recorded graph."""

from __future__ import annotations

import contextlib
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any

from rvos_edge.engines.base import Lap
from rvos_edge.engines.board import Board
from rvos_edge.engines.tensorrt.cuda import CudaError
from rvos_edge.engines.tensorrt.device import CudaDevice, DeviceBuffer, Scratch

GRAPH_STAGE = "graph"
"""The one stage of a replayed frame."""
_MOST = 16
"""Recordings that are kept: the states of a video come in at most four arrangements, times what is done on a frame."""

Arrangement = dict[str, DeviceBuffer]


@dataclass(eq=False)
class _Recording:
    """A frame that has run plainly once, and its graph as soon as it has been captured."""

    executable: int | None = None
    after: Arrangement = field(default_factory=dict)


class DeviceFrames:
    """Runs frames, records those that come back, and replays them.

    A frame is known by its key and by all memory that it uses: the buffers in the slots of the board, and scratch. The
    first time it runs plainly, which lets TensorRT prepare what a capture would not allow; the second time it is
    captured and launched; then it is replayed, and the slots are given the buffers that the swaps of its work would
    have left there. When a capture fails, for whatever reason, frames are launched plainly from then on.

    Example:
        >>> frames = DeviceFrames(device, board, scratch)  # doctest: +SKIP
        >>> frames.run("every frame", lambda lap: graph.run())  # doctest: +SKIP
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
        """Prepare.

        Args:
            device: Where the work is queued.
            board: The slots that the work uses.
            scratch: The working memory that it uses.
            record: False to launch every frame plainly.
            before_capture: Raises where a capture would go wrong.
            after_first: Called when a frame has run plainly to its end.
        """
        self.problem = ""
        """Why frames are not recorded any more; empty while nothing went wrong."""
        self._device = device
        self._board = board
        self._scratch = scratch
        self._record = record
        self._before_capture = before_capture
        self._after_first = after_first
        # The keys hold the buffers themselves: an address cannot be reused while a recording still knows it.
        self._known: OrderedDict[tuple[Any, ...], _Recording] = OrderedDict()
        self._clock = _EventClock(device)

    def run(self, key: Hashable, work: Callable[[Lap], None]) -> None:
        """Queue a frame.

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
        """Milliseconds by stage of the last frame, from the device's own clock; waits for its end."""
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
            # Half a frame must not go on under the next one.
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
        except Exception as error:  # whatever it was: if it is more than the capture, the plain run meets it again
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
    """Times of stages by events on the stream."""

    def __init__(self, device: CudaDevice) -> None:
        self._device = device
        self._events: list[int] = []
        self._used = 0
        self._stages: list[str] = []

    def start(self) -> None:
        self._used = 0
        self._stages.clear()
        self._mark()

    def lap(self, name: str) -> None:
        self._mark()
        self._stages.append(name)

    def read(self) -> dict[str, float]:
        if not self._stages:
            return {}
        self._device.synchronize()
        elapsed = self._device.cuda.elapsed
        return {name: elapsed(self._events[i], self._events[i + 1]) for i, name in enumerate(self._stages)}

    def _mark(self) -> None:
        if self._used == len(self._events):
            self._events.append(self._device.event(self, timed=True))
        event = self._events[self._used]
        self._used += 1
        self._device.cuda.record(event, self._device.stream)
