"""Objects pasted into other frames, so that a frame holds several candidates and only the sentence tells which."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import cast

import cv2
import numpy as np
from numpy.typing import NDArray

from rvos_edge.errors import UserError
from rvos_edge.trainer.data.clips_dataset import ClipsDataset
from rvos_edge.trainer.data.generate import vocabulary
from rvos_edge.trainer.data.generate.labelled_frame import LabelledFrame, blur_flow, finish, move, to_rgb
from rvos_edge.trainer.data.generate.reflections import Ground
from rvos_edge.trainer.data.generate.templates import Thing, dominant_colour, flip_words
from rvos_edge.trainer.data.readers.coco import CocoDataset, touches_border
from rvos_edge.trainer.data.readers.coco_file import Instance, Picture
from rvos_edge.trainer.data.sample import Sample
from rvos_edge.trainer.data.transforms import Augmentation

# What stays on the table or is only ever seen as part of something else makes no sensible object in mid-air.
_NOT_PASTED = frozenset({"dining table", "sink", "book", "tie", "bed", "oven", "couch", "toilet"})
_LETTERED = frozenset({"stop sign", "clock", "keyboard", "parking meter"})  # never mirrored
_DRESSED = 0.75
"""Share of rows of people whose clothes are all known."""
_TRIES = 6
_ROW = (2, 5)
"""The fewest and the most that stand in a row."""
_SURROUNDINGS = frozenset(
    """on over through past behind near next front around moving passing driving flying rolling middle walking sailing
    drifting leaving sliding climbing crossing foreground off away below above""".split()  # noqa: SIM905
)


@dataclass(frozen=True)
class CutOut:
    """An object cut from its picture: RGB uint8 [h,w,3], its mask bool [h,w], what is known of it, and who rides it."""

    image: NDArray[np.uint8]
    mask: NDArray[np.bool_]
    category: str
    sentences: tuple[str, ...] = ()
    rider: CutOut | None = None
    names: tuple[str, ...] = ()
    traits: tuple[str, ...] = ()


class ComposedDataset:
    """One to three cut-out objects, each with its own motion, in a frame of another data set.

    Args:
        coco: objects, and backgrounds where it is known what its pictures do not hold.
        davis: backgrounds with stored flow and objects with sentences; None leaves them out.
        davis_backgrounds: share of the backgrounds taken from ``davis``.
        riders: probability that the first object is one that people ride, most of them with a rider.
        grounds: probability that an object is mirrored by water below it, or casts a shadow.
        rows: probability that two to five people or animals of one kind stand in a row, told apart by what they wear,
            by colour, size, place and order.

    Raises:
        UserError: nothing in ``coco`` is large and whole enough to be pasted.
    """

    def __init__(
        self,
        *,
        coco: CocoDataset,
        objects: Sequence[CocoDataset] = (),
        davis: ClipsDataset | None = None,
        davis_backgrounds: float = 0.5,
        riders: float = 0.25,
        grounds: float = 0.0,
        rows: float = 0.0,
        augmentation: Augmentation | None = None,
    ) -> None:
        self.coco, self.davis = coco, davis
        self.davis_backgrounds = davis_backgrounds if davis is not None else 0.0
        self.riders, self.grounds, self.rows = riders, grounds, rows
        self.augmentation = augmentation or coco.augmentation
        self._backgrounds = [picture for picture in coco.pictures if picture.complete]
        self._objects: dict[str, list[tuple[CocoDataset, Picture, Instance]]] = defaultdict(list)
        for source in (coco, *objects):
            for picture in source.pictures:
                for instance in picture.instances:
                    if _pastable(picture, instance):
                        self._objects[instance.category].append((source, picture, instance))
        self._categories = sorted(self._objects)
        if not self._objects or (self.davis_backgrounds < 1 and not self._backgrounds):
            raise UserError(f"{coco.root} has no whole object of useful size or no background: give more COCO images")

    def draw(self, rng: np.random.Generator) -> Sample:
        """A background with one to three objects, their sentences and absent ones."""
        return finish(self.scene(rng), rng, self.augmentation)

    def scene(self, rng: np.random.Generator) -> LabelledFrame:
        """A composed frame before sentences are made."""
        davis = self.davis
        if davis is not None and rng.random() < self.davis_backgrounds:
            scene = davis.scene(rng)
        else:
            scene = self.coco.scene(rng, self._backgrounds[int(rng.integers(len(self._backgrounds)))])
        image, flow = scene.image.copy(), scene.flow.copy()
        # The camera's motion, as seen where nothing stands.
        camera = np.median(flow[::4, ::4].reshape(-1, 2), axis=0)
        things, ignore = list(scene.things), scene.ignore
        pasted: list[Thing] = []
        row = self._choose_row(rng, scene) if rng.random() < self.rows else []
        cutouts = row or self._choose(rng, scene)
        motions = _motions(rng, len(cutouts))
        spots = _in_a_row(rng, row, image.shape[:2]) if row else [None] * len(cutouts)
        for cutout, motion, spot in zip(cutouts, motions, spots, strict=True):
            placed = spot or _place(rng, cutout, image.shape[:2], [*things, *pasted])
            parts = [(cutout, placed)]
            if cutout.rider is not None and placed is not None:
                parts.append((cutout.rider, _seat(rng, cutout.rider, placed, image.shape[:2], [*things, *pasted])))
            if placed is not None and self.grounds and rng.random() < self.grounds:
                seen = _show_on_ground(rng, image, [where for _, where in parts if where], [*things, *pasted])
                _still(flow, seen, camera)
                move(flow, seen, motion, rng)
            for part, where in parts:
                if where is None:
                    continue
                mask = _paste(rng, image, where)
                things, pasted = [_hide(t, mask) for t in things], [_hide(t, mask) for t in pasted]
                ignore = None if ignore is None else ignore & ~mask
                _still(flow, mask, camera)
                move(flow, mask, motion, rng)
                colour = dominant_colour(image, mask, part.category) if part.category else None
                cut = touches_border(mask)
                pasted.append(Thing(mask, part.category, part.sentences, colour, motion, cut, part.names, part.traits))
        # A sentence of the picture was true while its thing was the only one of its kind.
        added = {t.category for t in pasted}
        things = [replace(t, sentences=()) if t.category and t.category in added else t for t in things]
        categories = scene.categories | {t.category for t in pasted if t.category}
        categories = categories.union(*(vocabulary.concepts(s) for t in pasted for s in t.sentences))
        free = frozenset(vocabulary.absent_categories(categories, own=(*scene.near, *scene.far)))
        return replace(
            scene,
            image=image,
            flow=blur_flow(flow, rng) if pasted else flow,
            camera=None if pasted else scene.camera,  # the composed picture is a whole frame
            things=[thing for thing in things if thing.area] + pasted,
            ignore=ignore,
            categories=frozenset(categories),
            near=tuple(c for c in scene.near if c in free),
            far=tuple(c for c in scene.far if c in free),
        )

    def _choose(self, rng: np.random.Generator, scene: LabelledFrame) -> list[CutOut]:
        """One to three cut-outs that cannot be mistaken for anything in the scene unless it is annotated."""
        taken = vocabulary.confusable(scene.categories)
        # Another instance of an annotated category is welcome: it makes the sentence necessary.
        annotated = {thing.category for thing in scene.things if thing.category} - scene.uncertain
        apart = {c for c in annotated if not (vocabulary.confusable({c}) - {c}) & scene.categories}
        known = frozenset(scene.near) | frozenset(scene.far)
        fits = known or frozenset(self._categories) - taken
        allowed = [c for c in self._categories if c in fits or c in apart]
        if _may_take_objects(scene) and "object" in self._objects:
            allowed.append("object")
        count = int(rng.choice((1, 2, 2, 3)))
        out: list[CutOut] = []
        if self.davis is not None and rng.random() < 0.35:
            out += self._foreground(rng, scene)
        present = set(scene.categories).union(*(vocabulary.concepts(s) for cut in out for s in cut.sentences))
        allowed = [c for c in allowed if c not in vocabulary.confusable(present) or (c in apart and not out)]
        while len(out) < count and allowed:
            same = [c for c in allowed if c in apart or c in {cut.category for cut in out}]
            pool = same if same and rng.random() < 0.6 else allowed
            if not out and "person" in allowed and rng.random() < self.riders:
                pool = [c for c in allowed if c in vocabulary.MOUNTS] or pool
            category = pool[int(rng.integers(len(pool)))]
            if category in vocabulary.ANIMALS or category in vocabulary.VEHICLES or rng.random() < 0.6:
                ridden = category in vocabulary.MOUNTS and "person" in allowed and rng.random() < 0.6
                out.append(replace(self._cut(rng, category), rider=self._cut(rng, "person") if ridden else None))
                alike = vocabulary.confusable({category}) - {category}
                allowed = [c for c in allowed if c not in alike]
        return out

    def _choose_row(self, rng: np.random.Generator, scene: LabelledFrame) -> list[CutOut]:
        """Two to five people or animals of one kind, where the scene holds nothing like them; or nothing."""
        free = (frozenset(scene.near) | frozenset(scene.far)) & (vocabulary.ANIMALS | {"person"})
        held = self.coco.held_out
        kinds = [c for c in sorted(free) if len(self._objects.get(c, ())) >= _ROW[1]]
        kinds = [c for c in kinds if held is None or not held.covers(c)]
        if not kinds:
            return []
        kind = "person" if "person" in kinds and rng.random() < 0.6 else kinds[int(rng.integers(len(kinds)))]
        dressed = kind == "person" and rng.random() < _DRESSED
        return [self._cut(rng, kind, dressed=dressed) for _ in range(int(rng.integers(_ROW[0], _ROW[1] + 1)))]

    def _cut(self, rng: np.random.Generator, category: str, *, dressed: bool = False) -> CutOut:
        """A random object of a category, in one piece; ``dressed``: if possible one whose clothes are labelled."""
        entries = self._objects[category]
        if dressed:
            entries = [entry for entry in entries if entry[0].has_labels(entry[1])] or entries
        for _ in range(_TRIES):
            source, picture, instance = entries[int(rng.integers(len(entries)))]
            mask = instance.mask(picture.size)
            if _in_one_piece(mask):
                break
        x, y, right, bottom = instance.box
        around = np.s_[max(int(y) - 1, 0) : int(bottom) + 2, max(int(x) - 1, 0) : int(right) + 2]
        whole = source.read(picture)
        traits = source.traits(picture, instance, whole)
        image, mask = to_rgb(whole[around]), mask[around]
        if rng.random() < 0.5 and category not in _LETTERED:
            image, mask = image[:, ::-1], mask[:, ::-1]
        return CutOut(image, mask, category, names=instance.names, traits=traits)

    def _foreground(self, rng: np.random.Generator, scene: LabelledFrame) -> list[CutOut]:
        """The foreground of a DAVIS video whose sentences fit nothing in the scene, or nothing."""
        assert self.davis is not None
        video = self.davis.videos[int(rng.integers(len(self.davis.videos)))]
        present = [s for thing in scene.things for s in thing.sentences] + [f"a {c}" for c in scene.categories]
        if len(self.davis.objects[video]) != 1:
            return []
        said = list(self.davis.objects[video][0].sentences)
        if not all(vocabulary.concepts(s) for s in said[:1]):
            return []
        if not all(vocabulary.surely_absent(s, scene.categories, present) for s in said):
            return []
        image, (mask,) = self.davis.load(video, self.davis.random_index(video, rng))
        if np.count_nonzero(mask) < 0.01 * mask.size or touches_border(mask):
            return []
        x, y, w, h = cv2.boundingRect(mask.view(np.uint8))
        cut, shape = to_rgb(image[y : y + h, x : x + w]), mask[y : y + h, x : x + w]
        if rng.random() < 0.5:
            cut, shape, said = cut[:, ::-1], shape[:, ::-1], [flip_words(s) for s in said]
        # Where it was and what stood around it is lost: keep what speaks of the thing itself.
        said = [s for s in said if " in the " not in s and _SURROUNDINGS.isdisjoint(s.split())]
        return [CutOut(cut, shape, "", tuple(said[i] for i in rng.permutation(len(said))[:2]))] if said else []


def _pastable(picture: Picture, instance: Instance) -> bool:
    height, width = picture.size
    x0, y0, x1, y1 = instance.box
    whole = x0 > 2 and y0 > 2 and x1 < width - 2 and y1 < height - 2
    large = instance.area > 0.02 * height * width and min(x1 - x0, y1 - y0) > 36
    named = instance.category != "object" or instance.names
    # A thin share of its box is mostly a part of something, or something behind bars.
    solid = instance.area > 0.3 * (x1 - x0) * (y1 - y0)
    return bool(whole and large and named and solid) and not instance.crowd and instance.category not in _NOT_PASTED


def _in_one_piece(mask: NDArray[np.bool_]) -> bool:
    """True if a mask [H,W] is one region, but for specks: not an object in front of which something stands."""
    _, _, stats, _ = cv2.connectedComponentsWithStats(mask.view(np.uint8))
    areas = stats[1:, cv2.CC_STAT_AREA]
    return len(areas) > 0 and float(areas.max()) > 0.9 * float(areas.sum())


def _may_take_objects(scene: LabelledFrame) -> bool:
    """True if nothing of a scene could be confused with a thing known by its narrower names alone.

    They are mostly animals, of kinds that no data set annotates; so the scene is one that surely has no animal.
    """
    known = frozenset(scene.near) | frozenset(scene.far)
    return known >= {"dog", "cat", "bird"} and not vocabulary.ANIMALS & scene.categories


def _in_a_row(rng: np.random.Generator, row: Sequence[CutOut], size: tuple[int, int]) -> list[Placed | None]:
    """Corners (x, y) for cut-outs side by side on about one ground, at times with clear differences of size."""
    height, width = size
    slot = 0.94 * width / len(row)
    base = float(rng.uniform(0.75, 0.97)) * height
    tall = float(rng.uniform(0.5, 0.85)) * height
    out: list[Placed | None] = []
    for index, cutout in enumerate(row):
        h, w = cutout.mask.shape
        own = float(rng.choice((1.0, 1.0, 0.95, 0.7)))
        patch, alpha = _scaled(cutout, min(own * tall / h, float(rng.uniform(0.85, 1.15)) * slot / w, 2.0))
        middle = 0.03 * width + (index + 0.5 + float(rng.uniform(-0.1, 0.1))) * slot
        out.append((patch, alpha, (round(middle - alpha.shape[1] / 2), round(base - alpha.shape[0]))))
    return out


def _motions(rng: np.random.Generator, count: int) -> list[tuple[float, float]]:
    """Motions that often differ in direction, or only one of which is not zero."""
    out = []
    side = float(rng.choice((-1, 1)))
    for _ in range(count):
        speed = float(rng.uniform(2.2, 8.0)) if rng.random() < 0.7 else 0.0
        out.append((side * speed, float(rng.normal(0, 0.15)) * speed))
        side = -side if rng.random() < 0.75 else side
    return [out[i] for i in rng.permutation(count)]


Placed = tuple[NDArray[np.uint8], NDArray[np.float32], tuple[int, int]]
"""A patch RGB uint8 [h,w,3] with its alpha float32 [h,w], and its corner (x, y), which may lie outside the frame."""


def _place(rng: np.random.Generator, cutout: CutOut, size: tuple[int, int], things: Sequence[Thing]) -> Placed | None:
    """Scale a cut-out and find a corner (x, y) where it hides at most a third of anything, or None."""
    height, width = size
    h, w = cutout.mask.shape
    for _ in range(_TRIES):
        pixels = max(int(np.count_nonzero(cutout.mask)), 1)
        target = math.sqrt(rng.uniform(0.03, 0.22) * height * width / pixels)
        patch, alpha = _scaled(cutout, min(target, 0.9 * height / h, 0.7 * width / w, 1.6))
        sh, sw = alpha.shape
        x = int(rng.integers(-sw // 8, max(width - sw + sw // 8, 1)))
        y = int(rng.integers(-sh // 10, max(height - sh + sh // 10, 1)))
        placed = (patch, alpha, (x, y))
        if _fits(placed, size, things, share=0.75, least=0.01):
            return placed
    return None


def _seat(
    rng: np.random.Generator, rider: CutOut, mount: Placed, size: tuple[int, int], things: Sequence[Thing]
) -> Placed | None:
    """Scale a person and set it on a mount that is placed already, or None where it would hide or miss too much."""
    height, width = mount[1].shape
    patch, alpha = _scaled(rider, float(rng.uniform(0.7, 1.1)) * max(height, width) / len(rider.mask))
    x = round(mount[2][0] + float(rng.uniform(0.35, 0.65)) * width - alpha.shape[1] / 2)
    y = round(mount[2][1] + float(rng.uniform(0.6, 0.95)) * height - alpha.shape[0])
    placed = (patch, alpha, (x, y))
    return placed if _fits(placed, size, things, share=0.5) else None


def _fits(placed: Placed, size: tuple[int, int], things: Sequence[Thing], *, share: float, least: float = 0.0) -> bool:
    """True if a share of a patch is within the frame, is large enough there, and hides at most a third of any thing."""
    inside = placed[1] > 0.5
    here, there = _overlap(placed, size)
    shown = np.count_nonzero(inside[there])
    hides = (np.count_nonzero(t.mask[here] & inside[there]) > 0.33 * t.area for t in things if t.area)
    enough = max(share * np.count_nonzero(inside), least * size[0] * size[1])
    return bool(shown >= enough) and not any(hides)


def _scaled(cutout: CutOut, scale: float) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """A cut-out enlarged by a factor, with soft edges: RGB uint8 [h,w,3] and alpha float32 [h,w]."""
    h, w = cutout.mask.shape
    size = max(round(h * scale), 4), max(round(w * scale), 4)
    method = cv2.INTER_AREA if size[0] < cutout.mask.shape[0] else cv2.INTER_LINEAR
    alpha = cv2.resize(cutout.mask.astype(np.float32), size[::-1], interpolation=method)
    # Pull the edge inwards, so that little of the old background comes along.
    alpha = np.clip(cv2.GaussianBlur(alpha, (0, 0), 0.8) * 2 - 0.85, 0, 1).astype(np.float32)
    patch = cv2.resize(np.ascontiguousarray(cutout.image), size[::-1], interpolation=method)
    return cast("NDArray[np.uint8]", patch), alpha


def _overlap(placed: Placed, size: tuple[int, ...]) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """The slices of the frame [H,W] and of the patch that lie over one another."""
    (h, w), (x, y) = placed[1].shape, placed[2]
    x0, y0, x1, y1 = max(x, 0), max(y, 0), min(x + w, size[1]), min(y + h, size[0])
    return (slice(y0, y1), slice(x0, x1)), (slice(y0 - y, y1 - y), slice(x0 - x, x1 - x))


def _paste(rng: np.random.Generator, image: NDArray[np.uint8], placed: Placed) -> NDArray[np.bool_]:
    """Blend a patch into the image in place, its light drawn towards the frame's; returns its mask [H,W]."""
    patch, alpha, _ = placed
    here, there = _overlap(placed, image.shape)
    inside = alpha > 0.5
    light = float(image[::8, ::8].mean()) / max(float(patch[inside].mean()), 1.0)
    gain = np.clip(light, 0.7, 1.4) ** 0.4 * rng.uniform(0.9, 1.1) * (1 + rng.uniform(-0.03, 0.03, 3))
    weight = alpha[there][..., None]
    mixed = weight * np.clip(patch[there] * gain.astype(np.float32), 0, 255) + (1 - weight) * image[here]
    image[here] = mixed.astype(np.uint8)
    mask = np.zeros(image.shape[:2], np.bool_)
    mask[here] = inside[there]
    return mask


