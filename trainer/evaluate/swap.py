"""Swap test: does each of two sentences pick its own object of a frame, or do both pick the same one?

Beside it goes what the network does when asked for something that is not there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from itertools import combinations
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
from rvos_edge.trainer.evaluate.ledger import Metrics
from rvos_edge.trainer.evaluate.model import Predictor
from rvos_edge.trainer.evaluate.scorers import mean
from rvos_edge.trainer.evaluate.synthetic import EMPTY_SHARE
from rvos_edge.trainer.metrics import region_similarity

_SIZE, _FLOW_SIZE = (288, 512), (36, 64)
_PER_FRAME = 4
# Held-out COCO pictures are few: they are asked about more of their objects.
_PER_PICTURE = 8
_ABSENT = 2
_OVERLAP = 0.05
_TRIES = 6
# What a still frame shows.
_STILL = ("colour", "shape", "size")
# The scenes of evaluate_synthetic come first; these are others.
_FIRST_SEED = 500


@dataclass(frozen=True)
class SwapFrame:
    """A frame BGR uint8 [H,W,3] with sentences for different objects, and which of them make pairs.

    Attributes:
        image: BGR uint8 [H,W,3].
        queries: N sentences about things that are there.
        masks: bool [N,H,W], what they name.
        pairs: Which of them name different objects.
        absent: Sentences about what is surely not there.
    """

    image: NDArray[np.uint8]
    queries: list[str]
    masks: NDArray[np.bool_]
    pairs: list[tuple[int, int]]
    absent: list[str]


@dataclass
class _Tally:
    """Counts over the frames of one source."""

    frames: int = 0
    pairs: int = 0
    kept: int = 0
    named: int = 0
    absent: list[float] = field(default_factory=list)

    def add(self, frame: SwapFrame, answers: NDArray[np.bool_]) -> None:
        """Count the answers to the queries and then to the absent sentences, bool [N+A,H,W]."""
        count = len(frame.queries)
        iou = np.stack([region_similarity(frame.masks, np.broadcast_to(m, frame.masks.shape)) for m in answers[:count]])
        for a, b in frame.pairs:
            first, second = bool(iou[a, a] > iou[a, b]), bool(iou[b, b] > iou[b, a])
            self.kept += first and second
            self.named += first + second
        self.frames += 1
        self.pairs += len(frame.pairs)
        self.absent += [float(mask.mean()) for mask in answers[count:]]

    def __add__(self, other: _Tally) -> _Tally:
        return _Tally(*(getattr(self, entry.name) + getattr(other, entry.name) for entry in fields(_Tally)))

    def figures(self) -> Metrics:
        return {
            "share": self.kept / self.pairs if self.pairs else None,
            "named_wins": self.named / (2 * self.pairs) if self.pairs else None,
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
    count: int = 100,
    seed: int = 0,
    expressions: Path | None = None,
    progress: Progress | None = None,
) -> Metrics:
    """How often sentences keep two objects of one still frame apart, and what is answered where nothing is named.

    Two measures of pairs (a, b) of sentences that name different objects of a frame. ``share``: the pairs in which
    *both* masks overlap their own object more than the other's; a network that gives both the same mask, or none,
    gets 0. ``named_wins``: of the two sentences of every pair, each by itself, those whose mask does so; one that
    always picks the same object gets one half.

    Sources: held-out scenes of the synthetic camera; frames composed from COCO objects, in part over held-out DAVIS
    videos; plain COCO images, sentences about different categories. COCO's pictures are those of its split
    ``held_out``, which training leaves out.

    Args:
        predictor: What is judged.
        coco_root: Folder of the COCO excerpt; None leaves out all but the synthetic scenes.
        davis_root: Folder of DAVIS; None composes over COCO images alone.
        count: At most so many frames per source.
        seed: Decides the frames.
        expressions: The sentences' JSON of DAVIS; ROOT/meta_expressions.json when None.
        progress: Where a bar is drawn.

    Returns:
        For each source and for ``overall``: ``share`` and ``named_wins`` (None without pairs), ``pairs`` and
        ``frames``; ``absent`` sentences, their mean share of the image (``absent_foreground``) and how many of them
        are left empty, below 0.5 % of the image (``absent_empty``).

    Raises:
        UserError: A folder or file is missing.
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
    tallies: dict[str, _Tally] = {}
    for name, frames in sources.items():
        task = None if progress is None else progress.add_task(f"swap {name}", total=count)
        tallies[name] = _Tally()
        for frame in frames:
            predictor.set_queries([*frame.queries, *frame.absent])
            predictor.reset()
            tallies[name].add(frame, predictor.masks(frame.image))
            if progress is not None and task is not None:
                progress.advance(task)
        if progress is not None and task is not None:
            progress.update(task, total=tallies[name].frames)
    tallies["overall"] = sum(tallies.values(), _Tally())
    return {name: tally.figures() for name, tally in tallies.items()}


