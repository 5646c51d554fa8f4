"""Check of a data set: present files, missing files and where to get them."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from rvos_edge.errors import UserError
from rvos_edge.streaming.sources import IMAGE_SUFFIXES
from rvos_edge.trainer.data.readers.a2d import A2dClips, find_annotation
from rvos_edge.trainer.data.readers.base import AnnotatedClips, image_paths
from rvos_edge.trainer.data.readers.coco import CocoDataset
from rvos_edge.trainer.data.readers.coco_file import DataWarning
from rvos_edge.trainer.data.readers.davis16 import Davis16Clips
from rvos_edge.trainer.data.readers.davis17 import Davis17Clips
from rvos_edge.trainer.data.readers.expression_files import MissingExpressionsError
from rvos_edge.trainer.data.readers.images import check_sizes
from rvos_edge.trainer.data.readers.jhmdb import JhmdbClips
from rvos_edge.trainer.data.readers.mevis import MevisClips
from rvos_edge.trainer.data.readers.refcoco import RefCocoClips, find_images
from rvos_edge.trainer.data.readers.youtube_vos import YouTubeVosClips

_SAMPLED_VIDEOS, _SAMPLED_FRAMES = 24, 2

_DAVIS16 = "https://davischallenge.org/davis2016/code.html"
_DAVIS17 = "https://davischallenge.org/davis2017/code.html (TrainVal, 480p)"
_DAVIS_TEXT = (
    "https://www.mpi-inf.mpg.de/departments/computer-vision-and-machine-learning/research/video-segmentation/"
    "video-object-segmentation-with-language-referring-expressions"
)
_YOUTUBE = "https://youtube-vos.org/dataset/rvos/ (registration)"
_MEVIS = "https://github.com/henghuiding/MeViS"
_A2D = "https://web.eecs.umich.edu/~jjcorso/r/a2d/"
_SENTENCES = "https://kgavrilyuk.github.io/publication/actor_action/"
_JHMDB = "http://jhmdb.is.tue.mpg.de/"
_COCO = "https://cocodataset.org/#download"
_REFER = "https://github.com/lichengunc/refer"

_PUBLISHED: dict[str, tuple[int, int | None]] = {
    "davis16 train": (30, None),
    "davis16 val": (20, None),
    "davis17 train": (60, None),
    "davis17 val": (30, None),
    "youtube_vos train": (3471, None),
    "youtube_vos valid": (202, None),
    "youtube_vos test": (305, None),
    "a2d train": (3017, 5359),
    "a2d test": (737, 1295),
    "jhmdb test": (928, 928),
}
"""Videos and sentences of the published splits, as the literature counts them; None where it does not agree."""
Open = Callable[..., AnnotatedClips]


@dataclass(frozen=True)
class DataFinding:
    """A row of the table: a folder, file or split, its expected content, what was found, and what is missing or wrong.

    ``needed``: the data set is useless without it; ``source`` is the address of the download.
    """

    item: str
    expected: str
    found: str
    missing: str = ""
    needed: bool = True
    source: str = ""


def check_dataset(name: str, root: Path, *, expressions: Path | None = None) -> list[DataFinding]:
    """Check a data set: its folders and files, then every split as training and evaluation open it.

    Of every split at most two frames of 24 videos are read, and the sizes of masks and images compared.

    Raises:
        UserError: The data set is unknown, or the folder does not exist.
    """
    if name not in DATASETS:
        raise UserError(f"--dataset {name} is unknown: choose one of {', '.join(DATASETS)}")
    if not root.is_dir():
        raise UserError(f"--root {root} does not exist: give the folder of the data set")
    return list(DATASETS[name](root, expressions))


def is_complete(findings: Sequence[DataFinding]) -> bool:
    """True if everything that is needed is present."""
    return not any(finding.missing and finding.needed for finding in findings)


def as_lines(findings: Sequence[DataFinding]) -> Iterator[tuple[str, str]]:
    """The findings as lines with their colours: what is there, what is missing, and where to get that."""
    width = max(len(finding.item) for finding in findings)
    for row in findings:
        state, style = ("ok", "") if not row.missing else (("missing", "red") if row.needed else ("optional", "yellow"))
        yield f"{state:8}  {row.item:{width}}  {row.found or row.expected}", style
        if row.missing:
            yield f"          {row.missing}", style
            if row.source:
                yield f"          {row.source}", style


def _davis16(root: Path, expressions: Path | None) -> Iterator[DataFinding]:
    yield _folder(root, "JPEGImages/480p", "*/*.jpg", "VIDEO/NNNNN.jpg", _DAVIS16)
    yield _folder(root, "Annotations/480p", "*/*.png", "VIDEO/NNNNN.png", _DAVIS16)
    lists = _existing(root, "ImageSets/480p/val.txt", "ImageSets/2016/val.txt")
    yield _file(lists, "ImageSets val.txt", "the official split (ours without it)", _DAVIS16, needed=False)
    path = expressions or _existing(root, "meta_expressions.json", "davis_text_annotations")
    yield _file(path, "expressions", "JSON, or Davis16_annot*.txt", _DAVIS_TEXT, needed=False)
    for split in ("train", "val"):
        reader = partial(Davis16Clips, root, expressions=expressions)
        yield _split(split, reader, _DAVIS16, published=_PUBLISHED[f"davis16 {split}"])


def _davis17(root: Path, expressions: Path | None) -> Iterator[DataFinding]:
    yield _folder(root, "JPEGImages/480p", "*/*.jpg", "VIDEO/NNNNN.jpg", _DAVIS17)
    yield _folder(root, "Annotations/480p", "*/*.png", "VIDEO/NNNNN.png, object ids", _DAVIS17)
    yield _folder(root, "ImageSets/2017", "*.txt", "train.txt, val.txt", _DAVIS17)
    path = expressions or _existing(
        root, "davis_text_annotations", "../davis_text_annotations", "meta_expressions", "meta_expressions.json"
    )
    files = sorted(path.glob("Davis17_annot*.txt")) if path.is_dir() else [path]
    wanted = "four Davis17_annot*.txt, or JSON"
    short = path.is_dir() and path.name == "davis_text_annotations" and len(files) < 4
    absent = "some of the four files" if short else ""
    yield _file(path, "expressions", wanted, _DAVIS_TEXT, missing=absent, needed=short)
    for split in ("train", "val"):
        reader = partial(Davis17Clips, root, expressions=expressions)
        yield _split(split, reader, _DAVIS17, published=_PUBLISHED[f"davis17 {split}"])


def _youtube_vos(root: Path, expressions: Path | None) -> Iterator[DataFinding]:
    for split in ("train", "valid", "test"):
        needed = split == "train"
        images, masks = f"{split}/JPEGImages", f"{split}/Annotations"
        yield _folder(root, images, "*/*.jpg", "VIDEO/NNNNN.jpg", _YOUTUBE, needed=needed)
        if needed:
            yield _folder(root, masks, "*/*.png", "VIDEO/NNNNN.png, object ids", _YOUTUBE)
        path = root / "meta_expressions" / split / "meta_expressions.json"
        given = expressions if needed and expressions else path
        yield _file(given, f"{split} expressions", str(path.relative_to(root)), _YOUTUBE, needed=False)
        if needed or (root / images).is_dir():
            reader = partial(YouTubeVosClips, root, expressions=expressions if needed else None)
            yield _split(split, reader, _YOUTUBE, needed=needed, published=_PUBLISHED[f"youtube_vos {split}"])


def _mevis(root: Path, expressions: Path | None) -> Iterator[DataFinding]:
    for split in ("train", "valid_u", "valid"):
        needed = split == "train"
        yield _folder(root, f"{split}/JPEGImages", "*/*.jpg", "VIDEO/NNNNN.jpg", _MEVIS, needed=needed)
        given = expressions if needed and expressions else root / split / "meta_expressions.json"
        yield _file(given, f"{split} expressions", "meta_expressions.json", _MEVIS, needed=needed)
        if split != "valid":
            masks = root / split / "mask_dict.json"
            yield _file(masks, f"{split} masks", "mask_dict.json", _MEVIS, needed=needed)
        if needed or (root / split / "JPEGImages").is_dir():
            reader = partial(MevisClips, root, expressions=expressions if needed else None)
            yield _split(split, reader, _MEVIS, needed=needed)


def _a2d(root: Path, expressions: Path | None) -> Iterator[DataFinding]:
    yield _file(root / "Release" / "videoset.csv", "Release/videoset.csv", "the split", _A2D)
    frames = "clips320H/*.mp4" if not (root / "Release" / "pngs320H").is_dir() else "pngs320H/*/*.png"
    folder, _, pattern = frames.partition("/")
    yield _folder(root, f"Release/{folder}", pattern, "VIDEO.mp4, or pngs320H/VIDEO/NNNNN.png", _A2D)
    name = "a2d_annotation.txt"
    yield _file(expressions or find_annotation(root, name), name, "video_id,instance_id,query", _SENTENCES)
    folder_of_masks = find_annotation(root, "a2d_annotation_with_instances")
    yield _folder(folder_of_masks.parent, folder_of_masks.name, "*/*.h5", "VIDEO/NNNNN.h5", _SENTENCES)
    missed = "a2d_missed_videos.txt"
    yield _file(find_annotation(root, missed), missed, "videos without sentences", _SENTENCES, needed=False)
    for split in ("train", "test"):
        reader = partial(A2dClips, root, expressions=expressions)
        yield _split(split, reader, _SENTENCES, published=_PUBLISHED[f"a2d {split}"])


def _jhmdb(root: Path, expressions: Path | None) -> Iterator[DataFinding]:
    yield _folder(root, "Rename_Images", "*/*/*.png", "ACTION/VIDEO/NNNNN.png", _JHMDB)
    yield _folder(root, "puppet_mask", "*/*/puppet_mask.mat", "ACTION/VIDEO/puppet_mask.mat", _JHMDB)
    name = "jhmdb_annotation.txt"
    yield _file(expressions or root / name, name, "video_id,query", _SENTENCES)
    reader = partial(JhmdbClips, root, expressions=expressions)
    yield _split("test", reader, _JHMDB, published=_PUBLISHED["jhmdb test"])


def _refcoco(root: Path, expressions: Path | None) -> Iterator[DataFinding]:
    yield from _pictures(root)
    path = expressions or root / "refs.json"
    yield _file(path, "references", "refs.json, converted from refs(unc).p", _REFER)
    yield _split("all", partial(RefCocoClips, root, expressions=expressions), _REFER)


def _coco(root: Path, expressions: Path | None) -> Iterator[DataFinding]:
    del expressions  # generated from the categories
    yield from _pictures(root)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DataWarning)  # said in full below
            coco = CocoDataset(root, size=(32, 32), flow_size=(4, 4))
    except UserError as error:
        yield DataFinding("pictures", "every annotated image", "", str(error), source=_COCO)
        return
    chosen = coco.pictures[:: max(1, len(coco.pictures) // (_SAMPLED_VIDEOS * _SAMPLED_FRAMES))]
    wrong = []
    for picture in chosen:
        try:
            coco.read(picture)
        except UserError as error:
            wrong.append(str(error))
    lacking = [picture.file for picture in coco.pictures if not coco.path(picture).is_file()]
    if lacking:
        wrong.insert(0, f"{len(lacking)} images, such as {lacking[0]}")
    found = f"{len(coco.pictures)} annotated images; {len(chosen)} read{'' if wrong else ', sizes agree'}"
    yield DataFinding("pictures", "every annotated image", found, "; ".join(wrong), source=_COCO)
    pairs = coco.pairs()
    counted = ", ".join(f"{name} {count}" for name, count in sorted(pairs.items(), key=lambda item: -item[1]))
    without = ", ".join(name for name in coco.kinds if not pairs.get(name))
    yield DataFinding(
        f"{len(coco.kinds)} categories",
        "objects that sentences can be about",
        counted,
        f"none of {without}" if without else "",
        needed=not pairs,
        source="only absent ones are drawn of these: too small (0.5 %), crowds, or not in the file",
    )
    for reason, numbers in coco.file.refused.items():
        yield DataFinding("entries", "a category and an outline", "", f"{reason}: {', '.join(numbers)}", needed=False)


DATASETS: dict[str, Callable[[Path, Path | None], Iterator[DataFinding]]] = {
    "davis16": _davis16,
    "davis17": _davis17,
    "youtube_vos": _youtube_vos,
    "mevis": _mevis,
    "a2d": _a2d,
    "jhmdb": _jhmdb,
    "coco": _coco,
    "refcoco": _refcoco,
}
"""Checks by the data set's name, as in training and evaluation."""


