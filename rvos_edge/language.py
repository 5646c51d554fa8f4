"""Doubts about a sentence that the network cannot understand: other languages, and words that it has no token for."""

from __future__ import annotations

import re
import unicodedata
import warnings
from collections.abc import Iterable, Sequence

from rvos_edge.nouns import load_nouns

UNKNOWN = "[UNK]"
_PIECE = "##"
_WORDS = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")  # noqa: RUF001
# Short words that make a sentence English, whatever else is in it.
_ENGLISH = frozenset(
    """the a an on of with to by from near next behind beside under over and or is are that this these those which who
    whose its his her their my your left right all both some any two three four other at in into for""".split()  # noqa: SIM905
)
# Articles and prepositions of German, French, Spanish, Italian, Portuguese, Dutch, Polish, Turkish and Scandinavian.
_FOREIGN = frozenset(
    """der die das ein eine einen einem einer den dem des auf mit und im neben von vor hinter unter zum links rechts
    le la les un une du aux est dans sur avec sous près gauche droite l'homme el los las una unos unas del al con junto
    sobre izquierda derecha il lo gli di della dei nel sulla sinistra destra o os um uma da das dos esquerda direita
    ao het een op naast en de met na obok przy lewej bir ve solda sağda ett det på och med till
    """.split()  # noqa: SIM905
)


class QueryWarning(UserWarning):
    """A query that is not what the network was taught."""


def doubt(sentence: str, tokens: Sequence[str]) -> str:
    """The reason why a sentence is unlikely to be understood, in one sentence; empty where there is none.

    A letter of another script or a rule of function words tells other languages; single foreign nouns pass unless
    the tokenizer has to take them apart.

    Example:
        >>> doubt("the dog on the left", ["the", "dog", "on", "the", "left"])
        ''
        >>> doubt("el perro rojo", ["el", "per", "##ro", "ro", "##jo"])
        "'el perro rojo' does not look like English, the language of the model: its mask may be anything"
    """
    words = [word.lower() for word in _WORDS.findall(sentence)]
    letters = filter(str.isalpha, sentence)
    if any("LATIN" not in unicodedata.name(letter, "LATIN") for letter in letters) or _is_foreign(words):
        return f"'{sentence}' does not look like English, the language of the model: its mask may be anything"
    if UNKNOWN in tokens:
        return f"'{sentence}' has words or signs that the model cannot read: its mask may be anything"
    split = any(token.startswith(_PIECE) for token in tokens)
    if words and split and _ENGLISH.isdisjoint(words) and not load_nouns().find(sentence):
        return f"'{sentence}' has no word that the model is known to understand: its mask may be anything"
    return ""


def _is_foreign(words: Sequence[str]) -> bool:
    foreign = sum(word in _FOREIGN for word in words)
    if foreign <= sum(word in _ENGLISH for word in words) or len(words) < 2:
        return False
    rest = " ".join(word for word in words if word not in _FOREIGN)
    return words[0] in _FOREIGN or foreign > 1 or not load_nouns().find(rest)


def warn_of(doubts: Iterable[str]) -> None:
    """Give a `QueryWarning` for each doubt."""
    for said in filter(None, doubts):
        warnings.warn(said, QueryWarning, stacklevel=3)
