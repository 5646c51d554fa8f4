"""COCO images as frames of a clip: sentences from categories, places, sizes and colours; motion made up."""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast

import cv2
import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as mask_utils

from rvos_edge.errors import UserError
from rvos_edge.trainer.data.generate import vocabulary
from rvos_edge.trainer.data.generate.captions import referring_captions
from rvos_edge.trainer.data.generate.garments import Garments
from rvos_edge.trainer.data.generate.held_out import HeldOut
from rvos_edge.trainer.data.generate.labelled_frame import LabelledFrame, blur_flow, camera_flow, finish, move, to_rgb
from rvos_edge.trainer.data.generate.templates import Thing, dominant_colour, flip_words, place_holds
from rvos_edge.trainer.data.readers.images import read_image
from rvos_edge.trainer.data.sample import Sample
from rvos_edge.trainer.data.transforms import Augmentation, CropView, random_view

# Smaller instances are ignored rather than named; so are those of which the view shows too little.
_SMALLEST, _SHOWN = 0.005, 0.3
# COCO annotates about a dozen of a crowd; from this many on, more of the kind may be there without annotation.
_CROWD = 10


@dataclass(frozen=True)
class Instance:
    """One annotated object in pixels of its image.

    Attributes:
        id: its number in the file.
        category: its name there; "object" where the file only says that it is one.
        polygons: its outline in one or several parts, each float32 [N,2]; empty where ``rle`` holds its mask.
        rle: its mask as pycocotools takes it, "size" and compressed "counts"; None where polygons hold it.
        box: (x0, y0, x1, y1).
        area: in pixels.
        crowd: it is a group whose members are not told apart.
        names: narrower names, from the narrowest to the widest.
    """

    id: int
    category: str
    polygons: tuple[NDArray[np.float32], ...]
    rle: dict[str, Any] | None
    box: tuple[float, float, float, float]
    area: float
    crowd: bool
    names: tuple[str, ...] = ()

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
        file: its name.
        size: (H,W).
        instances: what is annotated.
        absent: categories of which there surely is none: the image's ``neg_category_ids`` where the file has them
            (as in LVIS), else the file's categories without those of the instances.
        complete: it was annotated for more than the instances, so it can be the background of compositions.
    """

    file: str
    size: tuple[int, int]
    instances: tuple[Instance, ...]
    absent: frozenset[str]
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
        lone_only: an image with a single annotation was annotated for that object alone, and holds further ones.
        names: narrower names of the instances by their id (``generate.instance_names``).
        captions: sentences about the images by file name, as in COCO's captions.
        held_out: words that no instance is named by, nor by narrower ones.
        labels: the folder with garments per pixel and their ``labels.json`` beside it (Clothing Co-Parsing).

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
        lone_only: bool = False,
        names: Mapping[int, tuple[str, ...]] | None = None,
        captions: Mapping[str, Sequence[str]] | None = None,
        labels: str | Path | None = None,
        held_out: HeldOut | None = None,
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
        path = Path(annotations) if annotations else self.root / "instances.json"
        self.pictures, self.kinds = read_pictures(path, lone_only=lone_only, names=names)
        self.held_out = held_out
        if held_out is not None:
            self.pictures = [_without(picture, held_out) for picture in self.pictures]
        self.narrower = _narrower(self.pictures)
        self._captions = captions or {}
        self._garments = Garments(Path(labels)) if labels else None
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
        things, ignore, uncertain = self._things(picture, view, image, source)
        flow = camera_flow(rng, self.size, self.flow_size)
        things = _animate(things, flow, rng)
        categories = frozenset(i.category for i in picture.instances)
        near, far = self.absentees(picture)
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
            narrower=self.narrower,
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

    def absentees(self, picture: Picture) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Categories surely absent from a picture: those of the same kinds as present ones, and the others."""
        present = {instance.category for instance in picture.instances}
        free = [c for c in vocabulary.absent_categories(present) if c in picture.absent]
        kinds = {self.kinds.get(category) for category in present}
        near = tuple(c for c in free if self.kinds.get(c) in kinds)
        return near, tuple(c for c in free if self.kinds.get(c) not in kinds)

    def has_labels(self, picture: Picture) -> bool:
        """True if the garments of a picture are labelled."""
        return self._garments is not None and self._garments.has(Path(picture.file).stem)

    def traits(self, picture: Picture, instance: Instance, image: NDArray[np.uint8]) -> tuple[str, ...]:
        """Garments of a person, such as "in a red dress", with colours from the picture's image, BGR uint8 [H,W,3]."""
        if self._garments is None or instance.category != "person":
            return ()
        return self._garments.traits(Path(picture.file).stem, image, instance.mask(picture.size))

    def _said(self, picture: Picture, view: CropView) -> dict[int, tuple[str, ...]]:
        """Captions that begin with the only thing of a category, by its index."""
        said = referring_captions(
            self._captions.get(picture.file, ()), [instance.category for instance in picture.instances]
        )
        return {
            index: tuple(flip_words(one) if view.flip else one for one in sentences)
            for index, sentences in said.items()
        }

    def _things(
        self, picture: Picture, view: CropView, image: NDArray[np.uint8], source: NDArray[np.uint8]
    ) -> tuple[list[Thing], NDArray[np.bool_] | None, frozenset[str]]:
        things: list[Thing] = []
        ignore = np.zeros(view.size, np.bool_)
        uncertain = set()
        scale = view.scale[0] * view.scale[1]
        said = self._said(picture, view)
        for index, instance in enumerate(picture.instances):
            mask = instance.mask(picture.size, view)
            area = int(np.count_nonzero(mask))
            if area == 0:
                continue
            too_small = area < _SMALLEST * mask.size or area < _SHOWN * instance.area * scale
            if instance.crowd or too_small or not vocabulary.is_known(instance.category):
                ignore |= mask
                uncertain.add(instance.category)
                continue
            things.append(
                Thing(
                    mask=mask,
                    category=instance.category,
                    sentences=tuple(one for one in said.get(index, ()) if place_holds(one, mask)),
                    colour=dominant_colour(image, mask, instance.category),
                    cut=touches_border(mask),
                    names=instance.names,
                    traits=self.traits(picture, instance, source),
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
    """True if a picture is kept from training so that the sentence test can use it: about one in seven, by its name."""
    return hashlib.sha256(Path(file_name).name.encode()).digest()[0] < 38


def touches_border(mask: NDArray[np.bool_]) -> bool:
    """True if a mask [H,W] reaches the border of its image."""
    return bool(mask[0].any() or mask[-1].any() or mask[:, 0].any() or mask[:, -1].any())


def _without(picture: Picture, held_out: HeldOut) -> Picture:
    """The picture without the narrower names that are held out."""
    instances = [replace(i, names=tuple(n for n in i.names if not held_out.covers(n))) for i in picture.instances]
    return replace(picture, instances=tuple(instances))


def _narrower(pictures: Sequence[Picture]) -> dict[str, tuple[str, ...]]:
    """The narrower names of each category, sorted."""
    found: dict[str, set[str]] = defaultdict(set)
    for picture in pictures:
        for instance in picture.instances:
            found[instance.category] |= set(instance.names)
    return {category: tuple(sorted(names)) for category, names in sorted(found.items()) if names}


def decode_mask(rle: dict[str, Any], size: tuple[int, int]) -> NDArray[np.bool_]:
    """Decode a compressed run-length mask to bool [H,W].

    Raises:
        UserError: it is of another size than its image.
    """
    if tuple(rle["size"]) != size:
        raise UserError(f"a run-length mask is of size {rle['size']}, its image of {list(size)}: mend the annotations")
    return np.ascontiguousarray(mask_utils.decode(rle)).view(np.bool_)


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
    if not picture.complete and [instance.category for instance in picture.instances] == ["person"]:
        return 0.15
    return 1.0 if len(picture.instances) > 1 else 0.7


def read_pictures(
    path: Path, *, lone_only: bool = False, names: Mapping[int, tuple[str, ...]] | None = None
) -> tuple[list[Picture], dict[str, str]]:
    """Read a COCO instances file: its annotated images, and the supercategory of each category.

    Args:
        path: the file.
        lone_only: of an image with a single annotation nothing else was annotated, so nothing is absent from it.
        names: narrower names by the id of the annotation.

    Raises:
        UserError: it is missing, damaged or empty.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        categories = {int(c["id"]): str(c["name"]) for c in data["categories"]}
        kinds = {str(c["name"]): str(c.get("supercategory", "")) for c in data["categories"]}
        found: dict[int, list[Instance]] = defaultdict(list)
        for entry in data["annotations"]:
            instance = parse_instance(entry, categories)
            found[int(entry["image_id"])].append(replace(instance, names=(names or {}).get(instance.id, ())))
        pictures = []
        for image in data["images"]:
            instances = tuple(found.get(int(image["id"]), ()))
            negative = image.get("neg_category_ids")
            absent = kinds.keys() if negative is None else {categories[int(number)] for number in negative}
            absent = absent - {instance.category for instance in instances} - {"object"}
            complete = bool(negative or negative is None) and not (lone_only and len(instances) == 1)
            size = (int(image["height"]), int(image["width"]))
            if instances:
                surely = frozenset(absent) if complete else frozenset()
                pictures.append(Picture(str(image["file_name"]), size, instances, surely, complete))
    except FileNotFoundError as error:
        raise UserError(f"the COCO annotations {path} do not exist: give the instances file") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is not a COCO instances file: it needs images, annotations and categories") from error
    if not pictures:
        raise UserError(f"{path} has no annotated image: give a COCO instances file with annotations")
    return pictures, kinds


def parse_instance(entry: dict[str, Any], names: dict[int, str]) -> Instance:
    """An entry of COCO's ``annotations``; ``names`` are the categories by id."""
    segmentation = entry["segmentation"]
    polygons: tuple[NDArray[np.float32], ...] = ()
    rle: dict[str, Any] | None = None
    if isinstance(segmentation, dict):
        if isinstance(segmentation["counts"], str):
            rle = {"size": segmentation["size"], "counts": segmentation["counts"].encode()}
        else:
            rle = mask_utils.frPyObjects(segmentation, *segmentation["size"])
    else:
        polygons = tuple(np.asarray(part, np.float32).reshape(-1, 2) for part in segmentation if len(part) >= 6)
    x, y, w, h = (float(v) for v in cast("list[float]", entry["bbox"]))
    return Instance(
        id=int(entry.get("id", 0)),
        category=names[int(entry["category_id"])],
        polygons=polygons,
        rle=rle,
        box=(x, y, x + w, y + h),
        area=float(entry["area"]),
        crowd=bool(entry.get("iscrowd", 0)),
    )
