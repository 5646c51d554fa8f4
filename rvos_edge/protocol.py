"""The interface that every runtime's segmenter offers."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from typing import Protocol

from tokenizers import Tokenizer
from typing_extensions import Self

from rvos_edge.bundle import Bundle
from rvos_edge.pictures import Picture
from rvos_edge.queries import Query, as_queries, doubts, labels, normalise
from rvos_edge.result import Result


class SegmenterProtocol(Protocol):
    """Segments the objects that the queries name, frame after frame of one video.

    ``Segmenter`` (Python) and ``CppSegmenter`` (C++) implement it; ``rvos_edge.open`` returns it.

    Example:
        >>> with rvos_edge.open() as segment:  # doctest: +SKIP
        ...     segment.set_queries("a dog")
        ...     segment("photo.jpg").save("masks.png")
    """

    _queries: tuple[str, ...] = ()
    _asked: tuple[Query, ...] = ()
    _threshold: float
    _adapt: str

    @property
    @abstractmethod
    def bundle(self) -> Bundle:
        """The opened bundle."""
        ...

    @property
    def queries(self) -> tuple[str, ...]:
        """The current queries, normalised."""
        return self._queries

    @property
    def asked(self) -> tuple[Query, ...]:
        """The current queries as they were set, sentences normalised."""
        return self._asked

    @property
    @abstractmethod
    def backend_name(self) -> str:
        """Name of the backend and its device, to be shown to people."""
        ...

    @property
    @abstractmethod
    def backend_reason(self) -> str:
        """Reason for the choice of backend and device."""
        ...

    @property
    def threshold(self) -> float:
        """Probability above which a pixel belongs to the object."""
        return self._threshold

    @property
    @abstractmethod
    def iterations(self) -> int | None:
        """Refinement iterations per computed flow; None if no flow is computed."""

    @abstractmethod
    def set_threshold(self, threshold: float) -> None:
        """Set the threshold, a probability, from the next frame on.

        Raises:
            UserError: ``threshold`` is not between 0 and 1.
        """

    @abstractmethod
    def set_iterations(self, iterations: int) -> None:
        """Set the refinement iterations per computed flow from the next frame on; the state of the video is kept.

        Raises:
            UserError: ``iterations`` is not between 1 and 100, or no flow is computed.
        """

    @abstractmethod
    def set_keep_flow(self, keep: bool) -> None:
        """Choose if results contain the flow, from the next frame on."""

    @abstractmethod
    def check_queries(self, queries: Query | Iterable[Query]) -> tuple[str, ...]:
        """Normalise queries and check that ``set_queries`` would accept them; the current queries stay.

        Raises:
            UserError: The errors of ``set_queries``.
        """
        ...

    def doubts(self, queries: Query | Iterable[Query]) -> tuple[str, ...]:
        """For each query the reason why it is unlikely to be understood, in one sentence, or an empty string.

        Raises:
            UserError: The errors of ``set_queries``.
        """
        queries = as_queries(queries)
        self.check_queries(queries)
        return doubts(queries, self._tokenizer)

    @property
    @abstractmethod
    def _tokenizer(self) -> Tokenizer: ...

    def _remember(self, queries: Sequence[Query]) -> None:
        self._queries, self._asked = labels(queries), normalise(queries)

    @abstractmethod
    def set_queries(self, queries: Query | Iterable[Query]) -> None:
        """Set the queries, sentences or taught ones, or one, from the next frame on; the state of the video is kept.

        After an error the old queries stay. A query that is in doubt gives a ``QueryWarning``.

        Raises:
            UserError: There is no query or too many, one is empty or too long, or was taught to another network.
        """

    @property
    def adapt(self) -> str:
        """The last choice of ``set_adapt``."""
        return self._adapt

    @abstractmethod
    def set_adapt(self, adapt: str, *, background: bool = False) -> None:
        """Choose if queries settle on their own first confident masks, from the next frame on.

        A bundle without the graph ``teach`` or the output ``presence`` cannot: nothing happens then, because a wrong
        query would settle too.

        Args:
            adapt: "off", "once", or "on" to settle anew after confidence fell.
            background: Learn while the stream goes on, for live sources; otherwise one frame waits for it, and the same
                video always gives the same masks.

        Raises:
            UserError: ``adapt`` is none of them.
        """

    @abstractmethod
    def reset(self) -> None:
        """Forget the video, so that the next frame is a first frame; the queries stay."""

    @abstractmethod
    def step(self, frame: Picture, *, color: str | None = None) -> Result:
        """Segment the next frame.

        Args:
            frame: uint8 [H,W,3] BGR of any size, or another ``Picture``. A size that differs from the last frame's
                restarts the flow.
            color: Order of the channels, "bgr" or "rgb"; None for that of its kind (``pictures.as_frame``).

        Raises:
            UserError: The frame is no picture, no queries are set, a graph fails, or the segmenter is closed.
        """
        ...

    def __call__(self, picture: Picture, *, color: str | None = None) -> Result:
        """Segment a picture by itself: the video before it is forgotten, and so is the picture afterwards.

        Raises:
            UserError: The errors of ``step``.
        """
        self.reset()
        try:
            return self.step(picture, color=color)
        finally:
            self.reset()

    @abstractmethod
    def close(self) -> None:
        """Release the graphs; a frame is an error from then on. What ``with`` does at its end."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
