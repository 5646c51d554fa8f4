"""Swap test: does each of two sentences pick its own object of a frame, or do both pick the same one?"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from rich.progress import Progress

from rvos_edge.errors import UserError
from rvos_edge.stream.synthetic import SyntheticCamera
from rvos_edge.trainer.data import lexicon
from rvos_edge.trainer.data.coco import CocoDataset
from rvos_edge.trainer.data.compose import ComposedDataset
from rvos_edge.trainer.data.davis import DavisDataset
from rvos_edge.trainer.data.expressions import Pair, describe
from rvos_edge.trainer.data.scene import Scene
from rvos_edge.trainer.data.synthetic import EVALUATION_SEEDS
from rvos_edge.trainer.data.transforms import Augmentation
from rvos_edge.trainer.evaluate_video import Metrics, Predictor, open_davis
from rvos_edge.trainer.metrics import region_similarity

_SIZE, _FLOW_SIZE = (288, 512), (36, 64)
_PER_FRAME = 4
_OVERLAP = 0.05
_TRIES = 6
# The scenes of evaluate_synthetic come first; these are others.
_FIRST_SEED = 500


@dataclass(frozen=True)
class SwapFrame:
    """A frame BGR uint8 [H,W,3] with sentences for different objects, and which of them make pairs."""

    image: NDArray[np.uint8]
    queries: list[str]
    masks: NDArray[np.bool_]
    pairs: list[tuple[int, int]]


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
    """The share of pairs of sentences that keep two objects of one still frame apart.

    A pair (a, b) succeeds when the mask of each sentence overlaps its own object more than the other's; a network that
    gives both the same mask, or none, gets 0. Swapping a and b changes nothing, so every pair counts once.

    Sources: held-out scenes of the synthetic camera; frames composed from COCO objects, in part over held-out DAVIS
    videos (the pictures are those of the training excerpt, their composition is new); plain COCO images, sentences
    of different categories.

    Args:
        predictor: What is judged.
        coco_root: Folder of the COCO excerpt; None leaves out all but the synthetic scenes.
        davis_root: Folder of DAVIS; None composes over COCO images alone.
        count: Frames per source.
        seed: Decides the frames.
        expressions: The sentences' JSON of DAVIS; ROOT/meta_expressions.json when None.
        progress: Where a bar is drawn.

    Returns:
        For each source and for ``overall``: ``share`` (None without pairs), ``pairs`` and ``frames``.

    Raises:
        UserError: A folder or file is missing.
    """
    if count < 1:
        raise UserError(f"count must be at least 1, not {count}: it is the number of frames per source.")
    sources: dict[str, Iterator[SwapFrame]] = {"synthetic": _synthetic(count, seed)}
    if coco_root is not None:
        plain = Augmentation.none()
        coco = CocoDataset(coco_root, size=_SIZE, flow_size=_FLOW_SIZE, augmentation=plain)
        composed = ComposedDataset(coco=coco, davis=_backgrounds(davis_root, expressions), augmentation=plain)
        sources["composed"] = _draw(composed.scene, count, seed)
        sources["coco"] = _coco(coco, count, seed)
    out: Metrics = {}
    for name, frames in sources.items():
        task = None if progress is None else progress.add_task(f"swap {name}", total=count)
        good = pairs = seen = 0
        for frame in frames:
            predictor.reset()
            predictor.set_queries(frame.queries)
            kept = _kept_apart(frame, predictor.masks(frame.image))
            good, pairs, seen = good + sum(kept), pairs + len(kept), seen + 1
            if progress is not None and task is not None:
                progress.advance(task)
        out[name] = {"share": good / pairs if pairs else None, "pairs": pairs, "frames": seen, "kept": good}
    pairs, seen, good = (sum(entry[key] for entry in out.values()) for key in ("pairs", "frames", "kept"))
    out["overall"] = {"share": good / pairs if pairs else None, "pairs": pairs, "frames": seen, "kept": good}
    return out


def _kept_apart(frame: SwapFrame, masks: NDArray[np.bool_]) -> list[bool]:
    iou = np.stack([region_similarity(frame.masks, np.broadcast_to(mask, frame.masks.shape)) for mask in masks])
    return [bool(iou[a, a] > iou[a, b] and iou[b, b] > iou[b, a]) for a, b in frame.pairs]


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
        frame = _frame(image.image, said, rng)
        if frame is not None:
            yield frame


def _coco(coco: CocoDataset, count: int, seed: int) -> Iterator[SwapFrame]:
    pictures = [p for p in coco.pictures if p.complete and len({i.category for i in p.instances}) > 1]
    order = iter(np.random.default_rng([seed, 2]).permutation(len(pictures)).tolist())
    found = 0
    for index in order:
        rng = np.random.default_rng([seed, 2, index])
        frame = _of_scene(coco.scene(rng, pictures[index]), rng, apart=True)
        if frame is not None:
            yield frame
            found += 1
        if found == count:
            return


def _draw(draw: Callable[[np.random.Generator], Scene], count: int, seed: int) -> Iterator[SwapFrame]:
    found = 0
    for number in range(_TRIES * count):
        rng = np.random.default_rng([seed, 1, number])
        frame = _of_scene(draw(rng), rng)
        if frame is not None:
            yield frame
            found += 1
        if found == count:
            return


def _of_scene(scene: Scene, rng: np.random.Generator, *, apart: bool = False) -> SwapFrame | None:
    # A still frame shows no motion: nothing may be said of it.
    things = [replace(thing, motion=None) for thing in scene.things]
    said = describe(things, uncertain=scene.uncertain, rng=rng)
    # One sentence for each different mask.
    shuffled = [said[i] for i in rng.permutation(len(said))]
    different = {mask.tobytes(): (sentence, mask) for sentence, mask in shuffled if mask.any()}
    image = np.asarray(cv2.cvtColor(scene.image, cv2.COLOR_RGB2BGR), np.uint8)
    return _frame(image, list(different.values()), rng, apart=apart)


def _frame(
    image: NDArray[np.uint8], said: list[Pair], rng: np.random.Generator, *, apart: bool = False
) -> SwapFrame | None:
    """At most four of the sentences and the pairs of them that name different objects, or None without a pair.

    Args:
        image: BGR uint8 [H,W,3].
        said: Sentences and their masks.
        rng: Chooses the four.
        apart: Only pairs of sentences about different categories.
    """
    chosen = [said[i] for i in rng.permutation(len(said))[:_PER_FRAME]]
    pairs = [
        (a, b)
        for (a, (one, mask)), (b, (other, rival)) in combinations(enumerate(chosen), 2)
        if _disjoint(mask, rival) and not (apart and lexicon.concepts(one) & lexicon.concepts(other))
    ]
    if not pairs:
        return None
    return SwapFrame(image, [sentence for sentence, _ in chosen], np.stack([mask for _, mask in chosen]), pairs)


def _disjoint(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> bool:
    smaller = min(np.count_nonzero(one), np.count_nonzero(other))
    return bool(np.count_nonzero(one & other) <= _OVERLAP * smaller)


def _backgrounds(root: Path | None, expressions: Path | None) -> DavisDataset | None:
    """The held-out videos, for backgrounds and foregrounds of the composed frames."""
    if root is None:
        return None
    videos = open_davis(root, split="val", expressions=expressions).videos
    return DavisDataset(
        root,
        size=_SIZE,
        flow_size=_FLOW_SIZE,
        expressions=expressions,
        videos=videos,
        augmentation=Augmentation.none(),
    )
