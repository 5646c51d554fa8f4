"""Data sets of the evaluation, opened by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

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
class EvaluationSource:
    """Reader, default split and splits of a data set."""

    reader: Callable[..., AnnotatedClips]
    split: str
    splits: tuple[str, ...]


SOURCES = {
    "davis16": EvaluationSource(Davis16Clips, "val", ("train", "val", "dev", "all")),
    "davis17": EvaluationSource(Davis17Clips, "val", ("train", "val", "all")),
    "youtube-vos": EvaluationSource(YouTubeVosClips, "valid", ("train", "valid", "test")),
    "mevis": EvaluationSource(MevisClips, "valid_u", ("train", "valid_u", "valid")),
    "a2d": EvaluationSource(A2dClips, "test", ("train", "test", "all")),
    "jhmdb": EvaluationSource(JhmdbClips, "test", ("test", "all")),
    "refcoco": EvaluationSource(RefCocoClips, "val", ("train", "val", "test", "testA", "testB", "all")),
}


def open_clips(dataset: str, root: Path, split: str | None = None, expressions: Path | None = None) -> AnnotatedClips:
    """Open a split of a data set: a name, or names of videos separated by commas; the data set's default by default.

    Raises:
        UserError: The name, the split or a file does not exist.
    """
    if dataset not in SOURCES:
        raise UserError(f"Unknown data set '{dataset}'; choose one of {', '.join(SOURCES)}.")
    source = SOURCES[dataset]
    split = split or source.split
    if split in source.splits:
        return source.reader(root, split=split, expressions=expressions)
    if "all" not in source.splits:
        raise UserError(f"'{split}' is not a --split of {dataset}; choose one of {', '.join(source.splits)}.")
    videos = [name.strip() for name in split.split(",") if name.strip()]
    return source.reader(root, split="all", videos=videos, expressions=expressions)
