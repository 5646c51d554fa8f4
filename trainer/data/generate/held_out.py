"""Words that training never says: how the model does on them tells how it does on words that it was not taught."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from importlib.resources import files

import yaml

from rvos_edge.nouns import load_nouns, plural
from rvos_edge.trainer.data.generate import vocabulary


class HeldOut:
    """The held-out words, each with the kind under which its pictures may be shown.

    Example:
        >>> held = load_held_out()
        >>> held.says("two sheep in a field"), held.says("a bird on a bench")
        (True, False)
        >>> held.kind("sheep")
        'animal'
    """

    def __init__(self, kinds: Mapping[str, str]) -> None:
        self.kinds = dict(kinds)
        nouns = load_nouns()
        rows = {word: nouns.categories.get(word, nouns.row(word)) for word in kinds}
        self.rows = frozenset(row for row in rows.values() if row is not None)
        spoken = set(self.kinds)
        for word, row in rows.items():
            spoken |= {one for one in (nouns.words[row] if row is not None else ()) if nouns.row(one) == row}
            spoken |= set(vocabulary.names(word))
        spoken |= {plural(word) for word in spoken}
        words = "|".join(re.escape(word) for word in sorted(spoken, key=len, reverse=True))
        self._pattern = re.compile(rf"\b(?:{words})\b")

    def says(self, sentence: str) -> bool:
        """True if a sentence has a held-out word, a synonym or a plural in it."""
        return self._pattern.search(sentence.lower()) is not None

    def covers(self, noun: str) -> bool:
        """True if a noun is held out or means something narrower: "a dalmatian" where "dog" is held out."""
        nouns = load_nouns()
        rows = {nouns.categories.get(noun), *(found.row for found in nouns.find(noun))} - {None}
        wider = {one for row in rows if row is not None for one in (row, *nouns.above(row))}
        return self.says(noun) or not self.rows.isdisjoint(wider)

    def kind(self, category: str) -> str | None:
        """The kind under which pictures of a category are shown; None where it is not held out."""
        return self.kinds.get(category)


@lru_cache(maxsize=1)
def load_held_out() -> HeldOut:
    """The words of ``held_out.yaml`` beside this module."""
    return HeldOut(
        yaml.safe_load(files("rvos_edge.trainer.data.generate").joinpath("held_out.yaml").read_text("utf-8"))
    )
