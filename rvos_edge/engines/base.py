"""What every inference backend offers: a board of tensors and graphs bound to it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from numpy.typing import NDArray

from rvos_edge.bundle import GraphSpec, TensorSpec
from rvos_edge.engines.board import Board


class Graph(Protocol):
    """A loaded graph whose inputs and outputs are slots of a board."""

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """Slots it reads."""
        ...

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """Slots it writes."""
        ...

    def run(self) -> None:
        """Run on the buffers that the slots hold now; returns when the outputs may be read."""
        ...


class HostGraph(Protocol):
    """A loaded graph that runs on host arrays of any extent: the text graph, once per query."""

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Run on named arrays and return the named outputs."""
        ...


class Backend(Protocol):
    """Loads graphs and owns the board they share."""

    @property
    def name(self) -> str:
        """For people, such as ``ONNX Runtime (cpu)``."""
        ...

    @property
    def reason(self) -> str:
        """Why this backend and device were chosen, in a few words."""
        ...

    @property
    def board(self) -> Board[Any]:
        """The tensors of all graphs of this backend."""
        ...

    def load(self, path: Path, spec: GraphSpec) -> Graph:
        """Load a graph, declare its slots on the board and bind it to them.

        Raises:
            UserError: The file cannot be loaded or disagrees with ``spec``; the sentence names the file.
        """
        ...

    def load_host(self, path: Path, spec: GraphSpec) -> HostGraph:
        """Load a graph that is not joined to the board.

        Raises:
            UserError: As ``load``.
        """
        ...
