"""YouTube-VOS with the expressions of Refer-YouTube-VOS."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rvos_edge.errors import UserError
from rvos_edge.trainer.data.readers.base import choose_videos
from rvos_edge.trainer.data.readers.expression_files import check_ids, check_known, read_expressions
from rvos_edge.trainer.data.readers.folders import FolderClips

SPLITS = ("train", "valid", "test")


class YouTubeVosClips(FolderClips):
    """Refer-YouTube-VOS (Seo et al., "URVOS", ECCV 2020) in its official layout.

        ROOT/train/JPEGImages/VIDEO/NNNNN.jpg         every fifth frame of the video
        ROOT/train/Annotations/VIDEO/NNNNN.png        palette PNG of object ids
        ROOT/valid/JPEGImages/...                     without masks: a server scores them
        ROOT/meta_expressions/{train,valid,test}/meta_expressions.json

    Frames are those that the expressions list; a frame without a PNG is not annotated. The published list of "valid"
    holds the videos of "test" too, which are left out: of its 507 videos 202 remain.

    Args:
        split: "train", "valid" or "test"; only "train" has masks.

    Raises:
        UserError: A folder or file is missing, or the expressions name videos that are not there.
    """

    def __init__(
        self,
        root: str | Path,
        *,
        split: str = "train",
        expressions: str | Path | None = None,
        videos: Sequence[str] | None = None,
    ) -> None:
        root = Path(root)
        if split not in SPLITS:
            raise UserError(f"'{split}' is not a split of YouTube-VOS: say {', '.join(SPLITS)}")
        images = root / split / "JPEGImages"
        if not images.is_dir():
            raise UserError(f"the folder {images} does not exist: give the folder that holds {split}/JPEGImages")
        path = Path(expressions) if expressions else root / "meta_expressions" / split / "meta_expressions.json"
        described = read_expressions(path)
        test = root / "meta_expressions" / "test" / "meta_expressions.json"
        if split == "valid" and test.is_file():
            others = read_expressions(test)
            described = {video: entry for video, entry in described.items() if video not in others}
        elif split == "valid" and not described.keys() <= {folder.name for folder in images.iterdir()}:
            raise UserError(f"{path} lists videos of the test split, too: add {test}, which says which they are")
        check_known(described, {folder.name for folder in images.iterdir()}, path, images)
        if split == "train":
            check_ids(described, path)
        else:
            # Masks of first frames, where present, belong to the semi-supervised task.
            described = {
                video: replace(entry, queries=tuple(replace(query, object_id=None) for query in entry.queries))
                for video, entry in described.items()
            }
        chosen = choose_videos(tuple(described), videos if videos is not None else tuple(described))
        super().__init__(
            root,
            images=images,
            annotations=root / split / "Annotations" if split == "train" else None,
            described={video: described[video] for video in chosen},
        )
