"""COCO's instances files, as they are published and as annotation tools export them."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as mask_utils

from rvos_edge.errors import UserError
from rvos_edge.trainer.data.readers.images import read_size
from rvos_edge.trainer.data.transforms import CropView


@dataclass(frozen=True)
class Instance:
    """One annotated object in pixels of its image.

    Attributes:
        id: its number in the file; -1 where that is no number.
        polygons: its outline in one or several parts, each float32 [N,2]; empty where ``rle`` holds its mask.
        rle: its mask as pycocotools takes it, "size" and compressed "counts"; None where polygons hold it.
        box: (x0, y0, x1, y1).
        crowd: it is a group whose members are not told apart.
        names: narrower names, from the narrowest to the widest.
        guessed: it has no usable outline; the polygon is its box, or the whole image, and it counts as a crowd.
    """

    id: int
    category: str
    polygons: tuple[NDArray[np.float32], ...]
    rle: dict[str, Any] | None
    box: tuple[float, float, float, float]
    area: float
    crowd: bool
    names: tuple[str, ...] = ()
    guessed: bool = False

    def mask(self, size: tuple[int, int], view: CropView | None = None) -> NDArray[np.bool_]:
        """The mask, bool [H,W], in the image of ``size`` or in a view of it."""
        if self.rle is not None:
            whole = decode_mask(self.rle, size)
            return whole if view is None else view.mask(whole)
        canvas = np.zeros(size if view is None else view.size, np.uint8)
        moved = [polygon if view is None else view.points(polygon) for polygon in self.polygons]
        # Pixel centres lie at +0.5; four bits of sub-pixel precision. One call per part: parts may overlap.
        for points in moved:
            cv2.fillPoly(canvas, [np.rint((points - 0.5) * 16).astype(np.int32)], 1, shift=4)
        return canvas.view(np.bool_)


@dataclass(frozen=True)
class Picture:
    """One image and its instances.

    Attributes:
        absent: categories of which there surely is none: the image's ``neg_category_ids`` where the file has them
            (as in LVIS), else the file's categories without those of the instances.
        complete: it was annotated for more than the instances, so it can be the background of compositions.
    """

    file: str
    size: tuple[int, int]
    instances: tuple[Instance, ...]
    absent: frozenset[str]
    complete: bool


@dataclass(frozen=True)
class CocoFile:
    """The content of an instances file: pictures by id, those without instances too, the supercategory of each
    category, "" where there is none, and ids of the entries that cannot be used, by the reason.
    """

    pictures: dict[str, Picture]
    kinds: dict[str, str]
    refused: dict[str, list[str]] = field(default_factory=dict)

    @property
    def annotated(self) -> list[Picture]:
        """Images with instances, in the order of the file."""
        return [picture for picture in self.pictures.values() if picture.instances]


class DataWarning(UserWarning):
    """Part of a data set that is left out."""


class _UnusableError(Exception):
    """An entry's outline cannot be read."""


