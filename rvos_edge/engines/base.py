"""Protocols of an inference backend: a board of tensors and graphs bound to its slots."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Hashable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

from numpy.typing import NDArray

from rvos_edge.engines.board import Board
from rvos_edge.errors import UserError, one_line
from rvos_edge.manifest import GraphSpec, TensorSpec

Lap = Callable[[str], None]
"""Called with the name of a stage at its end."""


class Graph(Protocol):
    """A loaded graph whose inputs and outputs are slots of a board."""

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """Slots that the graph reads."""

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """Slots that the graph writes."""

    def run(self) -> None:
        """Run on the buffers that the slots hold now; on an asynchronous backend, reading an output waits for it.

        Raises:
            UserError: The graph fails; the message names its file.
        """


class HostGraph(Protocol):
    """A loaded graph that runs on host arrays of any extent: the text graph, once per query."""

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Run on named arrays and return the named outputs.

        Raises:
            UserError: The graph fails; the message names its file.
        """


class Backend(Protocol):
    """Loads graphs and owns the board they share."""

    @property
    def name(self) -> str:
        """Name to be shown to people, such as ``ONNX Runtime (cpu)``."""

    @property
    def reason(self) -> str:
        """Reason for the choice of backend and device, in a few words."""

    @property
    def tf32(self) -> bool:
        """True if products in float32 may be rounded to TensorFloat-32, as NVIDIA's libraries do by default."""

    @property
    def board(self) -> Board[Any]:
        """The tensors of all graphs of this backend."""

    def load(self, path: Path, spec: GraphSpec) -> Graph:
        """Load a graph, declare its slots on the board and bind it to them.

        Raises:
            UserError: The file cannot be loaded or disagrees with ``spec``; the sentence names the file.
        """

    def load_host(self, path: Path, spec: GraphSpec) -> HostGraph:
        """Load a graph that is not joined to the board.

        Raises:
            UserError: The errors of ``load``.
        """

    def frame(self, key: Hashable, work: Callable[[Lap], None]) -> None:
        """Do the work of one frame; reading a slot afterwards waits for its end.

        Args:
            work: Runs graphs and copies, zeroes and swaps slots, in an order that depends on ``key`` alone. It neither
                reads nor writes a slot and has no other effect: it may be called twice, or not at all when the backend
                replays a recording for the same key.
        """

    def timings(self) -> dict[str, float]:
        """Milliseconds by stage of the last frame, in the order they ran; waits for its end."""


_OUT_OF_MEMORY = re.compile(
    "bad_alloc|out of memory|allocat|failed to map|resource temporarily unavailable", re.IGNORECASE
)


def graph_error(path: Path, verb: str, runtime: str, error: Exception) -> UserError:
    """The error of a graph's file that ``runtime`` could not ``verb`` ("loaded", "run"): for lack of memory, or not."""
    detail = one_line(error)
    if isinstance(error, MemoryError) or _OUT_OF_MEMORY.search(str(error)):
        return UserError(
            f"{path} cannot be {verb} by {runtime}: memory ran out ({detail}); close other programs, or choose a "
            "smaller --size or fewer queries."
        )
    return UserError(
        f"{path} cannot be {verb} by {runtime} ({detail}); try another --backend, or export the bundle again."
    )


class Clock:
    """Stopwatch: milliseconds by stage, each measured from the end of the stage before."""

    def __init__(self) -> None:
        self.timings: dict[str, float] = {}
        self._mark = time.perf_counter()

    def lap(self, name: str) -> None:
        """End a stage."""
        now = time.perf_counter()
        self.timings[name] = 1e3 * (now - self._mark)
        self._mark = now

    def insert(self, timings: Mapping[str, float]) -> None:
        """Add stages that a backend timed since the last lap."""
        self.timings.update(timings)
        self._mark = time.perf_counter()


class HostFrames:
    """Frames of a synchronous backend, whose graphs are done when ``run`` returns: calls the work and times it."""

    tf32 = False
    _timings: Mapping[str, float] = MappingProxyType({})

    def frame(self, key: Hashable, work: Callable[[Lap], None]) -> None:
        """Call ``work``; ``key`` is not used."""
        clock = Clock()
        work(clock.lap)
        self._timings = clock.timings

    def timings(self) -> dict[str, float]:
        """Milliseconds by stage of the last frame."""
        return dict(self._timings)
