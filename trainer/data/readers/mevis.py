"""MeViS: expressions about motion that may name several objects at once."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as mask_utils

from rvos_edge.errors import UserError
from rvos_edge.trainer.data.readers.base import ClipsReader, Query, choose_videos, tidy
from rvos_edge.trainer.data.readers.images import check_sizes, read_size

SPLITS = ("train", "valid_u", "valid")


class MevisClips(ClipsReader):
    """MeViS (Ding et al., ICCV 2023) in its official layout.

        ROOT/{train,valid_u,valid}/JPEGImages/VIDEO/NNNNN.jpg
        ROOT/{train,valid_u,valid}/meta_expressions.json
        ROOT/{train,valid_u}/mask_dict.json               run lengths of every frame, by annotation

    A query's mask is the union of its annotations. Queries of one video that name the same annotations have the same
    object id, which is made up here.

    Args:
        split: "train", "valid_u" or "valid"; a server scores "valid", which has no masks.

    Raises:
        UserError: A folder or file is missing or damaged, or an annotation that an expression names is not there.
    """

    def __init__(
        self,
        root: str | Path,
        *,
        split: str = "valid_u",
        expressions: str | Path | None = None,
        videos: Sequence[str] | None = None,
    ) -> None:
        if split not in SPLITS:
            raise UserError(f"'{split}' is not a split of MeViS: say {', '.join(SPLITS)}")
        folder = Path(root) / split
        self._images = folder / "JPEGImages"
        if not self._images.is_dir():
            raise UserError(f"the folder {self._images} does not exist: give the folder that holds {split}/JPEGImages")
        path = Path(expressions) if expressions else folder / "meta_expressions.json"
        self._listed: dict[str, tuple[str, ...]] = {}
        self._named: dict[str, list[tuple[str, ...]]] = {}
        queries: dict[str, tuple[Query, ...]] = {}
        try:
            for video, entry in _read(path)["videos"].items():
                self._listed[video] = tuple(str(name) for name in entry["frames"])
                said = entry["expressions"].items()
                self._named[video] = [tuple(str(number) for number in item.get("anno_id", ())) for _, item in said]
                numbers = {named: index for index, named in enumerate(dict.fromkeys(self._named[video]))}
                queries[video] = tuple(
                    Query(key, tidy(item["exp"]), numbers[named])
                    for (key, item), named in zip(said, self._named[video], strict=True)
                )
        except (KeyError, TypeError, AttributeError) as error:
            raise UserError(
                f"{path} is not a meta_expressions.json of MeViS: {error} is missing or of another kind"
            ) from error
        super().__init__(
            Path(root), queries, choose_videos(tuple(queries), videos if videos is not None else tuple(queries))
        )
        self._masks: dict[str, list[Any]] = {}
        if split != "valid":
            self._masks = _read(folder / "mask_dict.json")
            for video in self.videos:
                for number in (number for named in self._named[video] for number in named):
                    if len(self._masks.get(number, ())) != len(self._listed[video]):
                        raise UserError(
                            f"annotation {number} of '{video}' in {folder / 'mask_dict.json'} is missing, or has "
                            "another number of frames than the expressions list: unpack the data set again"
                        )

    def annotated(self, video: str) -> list[int]:
        """Indices of all frames; none without masks."""
        return list(range(len(self._listed[video]))) if self._masks else []

    def image_path(self, video: str, index: int) -> Path:
        """Image file of a frame."""
        return self._images / video / f"{self._listed[video][index]}.jpg"

    def masks(self, video: str, index: int) -> NDArray[np.bool_] | None:
        """Ground truth of a frame, bool [N,H,W] in the order of ``queries``; None without masks.

        Raises:
            UserError: A mask is damaged or of another size than its image.
        """
        if not self._masks:
            return None
        size = read_size(self.image_path(video, index))
        return np.stack([self._union(named, index, size) for named in self._named[video]])

    def _union(self, named: tuple[str, ...], index: int, size: tuple[int, int]) -> NDArray[np.bool_]:
        union = np.zeros(size, np.bool_)
        for number in named:
            rle = self._masks[number][index]
            if not rle:
                continue
            try:
                counts = rle["counts"]
                coded = {"size": rle["size"], "counts": counts.encode() if isinstance(counts, str) else counts}
                mask = mask_utils.decode(coded).astype(np.bool_)
            except (KeyError, TypeError, ValueError) as error:
                raise UserError(f"annotation {number} of {self.root} is damaged in frame {index}") from error
            check_sizes(mask.shape, size, Path(f"annotation {number}"))
            union |= mask
        return union

    def _list_frames(self, video: str) -> Sequence[str]:
        return self._listed[video]


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise UserError(f"{path} does not exist: give the folder that MeViS was unpacked to")
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is not readable JSON: download it again") from error
    if not isinstance(document, dict):
        raise UserError(f"{path} is not of MeViS: it holds no mapping")
    return document
