"""The interface that every runtime's segmenter offers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from rvos_edge.bundle import Bundle
from rvos_edge.result import Result


class SegmenterProtocol(Protocol):
    """Segments what the queries name, frame after frame of one video.

    ``Segmenter`` (Python) and ``CppSegmenter`` (C++) implement it; ``rvos_edge.open`` returns it.
    """

    @property
    def bundle(self) -> Bundle:
        """The opened bundle."""
        ...

    @property
    def queries(self) -> tuple[str, ...]:
        """The current queries, normalised."""
        ...

    @property
    def backend_name(self) -> str:
        """Backend and device, for people."""
        ...

    @property
    def backend_reason(self) -> str:
        """The reason for the choice of backend and device."""
        ...

    @property
    def threshold(self) -> float:
        """Logit above which a pixel belongs to the object."""
        ...

    @property
    def iterations(self) -> int | None:
        """Updates per computed flow; None without flow."""
        ...

    def set_threshold(self, threshold: float) -> None:
        """Set the threshold, in logits, from the next frame on.

        Raises:
            UserError: The threshold is not finite.
        """
        ...

    def set_iterations(self, iterations: int) -> None:
        """Set the updates per computed flow from the next frame on; the state of the video stays.

        Raises:
            UserError: The number is less than 1, or no flow is computed.
        """
        ...

    def set_keep_flow(self, keep: bool) -> None:
        """Choose whether results carry the flow from the next frame on."""
        ...

    def check_queries(self, queries: Sequence[str]) -> tuple[str, ...]:
        """Normalised queries, as ``set_queries`` would take them; nothing changes and no frame is waited for.

        Raises:
            UserError: As ``set_queries``.
        """
        ...

    def set_queries(self, queries: Sequence[str]) -> None:
        """Set the queries from the next frame on; the state of the video stays. After an error the old queries stay.

        Raises:
            UserError: There is no query, or one is empty or too long.
        """
        ...

    def reset(self) -> None:
        """Forget the video: the next frame is a first frame. The queries stay."""
        ...

    def step(self, frame: NDArray[np.uint8]) -> Result:
        """Segment the next frame, uint8 [H,W,3] BGR of any size.

        Raises:
            UserError: The frame is not such an array, or no queries are set.
        """
        ...
