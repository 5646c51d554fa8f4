"""DAVIS-2016 with referring expressions: one foreground per video."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import yaml

from rvos_edge.errors import UserError
from rvos_edge.trainer.data.readers.base import choose_videos
from rvos_edge.trainer.data.readers.expression_files import check_known, read_expressions
from rvos_edge.trainer.data.readers.folders import FolderClips

_TEXT, _FILES = "davis_text_annotations", "Davis16_annot*.txt"
_FACTS = yaml.safe_load(Path(__file__).parents[1].joinpath("davis2016.yaml").read_text(encoding="utf-8"))
VALIDATION_VIDEOS: tuple[str, ...] = tuple(_FACTS["development"])
"""Videos that our development split keeps from training."""
SCENERY: dict[str, frozenset[str]] = {video: frozenset(seen) for video, seen in _FACTS["scenery"].items()}
"""COCO categories visible beside the foreground of the training videos."""


class Davis16Clips(FolderClips):
    """DAVIS-2016 (480p), densely annotated; every query refers to the whole foreground, rider and bike together.

        ROOT/JPEGImages/480p/VIDEO/NNNNN.jpg
        ROOT/Annotations/480p/VIDEO/NNNNN.png             0 and 255
        ROOT/ImageSets/480p/{train,val}.txt               one frame per line (or ImageSets/2016, one video per line)
        ROOT/meta_expressions.json                        format of Refer-YouTube-VOS

    Without the JSON, the text files of Khoreva et al. are read: ROOT/davis_text_annotations/Davis16_annot*.txt.

    Args:
        split: "train" or "val": the official lists or, where there is no val.txt (training videos alone), our
            development split; "dev": validation videos of the development split; "all": every video with expressions.
        expressions: A JSON file, a text file or a folder of text files.

    Raises:
        UserError: A folder, file or mask is missing.
    """

    def __init__(
        self,
        root: str | Path,
        *,
        split: str = "val",
        expressions: str | Path | None = None,
        videos: Sequence[str] | None = None,
    ) -> None:
        root = Path(root)
        if not root.is_dir():
            raise UserError(f"the DAVIS folder {root} does not exist: give the folder that holds JPEGImages")
        path = Path(expressions) if expressions else _find_expressions(root)
        described = read_expressions(path, pattern=_FILES)
        chosen = choose_videos(
            tuple(described), videos if videos is not None else _split(root, tuple(described), split)
        )
        images = root / "JPEGImages" / "480p"
        folders = {folder.name for folder in images.glob("*")}
        check_known({video: described[video] for video in chosen}, folders, path, images)
        super().__init__(
            root,
            images=images,
            annotations=root / "Annotations" / "480p",
            described={
                # Every frame of the folder is annotated, whatever frames the expressions list.
                video: replace(
                    described[video],
                    queries=tuple(replace(query, object_id=None) for query in described[video].queries),
                    frames=(),
                )
                for video in chosen
            },
            dense=True,
        )


def _find_expressions(root: Path) -> Path:
    default = root / "meta_expressions.json"
    for folder in (root / _TEXT, root.parent / _TEXT):
        if not default.is_file() and any(folder.glob(_FILES)):
            return folder
    return default


def _split(root: Path, known: tuple[str, ...], split: str) -> tuple[str, ...]:
    if split == "all":
        return known
    if split not in ("train", "val", "dev"):
        raise UserError(f"'{split}' is not a split: say train, val, dev, all or a list of videos")
    held_out = _listed(root, "val") if split != "dev" else None
    if held_out is not None and split == "val":
        return held_out
    if held_out is not None:
        return _listed(root, "train") or tuple(video for video in known if video not in held_out)
    chosen = tuple(video for video in known if (video in VALIDATION_VIDEOS) == (split != "train"))
    if not chosen:
        official = "; the official validation videos are --split val" if split == "dev" else ""
        raise UserError(f"no video of the split '{split}' has expressions: list the videos to use instead{official}")
    return chosen


def _listed(root: Path, split: str) -> tuple[str, ...] | None:
    """Videos of an official list; None where there is no list."""
    for year in ("480p", "2016"):
        path = root / "ImageSets" / year / f"{split}.txt"
        if path.is_file():
            lines = path.read_text(encoding="utf-8").split("\n")
            # Lines are "/JPEGImages/480p/VIDEO/NNNNN.jpg /Annotations/..." per frame, or the name of a video.
            return tuple(dict.fromkeys(_video_of(line.split()[0]) for line in lines if line.strip()))
    return None


def _video_of(entry: str) -> str:
    return Path(entry).parent.name if "/" in entry.strip("/") else entry.strip("/")