def _synthetic(count: int, seed: int) -> Iterator[SwapFrame]:
    """First frames, in which nothing is said of motion: a still frame shows none."""
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
        foreign = camera.absent_expressions(np.random.default_rng([seed, 3, scene]), _ABSENT, kinds=_STILL)
        frame = _frame(image.image, said, rng, foreign=foreign)
        if frame is not None:
            yield frame


def _coco(coco: CocoDataset, count: int, seed: int) -> Iterator[SwapFrame]:
    pictures = [p for p in coco.pictures if p.complete and len({i.category for i in p.instances}) > 1]
    found = 0
    for index in np.random.default_rng([seed, 2]).permutation(len(pictures)).tolist():
        rng = np.random.default_rng([seed, 2, index])
        frame = _of_scene(coco.scene(rng, pictures[index]), rng, apart=True)
        if frame is not None:
            yield frame
            found += 1
        if found == count:
            return


def _draw(draw: Callable[[np.random.Generator], LabelledFrame], count: int, seed: int) -> Iterator[SwapFrame]:
    found = 0
    for number in range(_TRIES * count):
        rng = np.random.default_rng([seed, 1, number])
        frame = _of_scene(draw(rng), rng)
        if frame is not None:
            yield frame
            found += 1
        if found == count:
            return


def _of_scene(scene: LabelledFrame, rng: np.random.Generator, *, apart: bool = False) -> SwapFrame | None:
    # A still frame shows no motion: nothing may be said of it.
    things = [replace(thing, motion=None) for thing in scene.things]
    said = describe(things, uncertain=scene.uncertain, rng=rng)
    # One sentence for each different mask.
    shuffled = [said[i] for i in rng.permutation(len(said))]
    different = {mask.tobytes(): (sentence, mask) for sentence, mask in shuffled if mask.any()}
    image = np.asarray(cv2.cvtColor(scene.image, cv2.COLOR_RGB2BGR), np.uint8)
    pools = [pool for pool in (scene.near, scene.far) if pool]
    drawn = [str(rng.choice(pools[number % len(pools)])) for number in range(_ABSENT if pools else 0)]
    foreign = [f"the {rng.choice(vocabulary.names(category))}" for category in drawn]
    return _frame(image, list(different.values()), rng, apart=apart, foreign=foreign)


def _frame(
    image: NDArray[np.uint8],
    said: list[Pair],
    rng: np.random.Generator,
    *,
    apart: bool = False,
    foreign: Sequence[str] = (),
) -> SwapFrame | None:
    """Some of the sentences and the pairs of them that name different objects, or None without a pair.

    Args:
        image: BGR uint8 [H,W,3].
        said: Sentences and their masks.
        rng: Chooses the sentences, four or, ``apart``, eight.
        apart: Only pairs of sentences about different categories.
        foreign: Sentences that surely name nothing here.
    """
    chosen = [said[i] for i in rng.permutation(len(said))[: _PER_PICTURE if apart else _PER_FRAME]]
    pairs = [
        (a, b)
        for (a, (one, mask)), (b, (other, rival)) in combinations(enumerate(chosen), 2)
        if _disjoint(mask, rival) and not (apart and vocabulary.concepts(one) & vocabulary.concepts(other))
    ]
    if not pairs:
        return None
    masks = np.stack([mask for _, mask in chosen])
    return SwapFrame(image, [sentence for sentence, _ in chosen], masks, pairs, list(foreign))


def _disjoint(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> bool:
    smaller = min(np.count_nonzero(one), np.count_nonzero(other))
    return bool(np.count_nonzero(one & other) <= _OVERLAP * smaller)


def _backgrounds(root: Path | None, expressions: Path | None) -> ClipsDataset | None:
    """The held-out videos, for backgrounds and foregrounds of the composed frames."""
    if root is None:
        return None
    clips = Davis16Clips(root, split="val", expressions=expressions)
    return ClipsDataset(clips, size=_SIZE, flow_size=_FLOW_SIZE, scenery=SCENERY, augmentation=Augmentation.none())
