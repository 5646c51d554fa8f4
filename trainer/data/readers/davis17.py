"""DAVIS-2017 with the referring expressions of Khoreva et al."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rvos_edge.errors import UserError
from rvos_edge.trainer.data.readers.base import choose_videos
from rvos_edge.trainer.data.readers.expression_files import check_ids, check_known, read_expressions
from rvos_edge.trainer.data.readers.folders import FolderClips

_TEXT, _FILES = "davis_text_annotations", "Davis17_annot*.txt"
_JSON_SPLITS = {"train": "train", "val": "valid"}


class Davis17Clips(FolderClips):
    """DAVIS-2017 (480p), several objects per video, densely annotated.

        ROOT/JPEGImages/480p/VIDEO/NNNNN.jpg
        ROOT/Annotations/480p/VIDEO/NNNNN.png             palette PNG of object ids
        ROOT/ImageSets/2017/{train,val}.txt               one video per line
        ROOT/davis_text_annotations/Davis17_annot{1,2}.txt, Davis17_annot{1,2}_full_video.txt

    The text files may also lie in ROOT or beside it. Expressions may also come as JSON in the format of
    Refer-YouTube-VOS: ROOT/meta_expressions/{train,valid}/meta_expressions.json or ROOT/meta_expressions.json.

    A key names the annotator and the object: ``annot1/3`` is object 3 in Davis17_annot1.txt (annotators saw the first
    frame), ``annot1_full_video/3`` object 3 in the file of the whole video. In JSON it is the expression's ID.

    Args:
        split: "train" or "val", as listed in ImageSets/2017 (without lists, all videos of a JSON), or "all".
        expressions: A text file, a folder of text files, or a JSON file.

    Raises:
        UserError: A folder, file or mask is missing, or the expressions name videos that are not there.
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
        if split not in (*_JSON_SPLITS, "all"):
            raise UserError(f"'{split}' is not a split of DAVIS-2017: say train, val or all")
        images = root / "JPEGImages" / "480p"
        if not images.is_dir():
            raise UserError(f"the folder {images} does not exist: give the folder that holds JPEGImages/480p")
        path = Path(expressions) if expressions else _find_expressions(root, split)
        described = read_expressions(path, pattern=_FILES)
        check_ids(described, path)
        folders = {folder.name for folder in images.iterdir()}
        lists = {file.stem: _read_list(file) for file in sorted((root / "ImageSets" / "2017").glob("*.txt"))}
        # Videos of other splits may be missing; a video that no list names is an error.
        check_known(described, folders.union(*lists.values()), path, images)
        if videos is None:
            # A JSON holds one split; the text files hold the expressions of all splits and need the lists.
            known_by_list = split != "all" and (lists or path.suffix != ".json")
            if known_by_list and split not in lists:
                raise UserError(f"{root / 'ImageSets' / '2017' / split}.txt does not exist: it lists the split")
            videos = lists[split] if known_by_list else tuple(described)
        annotations = root / "Annotations" / "480p"
        super().__init__(
            root,
            images=images,
            annotations=annotations if annotations.is_dir() else root / "Annotations_unsupervised" / "480p",
            described={video: described[video] for video in choose_videos(tuple(described), videos)},
            dense=True,
        )


def _find_expressions(root: Path, split: str) -> Path:
    """Path of the expressions; text files take precedence over JSON."""
    for folder in (root / _TEXT, root, root.parent / _TEXT):
        if any(folder.glob(_FILES)):
            return folder
    apart = root / "meta_expressions" / _JSON_SPLITS.get(split, "") / "meta_expressions.json"
    return apart if apart.is_file() else root / "meta_expressions.json"


def _read_list(path: Path) -> tuple[str, ...]:
    return tuple(line.strip() for line in path.read_text(encoding="utf-8").split("\n") if line.strip())
