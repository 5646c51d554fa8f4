"""Referring video data sets: the interface of their readers, and the part that readers share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from rvos_edge.errors import UserError
from rvos_edge.trainer.data.readers.images import read_image

GIVE_EXPRESSIONS = "give --expressions, or 'expressions' in a configuration"
"""Remedy of a missing file."""


@dataclass(frozen=True)
class Query:
    """An expression about one object of a video, in lower case with single spaces.

    Its key, that of the data set's own files, is unique within the video ("0", "annot1/3"); without an object id it
    means the whole foreground (DAVIS-16).
    """

    key: str
    expression: str
    object_id: int | None


class ReferringClips(Protocol):
    """A data set on disk in its official layout, read lazily; shared by training and evaluation.

    Example:
        >>> for video in clips.videos:  # doctest: +SKIP
        ...     for index, name in enumerate(clips.frames(video)):
        ...         image, masks = clips.image(video, index), clips.masks(video, index)
    """

    root: Path
    videos: tuple[str, ...]

    def frames(self, video: str) -> list[str]:
        """Names of a video's frames, in order of time."""

    def queries(self, video: str) -> tuple[Query, ...]:
        """Queries of a video, in the order of their file."""

    def image_path(self, video: str, index: int) -> Path:
        """File of a frame: an image of its own, or the video file that holds all frames."""

    def image(self, video: str, index: int) -> NDArray[np.uint8]:
        """A frame, BGR uint8 [H,W,3].

        Raises:
            DamagedFileError: The file is missing or damaged.
        """

    def masks(self, video: str, index: int) -> NDArray[np.bool_] | None:
        """Ground truth of a frame, bool [N,H,W] in the order of ``queries``; None where the frame is not annotated.

        An object that is not visible in an annotated frame has an empty mask.

        Raises:
            UserError: The annotation is missing, damaged or of another size than its image.
        """


class AnnotatedClips(ReferringClips, Protocol):
    """Clips that list their annotated frames, as training needs."""

    def annotated(self, video: str) -> list[int]:
        """Indices of the annotated frames, ascending."""


class ClipsReader(ABC):
    """Base of the readers: `AnnotatedClips` with queries in memory and every frame in an image file of its own.

    Raises:
        UserError: A video has no queries, or there is no video.
    """

    def __init__(self, root: Path, queries: Mapping[str, tuple[Query, ...]], videos: Sequence[str]) -> None:
        self.root = root
        self.videos = choose_videos(tuple(queries), videos)
        self._queries = queries
        self._frames: dict[str, tuple[str, ...]] = {}

    def frames(self, video: str) -> list[str]:
        """Names of a video's frames, in order of time."""
        return list(self._names(video))

    def queries(self, video: str) -> tuple[Query, ...]:
        """Queries of a video, in the order of their file."""
        return self._queries[video]

    def image(self, video: str, index: int) -> NDArray[np.uint8]:
        """A frame, BGR uint8 [H,W,3].

        Raises:
            DamagedFileError: The file is missing or damaged.
        """
        return read_image(self.image_path(video, index))

    @abstractmethod
    def annotated(self, video: str) -> list[int]:
        """Indices of the annotated frames, ascending."""

    @abstractmethod
    def image_path(self, video: str, index: int) -> Path:
        """File of a frame."""

    @abstractmethod
    def masks(self, video: str, index: int) -> NDArray[np.bool_] | None:
        """Ground truth of a frame, bool [N,H,W] in the order of ``queries``; None where it is not annotated."""

    @abstractmethod
    def _list_frames(self, video: str) -> Sequence[str]:
        """Names of a video's frames, in order of time."""

    def _names(self, video: str) -> tuple[str, ...]:
        if video not in self._frames:
            self._frames[video] = tuple(self._list_frames(video))
            if not self._frames[video]:
                raise UserError(f"the video '{video}' in {self.root} has no frames: add them or leave the video out")
        return self._frames[video]


def image_paths(clips: ReferringClips, video: str) -> list[Path]:
    """Files of all frames of a video, in order."""
    return [clips.image_path(video, index) for index in range(len(clips.frames(video)))]


def tidy(expression: object) -> str:
    """An expression in lower case with single spaces; the file of a taught query, after "@", as it is."""
    text = str(expression)
    return text if text.startswith("@") else " ".join(text.lower().split())


def choose_videos(known: Sequence[str], wanted: Sequence[str]) -> tuple[str, ...]:
    """The wanted videos, checked against the known ones.

    Raises:
        UserError: A video has no expressions, or the list is empty.
    """
    unknown = set(wanted) - set(known)
    if unknown or not wanted:
        names = few(sorted(unknown)) if unknown else "an empty list of videos"
        raise UserError(f"there are no expressions for {names}: check the names of the videos")
    return tuple(wanted)


def few(names: Sequence[str], count: int = 3) -> str:
    """The first few names, for messages: "a, b, c and 4 more"."""
    rest = len(names) - count
    return ", ".join(names[:count]) + (f" and {rest} more" if rest > 0 else "")