def _pictures(root: Path) -> Iterator[DataFinding]:
    yield _file(root / "instances.json", "instances.json", "COCO instances", _COCO)
    images = find_images(root)
    yield _folder(images.parent, images.name, "**/*.jpg", "the images, or train2014", _COCO)


def _split(
    split: str, open_clips: Open, source: str, *, needed: bool = True, published: tuple[int, int | None] | None = None
) -> DataFinding:
    """Open a split and read a sample of its frames; ``published``: its number of videos, and of sentences if known."""
    item, expected = f"split {split}", "expressions, frames and masks that fit"
    try:
        clips = open_clips(split=split)
        masks = {video: clips.annotated(video) for video in clips.videos}
        frames = sum(len(clips.frames(video)) for video in clips.videos)
        queries = sum(len(clips.queries(video)) for video in clips.videos)
        found = (
            f"{len(clips.videos)} videos, {frames} frames, {sum(map(len, masks.values()))} with masks, "
            f"{queries} expressions"
        )
        read, wrong = _read_some(clips, masks)
    except UserError as error:
        needed = needed and not isinstance(error, MissingExpressionsError)  # sentences of one's own will do
        return DataFinding(item, expected, "", str(error), needed, source)
    bare = [video for video, indices in masks.items() if not indices]
    if bare and len(bare) < len(masks):
        wrong.append(f"{len(bare)} videos have no masks, such as {bare[0]}")
    found += f"; {read} frames read" + ("" if wrong else ", sizes agree")
    if published is not None:
        counts = ((len(clips.videos), published[0], "videos"), (queries, published[1], "expressions"))
        less = [f"{known:,} {what}" for here, known, what in counts if known is not None and here != known]
        found += f"; published: {', '.join(less)}" if less else "; as many as published"
    return DataFinding(item, expected, found, "; ".join(wrong[:3]), needed, source)


