"""Sentences said otherwise: words about a thing that change nothing of what kind of thing it is."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rvos_edge.trainer.data.generate import vocabulary

_COLOURS = ("black", "white", "brown", "gray", "red", "blue", "silver", "green", "yellow", "dark", "brown and white")
_LOOKS = (*_COLOURS, "black and white", "small", "young", "old", "large", "striped", "spotted", "wet", "fast")
_DEEDS = (
    *("moving", "running", "jumping", "turning", "walking", "standing", "playing", "climbing", "crossing"),
    *("flying", "swimming", "driving", "floating", "resting", "seen from behind", "in motion"),
)
_SAID = frozenset(word for colours in _COLOURS for word in colours.split()) | {"orange", "purple", "pink", "light"}


def reword(sentence: str, rng: np.random.Generator) -> str:
    """Add a look, a deed and surroundings to a sentence, each at times, true or not.

    A sentence that names a colour keeps it as the only one.

    Example:
        >>> reword("the dog", np.random.default_rng(1))
        'the dog across the snow'
    """
    words = sentence.split()
    if words and rng.random() < 0.5 and not _SAID.intersection(words):
        at = 1 if words[0] in ("a", "an", "the") else 0
        look = _pick(_LOOKS, rng)
        if words[0] in ("a", "an"):
            words[0] = vocabulary.article(look).split()[0]
        words[at:at] = [look]
    if rng.random() < 0.5:
        words.append(_pick(_DEEDS, rng))
    if rng.random() < 0.6:
        colour = _pick(_COLOURS, rng) if rng.random() < 0.5 else ""
        the = "the" if rng.random() < 0.4 else ""
        words += [_pick(vocabulary.RELATIONS, rng), the, colour, _pick(vocabulary.SURROUNDINGS, rng)]
    return " ".join(filter(None, words))


def _pick(options: Sequence[str], rng: np.random.Generator) -> str:
    return options[int(rng.integers(len(options)))]
