"""Nouns and their kinds from WordNet: "golden retriever" is a retriever, a dog and an animal.

``nouns.json`` beside this module is made by docs/nouns.py; WordNet's licence lies in it.
"""

from __future__ import annotations

import json
import re
from functools import lru_cache
from importlib.resources import files
from typing import Any, NamedTuple

_LONGEST = 4
"""Words of the longest noun that is looked for."""


class Found(NamedTuple):
    """A noun in a text."""

    start: int
    end: int
    row: int
    plural: bool


class Nouns:
    """Meanings of nouns, numbered from 0; the kinds come first.

    Attributes:
        words: the words for each meaning, the usual one first, lower case.
        parents: the nearest kind of each meaning, -1 where it has none.
        kinds: the number of kinds.
        categories: the meanings of COCO's categories.
        imagenet: the meanings of ImageNet's 1,000 classes, in their order.

    Example:
        >>> nouns = load_nouns()
        >>> [nouns.words[row][0] for row in nouns.above(nouns.row("golden retriever"))]
        ['retriever', 'dog', 'animal']
        >>> nouns.row("zorbling") is None
        True
    """

    def __init__(self, content: dict[str, Any]) -> None:
        self.words = tuple(tuple(row.split(",")) for row in content["nouns"])
        self.parents = tuple(content["parents"])
        self.kinds = int(content["kinds"])
        self.categories: dict[str, int] = content["categories"]
        self.imagenet: tuple[int, ...] = tuple(content["imagenet"])
        self._plurals: dict[str, str] = content["plurals"]
        rows = {word: row for row in reversed(range(len(self.words))) for word in self.words[row]}
        self._rows: dict[str, int] = rows | content["senses"]

    def row(self, noun: str) -> int | None:
        """The meaning of a noun, singular or plural; None when it is unknown."""
        found = self._rows.get(noun)
        return found if found is not None else self._rows.get(self.singular(noun))

    def above(self, row: int) -> tuple[int, ...]:
        """The kinds of a meaning, nearest first, without itself."""
        out = []
        while (row := self.parents[row]) >= 0:
            out.append(row)
        return tuple(out)

    def singular(self, noun: str) -> str:
        """A noun phrase with its last word in the singular; as it is when no such noun is known."""
        head, space, last = noun.rpartition(" ")
        options = [self._plurals.get(last, ""), re.sub("s$", "", last), re.sub("es$", "", last)]
        options.append(re.sub("ies$", "y", last))
        for option in options:
            if option and option != last and head + space + option in self._rows:
                return head + space + option
        return noun

    def find(self, text: str) -> list[Found]:
        """The nouns of a text from left to right, the longest where several begin at a word."""
        words = [(match.group(), match.start(), match.end()) for match in re.finditer(r"[a-z'-]+", text.lower())]
        out, at = [], 0
        while at < len(words):
            for length in range(min(_LONGEST, len(words) - at), 0, -1):
                phrase = " ".join(word for word, *_ in words[at : at + length])
                row = self.row(phrase)
                if row is not None:
                    out.append(Found(words[at][1], words[at + length - 1][2], row, phrase not in self._rows))
                    at += length
                    break
            else:
                at += 1
        return out


@lru_cache(maxsize=1)
def load_nouns() -> Nouns:
    """The nouns that come with the package."""
    return Nouns(json.loads(files("rvos_edge").joinpath("nouns.json").read_text(encoding="utf-8")))


def plural(noun: str) -> str:
    """The regular plural of a noun phrase, and that of a few others: ``plural("bus") == "buses"``."""
    head, space, last = noun.rpartition(" ")
    irregular = {"person": "people", "mouse": "mice", "wolf": "wolves", "knife": "knives"}
    irregular |= {word: word for word in ("fish", "sheep", "deer", "clothing", "furniture", "aircraft")}
    if last in irregular:
        return head + space + irregular[last]
    if last.endswith(("s", "sh", "ch", "x")):
        return noun + "es"
    if last.endswith("y") and last[-2:-1] not in "aeiou":
        return noun[:-1] + "ies"
    return noun + "s"


def article(noun: str) -> str:
    """The noun phrase with "a" or "an" before it."""
    return ("an " if noun[0] in "aeiou" else "a ") + noun
