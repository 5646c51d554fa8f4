"""COCO images as frames of a clip: sentences from categories, places, sizes and colours; motion made up."""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from rvos_edge.errors import UserError
from rvos_edge.trainer.data.generate import vocabulary
from rvos_edge.trainer.data.generate.labelled_frame import LabelledFrame, blur_flow, camera_flow, finish, move, to_rgb
from rvos_edge.trainer.data.generate.templates import Thing, dominant_colour
from rvos_edge.trainer.data.readers.images import read_image
from rvos_edge.trainer.data.sample import Sample
from rvos_edge.trainer.data.transforms import Augmentation, CropView, random_view

# Smaller instances are ignored rather than named; so are those of which the view shows too little.
_SMALLEST, _SHOWN = 0.005, 0.3
# COCO annotates about a dozen of a crowd; from this many on, more of the kind may be there without annotation.
_CROWD = 10


@dataclass(frozen=True)
class Instance:
    """One annotated object in pixels of its image: polygons (each float32 [N,2]) or a run-length mask."""

    category: str
    polygons: tuple[NDArray[np.float32], ...]
    counts: tuple[int, ...]
    box: tuple[float, float, float, float]
    area: float
    crowd: bool

    def mask(self, size: tuple[int, int], view: CropView | None = None) -> NDArray[np.bool_]:
        """Its mask, bool [H,W], in the image of ``size`` or in a view of it."""
        if self.counts:
            whole = decode_counts(self.counts, size)
            return whole if view is None else view.mask(whole)
        canvas = np.zeros(size if view is None else view.size, np.uint8)
        moved = [polygon if view is None else view.points(polygon) for polygon in self.polygons]
        # Pixel centres lie at +0.5; four bits of sub-pixel precision. One call per part: parts may overlap.
        for points in moved:
            cv2.fillPoly(canvas, [np.rint((points - 0.5) * 16).astype(np.int32)], 1, shift=4)
        return canvas.view(np.bool_)


@dataclass(frozen=True)
class Picture:
    """One image and its instances. ``complete``: whatever is not annotated is not there."""

    file: str
    size: tuple[int, int]
    instances: tuple[Instance, ...]
    complete: bool