def read_coco(
    path: Path,
    *,
    images: Path | None = None,
    lone_only: bool = False,
    names: Mapping[int, tuple[str, ...]] | None = None,
) -> CocoFile:
    """Read an instances file; entries that cannot be used are listed and left out.

    Args:
        path: the file, UTF-8, with or without a byte order mark; ids are numbers or strings.
        images: folder of the images, for sizes that the file does not state.
        lone_only: of an image with a single annotation nothing else was annotated, so nothing is absent from it.
        names: narrower names by the id of the annotation.

    Raises:
        UserError: it is missing, no instances file, or without a usable annotation.
    """
    refused: dict[str, list[str]] = defaultdict(list)
    try:
        data = json.loads(path.read_text(encoding="utf-8-sig"))
        categories = {str(c["id"]): category_name(str(c["name"])) for c in data["categories"]}
        kinds = {category_name(str(c["name"])): str(c.get("supercategory") or "") for c in data["categories"]}
        if data["annotations"] and all(int(entry.get("iscrowd") or 0) for entry in data["annotations"]):
            # Some tools mark every run-length mask as a crowd.
            data["annotations"] = [{**entry, "iscrowd": 0} for entry in data["annotations"]]
        entries: dict[str, list[tuple[str, dict[str, Any]]]] = defaultdict(list)
        for position, entry in enumerate(data["annotations"]):
            entries[str(entry.get("image_id"))].append((str(entry.get("id", f"at position {position}")), entry))
        found: dict[str, Picture] = {}
        for image in data["images"]:
            number = str(image["id"])
            size = _size(image, images)
            if size is None:
                refused["images without a size that are not there either"].append(number)
                entries.pop(number, None)
                continue
            instances = tuple(_instances(entries.pop(number, []), categories, size, names or {}, refused))
            absent, complete = _absent(image, instances, categories, kinds, lone_only=lone_only)
            found[number] = Picture(str(image["file_name"]), size, instances, absent, complete)
        for left in entries.values():
            refused["entries of an image that the file does not have"] += [number for number, _ in left]
    except FileNotFoundError as error:
        raise UserError(f"the COCO annotations {path} do not exist: give the instances file") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is not a COCO instances file: it needs images, annotations and categories") from error
    out = CocoFile(found, {name: kind for name, kind in kinds.items() if name}, dict(refused))
    if not any(not instance.guessed for picture in out.annotated for instance in picture.instances):
        reasons = f" ({'; '.join(refused)})" if refused else ""
        raise UserError(f"{path} has no annotated image{reasons}: give a COCO instances file with annotations")
    return out


def category_name(name: str) -> str:
    """A category as it is spoken of: "Traffic_Light" is "traffic light", LVIS' "car_(automobile)" is "car".

    Empty for a name without letters.
    """
    words = re.sub(r"\(.*?\)", " ", name).replace("_", " ").lower().split()
    return " ".join(words) if any(map(str.isalpha, "".join(words))) else ""


def parse_instance(entry: Mapping[str, Any], category: str, size: tuple[int, int] | None = None) -> Instance:
    """An entry of COCO's ``annotations``; without area or box both come from the outline.

    Args:
        entry: its segmentation is a list of polygons, one polygon, or run lengths, compressed or not.
        category: its name.
        size: (H,W) of the image; None leaves run lengths of another size to be found later.
    """
    guessed = False
    try:
        polygons, rle = _outline(entry.get("segmentation"), size)
    except _UnusableError:
        guessed, rle = True, None
        x, y, w, h = _box(entry) or (0.0, 0.0, *(size or (1, 1))[::-1])
        polygons = (np.array([[x, y], [x + w, y], [x + w, y + h], [x, y + h]], np.float32),)
    x, y, w, h = _box(entry) or _bounds(polygons, rle)
    number = str(entry.get("id", ""))
    return Instance(
        id=int(number) if number.isdecimal() else -1,
        category=category,
        polygons=polygons,
        rle=rle,
        box=(x, y, x + w, y + h),
        area=float(entry.get("area") or _area(polygons, rle)),
        crowd=bool(guessed or int(entry.get("iscrowd") or 0)),
        guessed=guessed,
    )


def decode_mask(rle: dict[str, Any], size: tuple[int, int]) -> NDArray[np.bool_]:
    """Decode a compressed run-length mask to bool [H,W].

    Raises:
        UserError: it is of another size than its image.
    """
    if tuple(rle["size"]) != size:
        raise UserError(f"a run-length mask is of size {rle['size']}, its image of {list(size)}: mend the annotations")
    return np.ascontiguousarray(mask_utils.decode(rle)).view(np.bool_)


def _instances(
    entries: list[tuple[str, dict[str, Any]]],
    categories: Mapping[str, str],
    size: tuple[int, int],
    names: Mapping[int, tuple[str, ...]],
    refused: dict[str, list[str]],
) -> list[Instance]:
    out = []
    for number, entry in entries:
        category = categories.get(str(entry.get("category_id")))
        if not category:
            what = (
                "a category that the file does not have" if category is None else "a category whose name has no letters"
            )
            refused[f"entries of {what}"].append(number)
            continue
        instance = parse_instance(entry, category, size)
        if instance.guessed:
            refused["entries without an outline, such as polygons or run lengths of the image's size"].append(number)
        out.append(replace(instance, names=names.get(instance.id, ())))
    return out


