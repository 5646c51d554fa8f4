"""J-HMDB-Sentences: one person per video; evaluated with a network trained on A2D-Sentences."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rvos_edge.errors import UserError
from rvos_edge.trainer.data.readers.a2d import read_rows
from rvos_edge.trainer.data.readers.base import ClipsReader, Query, few, tidy
from rvos_edge.trainer.data.readers.images import DamagedFileError, check_sizes, read_size


class JhmdbClips(ClipsReader):
    """J-HMDB-Sentences (Gavrilyuk et al., CVPR 2018). All videos are test videos.

        ROOT/jhmdb_annotation.txt                                video_id,query
        ROOT/Rename_Images/ACTION/VIDEO/NNNNN.png                numbered from 1
        ROOT/puppet_mask/ACTION/VIDEO/puppet_mask.mat            part_mask [H,W,T]

    The last frames of some videos have no mask. The key of a query is its number within the video, mostly "0"; the
    object is the whole mask.

    Raises:
        UserError: A folder or file is missing or of another form, or the expressions name unknown videos.
    """

    def __init__(
        self,
        root: str | Path,
        *,
        split: str = "test",
        expressions: str | Path | None = None,
        videos: Sequence[str] | None = None,
    ) -> None:
        root = Path(root)
        if split not in ("test", "all"):
            raise UserError(f"J-HMDB-Sentences has no split '{split}': all its videos are for testing, train on A2D")
        images = root / "Rename_Images"
        if not images.is_dir():
            raise UserError(f"the folder {images} does not exist: give the folder that holds Rename_Images")
        path = Path(expressions) if expressions else root / "jhmdb_annotation.txt"
        queries = _read_sentences(path)
        self._folders = {folder.name: folder for folder in sorted(images.glob("[!.]*/[!.]*")) if folder.is_dir()}
        unknown = [video for video in queries if video not in self._folders]
        if unknown:
            raise UserError(f"{path} names {len(unknown)} videos that {images} does not have ({few(unknown)})")
        super().__init__(root, queries, tuple(queries) if videos is None else videos)
        self._last: tuple[str, NDArray[np.bool_]] | None = None

    def annotated(self, video: str) -> list[int]:
        """Indices of the frames with a mask, ascending.

        Raises:
            UserError: The masks are missing or damaged.
        """
        return list(range(min(len(self._part_mask(video)), len(self._names(video)))))

    def image_path(self, video: str, index: int) -> Path:
        """Image file of a frame."""
        return self._folders[video] / f"{self._names(video)[index]}.png"

    def masks(self, video: str, index: int) -> NDArray[np.bool_] | None:
        """Ground truth of a frame, bool [N,H,W]; None beyond the last mask.

        Raises:
            UserError: The masks are missing, damaged or of another size than the frame.
        """
        masks = self._part_mask(video)
        if index >= len(masks):
            return None
        check_sizes(masks.shape[1:], read_size(self.image_path(video, index)), self.mask_path(video))
        return np.repeat(masks[index][None], len(self.queries(video)), axis=0)

    def mask_path(self, video: str) -> Path:
        """The .mat file of a video's masks."""
        return self.root / "puppet_mask" / self._folders[video].parent.name / video / "puppet_mask.mat"

    def _list_frames(self, video: str) -> Sequence[str]:
        return sorted(path.stem for path in self._folders[video].glob("[!.]*.png"))

    def _part_mask(self, video: str) -> NDArray[np.bool_]:
        """All masks of a video, bool [T,H,W]; those of the last video stay in memory."""
        if self._last is None or self._last[0] != video:
            self._last = video, read_part_mask(self.mask_path(video))
        return self._last[1]


def read_part_mask(path: Path) -> NDArray[np.bool_]:
    """Masks of a puppet_mask.mat file (MATLAB 5), bool [T,H,W].

    Raises:
        DamagedFileError: The file is missing or damaged.
        UserError: scipy is not installed.
    """
    try:
        from scipy.io import loadmat
    except ModuleNotFoundError as error:
        raise UserError('the masks of J-HMDB need scipy: run pip install "rvos-edge[train]"') from error
    if not path.is_file():
        raise DamagedFileError(f"the masks {path} are missing: add the file or leave its video out")
    try:
        masks = np.asarray(loadmat(path, appendmat=False, variable_names=["part_mask"])["part_mask"])
    # scipy raises many classes, depending on where in the file the damage is.
    except Exception as error:
        raise DamagedFileError(f"the masks {path} are damaged: restore the file or leave its video out") from error
    # MATLAB drops the last axis of a single frame.
    masks = masks[..., None] if masks.ndim == 2 else masks
    if masks.ndim != 3 or masks.dtype == object:
        raise DamagedFileError(f"part_mask in {path} is not height, width, frames: restore the file")
    return masks.transpose(2, 0, 1) > 0


def _read_sentences(path: Path) -> dict[str, tuple[Query, ...]]:
    found: dict[str, list[Query]] = {}
    for number, (video, *rest) in read_rows(path, "video_id"):
        if not rest or not rest[0]:
            raise UserError(f"{path}, line {number} is not of the form video_id,query")
        queries = found.setdefault(video, [])
        queries.append(Query(str(len(queries)), tidy(",".join(rest)), None))
    return {video: tuple(queries) for video, queries in found.items()}
