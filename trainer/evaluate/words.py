"""Pictures that training leaves out, asked by single words: words that it says, and words that it never says.

Every category that a picture holds is asked for by its noun, and so are categories that it surely does not hold. The
words of ``generate/held_out.yaml`` are reported apart: how the network does on them tells how it does on words that it
was not taught. Pictures with two kinds of things also tell whether each word picks its own.
"""

from __future__ import annotations

import math
from collections.abc import Container, Iterator
from dataclasses import dataclass, field
from itertools import combinations, islice
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from rich.progress import Progress

from rvos_edge.trainer.data.generate import vocabulary
from rvos_edge.trainer.data.generate.held_out import load_held_out
from rvos_edge.trainer.data.readers.coco import CocoDataset
from rvos_edge.trainer.data.readers.coco_file import Picture
from rvos_edge.trainer.evaluate.model import PredictorQuery, PresencePredictor
from rvos_edge.trainer.evaluate.scorers import Metrics, mean
from rvos_edge.trainer.evaluate.swap import PairTally, SwapFrame, are_disjoint
from rvos_edge.trainer.metrics import region_similarity, reliability, reliability_curve

_SMALLEST = 0.01
"""Share of the picture below which a category is not asked for."""
_ABSENT = 2
_MOST = 8
"""Instances of a category beyond which it is not asked for: crowds are annotated in part."""
_SHAPES = {"tall": 0.9, "square": 1.1, "wide": math.inf}
"""Shapes of pictures, with the width over the height below which they end."""


@dataclass
class _Tally:
    regions: list[float] = field(default_factory=list)
    presence: list[float] = field(default_factory=list)
    present: list[bool] = field(default_factory=list)
    absent: list[float] = field(default_factory=list)

    def figures(self) -> Metrics:
        """J over what is there, the share of the image drawn where nothing is, and how far presence holds."""
        found: Metrics = {
            "j": mean(self.regions),
            "absent_foreground": mean(self.absent),
            "words": len(self.regions),
            "absent": len(self.absent),
        }
        if self.presence and 0 < sum(self.present) < len(self.present):
            said, present = np.array(self.presence), np.array(self.present)
            found["presence"] = {**reliability(said, present), "curve": reliability_curve(said, present)}
        return found


def evaluate_words(
    predictor: PresencePredictor,
    root: Path,
    *,
    count: int = 150,
    seed: int = 0,
    progress: Progress | None = None,
) -> Metrics:
    """Score single nouns on at most ``count`` held-out pictures of a folder with instances as COCO's.

    Returns:
        For ``seen`` and ``held_out`` words J, the share of the image drawn for absent ones, their numbers, and the
        quality of presence; ``by_shape`` the number and the mean J of all words on ``tall``, ``square`` and ``wide``
        pictures; ``pairs`` as in the swap test.

    Raises:
        UserError: A folder or file is missing.
    """
    held_out = load_held_out()
    tallies = {"seen": _Tally(), "held_out": _Tally()}
    shapes: dict[str, list[float]] = {shape: [] for shape in _SHAPES}
    pairs = PairTally()
    bar = progress or Progress(disable=True)
    for frame in bar.track(_frames(root, count, seed), total=count, description="words"):
        words, there = frame.expressions, len(frame.queries)
        predictor.reset()
        predictor.set_queries([f"the {vocabulary.names(word)[0]}" for word in words])
        masks, presence = predictor.masks(frame.image), predictor.presence
        pairs.add(frame, masks)
        for index, (word, mask) in enumerate(zip(words, masks, strict=True)):
            tally = tallies["held_out" if held_out.kind(word) else "seen"]
            if index < there:
                tally.regions.append(float(region_similarity(frame.masks[index], mask)))
                shapes[_shape(frame.image)].append(tally.regions[-1])
            else:
                tally.absent.append(float(mask.mean()))
            if presence is not None:
                tally.presence.append(float(presence[index]))
                tally.present.append(index < there)
    shares = {name: pairs.metrics()[name] for name in (("share", "named_wins", "pairs") if pairs.pairs else ("pairs",))}
    by_shape = {shape: {"words": len(regions), "j": mean(regions)} for shape, regions in shapes.items()}
    return {**{name: tally.figures() for name, tally in tallies.items()}, "by_shape": by_shape, "pairs": shares}


def _shape(picture: NDArray[np.uint8]) -> str:
    """The name of the shape of a picture [H,W,3]."""
    height, width = picture.shape[:2]
    return next(name for name, end in _SHAPES.items() if width / height < end)


