"""Videos as folders of frames beside folders of palette PNGs: the layout of DAVIS and YouTube-VOS."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rvos_edge.errors import UserError
from rvos_edge.trainer.data.readers.base import ClipsReader
from rvos_edge.trainer.data.readers.expression_files import Described
from rvos_edge.trainer.data.readers.images import check_sizes, image_files, read_annotation, read_size

_PNG = frozenset({".png"})
_VOID = 255


class FolderClips(ClipsReader):
    """Frames IMAGES/VIDEO/NAME.jpg (or .jpeg, .png, .webp) with object ids in ANNOTATIONS/VIDEO/NAME.png.

    Args:
        described: The videos with their queries and frames; without frames, those of the folder are read.
        dense: Every frame must have a mask. Otherwise frames without a mask are not annotated.

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
        super().__init__(root, {video: entry.queries for video, entry in described.items()}, tuple(described))
        self._images, self._annotations = images, annotations
        self._listed = {video: entry.frames for video, entry in described.items()}
        self._found: dict[str, dict[str, Path]] = {}
        self._annotated: dict[str, dict[int, Path]] = {}
        for video in self.videos if dense else ():
            self._check_dense(video)

    def annotated(self, video: str) -> list[int]:
        """Indices of the frames with a mask file, ascending."""
        if video not in self._annotated:
            there = {} if self._annotations is None else image_files(self._annotations / video, _PNG)
            names = self._names(video)
            self._annotated[video] = {index: there[name] for index, name in enumerate(names) if name in there}
        return list(self._annotated[video])

    def image_path(self, video: str, index: int) -> Path:
        """Image file of a frame."""
        name = self._names(video)[index]
        path = self._images / video / f"{name}.jpg"
        return path if path.is_file() else self._files(video).get(name, path)

    def masks(self, video: str, index: int) -> NDArray[np.bool_] | None:
        """Ground truth of a frame, bool [N,H,W]; None where there is no mask file.

        Raises:
            UserError: The mask is damaged, of another size than its image, or holds colours instead of ids.
        """
        if self._annotations is None or index not in self.annotated(video):
            return None
        path = self._annotated[video][index]
        values = read_annotation(path)
        check_sizes(values.shape, read_size(self.image_path(video, index)), path)
        ids = [query.object_id for query in self.queries(video)]
        if values.ndim == 3:
            if any(number is not None for number in ids):
                raise UserError(f"the mask {path} has colours instead of object ids: restore the official palette PNG")
            values = values[..., :3].max(axis=2)
        masks = [values > 0 if number is None else values == number for number in ids]
        return np.stack(masks) if masks else np.zeros((0, *values.shape), np.bool_)

    def void(self, video: str, index: int) -> NDArray[np.bool_]:
        """Pixels [H,W] of an annotated frame that count for no object: value 255 among object ids.

        Raises:
            UserError: The mask is damaged.
        """
        return np.asarray(read_annotation(self._annotated[video][index]) == _VOID, np.bool_)

    def _list_frames(self, video: str) -> Sequence[str]:
        return self._listed[video] or list(self._files(video))

    def _files(self, video: str) -> dict[str, Path]:
        if video not in self._found:
            self._found[video] = image_files(self._images / video)
        return self._found[video]

    def _check_dense(self, video: str) -> None:
        lacking = set(range(len(self._names(video)))) - set(self.annotated(video))
        if lacking and self._annotations is not None:
            path = self._annotations / video / f"{self._names(video)[min(lacking)]}.png"
            raise UserError(f"there is no mask {path} ({len(lacking)} are missing): add the annotations")
