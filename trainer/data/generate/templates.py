"""Sentences about a scene, true and unambiguous, made from what is known about its things."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from rvos_edge.trainer.data.generate import vocabulary
from rvos_edge.trainer.data.generate.groups import of_carriers, of_several
from rvos_edge.trainer.data.generate.thing import (
    COLOURS,
    MOVING,
    Pair,
    Thing,
    by_category,
    coloured,
    dominant_colour,
    pick,
    touching,
)

__all__ = ["Pair", "Thing", "absent", "contradictions", "describe", "dominant_colour", "flip_words", "place_holds"]


_PLACES: dict[str, Callable[[float, float], bool]] = {
    "left": lambda x, y: x < 0.5,
    "right": lambda x, y: x > 0.5,
    "middle": lambda x, y: 0.3 < x < 0.7,
    "center": lambda x, y: 0.3 < x < 0.7,
    "top": lambda x, y: y < 0.5,
    "bottom": lambda x, y: y > 0.5,
}
_PLACE_PATTERN = re.compile(r"\b(?:on|at|in) the (left|right|middle|center|top|bottom)\b(?! of\b)")


def describe(
    things: Sequence[Thing], *, uncertain: Iterable[str] = (), rng: np.random.Generator, tails: bool = False
) -> list[Pair]:
    """All kinds of true, unambiguous sentences about a scene, with wording drawn from ``rng``.

    Args:
        uncertain: categories that have further instances too small to count; nothing is said about their places or
            about the smallest of them.
        tails: let some phrases be followed by what things may do and where they may be, true or not: for training,
            so that the noun decides.
    """
    pairs: list[Pair] = [(s, thing.mask) for thing in things for s in thing.sentences]
    doubtful = frozenset(uncertain)
    for category, group in by_category(things).items():
        doubt = category in doubtful
        if category == "object":
            pairs += _of_objects(group, alone=len(things) == 1, rng=rng)
        elif len(group) == 1:
            pairs += _of_one(group[0], doubt=doubt, rng=rng, tails=tails)
        else:
            union = np.logical_or.reduce([thing.mask for thing in group])
            many = vocabulary.plural(pick(rng, vocabulary.names(category)))
            pairs += [(pick(rng, (many, f"the {many}", f"all the {many}", f"all {many}")), union)]
            if rng.random() < 0.3:
                pairs.append((pick(rng, vocabulary.names(category)), union))
            pairs += of_several(group, doubt=doubt, rng=rng)
    pairs += of_carriers(things, doubtful, rng)
    return pairs + _of_riders(things, doubtful, rng) + _of_kinds(things, doubtful, rng)


def contradictions(things: Sequence[Thing], *, uncertain: Iterable[str] = (), rng: np.random.Generator) -> list[str]:
    """Sentences that name a thing of the scene with an attribute it clearly has not: their masks are empty."""
    out = []
    doubtful = frozenset(uncertain)
    for category, group in by_category(things).items():
        if category in doubtful or category == "object":
            continue
        noun = pick(rng, vocabulary.names(category))
        x, _ = group[0].centre
        if len(group) == 1 and abs(x - 0.5) > 0.25:
            out.append(f"the {noun} on the {'right' if x < 0.5 else 'left'}")
        if all(thing.colour in ("red", "blue", "green", "yellow", "white", "black") for thing in group):
            have = {thing.colour for thing in group}
            near = {"red": "orange", "yellow": "orange"}
            others = [c for c in COLOURS if c not in have and c not in {near.get(h or "") for h in have}]
            out.append(f"the {pick(rng, others)} {noun}")
        for word, axis, sign in (("left", 0, -1), ("right", 0, 1)):
            if all(thing.motion is not None and thing.motion[axis] * sign < -MOVING for thing in group):
                out.append(f"the {noun} moving to the {word}")
        if all(thing.motion is not None and np.hypot(*thing.motion) < 0.05 for thing in group):
            out.append(pick(rng, (f"the moving {noun}", f"the {noun} that is moving")))
    return out


def absent(
    categories: Sequence[str], rng: np.random.Generator, *, narrower: Mapping[str, Sequence[str]] | None = None
) -> str:
    """A sentence about something of one of the categories, worded as often with attributes as the true ones are."""
    category = pick(rng, categories)
    noun = pick(rng, vocabulary.names(category))
    if narrower and category in narrower and rng.random() < 0.4:
        noun = pick(rng, narrower[category])
    if noun in vocabulary.PLURAL_ONLY:
        return pick(rng, (noun, f"the {noun}"))
    colour, side = pick(rng, COLOURS), pick(rng, ("left", "right"))
    kind = rng.random()
    if kind < 0.45:
        return _extended(category, single(noun, rng), rng)
    if kind < 0.55:
        many = vocabulary.plural(noun)
        return pick(rng, (many, f"the {many}", f"all the {many}", f"all {many}"))
    if kind < 0.7:
        end = pick(rng, ("top", "bottom"))
        forms = (f"the {noun} on the {side}", f"the {side} {noun}", f"the {side}most {noun}")
        return pick(rng, (*forms, f"the {noun} in the middle", f"the {noun} at the {end}"))
    if kind < 0.82 and colour != noun:
        return pick(rng, (f"the {colour} {noun}", vocabulary.article(f"{colour} {noun}")))
    if kind < 0.9:
        return f"the {pick(rng, ('largest', 'biggest', 'smallest', 'smaller', 'big'))} {noun}"
    return pick(rng, (f"the moving {noun}", f"the {noun} moving to the {side}", f"the {noun} that is moving"))


def flip_words(sentence: str) -> str:
    """Swap left and right, for a mirrored image."""
    swap = {"left": "right", "right": "left", "leftmost": "rightmost", "rightmost": "leftmost"}
    return re.sub(r"\b(left|right|leftmost|rightmost)\b", lambda m: swap[m.group(1)], sentence)


def place_holds(sentence: str, mask: NDArray[np.bool_]) -> bool:
    """True if "on the left", "in the middle" and the like are true of a mask [H,W]; other sentences hold."""
    words = _PLACE_PATTERN.findall(sentence)
    if not words or not mask.any():
        return True
    x, y = Thing(mask=mask).centre
    return all(_PLACES[word](x, y) for word in words)


def single(noun: str, rng: np.random.Generator) -> str:
    if noun in vocabulary.PLURAL_ONLY:
        return pick(rng, (noun, f"the {noun}"))
    forms = (f"the {noun}", f"the {noun}", vocabulary.article(noun), vocabulary.article(noun), noun)
    return pick(rng, (*forms, "someone") if noun == "person" else forms)


def _extended(category: str, phrase: str, rng: np.random.Generator) -> str:
    """A phrase, at times with an action or colours, which need not be true: the mask remains that of the phrase."""
    actions = vocabulary.actions(category)
    if actions and rng.random() < 0.3:
        phrase = f"{phrase} {pick(rng, actions)}"
    if rng.random() < 0.3:
        one, other = rng.choice(len(COLOURS), 2, replace=False)
        colours = pick(rng, (f"{COLOURS[one]} ", f"{COLOURS[one]} and {COLOURS[other]} ", "", ""))
        relation, surroundings = (pick(rng, vocabulary.RELATIONS), pick(rng, vocabulary.SURROUNDINGS))
        phrase = f"{phrase} {relation} {pick(rng, ('the ', ''))}{colours}{surroundings}"
    return phrase


def _of_one(thing: Thing, *, doubt: bool, rng: np.random.Generator, tails: bool) -> list[Pair]:
    noun = pick(rng, vocabulary.names(thing.category))
    if thing.names and rng.random() < 0.5:
        noun = pick(rng, thing.names)
    sentences = [single(noun, rng)]
    for index in rng.permutation(len(thing.traits))[:2]:
        sentences.append(f"{single(noun, rng)} {thing.traits[int(index)]}")
    if noun in vocabulary.PLURAL_ONLY:
        return [(sentences[0], thing.mask)]
    if tails:
        sentences = [_extended(thing.category, sentences[0], rng)]
    x, _ = thing.centre
    if not doubt and abs(x - 0.5) > 0.2 and rng.random() < 0.4:
        sentences.append(f"the {noun} on the {'left' if x < 0.5 else 'right'}")
    if thing.colour:
        sentence = coloured(noun, thing.colour, rng)
        sentences.append(_extended(thing.category, sentence, rng) if tails else sentence)
    if not doubt:
        sentences += _motions(noun, thing.motion, rng)
    return [(s, thing.mask) for s in sentences]


def _motions(noun: str, motion: tuple[float, float] | None, rng: np.random.Generator) -> list[str]:
    if motion is None or np.hypot(*motion) < MOVING:
        return []
    out = [pick(rng, (f"the moving {noun}", f"the {noun} that is moving", f"a moving {noun}"))]
    if abs(motion[0]) > max(MOVING, 2 * abs(motion[1])):
        side = "left" if motion[0] < 0 else "right"
        out.append(pick(rng, (f"the {noun} moving to the {side}", f"the {noun} moving {side}")))
    return out


def _of_riders(things: Sequence[Thing], doubtful: frozenset[str], rng: np.random.Generator) -> list[Pair]:
    """A person and what carries it, as the one foreground that DAVIS-2016 takes them for."""
    people = [thing for thing in things if thing.category == "person"]
    pairs: list[Pair] = []
    for category, group in by_category(things).items():
        if category not in vocabulary.MOUNTS or category in doubtful:
            continue
        manned = [(mount, near) for mount in group if (near := touching(mount, people))]
        if len(manned) != 1:  # others may stand there empty
            continue
        mount, riders = manned[0]
        # A second person at the mount leaves open who rides, and whoever stands beside it reaches further down.
        if len(riders) != 1 or not _sits_on(riders[0], mount):
            continue
        noun = pick(rng, vocabulary.names(category))
        one, its = (noun, "their") if noun in vocabulary.PLURAL_ONLY else (vocabulary.article(noun), "its")
        person = pick(rng, ("person", "rider"))
        forms = (
            f"a person riding {one}",
            f"a {person} on {one}",
            f"{one} with {its} rider",
            f"the {noun} and {its} rider",
        )
        union = riders[0].mask | mount.mask
        # The paper's own form names both: "a man riding a motocross bike and a motorbike".
        both = (f"a person riding {one} and {one}", f"a person and {one}")
        pairs += [(pick(rng, forms), union), (pick(rng, both), union)]
    return pairs


def _sits_on(person: Thing, mount: Thing) -> bool:
    """True if a person is over its mount and does not stand on the same ground."""
    height = mount.box[3] - mount.box[1]
    over = person.centre[1] < mount.centre[1] and mount.box[0] < person.centre[0] * person.mask.shape[1] < mount.box[2]
    return over and person.box[3] <= mount.box[3] + 0.1 * height


_KINDS = ("animal", "vehicle", "bird", "aircraft", "food", "fruit", "furniture", "toy", "container", "flower", "insect")


def _of_kinds(things: Sequence[Thing], doubtful: frozenset[str], rng: np.random.Generator) -> list[Pair]:
    """ "the animal", "all the vehicles": only where every thing has a name."""
    kinds = [vocabulary.kinds_of(thing.category, *thing.names) | set(thing.names) for thing in things]
    if any(not thing.category or (thing.category == "object" and not thing.names) for thing in things):
        return []
    unsure = vocabulary.kinds_of(*sorted(doubtful))
    pairs: list[Pair] = []
    for word in _KINDS:
        members = [thing for thing, its in zip(things, kinds, strict=True) if word in its]
        # "vehicle" may be said of a bicycle, "animal" of a toy one.
        blurred = any(thing.category in ("bicycle", "skateboard", "teddy bear") for thing in things)
        if not members or word in unsure or blurred or rng.random() < 0.5:
            continue
        if len(members) == 1:
            one = f"a piece of {word}" if word in ("furniture", "food") else vocabulary.article(word)
            pairs.append((pick(rng, (f"the {word}", one)), members[0].mask))
        elif word in ("animal", "vehicle", "bird"):
            union = np.logical_or.reduce([thing.mask for thing in members])
            pairs.append((pick(rng, (f"{word}s", f"the {word}s", f"all the {word}s")), union))
    return pairs


def _of_objects(group: Sequence[Thing], *, alone: bool, rng: np.random.Generator) -> list[Pair]:
    """Pairs for things without a category: by a name that no other thing has, or as the only object of the frame."""
    pairs = []
    for thing in group:
        names = [name for name in thing.names if not any(name in other.names for other in group if other is not thing)]
        if names:
            pairs.append((single(pick(rng, names), rng), thing.mask))
    if alone and len(group) == 1:
        pairs.append((pick(rng, ("the object", "an object", "the main object", "the thing", "object")), group[0].mask))
    return pairs
