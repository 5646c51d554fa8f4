"""Words for things: categories, synonyms, and what must never be called absent."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from rvos_edge import nouns as _nouns
from rvos_edge.nouns import load_nouns

_FACTS: dict[str, Any] = yaml.safe_load(Path(__file__).with_name("words.yaml").read_text(encoding="utf-8"))

COCO_CATEGORIES: tuple[str, ...] = tuple(_FACTS["coco"])
PLURAL_ONLY, ANIMALS, VEHICLES, MOUNTS, CARRIED, _MOVES, _NEVER_ABSENT, _STOP = (
    frozenset[str](_FACTS[name])
    for name in ("plural_only", "animals", "vehicles", "mounts", "carried", "moves", "never_absent", "stop")
)
RELATIONS, SURROUNDINGS = (tuple[str, ...](_FACTS[name]) for name in ("relations", "surroundings"))
_SYNONYMS, _ACTIONS = (
    {name: tuple[str, ...](words) for name, words in _FACTS[part].items()} for part in ("synonyms", "actions")
)
GARMENTS: dict[str, tuple[str, bool]] = {
    label: (word, number == "paired") for number, words in _FACTS["garments"].items() for label, word in words.items()
}
"""Everyday name of a garment's label, and whether it comes in pairs ("in blue jeans")."""
_ALIKE = [frozenset[str](group) for group in _FACTS["alike"]]
# Word -> the categories it may speak of.
_WORDS: dict[str, Iterable[str]] = {}
for _row in _FACTS["speak_of"]:
    _WORDS |= dict.fromkeys(_row["words"], ANIMALS if _row["categories"] == "animals" else _row["categories"])
# "orange" is a colour far more often than a fruit.
_CATEGORY_PATTERN = re.compile(
    r"\b(" + "|".join(sorted((c for c in COCO_CATEGORIES if c != "orange"), key=len, reverse=True)) + r")(?:s|es)?\b"
)


def names(category: str) -> tuple[str, ...]:
    """The words for one thing of a category, the usual one first (and repeated when it should be usual)."""
    return _SYNONYMS.get(category, (category,))


@lru_cache(maxsize=4096)
def kinds_of(*names: str) -> frozenset[str]:
    """The wider words for what has these names: ``kinds_of("dog") == {"animal"}``."""
    nouns = load_nouns()
    rows = {nouns.categories.get(name, nouns.row(name)) for name in names} - {None}
    return frozenset(nouns.words[kind][0] for row in rows if row is not None for kind in nouns.above(row))


def actions(category: str) -> tuple[str, ...]:
    """Actions of things of a category; empty where such things do nothing of their own."""
    kind = "animal" if category in ANIMALS else "vehicle" if category in VEHICLES else category
    return _ACTIONS.get("bird" if category == "bird" else kind, ())


def moves(category: str) -> tuple[str, ...]:
    """Actions of things of a category that take them from one place to another."""
    return tuple(action for action in actions(category) if action in _MOVES)


def plural(noun: str) -> str:
    """The plural of a noun phrase: ``plural("bus") == "buses"``."""
    return noun if noun in PLURAL_ONLY else _nouns.plural(noun)


article = _nouns.article


@lru_cache(maxsize=4096)
def concepts(sentence: str) -> frozenset[str]:
    """The categories that a sentence may speak of, broadly: "a bike" gives bicycle and motorcycle."""
    words = re.findall(r"[a-z]+", sentence.lower())
    found = {category for word in words for category in _WORDS.get(word, ())}
    return frozenset(found | set(_CATEGORY_PATTERN.findall(" ".join(words))))


@lru_cache(maxsize=4096)
def content_words(sentence: str) -> frozenset[str]:
    """The words of a sentence that could name a thing, without articles, colours, places and common verbs."""
    return frozenset(word for word in re.findall(r"[a-z]+", sentence.lower()) if word not in _STOP)


def confusable(categories: Iterable[str]) -> frozenset[str]:
    """The given categories, and those that look or are called like one of them."""
    present = frozenset(categories)
    return present.union(*(group for group in _ALIKE if group & present))


def absent_categories(present: Iterable[str], *, own: Iterable[str] = ()) -> list[str]:
    """COCO categories, and those of ``own``, that are certainly absent from a picture annotated with the categories
    ``present``: neither similar to one of these, nor a wider or narrower word for one.
    """
    present = frozenset(present)
    taken = confusable(present) | _NEVER_ABSENT
    known = [category for category in COCO_CATEGORIES if category not in taken]
    wider = kinds_of(*sorted(present)) | taken
    others = sorted(frozenset(own) - frozenset(COCO_CATEGORIES))
    return known + [c for c in others if c not in wider and kinds_of(c).isdisjoint(present)]


def surely_absent(sentence: str, present_categories: Iterable[str], present_sentences: Sequence[str]) -> bool:
    """True if a sentence names nothing that the picture may hold, judged by its words alone."""
    mine = concepts(sentence)
    present = frozenset(present_categories).union(*(concepts(other) for other in present_sentences))
    if mine & confusable(present):
        return False
    return bool(mine) or not any(content_words(sentence) & content_words(other) for other in present_sentences)
