"""Frames with their results as an iterator: ``rvos_edge.stream``."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack
from numbers import Integral
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from rvos_edge.errors import UserError
from rvos_edge.opening import open_segmenter
from rvos_edge.pictures import Picture, as_frame
from rvos_edge.protocol import SegmenterProtocol
from rvos_edge.queries import Query
from rvos_edge.result import Result
from rvos_edge.streaming.loop import check_frames
from rvos_edge.streaming.sources import Frame, Source, open_source
from rvos_edge.streaming.sources.base import stated_fps


class ArraySource(Source):
    """Frames from any iterable of pictures, such as arrays uint8 [H,W,3] BGR.

    Args:
        fps: Frames per second, for the timestamps; None takes the time at which each array came.

    Example:
        >>> image = np.zeros((4, 4, 3), np.uint8)
        >>> with ArraySource([image, image]) as source:
        ...     print([frame.name for frame in source])
        ['00000', '00001']
    """

    def __init__(self, arrays: Iterable[Picture], *, fps: float | None = None) -> None:
        length = len(arrays) if isinstance(arrays, Sequence | np.ndarray) else None
        super().__init__(name="arrays", fps=fps, length=length)
        self._arrays = arrays

    def __iter__(self) -> Iterator[Frame]:
        started = time.perf_counter()
        for index, picture in enumerate(self._arrays):
            captured, image = time.perf_counter(), as_frame(picture)
            timestamp = index / self.fps if self.fps else captured - started
            yield Frame(image, index, timestamp, f"{index:05d}", captured)


class Stream:
    """Frames with their results: an iterator, also for ``async for``, and a context manager.

    Whatever it opened is closed when the loop ends, however it ends.
    """

    def __init__(self, pairs: Generator[tuple[Frame, Result], None, None]) -> None:
        self._pairs = pairs

    def __iter__(self) -> Stream:
        return self

    def __next__(self) -> tuple[Frame, Result]:
        return next(self._pairs)

    def __aiter__(self) -> Stream:
        return self

    async def __anext__(self) -> tuple[Frame, Result]:
        pair = await asyncio.to_thread(next, self._pairs, None)
        if pair is None:
            raise StopAsyncIteration
        return pair

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close what was opened."""
        self._pairs.close()


def stream(
    source: str | Path | int | Source | cv2.VideoCapture | Iterable[Picture],
    queries: Query | Iterable[Query] | None = None,
    *,
    bundle: str | Path | SegmenterProtocol | None = None,
    frames: int | None = None,
    **options: Any,
) -> Stream:
    """Segment a source frame by frame; exported as ``rvos_edge.stream``.

    The bundle and the source are opened when the first frame is asked for, and what was opened here is closed when
    the loop ends, however it ends.

    Args:
        source: A name that ``open_source`` takes (a video, a folder, a glob of images, a URL, "synthetic"), the number
            of a camera, an opened ``Source`` or ``cv2.VideoCapture``, or any iterable of pictures (``Picture``), such
            as an array uint8 [N,H,W,3]; or a single picture.
        queries: Expressions to segment, and taught queries, in any iterable; or a single one. None keeps those of an
            opened segmenter.
        bundle: The bundle's directory or name, None for the one that comes with the package; or an opened segmenter,
            whose queries are set and whose last video is forgotten.
        frames: Number of frames to stop after, None for all.
        options: Keyword arguments of ``rvos_edge.open``, such as `device`, `backend`, `flow` or `threads`.

    Returns:
        An iterator over each frame (``image``, ``index``, ``timestamp``, ``name``) and its result.

    Raises:
        UserError: As ``rvos_edge.open`` and ``open_source``; options come with an opened segmenter, there are no
            queries, or `frames` is less than 1.

    Example:
        >>> for frame, result in rvos_edge.stream("clip.mp4", "the dog on the left"):  # doctest: +SKIP
        ...     print(frame.index, result)

        >>> async for frame, result in rvos_edge.stream(0, ["a dog", "a red ball"]):  # doctest: +SKIP
        ...     await send(result.to_dict())
    """
    return Stream(_pairs(source, queries, bundle, frames, options))


def _pairs(
    source: Any,
    queries: Query | Iterable[Query] | None,
    bundle: str | Path | SegmenterProtocol | None,
    frames: int | None,
    options: dict[str, Any],
) -> Generator[tuple[Frame, Result], None, None]:
    check_frames(frames)
    if queries is None and not getattr(bundle, "queries", ()):
        raise UserError('there are no queries; say what to segment, as in rvos_edge.stream(0, "a person").')
    with ExitStack() as stack:
        if not (bundle is None or isinstance(bundle, str | Path)):
            if options:
                raise UserError(f"{', '.join(options)} belongs to rvos_edge.open; the segmenter is open already")
            segmenter = bundle
        else:
            segmenter = open_segmenter(bundle, **options)
        if queries is not None:
            segmenter.set_queries(queries)
        segmenter.reset()
        opened = _as_source(source, stack)
        for frame in itertools.islice(opened, frames):
            yield frame, segmenter.step(frame.image)


def _as_source(source: Any, stack: ExitStack) -> Source:
    """Open a source by its name, or wrap pictures; a source that the caller opened is closed by the caller."""
    if isinstance(source, Source):
        return source
    if isinstance(source, str | Path | Integral):
        return stack.enter_context(open_source(str(source)))
    if isinstance(source, cv2.VideoCapture):
        return ArraySource(_read_all(source), fps=stated_fps(source))
    return ArraySource([source] if _is_picture(source) else source)


def _is_picture(source: Any) -> bool:
    """True for one picture in place of many."""
    if isinstance(source, np.ndarray):
        return source.ndim == 2 or (source.ndim == 3 and source.shape[2] in (1, 3, 4))
    return hasattr(source, "getbands")  # PIL


def _read_all(capture: cv2.VideoCapture) -> Iterator[Picture]:
    while True:
        found, image = capture.read()
        if not found:
            return
        yield image