def _absent(
    image: Mapping[str, Any],
    instances: tuple[Instance, ...],
    categories: Mapping[str, str],
    kinds: Mapping[str, str],
    *,
    lone_only: bool,
) -> tuple[frozenset[str], bool]:
    """Categories that are surely absent from an image, and if it was annotated for more than its instances."""
    negative = image.get("neg_category_ids")
    complete = bool(negative or negative is None) and not (lone_only and len(instances) == 1)
    if not complete:
        return frozenset(), False
    # A supercategory that some tools list among the categories is not absent where one of its kinds is.
    present = {instance.category for instance in instances}
    wider = {category_name(kinds[category]) for category in present}
    absent = kinds.keys() if negative is None else {categories[str(number)] for number in negative}
    return frozenset(absent - present - wider - {"object", ""}), True


def _size(image: Mapping[str, Any], images: Path | None) -> tuple[int, int] | None:
    if image.get("height") and image.get("width"):
        return int(image["height"]), int(image["width"])
    path = None if images is None else find_image(images, str(image["file_name"]))
    return None if path is None else read_size(path)


def find_image(images: Path, name: str) -> Path | None:
    """The file of an image by the name that a tool gave it: with folders, backslashes, another case, or a URL's path.

    Returns:
        None where there is none.
    """
    name = name.replace("\\", "/").rpartition("?d=")[2]
    parts = [part for part in name.split("/") if part not in ("", ".", "..")]
    for start in range(len(parts)):
        path = images.joinpath(*parts[start:])
        if path.is_file():
            return path
    if not parts:
        return None
    matches = (path for path in images.iterdir() if path.name.lower() == parts[-1].lower())
    return next((path for path in matches if path.is_file()), None)


def _outline(
    segmentation: Any, size: tuple[int, int] | None
) -> tuple[tuple[NDArray[np.float32], ...], dict[str, Any] | None]:
    try:
        if isinstance(segmentation, dict):
            if size is not None and tuple(segmentation["size"]) != size:
                raise _UnusableError
            if isinstance(segmentation["counts"], str):
                return (), {"size": segmentation["size"], "counts": segmentation["counts"].encode()}
            return (), mask_utils.frPyObjects(segmentation, *segmentation["size"])
        parts = segmentation if segmentation and not isinstance(segmentation[0], int | float) else [segmentation or []]
        polygons = tuple(np.asarray(part, np.float32).reshape(-1, 2) for part in parts)
    except (KeyError, TypeError, ValueError) as error:
        raise _UnusableError from error
    polygons = tuple(polygon for polygon in polygons if len(polygon) >= 3 and np.isfinite(polygon).all())
    if not polygons:
        raise _UnusableError
    return polygons, None


def _box(entry: Mapping[str, Any]) -> tuple[float, float, float, float] | None:
    try:
        x, y, w, h = (float(value) for value in entry["bbox"])
    except (KeyError, TypeError, ValueError):
        return None
    return (x, y, w, h) if np.isfinite((x, y, w, h)).all() and w > 0 and h > 0 else None


def _bounds(polygons: tuple[NDArray[np.float32], ...], rle: dict[str, Any] | None) -> tuple[float, float, float, float]:
    if rle is not None:
        x, y, w, h = (float(value) for value in mask_utils.toBbox(rle))
        return x, y, w, h
    points = np.concatenate(polygons)
    (x, y), (right, bottom) = points.min(axis=0).tolist(), points.max(axis=0).tolist()
    return x, y, right - x, bottom - y


def _area(polygons: tuple[NDArray[np.float32], ...], rle: dict[str, Any] | None) -> float:
    if rle is not None:
        return float(mask_utils.area(rle))
    return float(sum(cv2.contourArea(polygon) for polygon in polygons))
