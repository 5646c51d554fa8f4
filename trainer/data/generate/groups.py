"""Sentences that single out one of several things of a kind: by size, colour, clothes, motion, place and order."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from rvos_edge.trainer.data.generate import vocabulary
from rvos_edge.trainer.data.generate.thing import MOVING, STILL, Pair, Thing, coloured, pick, touching


def of_several(group: Sequence[Thing], *, doubt: bool, rng: np.random.Generator) -> list[Pair]:
    """Sentences that single out one of several things of a category by place, size, colour or motion."""
    noun = pick(rng, vocabulary.names(group[0].category))
    if noun in vocabulary.PLURAL_ONLY:
        return []
    pairs: list[Pair] = []
    by_size = sorted(group, key=lambda thing: -thing.area)
    if by_size[0].area > 1.8 * by_size[1].area:
        words = ["largest", "biggest"] + (["bigger", "big", "large"] if by_size[0].area > 2.5 * by_size[1].area else [])
        pairs.append((f"the {pick(rng, words)} {noun}", by_size[0].mask))
    smallest = by_size[-1]
    if not doubt and not smallest.cut and by_size[-2].area > 1.8 * smallest.area:
        words = ["smallest"] + (["smaller", "small", "little"] if len(group) == 2 else [])
        pairs.append((f"the {pick(rng, words)} {noun}", smallest.mask))
    for thing in group:
        others = [other for other in group if other is not thing]
        if thing.colour and all(other.colour and other.colour != thing.colour for other in others):
            pairs.append((coloured(noun, thing.colour, rng), thing.mask))
        if not doubt:
            pairs += [(s, thing.mask) for s in _apart_by_motion(noun, thing, others, rng)]
        pairs += [(s, thing.mask) for s in _by_name_or_trait(noun, thing, others, rng)]
    return pairs if doubt else pairs + _by_place(noun, group, rng) + _by_order(noun, group, rng)


def _by_name_or_trait(noun: str, thing: Thing, others: Sequence[Thing], rng: np.random.Generator) -> list[str]:
    """By a narrower name or by clothes that no other has, where those of all the others are known."""
    out = []
    own = [name for name in thing.names if all(other.names and name not in other.names for other in others)]
    if own:
        out.append(pick(rng, (f"the {own[0]}", vocabulary.article(own[0]))))
    apart = [trait for trait in thing.traits if all(other.traits and not _worn(trait, other) for other in others)]
    for index in rng.permutation(len(apart))[:2]:
        trait = apart[int(index)]
        worn = trait.replace("in ", "wearing ", 1) if trait.startswith("in ") and rng.random() < 0.3 else trait
        out.append(f"{pick(rng, (f'the {noun}', vocabulary.article(noun)))} {worn}")
    return out


def _worn(trait: str, other: Thing) -> bool:
    """True if a trait may be true of another thing too: the same garment, unless both colours are known and differ."""
    *colour, garment = trait.split()[2:] if trait.split()[1] in ("a", "an") else trait.split()[1:]
    for theirs in other.traits:
        words = theirs.split()[2:] if theirs.split()[1] in ("a", "an") else theirs.split()[1:]
        if words[-1] == garment and (not colour or len(words) == 1 or words[:-1] == colour):
            return True
    return False


_ORDINALS = ("first", "second", "third", "fourth", "fifth")


def _by_order(noun: str, group: Sequence[Thing], rng: np.random.Generator) -> list[Pair]:
    """The place in a row of three to five: "the third person from the left"."""
    if not 3 <= len(group) <= len(_ORDINALS):
        return []
    ordered = sorted(group, key=lambda thing: thing.centre[0])
    edges = [(thing.box[0], thing.box[2]) for thing in ordered]
    steps = np.diff([thing.centre[0] for thing in ordered])
    # In a row: nobody stands in front of another's place, so both edges follow the order.
    if steps.min() < 0.06 or any(a[0] >= b[0] or a[1] >= b[1] for a, b in itertools.pairwise(edges)):
        return []
    out: list[Pair] = []
    for index in rng.permutation(len(ordered))[:2]:
        side = pick(rng, ("left", "right"))
        rank = _ORDINALS[int(index) if side == "left" else len(ordered) - 1 - int(index)]
        forms = (f"the {rank} {noun} from the {side}", f"{rank} {noun} from {side}", f"the {noun} {rank} from {side}")
        out.append((pick(rng, forms), ordered[int(index)].mask))
    return out


def of_carriers(things: Sequence[Thing], doubtful: frozenset[str], rng: np.random.Generator) -> list[Pair]:
    """One of several people by what only they carry: "the person with the umbrella"."""
    people = [thing for thing in things if thing.category == "person"]
    pairs: list[Pair] = []
    if len(people) < 2 or "person" in doubtful:
        return pairs
    for category in sorted({thing.category for thing in things} & vocabulary.CARRIED - doubtful):
        carried = [thing for thing in things if thing.category == category]
        if len(carried) == 1 and len(near := touching(carried[0], people)) == 1:
            noun = pick(rng, vocabulary.names(category))
            verb = pick(rng, ("with", "holding", "carrying"))
            pairs.append((f"the person {verb} {pick(rng, ('the ' + noun, vocabulary.article(noun)))}", near[0].mask))
    return pairs


def _apart_by_motion(noun: str, thing: Thing, others: Sequence[Thing], rng: np.random.Generator) -> list[str]:
    if thing.motion is None or any(other.motion is None for other in others):
        return []
    motions = [other.motion or (0.0, 0.0) for other in others]
    out = []
    if np.hypot(*thing.motion) > MOVING and all(np.hypot(*m) < STILL for m in motions):
        phrases = [
            f"{pick(rng, (f'the {noun}', vocabulary.article(noun)))} {move}"
            for move in vocabulary.moves(thing.category)
        ]
        out.append(pick(rng, (f"the moving {noun}", f"the {noun} that is moving", *phrases)))
    if np.hypot(*thing.motion) < 0.05 and all(np.hypot(*m) > MOVING for m in motions):
        out.append(pick(rng, (f"the {noun} that is standing still", f"the {noun} that is not moving")))
    dx, dy = thing.motion
    side = -1 if dx < 0 else 1
    if abs(dx) > max(MOVING, 2 * abs(dy)) and all(m[0] * side < STILL for m in motions):
        word = "left" if side < 0 else "right"
        out.append(pick(rng, (f"the {noun} moving to the {word}", f"the {noun} moving {word}")))
    return out


def _by_place(noun: str, group: Sequence[Thing], rng: np.random.Generator) -> list[Pair]:
    pairs: list[Pair] = []
    for axis, ends, margin in ((0, ("left", "right"), 0.12), (1, ("top", "bottom"), 0.2)):
        ordered = sorted(group, key=lambda thing, axis=axis: thing.centre[axis])  # type: ignore[misc]
        for end, thing, neighbour in ((0, ordered[0], ordered[1]), (1, ordered[-1], ordered[-2])):
            at, near = thing.centre[axis], neighbour.centre[axis]
            if abs(at - near) < margin or not _ahead(thing, group, axis, end):
                continue
            forms = [f"the {ends[end]}most {noun}"] if axis == 0 else []
            # "on the left" wants it to be there, and nothing of its kind there beside it.
            if (at < 0.5 <= near) if end == 0 else (at > 0.5 >= near):
                forms += (
                    [f"the {noun} on the {ends[end]}"] * 2 + [f"the {ends[end]} {noun}"]
                    if axis == 0
                    else [f"the {noun} at the {ends[end]}"]
                )
            if forms:
                pairs.append((pick(rng, forms), thing.mask))
        if axis == 0 and len(group) == 3:
            left, middle, right = (thing.centre[0] for thing in ordered)
            if min(middle - left, right - middle) > margin and abs(middle - 0.5) < 0.2:
                pairs.append((pick(rng, (f"the {noun} in the middle", f"the middle {noun}")), ordered[1].mask))
    return pairs


def _ahead(thing: Thing, group: Sequence[Thing], axis: int, end: int) -> bool:
    """True if both edges of a thing along an axis lie before (end 0) or beyond (end 1) those of all the others."""
    sign = 1 - 2 * end
    return all(sign * thing.box[edge] <= sign * other.box[edge] for other in group for edge in (axis, axis + 2))
