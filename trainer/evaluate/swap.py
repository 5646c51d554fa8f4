"""Swap test: whether each of two expressions about one frame selects its own object rather than the other's.

The test also measures the masks of expressions that name nothing in the frame.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from itertools import combinations, islice
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from rich.progress import Progress

from rvos_edge.errors import UserError
from rvos_edge.synthetic.camera import SyntheticCamera
from rvos_edge.trainer.data.clips_dataset import ClipsDataset
from rvos_edge.trainer.data.generate import vocabulary
from rvos_edge.trainer.data.generate.copy_paste import ComposedDataset
from rvos_edge.trainer.data.generate.labelled_frame import LabelledFrame
from rvos_edge.trainer.data.generate.synthetic import EVALUATION_SEEDS
from rvos_edge.trainer.data.generate.templates import Pair, describe
from rvos_edge.trainer.data.readers.coco import CocoDataset
from rvos_edge.trainer.data.readers.davis16 import SCENERY, Davis16Clips
from rvos_edge.trainer.data.transforms import Augmentation
from rvos_edge.trainer.evaluate.model import Predictor
from rvos_edge.trainer.evaluate.scorers import Metrics, mean
from rvos_edge.trainer.evaluate.synthetic import EMPTY_SHARE
from rvos_edge.trainer.metrics import region_similarity

_SIZE, _FLOW_SIZE = (288, 512), (36, 64)
# Largest number of expressions per frame; held-out COCO images are few, so more of their objects are used.
_PER_FRAME, _PER_IMAGE = 4, 8
_ABSENT = 2
# Masks count as different objects up to this overlap, as a share of the smaller one.
_OVERLAP = 0.05
_TRIES = 6
# Kinds of expressions that are true of still frames.
_STILL = ("colour", "shape", "size")
# Seeds below are those of evaluate_synthetic.
_FIRST_SEED = 500


@dataclass(frozen=True)
class SwapFrame:
    """A BGR frame, N expressions about objects of it with their masks [N,H,W], pairs of them that name different
    objects, and expressions that name nothing in it.
    """

    image: NDArray[np.uint8]
    queries: list[str]
    masks: NDArray[np.bool_]
    pairs: list[tuple[int, int]]
    absent: list[str]

    @property
    def expressions(self) -> list[str]:
        """All expressions, those that name something first."""
        return [*self.queries, *self.absent]


@dataclass
class PairTally:
    """Counts over the frames of one source."""

    frames: int = 0
    pairs: int = 0
    both: int = 0
    each: int = 0
    absent: list[float] = field(default_factory=list)

    def add(self, frame: SwapFrame, predicted: NDArray[np.bool_]) -> None:
        """Count the masks of the queries and of the absent expressions, bool [N+A,H,W]."""
        count, shape = len(frame.queries), frame.masks.shape
        iou = np.stack([region_similarity(frame.masks, np.broadcast_to(mask, shape)) for mask in predicted[:count]])
        for a, b in frame.pairs:
            first, second = bool(iou[a, a] > iou[a, b]), bool(iou[b, b] > iou[b, a])
            self.both += first and second
            self.each += first + second
        self.frames += 1
        self.pairs += len(frame.pairs)
        self.absent += [float(mask.mean()) for mask in predicted[count:]]

    def __add__(self, other: PairTally) -> PairTally:
        return PairTally(*(getattr(self, entry.name) + getattr(other, entry.name) for entry in fields(PairTally)))

    def metrics(self) -> Metrics:
        return {
            "share": self.both / self.pairs if self.pairs else None,
            "named_wins": self.each / (2 * self.pairs) if self.pairs else None,
            "absent_foreground": mean(self.absent),
            "absent_empty": mean(share < EMPTY_SHARE for share in self.absent),
            "pairs": self.pairs,
            "frames": self.frames,
            "absent": len(self.absent),
        }


def evaluate_swap(
    predictor: Predictor,
    coco_root: Path | None = None,
    davis_root: Path | None = None,
    *,
    people: Path | None = None,
    count: int = 100,
    seed: int = 0,
    expressions: Path | None = None,
    progress: Progress | None = None,
) -> Metrics:
    """Run the swap test on still frames.

    Two measures over pairs of expressions that name different objects of a frame. ``share``: share of pairs in which
    *both* masks overlap their own object more than the other's; a network that gives both the same mask, or none,
    scores 0. ``named_wins``: share of the single expressions whose mask does so; a network that always selects the same
    object scores one half.

    Sources: held-out scenes of the synthetic camera; frames composed from COCO objects, in part over held-out DAVIS
    videos; plain COCO images, with expressions about different categories; people or animals of one kind side by side,
    told apart by what they wear, colour, size, place and order. Pictures are those of the split ``held_out``, which
    training leaves out.

    Args:
        coco_root: Folder of COCO; None uses synthetic scenes only.
        davis_root: Folder of DAVIS; None composes over COCO images only.
        people: Folder of people with labelled garments and instances as COCO's, for those side by side; None leaves
            that source out, and so does ``coco_root`` None, whose pictures are the backgrounds.

    Returns:
        For each source and for ``overall``: ``share`` and ``named_wins`` (None without pairs), ``pairs`` and
        ``frames``; number of ``absent`` expressions, their mean share of the image (``absent_foreground``) and the
        share of them whose mask is empty, below 0.5 % of the image (``absent_empty``).

    Raises:
        UserError: A folder or file is missing, or ``count`` is below 1.
    """
    if count < 1:
        raise UserError(f"count must be at least 1, not {count}: it is the number of frames per source.")
    sources: dict[str, Iterator[SwapFrame]] = {"synthetic": _synthetic(count, seed)}
    if coco_root is not None:
        plain = Augmentation.none()
        coco = CocoDataset(coco_root, size=_SIZE, flow_size=_FLOW_SIZE, augmentation=plain, split="held_out")
        composed = ComposedDataset(coco=coco, davis=_backgrounds(davis_root, expressions), augmentation=plain)
        sources["composed"] = _draw(composed.scene, count, seed)
        sources["coco"] = _coco(coco, count, seed)
        if people is not None:
            sources["rows"] = _rows(coco, people, count, seed)
    bar = progress or Progress(disable=True)
    tallies: dict[str, PairTally] = {}
    for name, frames in sources.items():
        tallies[name] = PairTally()
        for frame in bar.track(frames, total=count, description=f"swap {name}"):
            predictor.set_queries(frame.expressions)
            predictor.reset()
            tallies[name].add(frame, predictor.masks(frame.image))
    tallies["overall"] = sum(tallies.values(), PairTally())
    return {name: tally.metrics() for name, tally in tallies.items()}


def _synthetic(count: int, seed: int) -> Iterator[SwapFrame]:
    """First frames of synthetic scenes, with expressions that do not speak of motion."""
    first, end = _FIRST_SEED, EVALUATION_SEEDS[1]
    for number in range(min(count, end - first)):
        scene = first + (seed * count + number) % (end - first)
        camera = SyntheticCamera(seed=scene, size=_SIZE)
        image = camera.render(0)
        rng = np.random.default_rng([seed, 0, scene])
        said: list[Pair] = [
            (str(rng.choice(sentences)), mask)
            for sentences, mask in zip(camera.expressions(0), image.masks, strict=True)
            if sentences
        ]
        absent = camera.absent_expressions(np.random.default_rng([seed, 3, scene]), _ABSENT, kinds=_STILL)
        frame = _frame(image.image, said, rng, absent=absent)
        if frame is not None:
            yield frame


def _coco(coco: CocoDataset, count: int, seed: int) -> Iterator[SwapFrame]:
    pictures = [p for p in coco.pictures if p.complete and len({i.category for i in p.instances}) > 1]

    def frame(index: int) -> SwapFrame | None:
        rng = np.random.default_rng([seed, 2, index])
        return _scene_frame(coco.scene(rng, pictures[index]), rng, apart=True)

    order = np.random.default_rng([seed, 2]).permutation(len(pictures)).tolist()
    return islice(filter(None, map(frame, order)), count)


def _rows(coco: CocoDataset, people: Path, count: int, seed: int) -> Iterator[SwapFrame]:
    """Frames with two or more people or animals of one kind, over pictures that hold none of that kind."""
    labels = people / "labels"
    persons = CocoDataset(
        people,
        size=_SIZE,
        flow_size=_FLOW_SIZE,
        augmentation=coco.augmentation,
        split="held_out",
        labels=labels if labels.is_dir() else None,
    )
    composed = ComposedDataset(coco=coco, objects=[persons], augmentation=coco.augmentation, rows=1.0)
    return _draw(composed.scene, count, seed, alike=True)


def _draw(
    draw: Callable[[np.random.Generator], LabelledFrame], count: int, seed: int, *, alike: bool = False
) -> Iterator[SwapFrame]:
    """Drawn frames; with ``alike`` those alone that hold two things of one kind."""

    def frame(number: int) -> SwapFrame | None:
        rng = np.random.default_rng([seed, 1, number])
        scene = draw(rng)
        kinds = [thing.category for thing in scene.things if thing.category]
        return None if alike and len(set(kinds)) == len(kinds) else _scene_frame(scene, rng)

    return islice(filter(None, map(frame, range(_TRIES * count))), count)


def _scene_frame(scene: LabelledFrame, rng: np.random.Generator, *, apart: bool = False) -> SwapFrame | None:
    # Without motion, so that no expression speaks of it.
    things = [replace(thing, motion=None) for thing in scene.things]
    said = describe(things, uncertain=scene.uncertain, rng=rng)
    # One expression per distinct mask.
    shuffled = [said[i] for i in rng.permutation(len(said))]
    different = {mask.tobytes(): (sentence, mask) for sentence, mask in shuffled if mask.any()}
    image = np.asarray(cv2.cvtColor(scene.image, cv2.COLOR_RGB2BGR), np.uint8)
    pools = [pool for pool in (scene.near, scene.far) if pool]
    drawn = [str(rng.choice(pools[number % len(pools)])) for number in range(_ABSENT if pools else 0)]
    absent = [f"the {rng.choice(vocabulary.names(category))}" for category in drawn]
    return _frame(image, list(different.values()), rng, apart=apart, absent=absent)


def _frame(
    image: NDArray[np.uint8],
    said: list[Pair],
    rng: np.random.Generator,
    *,
    apart: bool = False,
    absent: Sequence[str] = (),
) -> SwapFrame | None:
    """A frame with some of the expressions and their pairs, or None without a pair; with ``apart`` only pairs of
    different categories count.
    """
    chosen = [said[i] for i in rng.permutation(len(said))[: _PER_IMAGE if apart else _PER_FRAME]]
    pairs = [
        (a, b)
        for (a, (one, mask)), (b, (other, rival)) in combinations(enumerate(chosen), 2)
        if are_disjoint(mask, rival) and not (apart and vocabulary.concepts(one) & vocabulary.concepts(other))
    ]
    if not pairs:
        return None
    masks = np.stack([mask for _, mask in chosen])
    return SwapFrame(image, [sentence for sentence, _ in chosen], masks, pairs, list(absent))


def are_disjoint(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> bool:
    """True if two masks overlap by 5 % of the smaller one at most."""
    smaller = min(np.count_nonzero(one), np.count_nonzero(other))
    return bool(np.count_nonzero(one & other) <= _OVERLAP * smaller)


def _backgrounds(root: Path | None, expressions: Path | None) -> ClipsDataset | None:
    """Held-out videos, for backgrounds and foregrounds of composed frames."""
    if root is None:
        return None
    clips = Davis16Clips(root, split="val", expressions=expressions)
    return ClipsDataset(clips, size=_SIZE, flow_size=_FLOW_SIZE, scenery=SCENERY, augmentation=Augmentation.none())
