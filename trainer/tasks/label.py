"""Training data from a teacher's masks: videos are labelled, looked at, corrected, and laid out for training.

DATA/labels.json               queries, teacher and least confidence
DATA/labels/VIDEO.json         COCO: every frame's masks with their confidence; corrections take its place
DATA/labels/VIDEO.png          contact sheet
DATA/{train,valid_u}/          the frames that are sure, in the layout of MeViS; the last fifth of a video is kept
                               from training, as validation
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as mask_utils
from pydantic import Field
from rich.console import Console

from rvos_edge.atomic import make_folders, new_file, only_writer, write_output
from rvos_edge.errors import UserError
from rvos_edge.outputs import check_inputs, mark_png, names_path
from rvos_edge.progress import follow
from rvos_edge.queries import Query, TaughtQuery
from rvos_edge.result import coco_entry
from rvos_edge.rle import encode_rle
from rvos_edge.streaming.ledger import Ledger
from rvos_edge.streaming.overlay import contact_sheet, draw_masks
from rvos_edge.streaming.sources import Frame, Source, natural_order, open_source, output_name, source_files
from rvos_edge.strict import StrictModel
from rvos_edge.text import check_queries
from rvos_edge.trainer.data.convert import read_annotations
from rvos_edge.trainer.data.readers.images import read_image
from rvos_edge.trainer.teachers import Teacher

_FACTS, _LABELS = "labels.json", "labels"
_SEGMENT = 60
"""Frames that a teacher sees at once."""
_VALIDATION = 5
"""Share kept from training, one frame of this many: the last ones of a video, as neighbours are much alike."""
_TILES, _COLUMNS, _TILE = 40, 5, 320
"""Most pictures of a contact sheet, pictures side by side, and their width in pixels."""


class LabelFacts(StrictModel):
    """Facts that all labels of a folder share: the file ``labels.json``."""

    queries: list[str] = Field(min_length=1)
    teacher: str
    every: int = Field(default=1, ge=1)
    """Every n-th frame of a video is labelled."""
    confidence: float = Field(default=0.6, ge=0, le=1)
    """Least confidence, in each of the queries, of a frame that is trained with."""


class _Row(NamedTuple):
    """Run lengths of each query's mask, None for an empty one, and the least confidence of a frame."""

    masks: list[dict[str, Any] | None]
    confidence: float


def sentences_of(queries: Sequence[Query]) -> list[str]:
    """The sentences that a specialist learns: of a taught query the one that it began with.

    Raises:
        UserError: Two queries have the same sentence, or one is empty.
    """
    said = check_queries([query.sentence if isinstance(query, TaughtQuery) else query for query in queries])
    again = [sentence for sentence, count in Counter(said).items() if count > 1]
    if again:
        raise UserError(f"two queries say '{again[0]}', and masks are told apart by their sentences; reword one.")
    return list(said)


def label(sources: Sequence[str], teacher: Teacher, facts: LabelFacts, output: Path, *, console: Console) -> None:
    """Label videos, or go on after the last frames that were labelled, and lay out what is sure for training.

    Videos that are labelled already are left as they are, corrections included; only the least confidence may differ.

    Raises:
        UserError: A source cannot be read or is live, the folder is another's or of other labels, or no frame is sure.
    """
    names = [output_name(source) for source in sources]
    if len(set(names)) < len(names):
        raise UserError(f"two sources have the name '{Counter(names).most_common(1)[0][0]}'; rename one.")
    check_inputs([output], [path for source in sources for path in source_files(source)])
    _check_folder(output, facts)
    make_folders(output)
    with only_writer(output):
        with names_path(output / _FACTS), new_file(output / _FACTS) as file:
            file.write_text(facts.model_dump_json(indent=2) + "\n", encoding="utf-8")
        for name, spec in zip(names, sources, strict=True):
            if not (output / _LABELS / f"{name}.json").exists():
                with open_source(spec) as source:
                    _label_video(source, name, teacher, facts, output, console)
    lay_out(output, console=console)


