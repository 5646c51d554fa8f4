"""Sources, sinks, the overlay and the streaming loop; the package can be called: ``rvos_edge.stream(source, ...)``."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from rvos_edge.segmenter import Result, Segmenter
    from rvos_edge.stream.sources import Frame, Source


def stream(
    source: str | Path | Source | Iterable[NDArray[np.uint8]],
    queries: Sequence[str],
    *,
    bundle: str | Path | Segmenter | None = None,
    frames: int | None = None,
    **options: Any,
) -> Iterator[tuple[Frame, Result]]:
    """Segment a source frame by frame; this is ``rvos_edge.stream``.

    The bundle and the source are opened when the first frame is asked for, and what was opened here is closed when
    the loop ends, however it ends.

    Args:
        source: What ``open_source`` takes (a video, a folder, a glob of images, a camera, a URL, "synthetic"), an
            opened ``Source``, or any iterable of frames, uint8 [H,W,3] BGR.
        queries: What to segment.
        bundle: The bundle's directory, None for the one that comes with the package; or a ``Segmenter``, whose
            queries are set and whose last video is forgotten.
        frames: Stop after so many, None for all.
        options: Of ``rvos_edge.open``, such as `device`, `backend`, `flow` or `threads`.

    Yields:
        The frame (``image``, ``index``, ``timestamp``, ``name``) and its result.

    Raises:
        UserError: As ``rvos_edge.open`` and ``open_source``; options come with an opened segmenter, or `frames` is
            less than 1.

    Example:
        >>> for frame, result in rvos_edge.stream("clip.mp4", queries=["the dog on the left"]):
        ...     print(frame.index, result.scores)
    """
    # The body is elsewhere so that importing the package stays cheap.
    from rvos_edge.stream.pairs import pairs

    return pairs(source, queries, bundle=bundle, frames=frames, options=options)


class _CallablePackage(ModuleType):
    """`rvos_edge.stream` is this package and the function of that name."""

    __call__ = staticmethod(stream)

    @property
    def __signature__(self) -> Any:
        import inspect

        return inspect.signature(stream)


sys.modules[__name__].__class__ = _CallablePackage
