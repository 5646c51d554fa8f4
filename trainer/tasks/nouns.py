"""Nouns that no picture names, taught to the language projections without pictures.

A network that was never shown a camel answers "an animal" better than "a camel". The language vectors of a sentence
with an untaught noun are moved towards those of the same sentence with the nearest kind that was taught; a sentence
with a taught noun keeps its vectors. The sentence encoder is frozen: after encoding, training takes seconds.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from rich.console import Console
from torch import Tensor

from rvos_edge.errors import UserError
from rvos_edge.nouns import article, load_nouns, plural
from rvos_edge.trainer.card import training_history
from rvos_edge.trainer.checkpoint import Checkpoint, load_checkpoint, save_checkpoint, unused_checkpoint
from rvos_edge.trainer.config import NounsConfig
from rvos_edge.trainer.data.config import expressions_of
from rvos_edge.trainer.data.generate.captions import read_captions
from rvos_edge.trainer.data.generate.held_out import load_held_out
from rvos_edge.trainer.model.language import tokenize
from rvos_edge.wordings import main_noun

_LOOKS = (
    "black",
    "white",
    "brown",
    "gray",
    "red",
    "blue",
    "green",
    "small",
    "large",
    "young",
    "old",
    "spotted",
    "fast",
)
_PLACES = (
    *(
        "on the left",
        "on the right",
        "in the middle",
        "in front",
        "at the back",
        "near the camera",
        "in the background",
    ),
    *("in the water", "on the road", "on the grass", "in the snow", "next to a person", "beside the trees"),
    *("running", "walking", "moving", "standing", "turning around", "crossing the street", "that moves", "in motion"),
)
_ENCODED_AT_ONCE = 64
_WORDS_OF_A_MEANING = 2
_TAUGHT_WEIGHT = 2.0
"""Weight of the error on sentences that keep their vectors."""


class NounLesson(NamedTuple):
    """A sentence, and the one whose vectors it takes on in part: itself, where its noun was taught."""

    sentence: str
    wider: str


def train_nouns(config: NounsConfig, output: Path, *, console: Console | None = None) -> Path:
    """Teach the language projections of a finished network more nouns; returns the checkpoint, ``output/checkpoint``.

    Raises:
        UserError: A checkpoint or data folder is missing, a kind is no known noun, or the output exists already.
    """
    console = console or Console(stderr=True)
    path = unused_checkpoint(output)
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    loaded = load_checkpoint(Path(config.init_from))
    told = expressions_of(config.expressions)
    read = {} if config.captions is None else read_captions(Path(config.captions))
    captions = [caption for several in read.values() for caption in several]
    taught = taught_nouns(config.kinds, told, captions, least=config.least_captions)
    lessons = make_lessons(taught, [*told, *captions], seed=config.seed)
    before, after = fit(loaded, lessons, config)
    console.print(f"{len(lessons)} sentences: squared distance to their aims {before:.3f} -> {after:.3f}")
    card = {
        "name": config.name,
        "config": json.loads(config.model_dump_json()),
        "sentences": len(lessons),
        "history": training_history(loaded.card),
    }
    save_checkpoint(path, Checkpoint(loaded.model.eval(), loaded.tokenizer, card))
    return path


def taught_nouns(kinds: list[str], told: list[str], captions: list[str], *, least: int) -> frozenset[int]:
    """The meanings that training names: COCO's categories, kinds, and the nouns of sentences.

    Args:
        kinds: Wider nouns that training uses, such as "animal".
        captions: Sentences about pictures; what they are about counts from ``least`` of them on.

    Raises:
        UserError: A kind is no known noun.
    """
    nouns, held = load_nouns(), load_held_out()
    rows = {row for category, row in nouns.categories.items() if held.kind(category) is None}
    for kind in kinds:
        row = nouns.row(kind)
        if row is None:
            raise UserError(f"kinds: '{kind}' is no known noun; take a word of rvos_edge/nouns.json.")
        rows.add(row)
    rows |= {found.row for sentence in told for found in nouns.find(sentence)}
    about = Counter(found.row for sentence in captions if (found := main_noun(sentence.lower(), nouns)) is not None)
    return frozenset(rows | {row for row, count in about.items() if count >= least})


def make_lessons(taught: frozenset[int], sentences: list[str], *, seed: int) -> list[NounLesson]:
    """Lessons for every noun below a taught kind, in varied sentences; taught nouns and sentences aim at themselves.

    Held-out words are in none of them.
    """
    nouns, held, rng = load_nouns(), load_held_out(), np.random.default_rng(seed)
    classified = frozenset(nouns.imagenet)
    lessons = []
    for row, words in enumerate(nouns.words):
        kind = row if row in taught else next((above for above in nouns.above(row) if above in taught), None)
        if kind is None:
            continue
        # Meanings that a picture often shows are said more often than WordNet's rarities.
        times = 20 if row == kind else 4 if row in classified else 1
        for word in words[:_WORDS_OF_A_MEANING]:
            lessons += [_lesson(word, nouns.words[kind][0], rng) for _ in range(times) if not held.covers(word)]
    lessons += [NounLesson(text, text) for text in (sentence.lower().strip(" .") for sentence in sentences) if text]
    return [lesson for lesson in lessons if not held.says(lesson.sentence)]


def _lesson(noun: str, kind: str, rng: np.random.Generator) -> NounLesson:
    """Both nouns in the same sentence."""
    look = f"{_LOOKS[rng.integers(len(_LOOKS))]} " if rng.random() < 0.35 else ""
    place = f" {_PLACES[rng.integers(len(_PLACES))]}" if rng.random() < 0.5 else ""
    form = int(rng.integers(5))
    forms = (str, article, "the {}".format, "the {}".format, lambda phrase: f"the {plural(phrase)}")
    return NounLesson(*(forms[form](look + word) + place for word in (noun, kind)))


def fit(loaded: Checkpoint, lessons: list[NounLesson], config: NounsConfig) -> tuple[float, float]:
    """Fit the projections to the lessons' aims, in place.

    Returns the mean squared distance to the aims before and after, of the sentences with untaught nouns, in variances
    of the vectors' channels.
    """
    model = loaded.model
    projections = model.language
    texts = sorted({text for lesson in lessons for text in lesson}, key=len)
    place = {text: index for index, text in enumerate(texts)}
    with torch.no_grad():
        parts = [texts[start : start + _ENCODED_AT_ONCE] for start in range(0, len(texts), _ENCODED_AT_ONCE)]
        length = model.config.text.max_tokens
        vectors = torch.cat([model.sentence(*tokenize(loaded.tokenizer, part, length)) for part in parts])
        own = torch.tensor([place[lesson.sentence] for lesson in lessons])
        wider = torch.tensor([place[lesson.wider] for lesson in lessons])
        start = torch.cat(projections(vectors), dim=-1)
        scale = 1 / start[own].std(0).clamp(min=1e-6)
        aims = torch.lerp(start[own], start[wider], config.share)

    def error(rows: Tensor) -> Tensor:
        found = torch.cat(projections(vectors[own[rows]]), dim=-1)
        return (((found - aims[rows]) * scale) ** 2).mean(-1)

    untaught = torch.nonzero(own != wider)[:, 0]
    if not len(untaught):
        raise UserError("there is no noun to teach: every one below the kinds is taught already; remove the stage.")
    weight = torch.where(own == wider, _TAUGHT_WEIGHT, 1.0)
    with torch.no_grad():
        before = float(error(untaught).mean())
    optimizer = torch.optim.AdamW(projections.parameters(), lr=config.lr, weight_decay=1e-4)
    total = config.epochs * -(-len(lessons) // config.batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, config.lr, total_steps=total)
    for _ in range(total):
        rows = torch.randint(len(lessons), (config.batch,))
        loss = (error(rows) * weight[rows]).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        return before, float(error(untaught).mean())