def lay_out(data: Path, *, console: Console) -> None:
    """Write the training layout and the contact sheets of labelled videos, after labelling and after corrections.

    A picture without confidences was corrected by people and is sure.

    Raises:
        UserError: The folder or a file of it is damaged, a label is none of the queries, or no frame is sure.
    """
    facts = _read_facts(data)
    parts: dict[str, dict[str, Any]] = {"train": {}, "valid_u": {}}
    masks: dict[str, dict[str, list[Any]]] = {"train": {}, "valid_u": {}}
    for path in sorted((data / _LABELS).glob("*.json")):
        video = path.stem
        rows = _read_video(data, path, facts.queries)
        sure = [name for name, row in rows.items() if row.confidence >= facts.confidence]
        held = len(sure) // _VALIDATION
        for part, names in (("train", sure[: len(sure) - held]), ("valid_u", sure[len(sure) - held :])):
            if names:
                _take_pictures(data, part, video, names)
                entries = enumerate(facts.queries)
                said = {str(row): {"exp": text, "anno_id": [f"{video}/{row}"]} for row, text in entries}
                parts[part][video] = {"expressions": said, "frames": names}
                for row in range(len(facts.queries)):
                    masks[part][f"{video}/{row}"] = [rows[name].masks[row] for name in names]
        _draw_sheet(data, video, rows, facts)
        console.print(
            f"{video}: {len(sure)} of {len(rows)} frames are sure, {held} of them kept for validation; "
            f"look at {data / _LABELS / video}.png",
            soft_wrap=True,
            highlight=False,
        )
    if not parts["valid_u"]:
        raise UserError(
            f"{data} has no video with {_VALIDATION} frames that are sure: look at {data / _LABELS}/*.png, and lower "
            "--confidence, reword the queries or take another teacher."
        )
    for part, videos in parts.items():
        for name, document in (("meta_expressions.json", {"videos": videos}), ("mask_dict.json", masks[part])):
            with names_path(data / part / name), new_file(data / part / name) as file:
                file.write_text(json.dumps(document), encoding="utf-8")


def _check_folder(output: Path, facts: LabelFacts) -> None:
    if not output.exists() or (output.is_dir() and not any(output.iterdir())):
        return
    if not (output / _FACTS).is_file():
        raise UserError(f"{output} holds what rvos-edge label did not write; choose another --output.")
    before = _read_facts(output)
    other = [key for key in ("queries", "teacher", "every") if getattr(before, key) != getattr(facts, key)]
    if other:
        raise UserError(f"{output} was labelled with another {', '.join(other)}; choose another --output.")


