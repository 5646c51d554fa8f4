"""What a referring video data set is to those who read it: videos, frames, queries and masks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from rvos_edge.errors import UserError


@dataclass(frozen=True)
class Query:
    """One expression about one object of a video.

    Attributes:
        key: Its name in the data set's own files, unique within the video ("0", "annot1/3").
        expression: Lower case, single spaces.
        object_id: The object's id in the annotation; None means the whole foreground (DAVIS-16).
    """

    key: str
    expression: str
    object_id: int | None


class ReferringClips(Protocol):
    """A data set on disk in its official layout, read lazily; training and evaluation share it.

    Example:
        >>> for video in clips.videos:  # doctest: +SKIP
        ...     for index, name in enumerate(clips.frames(video)):
        ...         image, masks = clips.image(video, index), clips.masks(video, index)
    """

    root: Path
    videos: tuple[str, ...]

    def frames(self, video: str) -> list[str]:
        """The names of a video's frames, in order of time."""

    def queries(self, video: str) -> tuple[Query, ...]:
        """The queries of a video."""

    def image_path(self, video: str, index: int) -> Path:
        """The file that holds a frame: an image of its own, or the video that all frames lie in."""

    def image(self, video: str, index: int) -> NDArray[np.uint8]:
        """A frame, BGR uint8 [H,W,3].

        Raises:
            UserError: It is missing or damaged.
        """

    def masks(self, video: str, index: int) -> NDArray[np.bool_] | None:
        """The truth of every query, bool [N,H,W] in the order of ``queries``; None where the frame has no annotation.

        An object that is not in an annotated frame has an empty mask.

        Raises:
            UserError: The annotation is missing, damaged or of another size than its image.
        """


class AnnotatedClips(ReferringClips, Protocol):
    """Clips that know beforehand which of their frames are annotated: what training draws from."""

    def annotated(self, video: str) -> list[int]:
        """The indices of the frames that have an annotation, ascending."""


def image_paths(clips: ReferringClips, video: str) -> list[Path]:
    """The file of every frame of a video, in order."""
    return [clips.image_path(video, index) for index in range(len(clips.frames(video)))]


def tidy(expression: object) -> str:
    """An expression as `Query` holds it: lower case, single spaces."""
    return " ".join(str(expression).lower().split())


def choose_videos(known: Sequence[str], wanted: Sequence[str]) -> tuple[str, ...]:
    """The wanted videos.

    Raises:
        UserError: One of them has no expressions, or none is wanted.
    """
    unknown = set(wanted) - set(known)
    if unknown or not wanted:
        names = few(sorted(unknown)) if unknown else "an empty list of videos"
        raise UserError(f"there are no expressions for {names}: check the names of the videos")
    return tuple(wanted)


def few(names: Sequence[str], count: int = 3) -> str:
    """The first few names, for a message: "a, b, c and 4 more"."""
    rest = len(names) - count
    return ", ".join(names[:count]) + (f" and {rest} more" if rest > 0 else "")
