"""Frames and queries in, masks out: the graphs of a bundle chained over a video."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rvos_edge.bundle import (
    FLOW_COORDS,
    FLOW_GRAPHS,
    FLOW_OUTPUT,
    FRAME_INPUT,
    MARGIN_OUTPUT,
    TEXT_GRAPH,
    Bundle,
    shipped_bundle,
)
from rvos_edge.detections import to_numpy, to_supervision
from rvos_edge.engines.base import Backend, Graph, Lap
from rvos_edge.engines.choose import open_best
from rvos_edge.errors import UserError
from rvos_edge.flow_policy import FlowDecision, FlowOptions, FlowPolicy
from rvos_edge.preprocess import Postprocessor, Preprocessor, check_frame
from rvos_edge.text import TextEncoder, check_queries, default_cache_dir

if TYPE_CHECKING:
    import supervision

QUERIES = "Q"
"""The symbolic extent of everything that has one row per query."""
_GRID = "coords_start"
"""Slot of the identity grid, which cold starts copy to the coordinates."""


@dataclass(frozen=True)
class Result:
    """The masks of one frame.

    Attributes:
        queries: What was asked for, in the order of the first axis of the arrays.
        masks: bool [Q,H,W] at the size of the frame.
        margins: float32 [Q,h,w], object minus background logit at the network's resolution.
        scores: float32 [Q], mean object probability over the mask, 0 for an empty mask.
        timings: Milliseconds by stage, in the order they ran; a stage that did not run is absent. Where a GPU replays
            a recorded frame the graphs are one stage, ``graph``.
        flow_used: Whether optical flow was computed on this frame.
        flow: float32 [2,h,w], pixels of the network's input, this frame to the previous one; None unless asked for.
        index: Number of the frame since the last reset.
        decision: What was done about the flow and why; None where there is none.
    """

    queries: tuple[str, ...]
    masks: NDArray[np.bool_]
    margins: NDArray[np.float32]
    scores: NDArray[np.float32]
    timings: dict[str, float]
    flow_used: bool
    flow: NDArray[np.float32] | None
    index: int
    decision: FlowDecision | None = None

    def to_numpy(self) -> dict[str, NDArray[Any]]:
        """Arrays with one row per query: queries, masks, scores, boxes (x0, y0, x1, y1) and areas in pixels."""
        return to_numpy(self)

    def to_supervision(self) -> supervision.Detections:
        """``supervision.Detections`` of the queries that were found, `class_id` being the number of the query.

        Raises:
            UserError: supervision is not installed.
        """
        return to_supervision(self)


class Segmenter:
    """Segments what the queries name, frame after frame of one video.

    Methods may be called from several threads: one at a time works, the others wait.

    Example:
        >>> segmenter = rvos_edge.open("bundle")
        >>> segmenter.set_queries(["the dog on the left", "a red ball"])
        >>> for frame in frames:
        ...     masks = segmenter.step(frame).masks
    """

    def __init__(
        self,
        *,
        bundle: Bundle,
        backend: Backend,
        cache_dir: Path | None = None,
        flow: FlowOptions | None = None,
        threshold: float = 0.0,
    ) -> None:
        """Load the graphs; ``rvos_edge.open`` chooses the arguments.

        Args:
            bundle: An opened bundle.
            backend: Where its graphs run.
            cache_dir: Folder of the cache of encoded queries; None for no cache on disk.
            flow: None for the defaults.
            threshold: Logit above which a pixel belongs to the object.

        Raises:
            UserError: A graph cannot be loaded.
        """
        manifest = bundle.manifest
        options = flow or FlowOptions()
        self.bundle = bundle
        self._backend = backend
        self._board = backend.board
        use_flow = manifest.flow is not None and options.enabled
        names = (*manifest.vision_graphs, *(FLOW_GRAPHS if use_flow else ()), *manifest.answer_graphs)
        self._graphs: dict[str, Graph] = {
            name: backend.load(bundle.graph_path(name), manifest.graphs[name]) for name in names
        }
        text = backend.load_host(bundle.graph_path(TEXT_GRAPH), manifest.graphs[TEXT_GRAPH])
        self._encoder = TextEncoder(bundle=bundle, graph=text, cache_dir=cache_dir)
        self._preprocess = Preprocessor(manifest.size)
        self._postprocess = Postprocessor(threshold)
        self._keep_flow = options.keep_flow
        self._policy: FlowPolicy | None = None
        if manifest.flow is not None and use_flow:
            self._policy = FlowPolicy(options, iterations=manifest.flow.iterations)
            coords = next(spec for spec in manifest.graphs["flow_step"].inputs if spec.name == FLOW_COORDS)
            self._board.declare(coords.model_copy(update={"name": _GRID}))
            self._board.write(_GRID, _identity_grid(self._board.shape(_GRID)))
            stepped = {tensor.name for tensor in manifest.graphs["flow_step"].outputs}
            self._step_states = [pair for pair in manifest.states.items() if pair[1] in stepped]
            self._frame_states = [pair for pair in manifest.states.items() if pair[1] not in stepped]
        self._queries: tuple[str, ...] = ()
        self._index = 0
        self._lock = threading.Lock()

    @property
    def queries(self) -> tuple[str, ...]:
        """What is being segmented."""
        return self._queries

    @property
    def backend_name(self) -> str:
        """Backend and device, for people."""
        return self._backend.name

    @property
    def backend_reason(self) -> str:
        """Why that backend and device were chosen."""
        return self._backend.reason

    @property
    def threshold(self) -> float:
        """Logit above which a pixel belongs to the object."""
        return self._postprocess.threshold

    @property
    def iterations(self) -> int | None:
        """Updates per computed flow that are wanted; None where no flow is computed."""
        return None if self._policy is None else self._policy.iterations

    def set_threshold(self, threshold: float) -> None:
        """Set the threshold, in logits, from the next frame on.

        Raises:
            UserError: It is not a finite number.
        """
        if not math.isfinite(threshold):
            raise UserError(f"a threshold of {threshold} separates nothing; give a finite number, such as 0.")
        with self._lock:
            self._postprocess.threshold = threshold

    def set_iterations(self, iterations: int) -> None:
        """Set the updates per computed flow from the next frame on; the video's state stays.

        Raises:
            UserError: It is less than 1, or no flow is computed.
        """
        if self._policy is None:
            raise UserError("there is no flow to set iterations of; open a bundle that has flow, with flow enabled.")
        if iterations < 1:
            raise UserError(f"{iterations} iterations compute no flow; give at least 1.")
        with self._lock:
            self._policy.set_iterations(iterations)

    def set_keep_flow(self, keep: bool) -> None:
        """Say whether results carry the flow from the next frame on."""
        with self._lock:
            self._keep_flow = keep

    def check_queries(self, queries: Sequence[str]) -> tuple[str, ...]:
        """Queries as ``set_queries`` would take them, normalised; nothing changes, and no frame is waited for.

        Raises:
            UserError: As ``set_queries``.
        """
        return self._encoder.check(queries)

    def set_queries(self, queries: Sequence[str]) -> None:
        """Say what to segment from the next frame on; the video's state stays. On an error the old queries stay.

        Raises:
            UserError: There is no query, or one is empty or too long.
        """
        normalised = check_queries(queries)
        vectors = self._encoder.encode(normalised)
        with self._lock:
            self._board.resize(QUERIES, len(normalised))
            for name, stacked in vectors.items():
                if name in self._board:
                    self._board.write(name, stacked)
            self._queries = normalised

    def reset(self) -> None:
        """Forget the video: the next frame is a first frame. The queries stay."""
        with self._lock:
            self._forget()

    def step(self, frame: NDArray[np.uint8]) -> Result:
        """Segment the next frame.

        Args:
            frame: uint8 [H,W,3] BGR, of any size; another size than the last frame's starts the flow anew.

        Raises:
            UserError: The frame is not such an array, or no queries are set.
        """
        size = check_frame(frame)
        with self._lock:
            if not self._queries:
                raise UserError("no queries are set; call set_queries before step.")
            try:
                return self._step(frame, size)
            except BaseException:
                # Half a frame leaves the states neither here nor there.
                self._forget()
                raise

    def _forget(self) -> None:
        self._index = 0
        if self._policy is not None:
            self._policy.reset()

    def _step(self, frame: NDArray[np.uint8], size: tuple[int, int]) -> Result:
        clock = _Clock()
        image = self._preprocess(frame)
        self._board.write(FRAME_INPUT, image)
        decision = self._policy.decide(image, size) if self._policy is not None else None
        clock.lap("preprocess")
        self._backend.frame(self._key(decision), lambda lap: self._work(decision, lap))
        # Copies: the board's buffers are overwritten by the next frame.
        margins = self._board.read(MARGIN_OUTPUT).astype(np.float32)
        flow = None
        if self._keep_flow and FLOW_OUTPUT in self._board:
            flow = self._board.read(FLOW_OUTPUT)[0].astype(np.float32)
        clock.insert(self._backend.timings())
        masks = self._postprocess.masks(margins, size)
        scores = self._postprocess.scores(margins)
        clock.lap("postprocess")
        if self._policy is not None and decision is not None:
            self._policy.observe(clock.timings, decision)
        flow_used = decision is not None and decision.action == "run"
        index, self._index = self._index, self._index + 1
        return Result(self._queries, masks, margins, scores, clock.timings, flow_used, flow, index, decision)

    def _key(self, decision: FlowDecision | None) -> tuple[str, bool, int, bool] | None:
        """All that ``_work`` depends on."""
        return None if decision is None else (decision.action, decision.warm, decision.iterations, decision.encode)

    def _work(self, decision: FlowDecision | None, lap: Lap) -> None:
        """What the backend does for a frame: only graphs and slots, because it may record it and replay that."""
        for name in self.bundle.manifest.vision_graphs:
            self._run(name, lap)
        if decision is not None:
            self._run_flow(decision, lap)
        for name in self.bundle.manifest.answer_graphs:
            self._run(name, lap)

    def _run_flow(self, decision: FlowDecision, lap: Lap) -> None:
        board = self._board
        if decision.encode:
            self._run("flow_encode", lap)
        if decision.action == "run":
            self._run("flow_context", lap)
            if not decision.warm:
                board.copy(_GRID, FLOW_COORDS)
            for _ in range(decision.iterations):
                self._graphs["flow_step"].run()
                for state, source in self._step_states:
                    board.swap(state, source)
            lap("flow_step")
            self._run("flow_up", lap)
        elif decision.action == "zero":
            board.zero(FLOW_OUTPUT)
        if decision.encode:
            # The next frame finds this one's features.
            for state, source in self._frame_states:
                board.swap(state, source)

    def _run(self, name: str, lap: Lap) -> None:
        self._graphs[name].run()
        lap(name)


def open_segmenter(
    path: str | Path | None = None,
    *,
    size: tuple[int, int] | None = None,
    device: str = "auto",
    backend: str = "auto",
    flow: FlowOptions | None = None,
    cache_dir: str | Path | None = None,
    threads: int | None = None,
    threshold: float = 0.0,
    runtime: str = "python",
) -> Segmenter:
    """Open a bundle for segmentation; exported as ``rvos_edge.open``.

    Args:
        path: The bundle's directory; None for the bundle that comes with the package.
        size: Height and width of the network's input, one that the bundle was exported for; None for its first.
        device: "auto", "cpu" or "cuda".
        backend: "auto" for the fastest that works, or a name such as "onnxruntime" (``engines.choose.BACKENDS``).
        flow: How much flow to compute; None for the defaults.
        cache_dir: Folder for caches; None for $RVOS_EDGE_CACHE or the user's cache folder.
        threads: CPU threads; None for one per physical core.
        threshold: Logit above which a pixel belongs to the object.
        runtime: "python", or "cpp" for the C++ runtime behind the same interface, where it is installed.

    Raises:
        UserError: The bundle is damaged, or the backend, the device or the runtime cannot be used.
    """
    if runtime not in ("python", "cpp"):
        raise UserError(f"runtime '{runtime}' is unknown; use python or cpp.")
    if runtime == "cpp":
        from rvos_edge.cpp import CppSegmenter  # here, because it is built on this module

        return CppSegmenter(
            shipped_bundle() if path is None else Path(path),
            size=size,
            device=device,
            backend=backend,
            flow=flow,
            cache_dir=cache_dir,
            threads=threads,
            threshold=threshold,
        )
    bundle = Bundle.open(shipped_bundle() if path is None else path, size=size)
    caches = default_cache_dir() if cache_dir is None else Path(cache_dir)

    def load(chosen: Backend) -> Segmenter:
        return Segmenter(
            bundle=bundle,
            backend=chosen,
            cache_dir=None if caches is None else caches / "text",
            flow=flow,
            threshold=threshold,
        )

    # A replayed frame has no times by stage, from which the time for flow could be told.
    record = flow is None or flow.hold_fps is None
    return open_best(bundle, load, backend=backend, device=device, threads=threads, record=record)


class _Clock:
    """Collects milliseconds between laps."""

    def __init__(self) -> None:
        self.timings: dict[str, float] = {}
        self._mark = time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.timings[name] = 1e3 * (now - self._mark)
        self._mark = now

    def insert(self, timings: Mapping[str, float]) -> None:
        """Take over what was measured elsewhere since the last lap."""
        self.timings.update(timings)
        self._mark = time.perf_counter()


def _identity_grid(shape: tuple[int, ...]) -> NDArray[np.float32]:
    """float32 [1,2,h,w]: every position's own x (column) and y (row)."""
    height, width = shape[2:]
    ys, xs = np.mgrid[:height, :width]
    return np.stack([xs, ys])[None].astype(np.float32)
