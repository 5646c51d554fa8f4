"""COCO images as frames of a clip: sentences from categories, places, sizes and colours; motion made up."""

from __future__ import annotations

import hashlib
import warnings
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from rvos_edge.errors import UserError
from rvos_edge.trainer.data.generate import vocabulary
from rvos_edge.trainer.data.generate.captions import referring_captions
from rvos_edge.trainer.data.generate.garments import Garments
from rvos_edge.trainer.data.generate.held_out import HeldOut
from rvos_edge.trainer.data.generate.labelled_frame import LabelledFrame, blur_flow, camera_flow, finish, move, to_rgb
from rvos_edge.trainer.data.generate.templates import Thing, dominant_colour, flip_words, place_holds
from rvos_edge.trainer.data.readers.coco_file import DataWarning, Instance, Picture, find_image, read_coco
from rvos_edge.trainer.data.readers.images import read_image
from rvos_edge.trainer.data.sample import Sample
from rvos_edge.trainer.data.transforms import Augmentation, CropView, random_view

# Smaller instances are ignored rather than named; so are those of which the view shows too little.
_SMALLEST, _SHOWN = 0.005, 0.3
# COCO annotates about a dozen of a crowd; from this many on, more of the kind may be there without annotation.
_CROWD = 10


class CocoDataset:
    """Static images with COCO instances as samples with made-up camera and object motion.

    Args:
        distractors: sentences of other data sets that may be tried as absent ones.
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
        # Of a sentence without a category nobody knows if the file was annotated for it.
        self.distractors = tuple(said for said in distractors if vocabulary.concepts(said))
        if not self.images.is_dir():
            raise UserError(
                f"the COCO image folder {self.images} does not exist: give the folder that holds the images"
            )
        path = Path(annotations) if annotations else self.root / "instances.json"
        self.file = read_coco(path, images=self.images, lone_only=lone_only, names=names)
        self.pictures, self.kinds = self.file.annotated, self.file.kinds
        if lost := sum(map(len, self.file.refused.values())):
            check = f"rvos-edge data check --dataset coco --root {self.root}"
            warnings.warn(f"{path}: {lost} entries cannot be used; {check} names them", DataWarning, stacklevel=2)
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
            others=self.distractors if near or far else (),
            narrower=self.narrower,
        )

    def draw(self, rng: np.random.Generator) -> Sample:
        """A random picture with its pairs and absent sentences."""
        return finish(self.scene(rng), rng, self.augmentation)

    def read(self, picture: Picture) -> NDArray[np.uint8]:
        """The image of a picture, BGR uint8 [H,W,3]."""
        path = self.path(picture)
        image = read_image(path)
        if image.shape[:2] == picture.size[::-1] != picture.size:
            image = read_image(path, turned=False)  # annotated as it is stored, whatever its EXIF data say
        if image.shape[:2] != picture.size:
            raise UserError(
                f"{path} is {image.shape[1::-1]}, its annotation says {picture.size[::-1]}: they must agree"
            )
        return image

    def pairs(self) -> Counter[str]:
        """Number of objects by category that sentences can be about: large enough, and in no crowd."""
        out: Counter[str] = Counter()
        for picture in self.pictures:
            crowds = _crowds(picture.instances)
            smallest = _SMALLEST * picture.size[0] * picture.size[1]
            out.update(i.category for i in picture.instances if i.category not in crowds and i.area >= smallest)
        return out

    def path(self, picture: Picture) -> Path:
        """The image file of a picture; where there is none, the place where it was looked for."""
        return find_image(self.images, picture.file) or self.images / picture.file

    def absentees(self, picture: Picture) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Categories surely absent from a picture: those of the same kinds as present ones, and the others."""
        present = {instance.category for instance in picture.instances}
        free = [c for c in vocabulary.absent_categories(present, own=picture.absent) if c in picture.absent]
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
            if instance.crowd or too_small:
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
        crowds = _crowds(picture.instances)
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


def _crowds(instances: Sequence[Instance]) -> set[str]:
    """Categories of which not every member has a mask of its own."""
    counts = Counter(instance.category for instance in instances)
    crowds = {category for category, count in counts.items() if count >= _CROWD}
    return crowds | {instance.category for instance in instances if instance.crowd}


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
