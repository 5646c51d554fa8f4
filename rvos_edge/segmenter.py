"""The segmenter: from the frames of a video and queries to masks."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from rvos_edge.adaptation import Adaptation, check_adapt
from rvos_edge.bundle import Bundle
from rvos_edge.chain import Chain
from rvos_edge.engines.base import Backend, Clock
from rvos_edge.errors import UserError
from rvos_edge.flow.constants import MAX_ITERATIONS
from rvos_edge.flow.policy import FlowDecision, FlowOptions, FlowPolicy
from rvos_edge.language import warn_of
from rvos_edge.manifest import (
    FLOW_OUTPUT,
    FRAME_INPUT,
    MARGIN_OUTPUT,
    PRESENCE_OUTPUT,
    QUERIES,
    TEACH_GRAPH,
    TEXT_GRAPH,
)
from rvos_edge.pictures import Picture, as_frame
from rvos_edge.preprocess import Postprocessor, Preprocessor, threshold_logit
from rvos_edge.presence import MIN_PRESENCE, PresenceFilter
from rvos_edge.protocol import SegmenterProtocol
from rvos_edge.queries import (
    Query,
    TaughtQuery,
    as_queries,
    check_asked,
    labels,
    language_vectors,
)
from rvos_edge.result import Result
from rvos_edge.teaching import Features, Teacher, teach
from rvos_edge.text import LateGraph, TextEncoder


class Segmenter(SegmenterProtocol):
    """Segments the objects that the queries name, frame after frame of one video.

    Methods may be called from several threads; a lock lets one run at a time.
    """

    def __init__(
        self,
        *,
        bundle: Bundle,
        backend: Backend,
        flow: FlowOptions | None = None,
        threshold: float = 0.5,
        min_presence: float = MIN_PRESENCE,
        adapt: str = "off",
    ) -> None:
        """Load the graphs. Most callers use ``rvos_edge.open``, which chooses the backend.

        Args:
            threshold: Probability above which a pixel belongs to the object.
            min_presence: Probability from which a query is present; 0 gives every query its mask.
            adapt: "once" lets queries settle on their own first confident masks (``adaptation``), "on" again after
                their confidence fell; "off" does not.

        Raises:
            UserError: A graph cannot be loaded, a probability is out of range, or ``adapt`` is unknown.
        """
        manifest = bundle.manifest
        options = flow or FlowOptions()
        self._postprocess = Postprocessor(threshold_logit(threshold))
        self._threshold, self._min_presence = threshold, min_presence
        self._presence = PresenceFilter([], min_presence)
        self._bundle = bundle
        self._backend = backend
        use_flow = manifest.flow is not None and options.enabled
        self._chain = Chain(bundle, backend, flow=use_flow)
        # Taught queries do not need it.
        text = LateGraph(lambda: backend.load_host(bundle.graph_path(TEXT_GRAPH), manifest.graphs[TEXT_GRAPH]))
        self._encoder = TextEncoder(bundle=bundle, graph=text)
        self._preprocess = Preprocessor(manifest.size)
        self._keep_flow = options.keep_flow
        self._policy: FlowPolicy | None = None
        if manifest.flow is not None and use_flow:
            self._policy = FlowPolicy(options, iterations=manifest.flow.iterations)
        self._vectors: dict[str, NDArray[np.float32]] = {}
        self._adaptation: Adaptation | None = None
        self._index = 0
        self._lock = threading.Lock()
        self.set_adapt(adapt)

    @property
    def bundle(self) -> Bundle:
        return self._bundle

    @property
    def backend_name(self) -> str:
        return self._backend.name

    @property
    def backend_reason(self) -> str:
        return self._backend.reason

    @property
    def iterations(self) -> int | None:
        return None if self._policy is None else self._policy.iterations

    def set_threshold(self, threshold: float) -> None:
        logit = threshold_logit(threshold)
        with self._lock:
            self._postprocess.threshold, self._threshold = logit, threshold

    def set_iterations(self, iterations: int) -> None:
        if self._policy is None:
            raise UserError(
                "no flow is computed, so it has no iterations; open a bundle with flow, and leave flow enabled."
            )
        if not 1 <= iterations <= MAX_ITERATIONS:
            raise UserError(
                f"flow takes 1 to {MAX_ITERATIONS} iterations, not {iterations}; to compute none, disable the flow."
            )
        with self._lock:
            self._policy.set_iterations(iterations)

    def set_keep_flow(self, keep: bool) -> None:
        with self._lock:
            self._keep_flow = keep

    def check_queries(self, queries: Query | Iterable[Query]) -> tuple[str, ...]:
        queries = as_queries(queries)
        check_asked(queries, self._encoder, self.bundle)
        return labels(queries)

    @property
    def _tokenizer(self) -> Tokenizer:
        return self._encoder.tokenizer

    def set_queries(self, queries: Query | Iterable[Query]) -> None:
        queries = as_queries(queries)
        vectors = language_vectors(queries, self._encoder, self.bundle)
        warn_of(self.doubts(queries))
        with self._lock:
            self._chain.board.resize(QUERIES, len(queries))
            for name, stacked in vectors.items():
                if name in self._chain.board:
                    self._chain.board.write(name, stacked)
            self._remember(queries)
            self._vectors = vectors
            shifts = [getattr(query, "presence_shift", 0.0) for query in queries]
            self._presence = PresenceFilter(shifts, self._min_presence)
            if self._adaptation is not None:
                self._adaptation.start(self._asked, vectors)

    def set_adapt(self, adapt: str, *, background: bool = False) -> None:
        manifest = self.bundle.manifest
        self._adapt = check_adapt(adapt)
        wanted = self._adapt != "off" and TEACH_GRAPH in manifest.graphs and manifest.has_presence
        with self._lock:
            if self._adaptation is not None:
                self._adaptation.reset()
                self._apply_changes()
            self._adaptation = None
            if wanted:
                self._adaptation = Adaptation(
                    lambda: Teacher(self.bundle),
                    self._encoder.encode,
                    again=self._adapt == "on",
                    background=background,
                )
                self._adaptation.start(self._asked, self._vectors)

    def encode(self, sentences: Sequence[str]) -> dict[str, NDArray[np.float32]]:
        """Language vectors of sentences: lang1, lang2, ..., each float32 [N,c_i].

        Raises:
            UserError: A sentence is empty or too long.
        """
        return self._encoder.encode(sentences)

    def features(self, frame: NDArray[np.uint8], previous: NDArray[np.uint8] | None = None) -> Features:
        """Features of a frame: the inputs of ``gating`` other than the language vectors.

        The video goes on as if nothing had been asked.

        Args:
            previous: The frame before it, for the flow; None for no flow.

        Raises:
            UserError: A frame is not such an array.
        """
        frame, previous = as_frame(frame), None if previous is None else as_frame(previous)
        with self._lock, self._chain.kept_states():
            decision = None if self._policy is None else FlowDecision("zero", "a frame alone")
            if previous is not None and self._policy is not None:
                self._chain.board.write(FRAME_INPUT, self._preprocess(previous))
                self._chain.precede()
                decision = FlowDecision("run", "second of two", self._policy.iterations)
            self._chain.board.write(FRAME_INPUT, self._preprocess(frame))
            self._chain.run(decision, self._preprocess.placement, Clock(), features_only=True)
            return self._chain.features()

    def teach(
        self,
        frames: Sequence[NDArray[np.uint8]],
        masks: Sequence[NDArray[np.bool_] | None],
        *,
        like: Query = "",
        name: str = "",
        previous: Sequence[NDArray[np.uint8] | None] | None = None,
    ) -> TaughtQuery:
        """Teach a query an object that is shown; takes seconds, and the video goes on meanwhile and afterwards.

        Args:
            frames: uint8 [H,W,3] BGR each.
            masks: bool [H,W] of each frame's size; None where the object is absent, which is learned too.
            like: A sentence or a taught query to start from; without one a general sentence that fits best.
            name: What results call the query; the sentence if left out.
            previous: The frames just before, for the flow and as the sign of one clip, in which any gain on the frame
                that is left out counts; None where unknown.

        Raises:
            UserError: There are no frames, sizes differ, no mask shows anything, or the bundle has no graph ``teach``.

        Example:
            >>> mug = segmenter.teach([frame], [mask], like="a mug")  # doctest: +SKIP
            >>> segmenter.set_queries([mug, "a red ball"])  # doctest: +SKIP
        """
        if like:
            warn_of(self.doubts([like]))
        return teach(self, frames, masks, like=like, name=name, previous=previous)

    def sibling(self, **options: Any) -> Segmenter | None:
        """A segmenter for another video, with queries and states of its own, that shares the loaded graphs.

        Args:
            options: The constructor's, other than the bundle and the backend.

        Returns:
            None where the backend cannot share them: TensorRT's engines belong to one video.

        Raises:
            UserError: The errors of the constructor.
        """
        sibling = getattr(self._backend, "sibling", None)
        return None if sibling is None else Segmenter(bundle=self.bundle, backend=sibling(), **options)

    def reset(self) -> None:
        with self._lock:
            self._forget()

    def close(self) -> None:
        with self._lock:
            self._chain.graphs.clear()

    def step(self, frame: Picture, *, color: str | None = None) -> Result:
        image = as_frame(frame, color)
        with self._lock:
            if not self._chain.graphs:
                raise UserError("the segmenter is closed; open the bundle again.")
            if not self._queries:
                raise UserError("no queries are set; call set_queries before step.")
            try:
                return self._step(image)
            except BaseException:
                # An interrupted frame leaves the recurrent states inconsistent.
                self._forget()
                raise

    def _forget(self) -> None:
        self._index = 0
        self._presence.reset()
        if self._adaptation is not None:
            self._adaptation.reset()
        if self._policy is not None:
            self._policy.reset()

    def _step(self, frame: NDArray[np.uint8]) -> Result:
        clock, size = Clock(), frame.shape[:2]
        self._apply_changes()
        image = self._preprocess(frame)
        self._chain.board.write(FRAME_INPUT, image)
        decision = self._policy.decide(image, size) if self._policy is not None else None
        clock.lap("preprocess")
        placement = self._preprocess.placement
        self._chain.run(decision, placement, clock)
        # Copies: the board's buffers are overwritten by the next frame.
        margins = self._chain.board.read(MARGIN_OUTPUT).astype(np.float32)
        if placement.padded:
            rows, columns = placement.on((margins.shape[1], margins.shape[2]))
            margins = margins[:, rows, columns].copy()
        flow = None
        if self._keep_flow and FLOW_OUTPUT in self._chain.board:
            flow = self._chain.board.read(FLOW_OUTPUT)[0].astype(np.float32)
        masks = self._postprocess.masks(margins, size)
        scores = self._postprocess.scores(margins)
        presence, present = np.ones(len(margins), np.float32), np.asarray(masks.any(axis=(1, 2)))
        if self.bundle.manifest.has_presence:
            presence, present = self._presence.update(self._chain.board.read(PRESENCE_OUTPUT))
        clock.lap("postprocess")
        adapted = np.zeros(len(margins), np.bool_)
        if self._adaptation is not None:
            adapted = self._adaptation.adapted
            self._adaptation.observe(
                self._index,
                margins,
                scores,
                presence,
                lambda: (self._chain.features(), placement),
                cut=decision is not None and decision.reason == "scene cut",
            )
            clock.lap("adapt")
        masks[~present] = False
        scores[~present] = 0
        if self._policy is not None and decision is not None:
            self._policy.observe(clock.timings, decision)
        flow_used = decision is not None and decision.action == "run"
        index, self._index = self._index, self._index + 1
        return Result(
            self._queries,
            masks,
            margins,
            scores,
            clock.timings,
            flow_used,
            flow,
            index,
            decision,
            presence,
            present,
            adapted,
            frame,
        )

    def _apply_changes(self) -> None:
        """Write the language vectors that adaptation changed."""
        changes = {} if self._adaptation is None else self._adaptation.changes()
        for row, vectors in changes.items():
            for name, vector in vectors.items():
                self._vectors[name][row] = vector
        if changes:
            for name, stacked in self._vectors.items():
                if name in self._chain.board:
                    self._chain.board.write(name, stacked)
