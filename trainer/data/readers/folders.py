"""Videos as folders of JPEG frames beside folders of palette PNGs, as DAVIS and YouTube-VOS keep them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rvos_edge.errors import UserError
from rvos_edge.trainer.data.readers.base import Query
from rvos_edge.trainer.data.readers.expression_files import Described
from rvos_edge.trainer.data.readers.images import check_sizes, read_annotation, read_image, read_size


class FolderClips:
    """Frames IMAGES/VIDEO/NAME.jpg with object ids in ANNOTATIONS/VIDEO/NAME.png; implements `AnnotatedClips`.

    Args:
        root: The data set's folder.
        images: The folder of the videos' frames.
        annotations: The folder of the videos' masks; None when there are none.
        described: The videos to read and their queries. Where it names no frames, they are those of the folder.
        dense: Every frame must have a mask; otherwise frames without one are not annotated.

    Raises:
        UserError: A video has no frames or lacks masks; the message says which.
    """

    def __init__(
        self,
        root: Path,
        *,
        images: Path,
        annotations: Path | None,
        described: Mapping[str, Described],
        dense: bool = False,
    ) -> None:
        self.root = root
        self.videos = tuple(described)
        self._images, self._annotations = images, annotations
        self._described = dict(described)
        self._frames: dict[str, tuple[str, ...]] = {}
        self._annotated: dict[str, tuple[int, ...]] = {}
        for video in self.videos if dense else ():
            self._check_dense(video)

    def frames(self, video: str) -> list[str]:
        """The names of a video's frames in order, without suffix."""
        return list(self._names(video))

    def queries(self, video: str) -> tuple[Query, ...]:
        """The queries of a video, in the order of their file."""
        return self._described[video].queries

    def annotated(self, video: str) -> list[int]:
        """The indices of the frames that have a mask file."""
        if video not in self._annotated:
            there = set() if self._annotations is None else _stems(self._annotations / video, ".png")
            names = self._names(video)
            self._annotated[video] = tuple(index for index, name in enumerate(names) if name in there)
        return list(self._annotated[video])

    def image_path(self, video: str, index: int) -> Path:
        """The image file of a frame."""
        return self._images / video / f"{self._names(video)[index]}.jpg"

    def image(self, video: str, index: int) -> NDArray[np.uint8]:
        """A frame, BGR uint8 [H,W,3].

        Raises:
            DamagedFileError: It is missing or damaged.
        """
        return read_image(self.image_path(video, index))

    def masks(self, video: str, index: int) -> NDArray[np.bool_] | None:
        """The masks of the queries, bool [N,H,W]; None where there is no mask file.

        Raises:
            UserError: The mask is damaged, of another size than its image, or has colours where it needs ids.
        """
        if self._annotations is None or index not in self.annotated(video):
            return None
        path = self._annotations / video / f"{self._names(video)[index]}.png"
        values = read_annotation(path)
        check_sizes(values.shape, read_size(self.image_path(video, index)), path)
        ids = [query.object_id for query in self.queries(video)]
        if values.ndim == 3:
            if any(number is not None for number in ids):
                raise UserError(f"the mask {path} has colours instead of object ids: restore the official palette PNG")
            values = values[..., :3].max(axis=2)
        masks = [values > 0 if number is None else values == number for number in ids]
        return np.stack(masks) if masks else np.zeros((0, *values.shape), np.bool_)

    def _names(self, video: str) -> tuple[str, ...]:
        if video not in self._frames:
            folder = self._images / video
            names = self._described[video].frames or tuple(sorted(_stems(folder, ".jpg")))
            if not names:
                raise UserError(f"no images in {folder}: the expressions name the video '{video}', add its frames")
            self._frames[video] = names
        return self._frames[video]

    def _check_dense(self, video: str) -> None:
        lacking = set(range(len(self._names(video)))) - set(self.annotated(video))
        if lacking and self._annotations is not None:
            path = self._annotations / video / f"{self._names(video)[min(lacking)]}.png"
            raise UserError(f"there is no mask {path} ({len(lacking)} are missing): add the annotations")


def _stems(folder: Path, suffix: str) -> set[str]:
    # Copies made on other systems bring ._NAME files along.
    return {path.stem for path in folder.glob(f"*{suffix}") if not path.name.startswith(".")}