def _show_on_ground(
    rng: np.random.Generator, image: NDArray[np.uint8], parts: Sequence[Placed], things: Sequence[Thing]
) -> NDArray[np.bool_]:
    """Mirror or shade in place what is about to be pasted, the first of which stands on the ground; where: [H,W]."""
    _, alpha, (_, top) = parts[0]
    ground = Ground.draw(rng, base=top + int(np.flatnonzero((alpha > 0.5).any(axis=1))[-1]), height=alpha.shape[0])
    seen = np.zeros(image.shape[:2], np.bool_)
    free = ~np.any([thing.mask for thing in things], axis=0) if things else ~seen
    for part in parts:
        seen |= ground.show(rng, image, *part, free)
    return seen


def _hide(thing: Thing, mask: NDArray[np.bool_]) -> Thing:
    return replace(thing, mask=thing.mask & ~mask) if (thing.mask & mask).any() else thing


def _still(flow: NDArray[np.float32], mask: NDArray[np.bool_], camera: NDArray[np.floating]) -> None:
    """Give a mask's pixels the camera's motion, in place."""
    height, width = flow.shape[:2]
    small = cv2.resize(mask.view(np.uint8) * np.uint8(255), (width, height), interpolation=cv2.INTER_AREA)
    weight = small.astype(np.float32)[..., None] / 255
    flow *= 1 - weight
    flow += weight * np.asarray(camera, np.float32)
