"""Annotations from one tool's form to another's: COCO, CVAT for images or video, Label Studio."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import closing
from enum import Enum
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as mask_utils

from rvos_edge.annotations import (
    AnnotatedObject,
    AnnotatedPicture,
    CocoWriter,
    CvatWriter,
    LabelStudioWriter,
)
from rvos_edge.atomic import PendingFile
from rvos_edge.errors import UserError
from rvos_edge.outputs import check_outputs, names_path
from rvos_edge.trainer.data.readers.coco_file import parse_instance


class Form(str, Enum):
    """A form of annotations that can be read and written."""

    COCO = "coco"
    CVAT = "cvat"
    LABEL_STUDIO = "label-studio"


_WRITERS: dict[Form, type[CocoWriter] | type[CvatWriter] | type[LabelStudioWriter]] = {
    Form.COCO: CocoWriter,
    Form.CVAT: CvatWriter,
    Form.LABEL_STUDIO: LabelStudioWriter,
}


def convert(source: str | Path, output: str | Path, to: Form | None = None) -> str:
    """Convert a file of annotations.

    Masks, labels, file names, tracks and scores are kept; polygons and boxes become masks.

    Args:
        source: COCO (.json), Label Studio's tasks (.json), or CVAT (.xml) for images or for video.
        output: Gets its name when it is whole.
        to: Form of the output; CVAT for .xml and COCO for .json if None.

    Returns:
        What was done, in a sentence or two.

    Raises:
        UserError: The source cannot be read, or the output cannot be written.
    """
    source, output = Path(source), Path(output)
    suffixes = {".xml": Form.CVAT, ".json": Form.COCO}
    to = to or suffixes.get(output.suffix.lower())
    if to is None or (output.suffix.lower() == ".xml") != (to is Form.CVAT):
        raise UserError(f"{output} must end in .xml for CVAT and in .json for the others; choose such a name")
    check_outputs([output], [source])
    left_out: Counter[str] = Counter()
    pictures = read_annotations(source, left_out)
    file = PendingFile(output)
    try:
        with names_path(output), file.partial.open("w", encoding="utf-8") as out:
            counts = Counter[str]()
            with closing(_WRITERS[to](out)) as writer:
                for picture in pictures:
                    writer.add(picture)
                    counts.update(pictures=1, objects=len(picture.objects))
                writer.finish()
        file.commit()
    except BaseException:
        file.discard()
        raise
    said = f"Wrote {output}: {counts['pictures']} pictures, {counts['objects']} objects."
    return said + "".join(f" Left out: {number} {what}." for what, number in sorted(left_out.items()))


def read_annotations(path: Path, left_out: Counter[str] | None = None) -> Iterator[AnnotatedPicture]:
    """The annotated pictures of a file, by its form; ``left_out`` counts what cannot be taken.

    Raises:
        UserError: The file cannot be read.
    """
    left_out = Counter() if left_out is None else left_out
    try:
        if path.suffix.lower() == ".xml":
            yield from _read_cvat(ElementTree.parse(path).getroot(), left_out)
            return
        content = json.loads(path.read_text(encoding="utf-8-sig"))
        if isinstance(content, list):
            yield from _read_label_studio(content, left_out)
        else:
            yield from _read_coco(content, left_out)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}; give a file of annotations") from error
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, ElementTree.ParseError) as error:
        raise UserError(
            f"{path} is neither COCO's instances, tasks of Label Studio nor CVAT's XML ({error!r}); export it again"
        ) from error


def _read_coco(content: dict[str, Any], left_out: Counter[str]) -> Iterator[AnnotatedPicture]:
    labels = {str(category["id"]): str(category["name"]) for category in content["categories"]}
    entries: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for entry in content["annotations"]:
        entries[str(entry["image_id"])].append(entry)
    for image in content["images"]:
        size, objects = (int(image["height"]), int(image["width"])), []
        for entry in entries[str(image["id"])]:
            instance = parse_instance(entry, labels[str(entry["category_id"])], size)
            if instance.guessed:
                left_out["entries without an outline"] += 1
                continue
            parts = [_polygon_mask(part.tolist(), size) for part in instance.polygons]
            mask = np.logical_or.reduce(parts) if parts else instance.mask(size)
            objects.append(AnnotatedObject(instance.category, mask, entry.get("track_id"), entry.get("score")))
        yield AnnotatedPicture(str(image["file_name"]), size, objects)


def _read_cvat(root: ElementTree.Element, left_out: Counter[str]) -> Iterator[AnnotatedPicture]:
    if root.tag != "annotations":
        raise ValueError("its root is not 'annotations'")
    for image in root.iter("image"):
        size = int(image.attrib["height"]), int(image.attrib["width"])
        shapes = (_cvat_object(shape, shape.attrib["label"], size, left_out) for shape in image)
        yield AnnotatedPicture(image.attrib["name"], size, [found for found in shapes if found is not None])
    original = root.find(".//original_size")
    if original is None:
        return
    size = int(original.findtext("height", "")), int(original.findtext("width", ""))
    frames: dict[int, list[AnnotatedObject]] = defaultdict(list)
    for track in root.iter("track"):
        for shape in track:
            if shape.get("outside") == "1":
                continue
            found = _cvat_object(shape, track.attrib["label"], size, left_out)
            if found is not None:
                number = found.track if found.track is not None else int(track.attrib["id"])
                frames[int(shape.attrib["frame"])].append(found._replace(track=number))
    for number in sorted(frames):
        yield AnnotatedPicture(f"frame_{number:06d}.PNG", size, frames[number])


def _cvat_object(
    shape: ElementTree.Element, label: str, size: tuple[int, int], left_out: Counter[str]
) -> AnnotatedObject | None:
    given = shape.attrib
    if shape.tag == "mask":
        left, top, width, height = (int(given[name]) for name in ("left", "top", "width", "height"))
        mask = np.zeros(size, np.bool_)
        inside = _from_runs([int(run) for run in given["rle"].split(",")]).reshape(height, width)
        mask[top : top + height, left : left + width] = inside
    elif shape.tag == "polygon":
        mask = _polygon_mask(
            [[float(value) for value in point.split(",")] for point in given["points"].split(";")], size
        )
    elif shape.tag == "box":
        x0, y0, x1, y1 = (float(given[name]) for name in ("xtl", "ytl", "xbr", "ybr"))
        mask = _polygon_mask([[x0, y0], [x1, y0], [x1, y1], [x0, y1]], size)
    else:
        left_out[f"shapes of the kind '{shape.tag}'"] += 1
        return None
    more = {attribute.attrib["name"]: attribute.text or "" for attribute in shape.iter("attribute")}
    track, score = more.get("track_id"), more.get("score")
    return AnnotatedObject(label, mask, int(track) if track else None, float(score) if score else None)


def _read_label_studio(tasks: list[dict[str, Any]], left_out: Counter[str]) -> Iterator[AnnotatedPicture]:
    for task in tasks:
        made = [one for one in task.get("annotations") or [] if not one.get("was_cancelled")]
        results = (made or task.get("predictions") or [{}])[0].get("result") or []
        data = task["data"]
        name = str(data.get("image") or task.get("file_upload") or "").rpartition("?d=")[2]
        sized = next((one for one in results if one.get("original_width")), None)
        if sized is None and not (data.get("width") and data.get("height")):
            left_out["pictures without annotations, of which no size is stated"] += 1
            continue
        size = (
            (int(data["height"]), int(data["width"]))
            if sized is None
            else (int(sized["original_height"]), int(sized["original_width"]))
        )
        found = (_label_studio_object(one, size, left_out) for one in results)
        yield AnnotatedPicture(name, size, [one for one in found if one is not None])


def _label_studio_object(
    result: dict[str, Any], size: tuple[int, int], left_out: Counter[str]
) -> AnnotatedObject | None:
    kind, value = str(result.get("type")), result.get("value", {})
    if kind not in ("brushlabels", "polygonlabels", "rectanglelabels") or not value.get(kind):
        left_out[f"results of the kind '{kind}'"] += 1
        return None
    height, width = size
    if kind == "brushlabels":
        mask = decode_brush(value["rle"], size)
    elif kind == "polygonlabels":
        mask = _polygon_mask([[x * width / 100, y * height / 100] for x, y in value["points"]], size)
    else:
        x0, y0 = value["x"] * width / 100, value["y"] * height / 100
        x1, y1 = x0 + value["width"] * width / 100, y0 + value["height"] * height / 100
        mask = _polygon_mask([[x0, y0], [x1, y0], [x1, y1], [x0, y1]], size)
    track = (result.get("meta") or {}).get("track_id")
    return AnnotatedObject(str(value[kind][0]), mask, track, result.get("score"))


def decode_brush(packed: Sequence[int], size: tuple[int, int]) -> NDArray[np.bool_]:
    """The mask bool [H,W] of Label Studio's brush, bytes in the form that ``annotations.encode_brush`` describes; a
    pixel is inside where its alpha is not 0.

    Raises:
        ValueError: It is of another size.
    """
    bits = "".join(f"{byte:08b}" for byte in packed)
    at = 0

    def take(count: int) -> int:
        nonlocal at
        at += count
        return int(bits[at - count : at], 2)

    number, width, sizes = take(32), take(5) + 1, [take(4) + 1 for _ in range(4)]
    if number != size[0] * size[1] * 4:
        raise ValueError(f"a brush mask has {number} values and its picture {size[0] * size[1] * 4}")
    values = np.zeros(number, np.uint8)
    start = 0
    while start < number:
        repeats, end = take(1), start + 1
        end += take(sizes[take(2)])
        values[start:end] = take(width) if repeats else [take(width) for _ in range(end - start)]
        start = end
    return np.ascontiguousarray(values.reshape(*size, 4)[..., 3] != 0)


def _from_runs(runs: Sequence[int]) -> NDArray[np.bool_]:
    return np.repeat(np.arange(len(runs)) % 2 == 1, runs)


def _polygon_mask(points: list[list[float]], size: tuple[int, int]) -> NDArray[np.bool_]:
    """The mask of a polygon, drawn as COCO draws it."""
    (rle,) = mask_utils.frPyObjects([np.ravel(points).tolist()], *size)
    return np.ascontiguousarray(mask_utils.decode(rle)).view(np.bool_)