def evaluate_taught_words(
    predictor: PresencePredictor,
    root: Path,
    shots: int,
    *,
    count: int = 150,
    seed: int = 0,
    progress: Progress | None = None,
) -> Metrics:
    """Teach the words that training never says by pictures, and score them on others.

    Args:
        shots: Pictures that each word is shown on. Training has seen them, but never under this word; words with fewer
            are left out.

    Returns:
        ``noun`` and ``taught``, of the same pictures: ``j``, ``absent_foreground``, ``words`` and ``absent``; and
        ``by_word`` with the number and the mean J of each word.

    Raises:
        UserError: A folder or file is missing, or the predictor cannot be taught.
    """
    held_out = load_held_out()
    shown: dict[str, list[tuple[NDArray[np.uint8], NDArray[np.bool_]]]] = {}
    for frame in _frames(root, None, seed, "train", held_out.kinds):
        for word, mask in zip(frame.queries, frame.masks, strict=True):
            if held_out.kind(word) and len(shown.setdefault(word, [])) < shots:
                shown[word].append((frame.image, mask))
        if len(shown) == len(held_out.kinds) and all(len(each) == shots for each in shown.values()):
            break
    enough = {word: pairs for word, pairs in shown.items() if len(pairs) == shots}
    taught: dict[str, PredictorQuery] = {}
    tallies = {"noun": _Tally(), "taught": _Tally()}
    by_word: dict[str, dict[str, list[float]]] = {}
    bar = progress or Progress(disable=True)
    for frame in bar.track(_frames(root, count, seed, "held_out", enough), total=count, description="words"):
        asked = frame.expressions
        rows = [index for index, word in enumerate(asked) if word in enough]
        if not rows:  # what there is of it is too small
            continue
        nouns = {index: f"the {vocabulary.names(asked[index])[0]}" for index in rows}
        for index in rows:
            word = asked[index]
            if word not in taught:
                images, masks = zip(*enough[word], strict=True)
                taught[word] = predictor.teach(images, masks, [None] * shots, nouns[index])
        for name, tally in tallies.items():
            predictor.reset()
            predictor.set_queries([nouns[index] if name == "noun" else taught[asked[index]] for index in rows])
            for index, mask in zip(rows, predictor.masks(frame.image), strict=True):
                if index < len(frame.masks):
                    tally.regions.append(float(region_similarity(frame.masks[index], mask)))
                    of_word = by_word.setdefault(asked[index], {"noun": [], "taught": []})
                    of_word[name].append(tally.regions[-1])
                else:
                    tally.absent.append(float(mask.mean()))
    words = {
        word: {"pictures": len(each["noun"]), **{name: mean(values) for name, values in each.items()}}
        for word, each in by_word.items()
    }
    return {**{name: tally.figures() for name, tally in tallies.items()}, "by_word": words, "shots": shots}


def _frames(
    root: Path,
    count: int | None,
    seed: int,
    split: Literal["train", "held_out"] = "held_out",
    words: Container[str] | None = None,
) -> Iterator[SwapFrame]:
    """Pictures of a split in random order with categories as expressions; those alone that have one of the ``words``,
    where they are given.
    """
    data = CocoDataset(root, size=(288, 512), flow_size=(144, 256), split=split)

    def frame(index: int) -> SwapFrame | None:
        picture = data.pictures[index]
        if words is not None and not any(instance.category in words for instance in picture.instances):
            return None
        return _frame(data, picture, np.random.default_rng([seed, index]))

    order = np.random.default_rng(seed).permutation(len(data.pictures)).tolist()
    return islice(filter(None, map(frame, order)), count)


def _frame(data: CocoDataset, picture: Picture, rng: np.random.Generator) -> SwapFrame | None:
    masks: dict[str, NDArray[np.bool_]] = {}
    for category in sorted({instance.category for instance in picture.instances}):
        own = [instance for instance in picture.instances if instance.category == category]
        mask = np.any([instance.mask(picture.size) for instance in own], axis=0)
        if category in vocabulary.COCO_CATEGORIES and len(own) <= _MOST and mask.mean() >= _SMALLEST:
            masks[category] = mask
    if not masks:
        return None
    absent = sorted(set(vocabulary.absent_categories({i.category for i in picture.instances})) & picture.absent)
    chosen = [absent[number] for number in rng.permutation(len(absent))[:_ABSENT]]
    there = np.stack(list(masks.values()))
    pairs = [(a, b) for a, b in combinations(range(len(there)), 2) if are_disjoint(there[a], there[b])]
    return SwapFrame(data.read(picture), list(masks), there, pairs, chosen)