class CocoDataset:
    """Static images with COCO instances as samples with made-up camera and object motion.

    Args:
        root: a folder with the annotation file and the images.
        size: (H,W) of the samples' images.
        flow_size: (h,w) of the samples' flow.
        annotations: the instances JSON; ROOT/instances.json when None.
        images: the image folder; ROOT/images when None.
        distractors: sentences of other data sets that may be tried as absent ones.
        augmentation: how samples are varied.
        split: "train" leaves out the pictures that ``is_held_out`` names, "held_out" keeps only those.

    An image with a single annotation is taken to be incomplete (in the COCO excerpt for this project such images hold
    unlabelled objects): only rare things are called absent from it.

    Raises:
        UserError: a file is missing or damaged.
    """

    def __init__(
        self,
        root: str | Path,
        *,
        size: tuple[int, int],
        flow_size: tuple[int, int],
        annotations: str | Path | None = None,
        images: str | Path | None = None,
        distractors: Sequence[str] = (),
        augmentation: Augmentation | None = None,
        split: Literal["all", "train", "held_out"] = "all",
    ) -> None:
        self.root = Path(root)
        self.size, self.flow_size = size, flow_size
        self.images = Path(images) if images else self.root / "images"
        self.augmentation = augmentation or Augmentation()
        self.distractors = tuple(distractors)
        if not self.images.is_dir():
            raise UserError(
                f"the COCO image folder {self.images} does not exist: give the folder that holds the images"
            )
        self.pictures, self.kinds = _read(Path(annotations) if annotations else self.root / "instances.json")
        if split != "all":
            self.pictures = [p for p in self.pictures if is_held_out(p.file) == (split == "held_out")]
            if not self.pictures:
                raise UserError(f"{self.root} has no picture of the split '{split}': give more COCO images")
        weights = np.array([_weight(picture) for picture in self.pictures])
        self._cumulative = np.cumsum(weights / weights.sum())

    def scene(self, rng: np.random.Generator, picture: Picture | None = None) -> LabelledFrame:
        """A random picture (or the given one) in a random view, with its motion but before sentences are made."""
        if picture is None:
            picture = self.pictures[min(int(np.searchsorted(self._cumulative, rng.random())), len(self.pictures) - 1)]
        boxes = [i.box for i in picture.instances if i.area > _SMALLEST * picture.size[0] * picture.size[1]]
        source = self.read(picture)
        boxes_array = np.asarray(boxes, np.float32) if boxes else None
        view = random_view(rng, picture.size, self.size, self.augmentation, boxes_array)
        image = to_rgb(view.image(source, fill=int(rng.integers(0, 128))))
        things, ignore, uncertain = self._things(picture, view, image)
        flow = camera_flow(rng, self.size, self.flow_size)
        things = _animate(things, flow, rng)
        categories = frozenset(i.category for i in picture.instances)
        near, far = self.absentees(categories) if picture.complete else ((), ())
        return LabelledFrame(
            image=image,
            flow=blur_flow(flow, rng),
            things=things,
            ignore=ignore,
            uncertain=uncertain,
            categories=categories,
            near=near,
            far=far,
            others=self.distractors if picture.complete else (),
        )

    def draw(self, rng: np.random.Generator) -> Sample:
        """A random picture with its pairs and absent sentences."""
        return finish(self.scene(rng), rng, self.augmentation)

    def read(self, picture: Picture) -> NDArray[np.uint8]:
        """The image of a picture, BGR uint8 [H,W,3]."""
        path = self.images / picture.file
        image = read_image(path)
        if image.shape[:2] != picture.size:
            raise UserError(
                f"{path} is {image.shape[1::-1]}, its annotation says {picture.size[::-1]}: they must agree"
            )
        return image

    def absentees(self, categories: frozenset[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Categories surely absent beside the given ones: those of the same kinds, and the others."""
        free = vocabulary.absent_categories(categories)
        kinds = {self.kinds.get(category) for category in categories}
        near = tuple(c for c in free if self.kinds.get(c) in kinds)
        return near, tuple(c for c in free if self.kinds.get(c) not in kinds)

    def _things(
        self, picture: Picture, view: CropView, image: NDArray[np.uint8]
    ) -> tuple[list[Thing], NDArray[np.bool_] | None, frozenset[str]]:
        things: list[Thing] = []
        ignore = np.zeros(view.size, np.bool_)
        uncertain = set()
        scale = view.scale[0] * view.scale[1]
        for instance in picture.instances:
            mask = instance.mask(picture.size, view)
            area = int(np.count_nonzero(mask))
            if area == 0:
                continue
            too_small = area < _SMALLEST * mask.size or area < _SHOWN * instance.area * scale
            if instance.crowd or too_small or instance.category not in vocabulary.COCO_CATEGORIES:
                ignore |= mask
                uncertain.add(instance.category)
                continue
            things.append(
                Thing(
                    mask=mask,
                    category=instance.category,
                    colour=dominant_colour(image, mask, instance.category),
                    cut=touches_border(mask),
                )
            )
        # A crowd's members are annotated in part only: no sentence about its category has a known mask.
        counts = Counter(instance.category for instance in picture.instances)
        crowds = {category for category, count in counts.items() if count >= _CROWD}
        crowds |= {instance.category for instance in picture.instances if instance.crowd}
        for thing in things:
            if thing.category in crowds:
                ignore |= thing.mask
        things = [thing for thing in things if thing.category not in crowds]
        for thing in things:
            ignore &= ~thing.mask
        return things, (ignore if ignore.any() else None), frozenset(uncertain)


def is_held_out(file_name: str) -> bool:
    """Whether a picture is kept from training so that the sentence test can use it: about one in seven, by its name."""
    return hashlib.sha256(Path(file_name).name.encode()).digest()[0] < 38


def touches_border(mask: NDArray[np.bool_]) -> bool:
    """Whether a mask [H,W] reaches the border of its image."""
    return bool(mask[0].any() or mask[-1].any() or mask[:, 0].any() or mask[:, -1].any())


def decode_counts(counts: Sequence[int], size: tuple[int, int]) -> NDArray[np.bool_]:
    """Decode run lengths (zeros first, column after column) to bool [H,W]."""
    values = np.arange(len(counts)) % 2 == 1
    flat = np.repeat(values, np.asarray(counts, np.int64))
    if flat.size != size[0] * size[1]:
        raise UserError(
            f"a run-length mask has {flat.size} pixels, its image {size[0] * size[1]}: mend the annotations"
        )
    return np.ascontiguousarray(flat.reshape(size[1], size[0]).T)


def parse_counts(text: str) -> list[int]:
    """Read COCO's compressed run lengths: 5 bits a character, signed, from the fourth run on relative to two before."""
    counts: list[int] = []
    value, shift = 0, 0
    for character in text.encode("ascii"):
        code = character - 48
        value |= (code & 31) << shift
        shift += 5
        if code & 32:
            continue
        if code & 16:
            value -= 1 << shift
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
        value, shift = 0, 0
    return counts


def _animate(things: list[Thing], flow: NDArray[np.float32], rng: np.random.Generator) -> list[Thing]:
    """Let some things move, in the flow (in place) and in what is known of them."""
    if rng.random() < 0.3:
        return [replace(thing, motion=(0.0, 0.0)) for thing in things]
    out = []
    for thing in things:
        motion = (0.0, 0.0)
        if rng.random() < 0.5:
            angle, speed = rng.uniform(0, 2 * np.pi), rng.uniform(1.0, 8.0)
            motion = (float(np.cos(angle) * speed), float(np.sin(angle) * speed * 0.5))
            move(flow, thing.mask, motion, rng)
        out.append(replace(thing, motion=motion))
    return out


def _weight(picture: Picture) -> float:
    if not picture.complete and picture.instances[0].category == "person":
        return 0.15
    return 1.0 if len(picture.instances) > 1 else 0.7


def _read(path: Path) -> tuple[list[Picture], dict[str, str]]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        names = {int(c["id"]): str(c["name"]) for c in data["categories"]}
        kinds = {str(c["name"]): str(c.get("supercategory", "")) for c in data["categories"]}
        found: dict[int, list[Instance]] = defaultdict(list)
        for entry in data["annotations"]:
            found[int(entry["image_id"])].append(parse_instance(entry, names))
        pictures = [
            Picture(
                file=str(image["file_name"]),
                size=(int(image["height"]), int(image["width"])),
                instances=tuple(found[int(image["id"])]),
                complete=len(found[int(image["id"])]) > 1,
            )
            for image in data["images"]
            if found.get(int(image["id"]))
        ]
    except FileNotFoundError as error:
        raise UserError(f"the COCO annotations {path} do not exist: give the instances file") from error
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is not a COCO instances file: it needs images, annotations and categories") from error
    if not pictures:
        raise UserError(f"{path} has no annotated image: give a COCO instances file with annotations")
    return pictures, kinds


def parse_instance(entry: dict[str, Any], names: dict[int, str]) -> Instance:
    """An entry of COCO's ``annotations``; ``names`` are the categories by id."""
    segmentation = entry["segmentation"]
    polygons: tuple[NDArray[np.float32], ...] = ()
    counts: tuple[int, ...] = ()
    if isinstance(segmentation, dict):
        raw = segmentation["counts"]
        counts = tuple(parse_counts(raw) if isinstance(raw, str) else (int(n) for n in raw))
    else:
        polygons = tuple(np.asarray(part, np.float32).reshape(-1, 2) for part in segmentation if len(part) >= 6)
    x, y, w, h = (float(v) for v in cast("list[float]", entry["bbox"]))
    return Instance(
        category=names[int(entry["category_id"])],
        polygons=polygons,
        counts=counts,
        box=(x, y, x + w, y + h),
        area=float(entry["area"]),
        crowd=bool(entry.get("iscrowd", 0)),
    )
