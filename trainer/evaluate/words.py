"""Pictures that training leaves out, asked by single words: words that it says, and words that it never says.

Every category that a picture holds is asked for by its noun, and so are categories that it surely does not hold. The
words of ``generate/held_out.yaml`` are reported apart: how the network does on them tells how it does on words that it
was not taught. Pictures with two kinds of things also tell whether each word picks its own.
"""

from __future__ import annotations

from collections.abc import Container, Iterator
from dataclasses import dataclass, field
from itertools import combinations
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
from rvos_edge.trainer.metrics import region_similarity, reliability

_SMALLEST = 0.01
"""Share of the picture below which a category is not asked for."""
_ABSENT = 2
_MOST = 8
"""Instances of a category beyond which it is not asked for: crowds are annotated in part."""
_OVERLAP = 0.05


@dataclass(frozen=True)
class WordFrame:
    """A BGR picture and the categories that it is asked, first those that are there with their masks, bool [P,H,W]."""

    image: NDArray[np.uint8]
    words: list[str]
    masks: NDArray[np.bool_]


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
            found["presence"] = reliability(np.array(self.presence), np.array(self.present))
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

    Raises:
        UserError: A folder or file is missing.
    """
    held_out = load_held_out()
    tallies = {"seen": _Tally(), "held_out": _Tally()}
    kept = named = pairs = 0
    task = None if progress is None else progress.add_task("words", total=count)
    for frame in _frames(root, count, seed):
        predictor.reset()
        predictor.set_queries([f"the {vocabulary.names(word)[0]}" for word in frame.words])
        masks, presence = predictor.masks(frame.image), predictor.presence
        there = len(frame.masks)
        for index, (word, mask) in enumerate(zip(frame.words, masks, strict=True)):
            tally = tallies["held_out" if held_out.kind(word) else "seen"]
            if index < there:
                tally.regions.append(float(region_similarity(frame.masks[index], mask)))
            else:
                tally.absent.append(float(mask.mean()))
            if presence is not None:
                tally.presence.append(float(presence[index]))
                tally.present.append(index < there)
        for a, b in combinations(range(there), 2):
            if not _apart(frame.masks[a], frame.masks[b]):
                continue
            first, second = (
                region_similarity(frame.masks[own], masks[own]) > region_similarity(frame.masks[other], masks[own])
                for own, other in ((a, b), (b, a))
            )
            pairs += 1
            kept += int(first and second)
            named += int(first) + int(second)
        if progress is not None and task is not None:
            progress.advance(task)
    shares = {"share": kept / pairs, "named_wins": named / (2 * pairs)} if pairs else {}
    return {**{name: tally.figures() for name, tally in tallies.items()}, "pairs": {**shares, "pairs": pairs}}


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
        predictor: The model.
        root: A folder with instances as COCO's.
        shots: Pictures that each word is shown on. Training has seen them, but never under this word; words with fewer
            are left out.
        count: At most so many held-out pictures are scored.
        seed: Decides which.
        progress: Where a bar is drawn.

    Returns:
        ``noun`` and ``taught``, of the same pictures: ``j``, ``absent_foreground``, ``words`` and ``absent``; and
        ``by_word`` with the number and the mean J of each word.

    Raises:
        UserError: A folder or file is missing, or the predictor cannot be taught.
    """
    held_out = load_held_out()
    shown: dict[str, list[tuple[NDArray[np.uint8], NDArray[np.bool_]]]] = {}
    for frame in _frames(root, None, seed, "train", held_out.kinds):
        for word, mask in zip(frame.words, frame.masks, strict=False):
            if held_out.kind(word) and len(shown.setdefault(word, [])) < shots:
                shown[word].append((frame.image, mask))
        if len(shown) == len(held_out.kinds) and all(len(each) == shots for each in shown.values()):
            break
    enough = {word: pairs for word, pairs in shown.items() if len(pairs) == shots}
    taught: dict[str, PredictorQuery] = {}
    tallies = {"noun": _Tally(), "taught": _Tally()}
    by_word: dict[str, dict[str, list[float]]] = {}
    task = None if progress is None else progress.add_task("words", total=count)
    for frame in _frames(root, count, seed, "held_out", enough):
        rows = [index for index, word in enumerate(frame.words) if word in enough]
        if not rows:  # what there is of it is too small
            continue
        nouns = {index: f"the {vocabulary.names(frame.words[index])[0]}" for index in rows}
        for index in rows:
            word = frame.words[index]
            if word not in taught:
                images, masks = zip(*enough[word], strict=True)
                taught[word] = predictor.teach(images, masks, [None] * shots, nouns[index])
        for name, tally in tallies.items():
            predictor.reset()
            predictor.set_queries([nouns[index] if name == "noun" else taught[frame.words[index]] for index in rows])
            for index, mask in zip(rows, predictor.masks(frame.image), strict=True):
                if index < len(frame.masks):
                    tally.regions.append(float(region_similarity(frame.masks[index], mask)))
                    of_word = by_word.setdefault(frame.words[index], {"noun": [], "taught": []})
                    of_word[name].append(tally.regions[-1])
                else:
                    tally.absent.append(float(mask.mean()))
        if progress is not None and task is not None:
            progress.advance(task)
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
) -> Iterator[WordFrame]:
    """Pictures of a split in random order, those alone that have one of the words where they are given."""
    data = CocoDataset(root, size=(288, 512), flow_size=(144, 256), split=split)
    found = 0
    for index in np.random.default_rng(seed).permutation(len(data.pictures)).tolist():
        picture = data.pictures[index]
        if words is not None and not any(instance.category in words for instance in picture.instances):
            continue
        frame = _frame(data, picture, np.random.default_rng([seed, index]))
        if frame is not None:
            yield frame
            found += 1
        if found == count:
            return


def _frame(data: CocoDataset, picture: Picture, rng: np.random.Generator) -> WordFrame | None:
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
    return WordFrame(data.read(picture), [*masks, *chosen], np.stack(list(masks.values())))


def _apart(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> bool:
    return bool(np.count_nonzero(one & other) <= _OVERLAP * min(np.count_nonzero(one), np.count_nonzero(other)))