def _read_some(clips: AnnotatedClips, masks: dict[str, list[int]]) -> tuple[int, list[str]]:
    """Read frames and masks spread over the split; returns their number and the errors."""
    wrong: list[str] = []
    read = annotated = shown = 0
    for video in clips.videos[:: max(1, len(clips.videos) // _SAMPLED_VIDEOS)][:_SAMPLED_VIDEOS]:
        indices = masks[video] or list(range(len(clips.frames(video))))
        for index in dict.fromkeys((indices[0], indices[len(indices) // 2])):
            try:
                image, truth = clips.image(video, index), clips.masks(video, index)
                if truth is not None:
                    check_sizes(truth.shape[1:], image.shape, clips.image_path(video, index))
                    annotated += 1
                    shown += bool(truth.any())
                read += 1
            except UserError as error:
                wrong.append(str(error))
        lost = [path for path in image_paths(clips, video) if not path.is_file()]
        if lost:
            wrong.append(f"{len(lost)} frames of '{video}' are missing, such as {lost[0]}")
    if annotated and not shown:
        wrong.append("no mask shows an object that the expressions name: their object ids are of another data set")
    return read, wrong


def _folder(root: Path, name: str, pattern: str, expected: str, source: str, *, needed: bool = True) -> DataFinding:
    """A row for the files of a folder; a pattern of .jpg stands for every kind of image."""
    stem, dot, suffix = pattern.rpartition(".")
    kinds = IMAGE_SUFFIXES if suffix == "jpg" else {dot + suffix}
    files = [path for path in (root / name).glob(f"{stem}.*") if path.suffix.lower() in kinds and path.name[0] != "."]
    count, groups = len(files), len({path.parent for path in files})
    found = f"{count} files" + (f" in {groups} folders" if groups > 1 else "")
    return DataFinding(name, expected, found if count else "", "" if count else "all of it", needed, source)


def _file(path: Path, item: str, expected: str, source: str, *, needed: bool = True, missing: str = "") -> DataFinding:
    there = path.exists()
    return DataFinding(item, expected, path.name if there else "", missing if there else "the file", needed, source)


def _existing(root: Path, *names: str) -> Path:
    return next((root / name for name in names if (root / name).exists()), root / names[0])