def _read_facts(data: Path) -> LabelFacts:
    try:
        return LabelFacts.model_validate_json((data / _FACTS).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{data} has no readable {_FACTS}; give a folder that rvos-edge label wrote.") from error


def _label_video(
    source: Source, name: str, teacher: Teacher, facts: LabelFacts, output: Path, console: Console
) -> None:
    if source.live:
        raise UserError(f"{source.name} is live; record it first, and label the file.")
    folder = output / "train" / "JPEGImages" / name
    ledger = Ledger(output / _LABELS / f".{name}.jsonl", {"source": source.name, "frames": source.length})
    length = None if source.length is None else -(-source.length // facts.every)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    frames = islice(source, 0, None, facts.every)
    for segment in _segments(follow(frames, name, console, total=length)):
        key = segment[0].name
        row = ledger.get("segment", key)
        if row is None:
            found = list(teacher([frame.image for frame in segment]))
            with names_path(folder):
                folder.mkdir(parents=True, exist_ok=True)
                for frame in segment:
                    done, data = cv2.imencode(".jpg", frame.image, [cv2.IMWRITE_JPEG_QUALITY, 95])
                    assert done
                    (folder / f"{frame.name}.jpg").write_bytes(data.tobytes())
            labelled = zip(segment, found, strict=True)
            row = ledger.put("segment", key, {"frames": [_entry(frame, *labels) for frame, labels in labelled]})
        for image, objects in row["frames"]:
            images.append({"id": len(images) + 1, **image})
            annotations += [
                {"id": len(annotations) + n, "image_id": len(images), **o} for n, o in enumerate(objects, 1)
            ]
    document = {
        "rvos-edge": "label",
        "annotations": annotations,
        "images": images,
        "categories": [{"id": number, "name": text} for number, text in enumerate(facts.queries, 1)],
    }
    write_output(output / _LABELS / f"{name}.json", json.dumps(document))
    ledger.remove()


def _segments(frames: Iterator[Frame]) -> Iterator[list[Frame]]:
    """Frames in lists of one size, copied, as a source may use its memory again."""
    segment: list[Frame] = []
    for frame in frames:
        if segment and (len(segment) == _SEGMENT or segment[0].image.shape != frame.image.shape):
            yield segment
            segment = []
        segment.append(replace(frame, image=frame.image.copy()))
    if segment:
        yield segment


def _entry(
    frame: Frame, masks: NDArray[np.bool_], confidence: NDArray[np.float32]
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """COCO's image and annotations of a frame, without their ids."""
    scores = [round(float(value), 4) for value in confidence]
    height, width = masks.shape[1:]
    image = {"file_name": f"{frame.name}.jpg", "height": height, "width": width, "confidence": scores}
    objects = [
        {"category_id": row + 1, "track_id": row + 1, "score": scores[row], **coco_entry(mask)}
        for row, mask in enumerate(masks)
        if mask.any()
    ]
    return image, objects


def _read_video(data: Path, path: Path, queries: Sequence[str]) -> dict[str, _Row]:
    """The frames of a labelled video by their names, in order of time."""
    rows = {}
    for picture in read_annotations(path):
        name = Path(picture.file).stem
        if not (data / "train" / "JPEGImages" / path.stem / f"{name}.jpg").is_file():
            raise UserError(
                f"{path}: the picture {picture.file} is none of {path.stem}'s; keep the names of the frames."
            )
        masks = np.zeros((len(queries), *picture.size), np.bool_)
        for found in picture.objects:
            if found.label not in queries:
                raise UserError(f"{path}: the label '{found.label}' is none of {', '.join(queries)}; rename it.")
            masks[queries.index(found.label)] |= found.mask
        lengths = [{"size": list(mask.shape), "counts": encode_rle(mask)} if mask.any() else None for mask in masks]
        rows[name] = _Row(lengths, 1.0)
    for image in json.loads(path.read_text(encoding="utf-8-sig"))["images"]:
        name = Path(image["file_name"]).stem
        rows[name] = rows[name]._replace(confidence=min(image.get("confidence", [1.0])))
    return {name: rows[name] for name in sorted(rows, key=natural_order)}


def _take_pictures(data: Path, part: str, video: str, names: Sequence[str]) -> None:
    source, target = (data / one / "JPEGImages" / video for one in ("train", part))
    with names_path(target):
        target.mkdir(parents=True, exist_ok=True)
        for name in names:
            if not (target / f"{name}.jpg").exists():
                with new_file(target / f"{name}.jpg") as temporary:
                    shutil.copyfile(source / f"{name}.jpg", temporary)


def _draw_sheet(data: Path, video: str, rows: Mapping[str, _Row], facts: LabelFacts) -> None:
    """Frames evenly spread with their masks and confidence; those that are left out are dark."""
    names = list(rows)
    tiles, captions = [], []
    for index in np.unique(np.linspace(0, len(names) - 1, min(_TILES, len(names))).astype(int)):
        row = rows[names[index]]
        image = read_image(data / "train" / "JPEGImages" / video / f"{names[index]}.jpg")
        empty = np.zeros(image.shape[:2], np.uint8)
        masks = np.stack([empty if coded is None else mask_utils.decode(coded) for coded in row.masks])
        drawn = draw_masks(image, masks.astype(np.bool_))
        size = (_TILE, round(_TILE * drawn.shape[0] / drawn.shape[1]))
        tile = np.asarray(cv2.resize(drawn, size, interpolation=cv2.INTER_AREA), np.uint8)
        sure = row.confidence >= facts.confidence
        tiles.append(tile if sure else tile // 3)
        captions.append(f"{names[index]}: {row.confidence:.2f}" + ("" if sure else ", left out"))
    sheet = contact_sheet(tiles, _COLUMNS, captions)
    write_output(data / _LABELS / f"{video}.png", mark_png(cv2.imencode(".png", sheet)[1].tobytes()))
