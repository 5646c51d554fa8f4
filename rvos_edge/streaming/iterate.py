"""Frames with their results as a generator: ``rvos_edge.stream``."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rvos_edge.errors import UserError
from rvos_edge.opening import open_segmenter
from rvos_edge.protocol import SegmenterProtocol
from rvos_edge.queries import Query
from rvos_edge.result import Result
from rvos_edge.streaming.loop import check_frames
from rvos_edge.streaming.sources import Frame, Source, open_source


class ArraySource(Source):
    """Frames from any iterable of arrays, uint8 [H,W,3] BGR.

    Args:
        fps: Frames per second, for the timestamps; None takes the time at which each array came.

    Example:
        >>> image = np.zeros((4, 4, 3), np.uint8)
        >>> with ArraySource([image, image]) as source:
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


def stream(
    source: str | Path | Source | Iterable[NDArray[np.uint8]],
    queries: Sequence[Query],
    *,
    bundle: str | Path | SegmenterProtocol | None = None,
    frames: int | None = None,
    **options: Any,
) -> Iterator[tuple[Frame, Result]]:
    """Segment a source frame by frame; exported as ``rvos_edge.stream``.

    The bundle and the source are opened when the first frame is asked for, and what was opened here is closed when
    the loop ends, however it ends.

    Args:
        source: A name that ``open_source`` takes (a video, a folder, a glob of images, a camera,
            a URL, "synthetic"), an opened ``Source``, or any iterable of frames, uint8 [H,W,3] BGR.
        queries: Expressions to segment, and taught queries.
        bundle: The bundle's directory, None for the one that comes with the package; or an opened segmenter,
            whose queries are set and whose last video is forgotten.
        frames: Number of frames to stop after, None for all.
        options: Keyword arguments of ``rvos_edge.open``, such as `device`, `backend`, `flow` or `threads`.

    Yields:
        The frame (``image``, ``index``, ``timestamp``, ``name``) and its result.

    Raises:
        UserError: As ``rvos_edge.open`` and ``open_source``; options come with an opened segmenter, or `frames` is
            less than 1.

    Example:
        >>> for frame, result in rvos_edge.stream("clip.mp4", queries=["the dog on the left"]):  # doctest: +SKIP
        ...     print(frame.index, result.scores)
    """
    check_frames(frames)
    with ExitStack() as stack:
        if not (bundle is None or isinstance(bundle, str | Path)):
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
    """Open a source by its name, or wrap arrays; a source that the caller opened is closed by the caller."""
    if isinstance(source, Source):
        return source
    if isinstance(source, str | Path):
        return stack.enter_context(open_source(str(source)))
    return ArraySource(source)
