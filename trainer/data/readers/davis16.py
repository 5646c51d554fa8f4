"""DAVIS-2016 with referring expressions: one foreground a video."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rvos_edge.errors import UserError
from rvos_edge.trainer.data.clips_dataset import ClipsDataset
from rvos_edge.trainer.data.flow_cache import FlowCache
from rvos_edge.trainer.data.readers.base import choose_videos
from rvos_edge.trainer.data.readers.expression_files import check_known, read_expressions
from rvos_edge.trainer.data.readers.folders import FolderClips
from rvos_edge.trainer.data.transforms import Augmentation

_TEXT, _FILES = "davis_text_annotations", "Davis16_annot*.txt"
VALIDATION_VIDEOS = ("car-turn", "dog-agility", "horsejump-low", "mallard-water", "scooter-gray", "hike")

# What the DAVIS-2016 training videos show beside their foreground, so that nobody calls it absent.
SCENERY: dict[str, str] = {
    "bear": "",
    "bmx-bumps": "sports ball,bench,car",
    "boat": "car,person",
    "breakdance-flare": "vase,bench",
    "bus": "person,car,bench,traffic light,stop sign,parking meter,bicycle",
    "car-turn": "person",
    "dance-jump": "person,sports ball,handbag,bench",
    "dog-agility": "person,umbrella,car",
    "drift-turn": "person,truck,bus,handbag,umbrella,bench,motorcycle",
    "elephant": "",
    "flamingo": "",
    "hike": "backpack,handbag",
    "hockey": "person,sports ball,baseball bat,bench,bicycle",
    "horsejump-low": "bench,car,motorcycle",
    "kite-walk": "kite,surfboard,boat,backpack",
    "lucia": "person,backpack,handbag,bench,sports ball",
    "mallard-fly": "",
    "mallard-water": "",
    "motocross-bumps": "person,motorcycle,car",
    "motorbike": "vase,car,backpack,suitcase",
    "paragliding": "car,bus,truck",
    "rollerblade": "skateboard",
    "scooter-gray": "person,motorcycle,bicycle,car,traffic light,stop sign,parking meter,clock,suitcase",
    "soccerball": "",
    "stroller": "person,vase,bowl,umbrella,teddy bear,handbag,suitcase,clock,tv,bird,car,bottle,cake,bed,kite",
    "surf": "boat,surfboard,kite,person",
    "swing": "person,bench",
    "tennis": "person,sports ball,tennis racket,bench",
    "train": "person,car,truck,bus,bench,traffic light",
}


class Davis16Clips(FolderClips):
    """DAVIS-2016 (480p), every frame annotated; every query is about the whole foreground, rider and bike together.

        ROOT/JPEGImages/480p/VIDEO/NNNNN.jpg
        ROOT/Annotations/480p/VIDEO/NNNNN.png             0 and 255
        ROOT/ImageSets/480p/{train,val}.txt               a frame a line (or ImageSets/2016, a video a line)
        ROOT/meta_expressions.json                        in the form of Refer-YouTube-VOS

    Instead of the JSON the text files of Khoreva et al. are read, ROOT/davis_text_annotations/Davis16_annot*.txt.

    Args:
        root: The data set's folder.
        split: "train" or "val": the official lists, or where there is no val.txt (the training videos alone) our
            development split; "dev": the latter's validation videos; "all": every video with expressions.
        expressions: A JSON, a text file or a folder of them.
        videos: Read these alone, whatever the split.

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
                # The frames are those of the folder, as every one of them is annotated.
                video: replace(
                    described[video],
                    queries=tuple(replace(query, object_id=None) for query in described[video].queries),
                    frames=(),
                )
                for video in chosen
            },
            dense=True,
        )


class DavisDataset(ClipsDataset):
    """Random frames of DAVIS-2016 videos: `ClipsDataset` over `Davis16Clips`, with what is known of their scenery.

    Args:
        root: the data set's folder.
        size: (H,W) of the samples' images.
        flow_size: (h,w) of the samples' flow.
        expressions: the expressions' file; see `Davis16Clips`.
        videos: the videos to use, or a split of `Davis16Clips`, or None for all with expressions.
        flow: stored flow of these videos, zeros when None.
        distractors: further sentences that may be tried as absent ones; those of the other videos are always tried.
        augmentation: how samples are varied.

    Raises:
        UserError: a folder, file or mask is missing or does not fit; the message says which.
    """

    def __init__(
        self,
        root: str | Path,
        *,
        size: tuple[int, int],
        flow_size: tuple[int, int],
        expressions: str | Path | None = None,
        videos: Sequence[str] | str | None = "train",
        flow: FlowCache | None = None,
        distractors: Sequence[str] = (),
        augmentation: Augmentation | None = None,
    ) -> None:
        split = videos if isinstance(videos, str) else "all"
        chosen = None if videos is None or isinstance(videos, str) else videos
        super().__init__(
            Davis16Clips(root, split=split, expressions=expressions, videos=chosen),
            size=size,
            flow_size=flow_size,
            flow=flow,
            scenery=SCENERY,
            distractors=distractors,
            augmentation=augmentation,
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
        raise UserError(f"no video of the split '{split}' has expressions: list the videos to use instead")
    return chosen


def _listed(root: Path, split: str) -> tuple[str, ...] | None:
    """The videos of an official list, None where there is none."""
    for year in ("480p", "2016"):
        path = root / "ImageSets" / year / f"{split}.txt"
        if path.is_file():
            lines = path.read_text(encoding="utf-8").split("\n")
            # /JPEGImages/480p/VIDEO/NNNNN.jpg /Annotations/..., a line per frame; elsewhere the names of the videos.
            return tuple(dict.fromkeys(_video_of(line.split()[0]) for line in lines if line.strip()))
    return None


def _video_of(entry: str) -> str:
    return Path(entry).parent.name if "/" in entry.strip("/") else entry.strip("/")
