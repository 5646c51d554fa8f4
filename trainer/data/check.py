"""Check of a data set: present files, missing files and where to get them."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from rvos_edge.errors import UserError
from rvos_edge.streaming.sources import IMAGE_SUFFIXES
from rvos_edge.trainer.data.datasets import DATASETS, dataset_of
from rvos_edge.trainer.data.readers.base import AnnotatedClips, image_paths
from rvos_edge.trainer.data.readers.coco import CocoDataset
from rvos_edge.trainer.data.readers.coco_file import DataWarning
from rvos_edge.trainer.data.readers.expression_files import MissingExpressionsError
from rvos_edge.trainer.data.readers.images import check_sizes

_SAMPLED_VIDEOS, _SAMPLED_FRAMES = 24, 2

_LAYOUTS: dict[str, Any] = yaml.safe_load(Path(__file__).with_name("layouts.yaml").read_text(encoding="utf-8"))


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
    if name not in _LAYOUTS:
        raise UserError(f"--dataset {name} is unknown: choose one of {', '.join(_LAYOUTS)}")
    if not root.is_dir():
        raise UserError(f"--root {root} does not exist: give the folder of the data set")
    layout = _LAYOUTS[name]
    findings = [_row(root, row, layout["source"], expressions) for row in layout["rows"]]
    for split, facts in layout.get("splits", {}).items():
        folder = facts.get("where")
        if folder is None or (root / folder).is_dir():
            reader = partial(
                DATASETS[dataset_of(name)].reader, root, split=split, expressions=None if folder else expressions
            )
            findings.append(_split(split, reader, layout["source"], needed=folder is None, published=facts))
    return findings + (list(_coco(root, layout["source"])) if name == "coco" else [])


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


def _row(root: Path, row: Mapping[str, Any], source: str, expressions: Path | None) -> DataFinding:
    """The finding on a row of layouts.yaml; a pattern of .jpg stands for every kind of image."""
    names = [row["path"]] if isinstance(row["path"], str) else row["path"]
    name = next((name for name in names if (root / name).exists()), names[0])
    path = expressions if expressions is not None and row.get("given") else root / name
    item, needed = row.get("item", name), row.get("needed", True)
    found, missing = (path.name, "") if path.exists() else ("", "the file")
    if "files" in row:
        pattern = row["files"] if isinstance(row["files"], str) else row["files"][names.index(name)]
        stem, dot, suffix = pattern.rpartition(".")
        kinds = IMAGE_SUFFIXES if suffix == "jpg" else {dot + suffix}
        files = [one for one in path.glob(f"{stem}.*") if one.suffix.lower() in kinds and one.name[0] != "."]
        groups = len({one.parent for one in files})
        found = f"{len(files)} files" + (f" in {groups} folders" if groups > 1 else "") if files else ""
        missing = "" if files else "all of it"
    elif "all_of" in row:
        pattern, count = row["all_of"]
        if 0 < len(list(path.glob(pattern))) < count:
            needed, missing = True, f"some of the {count} files"
    return DataFinding(item, row.get("holds", name), found, missing, needed, row.get("source", source))


def _coco(root: Path, source: str) -> Iterator[DataFinding]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DataWarning)  # said in full below
            coco = CocoDataset(root, size=(32, 32), flow_size=(4, 4))
    except UserError as error:
        yield DataFinding("pictures", "every annotated image", "", str(error), source=source)
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
    yield DataFinding("pictures", "every annotated image", found, "; ".join(wrong), source=source)
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


def _split(
    split: str, open_clips: Callable[[], AnnotatedClips], source: str, *, needed: bool, published: Mapping[str, Any]
) -> DataFinding:
    """Open a split and read a sample of its frames; ``published``: its numbers of videos and expressions, if known."""
    item, expected = f"split {split}", "expressions, frames and masks that fit"
    try:
        clips = open_clips()
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
    if "videos" in published:
        here = {"videos": len(clips.videos), "expressions": queries}
        less = [f"{published[what]:,} {what}" for what in here if published.get(what, here[what]) != here[what]]
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
