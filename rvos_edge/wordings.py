"""Other wordings of a sentence: its noun alone, a wider word for it, and "the moving object".

A network that has never been taught a word often knows a wider one; the mean of the sentence vectors of several
wordings finds more than the sentence alone.
"""

from __future__ import annotations

import re

from rvos_edge.nouns import Found, Nouns, article, load_nouns, plural

MOVING = "the moving object"

# The noun that a sentence is about stands before these words.
_AFTER = frozenset(
    """on in at to with by of from near next behind beside before under over above below inside into onto through past
    across along around between among that which who whose wearing and is are was has while""".split()  # noqa: SIM905
)
_DETERMINERS = frozenset("a an the this that these those his her its their one two three all both some".split())  # noqa: SIM905


def wordings(sentence: str) -> tuple[str, ...]:
    """A sentence, its noun alone, the sentence with a wider word, and "the moving object"; each once.

    Example:
        >>> wordings("a golden retriever on the left")
        ('a golden retriever on the left', 'golden retriever', 'a retriever on the left', 'the moving object')
        >>> wordings("the okapi")
        ('the okapi', 'okapi', 'the animal', 'the moving object')
    """
    nouns = load_nouns()
    found = main_noun(sentence, nouns)
    if found is None:
        return tuple(dict.fromkeys((sentence, MOVING)))
    out = [sentence, sentence[found.start : found.end]]
    above = nouns.above(found.row)
    if above:
        wider = nouns.words[above[0]][0]
        out.append(_replaced(sentence, found, plural(wider) if found.plural else wider))
    return tuple(dict.fromkeys((*out, MOVING)))


def main_noun(sentence: str, nouns: Nouns | None = None) -> Found | None:
    """The noun that a sentence is about: the last one before a verb, a preposition or another article.

    None where that place holds a word that is not known: "a kite flibber" is not about a kite.
    """
    nouns = nouns or load_nouns()
    found: Found | None = None
    waiting = nouns.find(sentence)
    for number, word in enumerate(re.finditer(r"[a-z'-]+", sentence.lower())):
        if found is not None and word.start() < found.end:
            continue
        if waiting and waiting[0].start == word.start():
            found = waiting.pop(0)
        elif word.group() in _AFTER or (number and word.group() in _DETERMINERS):
            break
        elif found is not None:
            return found if re.search("(ing|ed|s)$", word.group()) else None
    return found


def _replaced(sentence: str, found: Found, noun: str) -> str:
    """The sentence with another noun, and the article that it needs."""
    before, after = sentence[: found.start], sentence[found.end :]
    if re.search(r"\ban? $", before):
        before, noun = re.sub(r"an? $", "", before), article(noun)
    return before + noun + after
