"""The graphs of a bundle, chained over the frames of a video by the tensors that join them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from rvos_edge.bundle import Bundle
from rvos_edge.engines.base import Backend, Clock, Graph, Lap
from rvos_edge.flow.policy import FlowDecision
from rvos_edge.manifest import FLOW_COORDS, FLOW_GRAPHS, FLOW_OUTPUT, GATING_GRAPH, QUERIES
from rvos_edge.preprocess import Placement, fill_padding
from rvos_edge.teaching import Features

_GRID = "coords_start"
"""Slot of the identity grid, from which a cold start of the flow copies its coordinates."""


class Chain:
    """The loaded graphs of a frame.

    Args:
        flow: Load the graphs of the flow too.

    Attributes:
        board: The tensors of all graphs.
        graphs: The graphs by name; empty once they are released.

    Raises:
        UserError: A graph cannot be loaded.
    """

    def __init__(self, bundle: Bundle, backend: Backend, *, flow: bool) -> None:
        manifest = self._manifest = bundle.manifest
        self._backend, self.board = backend, backend.board
        names = (*manifest.vision_graphs, *(FLOW_GRAPHS if flow else ()), *manifest.answer_graphs)
        self.graphs: dict[str, Graph] = {
            name: backend.load(bundle.graph_path(name), manifest.graphs[name]) for name in names
        }
        if not flow:
            return
        step = manifest.graphs["flow_step"]
        coords = next(spec for spec in step.inputs if spec.name == FLOW_COORDS)
        self.board.declare(coords.model_copy(update={"name": _GRID}))
        self.board.write(_GRID, _identity_grid(self.board.shape(_GRID)))
        stepped = {tensor.name for tensor in step.outputs}
        self._step_states = [pair for pair in manifest.states.items() if pair[1] in stepped]
        self._frame_states = [pair for pair in manifest.states.items() if pair[1] not in stepped]

    @contextmanager
    def kept_states(self) -> Iterator[None]:
        """Within the block other frames may be run; the video goes on afterwards as if there had been none."""
        names = [name for name in (*self._manifest.states, FLOW_OUTPUT) if name in self.board]
        kept = {name: self.board.read(name).copy() for name in names}
        try:
            yield
        finally:
            for name, array in kept.items():
                self.board.write(name, array)

    def features(self) -> Features:
        """Inputs of ``gating`` for the last frame other than the language vectors, copied."""
        inputs = self._manifest.graphs[GATING_GRAPH].inputs
        return {spec.name: self.board.read(spec.name).copy() for spec in inputs if QUERIES not in spec.shape}

    def run(
        self, decision: FlowDecision | None, placement: Placement, clock: Clock, *, features_only: bool = False
    ) -> None:
        """Run the graphs on what the board holds, and time them.

        Where a new flow has padding, that is filled in between, on the host.

        Args:
            decision: Decision on the flow; None without flow.
            placement: The place of the frame in the network's input.
            features_only: Stop before the graphs that answer the queries.

        Raises:
            UserError: A graph fails.
        """
        fill = decision is not None and decision.action == "run" and placement.padded
        whole = not (fill or features_only)
        self._backend.frame((self._key(decision), whole), lambda lap: self._work(decision, lap, answer=whole))
        clock.insert(self._backend.timings())
        if fill:
            self.board.write(FLOW_OUTPUT, fill_padding(self.board.read(FLOW_OUTPUT).astype(np.float32), placement))
        if fill and not features_only:
            self._backend.frame("answer", self._run_answer)
            clock.insert(self._backend.timings())

    def precede(self) -> None:
        """Take what the board holds as the frame before the next one: only what its flow needs is computed."""
        decision = FlowDecision("zero", "the frame before")
        self._backend.frame("precede", lambda lap: self._run_flow(decision, lap))

    def _key(self, decision: FlowDecision | None) -> tuple[str, bool, int, bool] | None:
        """Key of ``_work``: equal keys run the same graphs in the same order."""
        return None if decision is None else (decision.action, decision.warm, decision.iterations, decision.encode)

    def _work(self, decision: FlowDecision | None, lap: Lap, *, answer: bool = True) -> None:
        """Run the graphs of one frame. Touches graphs and slots only, because the backend may record and replay it."""
        for name in self._manifest.vision_graphs:
            self._call(name, lap)
        if decision is not None:
            self._run_flow(decision, lap)
        if answer:
            self._run_answer(lap)

    def _run_answer(self, lap: Lap) -> None:
        for name in self._manifest.answer_graphs:
            self._call(name, lap)

    def _run_flow(self, decision: FlowDecision, lap: Lap) -> None:
        board = self.board
        if decision.encode:
            self._call("flow_encode", lap)
        if decision.action == "run":
            self._call("flow_context", lap)
            if not decision.warm:
                board.copy(_GRID, FLOW_COORDS)
            for _ in range(decision.iterations):
                self.graphs["flow_step"].run()
                for state, source in self._step_states:
                    board.swap(state, source)
            lap("flow_step")
            self._call("flow_up", lap)
        elif decision.action == "zero":
            board.zero(FLOW_OUTPUT)
        if decision.encode:
            # The next frame compares its features with this frame's.
            for state, source in self._frame_states:
                board.swap(state, source)

    def _call(self, name: str, lap: Lap) -> None:
        self.graphs[name].run()
        lap(name)


def _identity_grid(shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Identity grid float32 [1,2,h,w]: channel 0 holds each pixel's column x, channel 1 its row y."""
    height, width = shape[2:]
    ys, xs = np.mgrid[:height, :width]
    return np.stack([xs, ys])[None].astype(np.float32)
