"""Data sets of videos with expressions, by the names of ``rvos-edge eval``: readers, splits and measures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rvos_edge.errors import UserError
from rvos_edge.trainer.data.readers.a2d import A2dClips
from rvos_edge.trainer.data.readers.base import AnnotatedClips
from rvos_edge.trainer.data.readers.davis16 import Davis16Clips
from rvos_edge.trainer.data.readers.davis17 import Davis17Clips
from rvos_edge.trainer.data.readers.jhmdb import JhmdbClips
from rvos_edge.trainer.data.readers.mevis import MevisClips
from rvos_edge.trainer.data.readers.refcoco import RefCocoClips
from rvos_edge.trainer.data.readers.youtube_vos import YouTubeVosClips


@dataclass(frozen=True)
class DataSet:
    """Reader of a data set, the split that is usually judged, and all splits.

    ``measure``: J and F per expression ("region") or per object in two settings ("objects"), or IoU ("overlap").
    """

    reader: Callable[..., AnnotatedClips]
    measure: Literal["region", "objects", "overlap"]
    split: str
    splits: tuple[str, ...]


DATASETS = {
    "davis16": DataSet(Davis16Clips, "region", "val", ("train", "val", "dev", "all")),
    "davis17": DataSet(Davis17Clips, "objects", "val", ("train", "val", "all")),
    "youtube-vos": DataSet(YouTubeVosClips, "region", "valid", ("train", "valid", "test")),
    "mevis": DataSet(MevisClips, "region", "valid_u", ("train", "valid_u", "valid")),
    "a2d": DataSet(A2dClips, "overlap", "test", ("train", "test", "all")),
    "jhmdb": DataSet(JhmdbClips, "overlap", "test", ("test", "all")),
    "refcoco": DataSet(RefCocoClips, "overlap", "val", ("train", "val", "test", "testA", "testB", "all")),
}


def dataset_of(kind: str) -> str:
    """The name of the data set that a source of a training configuration reads: "youtube_vos" is "youtube-vos"."""
    return "davis16" if kind == "davis" else kind.replace("_", "-")


def open_clips(dataset: str, root: Path, split: str | None = None, expressions: Path | None = None) -> AnnotatedClips:
    """Open a split of a data set: a name, or names of videos separated by commas; the data set's default by default.

    Raises:
        UserError: The name, the split or a file does not exist.
    """
    if dataset not in DATASETS:
        raise UserError(f"Unknown data set '{dataset}'; choose one of {', '.join(DATASETS)}.")
    known = DATASETS[dataset]
    split = split or known.split
    if split in known.splits:
        return known.reader(root, split=split, expressions=expressions)
    if "all" not in known.splits:
        raise UserError(f"'{split}' is not a --split of {dataset}; choose one of {', '.join(known.splits)}.")
    videos = [name.strip() for name in split.split(",") if name.strip()]
    return known.reader(root, split="all", videos=videos, expressions=expressions)
