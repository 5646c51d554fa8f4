"""Frames with their results as a generator: what ``rvos_edge.stream`` runs."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rvos_edge.errors import UserError
from rvos_edge.segmenter import Result, Segmenter, open_segmenter
from rvos_edge.stream.sources import Frame, Source, open_source


class ArraySource(Source):
    """Frames from any iterable of arrays, uint8 [H,W,3] BGR.

    Args:
        arrays: A list, a generator, a decoder of one's own.
        fps: Of the timestamps; None counts the time at which each array came.

    Example:
        >>> with ArraySource([image, other]) as source:
        ...     print([frame.name for frame in source])
        ['00000', '00001']
    """

    def __init__(self, arrays: Iterable[NDArray[np.uint8]], *, fps: float | None = None) -> None:
        length = len(arrays) if isinstance(arrays, Sequence | np.ndarray) else None
        super().__init__(name="arrays", fps=fps, length=length)
        self._arrays = arrays

    def __iter__(self) -> Iterator[Frame]:
        started = time.perf_counter()
        for index, image in enumerate(self._arrays):
            captured = time.perf_counter()
            timestamp = index / self.fps if self.fps else captured - started
            yield Frame(image, index, timestamp, f"{index:05d}", captured)


def pairs(
    source: str | Path | Source | Iterable[NDArray[np.uint8]],
    queries: Sequence[str],
    *,
    bundle: str | Path | Segmenter | None,
    frames: int | None,
    options: Mapping[str, Any],
) -> Iterator[tuple[Frame, Result]]:
    """Generate frames and results; see ``rvos_edge.stream``.

    Raises:
        UserError: See there.
    """
    if frames is not None and frames < 1:
        raise UserError(f"{frames} frames cannot be segmented; ask for at least 1, or leave the number out for all")
    with ExitStack() as stack:
        if isinstance(bundle, Segmenter):
            if options:
                raise UserError(f"{', '.join(options)} belongs to rvos_edge.open; the segmenter is open already")
            segmenter = bundle
        else:
            segmenter = open_segmenter(bundle, **options)
        segmenter.set_queries(queries)
        segmenter.reset()
        opened = _as_source(source, stack)
        for frame in itertools.islice(opened, frames):
            yield frame, segmenter.step(frame.image)


def _as_source(source: str | Path | Source | Iterable[NDArray[np.uint8]], stack: ExitStack) -> Source:
    """A source that the caller opened is closed by the caller."""
    if isinstance(source, Source):
        return source
    if isinstance(source, str | Path):
        return stack.enter_context(open_source(str(source)))
    return ArraySource(source)
