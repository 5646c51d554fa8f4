"""True and unambiguous expressions for the objects of a synthetic scene.

A *term* is a property with its words; of every object it is clearly true, clearly false, or neither. A combination of
terms names an object if all are clearly true of it and at least one is clearly false of every other object. Sets of
objects are integers, bit k for object k.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, product

import numpy as np

from rvos_edge.synthetic.scene import SceneObject
from rvos_edge.synthetic.sprites import COLOURS, TEXTURES

KINDS = frozenset({"colour", "shape", "size", "texture", "place", "motion", "direction"})
"""Properties used in expressions. "motion" states that an object moves, "direction" where to."""

_SYNONYMS = {"purple": ("violet",), "gray": ("grey",)}
COLOUR_WORDS: dict[str, tuple[str, ...]] = {name: (name, *_SYNONYMS.get(name, ())) for name in COLOURS}
SIZE_WORDS: dict[str, tuple[str, ...]] = {"large": ("large", "big"), "small": ("small", "little")}
TEXTURE_WORDS: dict[str, tuple[str, ...]] = {
    "striped": ("striped",),
    "dotted": ("dotted", "spotted"),
    "checkered": ("checkered",),
}
NOUNS: dict[str, tuple[frozenset[str], frozenset[str]]] = {
    # noun: shapes that it clearly names, shapes that it might name
    "ball": (frozenset({"circle"}), frozenset({"ellipse"})),
    "circle": (frozenset({"circle"}), frozenset({"ellipse", "ring"})),
    "round thing": (frozenset({"circle"}), frozenset({"ellipse", "ring", "hexagon", "pentagon", "crescent"})),
    "square": (frozenset({"square"}), frozenset({"rectangle", "diamond"})),
    "box": (frozenset({"square", "rectangle"}), frozenset({"diamond"})),
    "rectangle": (frozenset({"rectangle"}), frozenset({"square"})),
    "triangle": (frozenset({"triangle"}), frozenset()),
    "star": (frozenset({"star"}), frozenset()),
    "ring": (frozenset({"ring"}), frozenset()),
    "hoop": (frozenset({"ring"}), frozenset()),
    "pentagon": (frozenset({"pentagon"}), frozenset({"hexagon"})),
    "hexagon": (frozenset({"hexagon"}), frozenset({"pentagon"})),
    "heart": (frozenset({"heart"}), frozenset()),
    "cross": (frozenset({"cross"}), frozenset()),
    "plus sign": (frozenset({"cross"}), frozenset()),
    "diamond": (frozenset({"diamond"}), frozenset({"square"})),
    "rhombus": (frozenset({"diamond"}), frozenset({"square"})),
    "ellipse": (frozenset({"ellipse"}), frozenset({"circle"})),
    "oval": (frozenset({"ellipse"}), frozenset({"circle"})),
    "crescent": (frozenset({"crescent"}), frozenset()),
    "moon": (frozenset({"crescent"}), frozenset({"circle"})),
}
GENERIC = ("object", "thing")

_PLACES: dict[tuple[str, ...], Callable[[float, float], tuple[bool, bool]]] = {
    # words: (clearly there, possibly there) for a place in fractions of the frame
    ("on the left", "on the left side", "at the left"): lambda x, y: (x < 0.4, x < 0.52),
    ("on the right", "on the right side", "at the right"): lambda x, y: (x > 0.6, x > 0.48),
    ("at the top", "in the upper part"): lambda x, y: (y < 0.37, y < 0.52),
    ("at the bottom", "in the lower part"): lambda x, y: (y > 0.63, y > 0.48),
    ("in the middle", "in the center"): lambda x, y: (
        abs(x - 0.5) < 0.12 and abs(y - 0.5) < 0.15,
        abs(x - 0.5) < 0.25 and abs(y - 0.5) < 0.28,
    ),
    ("in the top left corner", "at the upper left"): lambda x, y: (x < 0.3 and y < 0.32, x < 0.48 and y < 0.5),
    ("in the top right corner", "at the upper right"): lambda x, y: (x > 0.7 and y < 0.32, x > 0.52 and y < 0.5),
    ("in the bottom left corner", "at the lower left"): lambda x, y: (x < 0.3 and y > 0.68, x < 0.48 and y > 0.5),
    ("in the bottom right corner", "at the lower right"): lambda x, y: (x > 0.7 and y > 0.68, x > 0.52 and y > 0.5),
}
_DIRECTIONS: dict[tuple[str, ...], tuple[int, int]] = {
    ("moving to the right", "going right"): (1, 0),
    ("moving to the left", "going left"): (-1, 0),
    ("moving up", "going up"): (0, -1),
    ("moving down", "going down"): (0, 1),
}
_MOVES, _RESTS = 0.0045, 0.0009  # speed in shorter frame sides per frame
_SPINS = 0.03  # radians per frame
_SWELLS = 0.004  # relative change of size per frame
_SLOTS = ("size", "front", "texture", "colour", "noun", "tail")


@dataclass(frozen=True)
class Sighting:
    """Describable properties of one object in one frame.

    Attributes:
        place: Centre of the visible part (of the whole if it is hidden), fractions of width and height.
        extent: Current diameter in shorter frame sides.
        velocity: Velocity against the background, shorter frame sides per frame; None in frame 0.
        growth: Relative change of size since the frame before.
    """

    thing: SceneObject
    place: tuple[float, float]
    extent: float
    visible: bool
    velocity: tuple[float, float] | None
    growth: float


@dataclass(frozen=True)
class _Term:
    slot: str
    kind: str
    words: tuple[str, ...]
    true: int
    maybe: int  # true, or not clearly false


@dataclass(frozen=True)
class _Ranking:
    """Superlative: words among any number of candidates, words among two, and the value that must be the greatest."""

    kind: str
    words: tuple[str, ...]
    words_of_two: tuple[str, ...]
    tails: tuple[str, ...]
    values: tuple[float, ...]
    margin: float


def describe(sightings: Sequence[Sighting], kinds: frozenset[str]) -> tuple[tuple[str, ...], ...]:
    """List the expressions that name each object alone, sorted; none for an object that is not visible."""
    terms = [term for term in _terms(sightings) if term.kind in kinds or term.kind == "any"]
    rankings = [ranking for ranking in _rankings(sightings) if ranking.kind in kinds]
    out = []
    for number, sighting in enumerate(sightings):
        found: set[str] = set()
        if sighting.visible:
            own = [term for term in terms if term.true >> number & 1]
            for extras in (0, 1, 2):
                found.update(_plain(own, 1 << number, extras))
            if not found:
                found.update(_plain(own, 1 << number, 3))
            found.update(_superlatives(own, rankings, number, sightings))
        out.append(tuple(sorted(found)))
    return tuple(out)


def absent(
    objects: Sequence[SceneObject], rng: np.random.Generator, count: int, kinds: frozenset[str]
) -> tuple[str, ...]:
    """Draw expressions whose colour and noun together fit no object; the other words are arbitrary."""
    shapes, colours = [thing.shape for thing in objects], [thing.colour for thing in objects]
    every_noun = list(NOUNS)
    tails = [words for words in _PLACES if "place" in kinds] + [words for words in _DIRECTIONS if "direction" in kinds]
    out: list[str] = []
    while len(out) < count:
        # Most share a colour or a shape with the scene, but not both.
        colour = str(rng.choice(colours if rng.random() < 0.6 else list(COLOURS)))
        fitting = [noun for noun, (sure, _) in NOUNS.items() if sure & set(shapes)]
        noun = str(rng.choice(fitting if rng.random() < 0.6 else every_noun))
        sure, unsure = NOUNS[noun]
        how = rng.choice(["both", "colour", "shape"], p=[0.76, 0.12, 0.12])
        if how == "colour":
            noun, sure = str(rng.choice(GENERIC)), frozenset(shapes)
        named = set(COLOURS) if how == "shape" else {colour}
        if any(thing.shape in sure | unsure and thing.colour in named for thing in objects):
            continue
        words = [str(rng.choice(COLOUR_WORDS[colour]))] if how != "shape" else []
        if "texture" in kinds and rng.random() < 0.1:
            words.insert(0, str(rng.choice([word for group in TEXTURE_WORDS.values() for word in group])))
        if "size" in kinds and rng.random() < 0.15:
            words.insert(0, str(rng.choice([word for group in SIZE_WORDS.values() for word in group])))
        words.append(noun)
        if tails and rng.random() < 0.3:
            words.append(str(rng.choice(tails[rng.integers(len(tails))])))
            out.append("the " + " ".join(words))
        else:
            out.append(str(rng.choice(_determined(" ".join(words)))))
    return tuple(out)


def _determined(phrase: str) -> list[str]:
    return [f"the {phrase}", f"{'an' if phrase[0] in 'aeio' else 'a'} {phrase}", phrase]


def _bits(flags: Iterator[bool]) -> int:
    return sum(1 << number for number, flag in enumerate(flags) if flag)


def _terms(sightings: Sequence[Sighting]) -> list[_Term]:
    things = [sighting.thing for sighting in sightings]
    everything = (1 << len(things)) - 1
    terms = [_Term("noun", "any", (noun,), everything, everything) for noun in GENERIC]
    for noun, (sure, unsure) in NOUNS.items():
        true = _bits(thing.shape in sure for thing in things)
        maybe = true | _bits(thing.shape in unsure for thing in things)
        terms.append(_Term("noun", "shape", (noun,), true, maybe))
    for colour, words in COLOUR_WORDS.items():
        true = _bits(thing.colour == colour for thing in things)
        terms.append(_Term("colour", "colour", words, true, true))
    for name, words in SIZE_WORDS.items():
        true = _bits(thing.size_name == name for thing in things)
        terms.append(_Term("size", "size", words, true, true | _bits(thing.size_name is None for thing in things)))
    for texture in TEXTURES:
        if texture in TEXTURE_WORDS:
            true = _bits(thing.texture == texture for thing in things)
            # Mottling may be taken for dots.
            maybe = true | (_bits(thing.texture == "mottled" for thing in things) if texture == "dotted" else 0)
            terms.append(_Term("texture", "texture", TEXTURE_WORDS[texture], true, maybe))
    for words, where in _PLACES.items():
        judged = [where(*sighting.place) for sighting in sightings]
        # A hidden object has no place, but may be behind a visible one.
        hidden = _bits(not sighting.visible for sighting in sightings)
        terms.append(_Term("tail", "place", words, _bits(a for a, _ in judged), _bits(b for _, b in judged) | hidden))
    return [term for term in [*terms, *_motion_terms(sightings)] if term.true]


def _motion_terms(sightings: Sequence[Sighting]) -> list[_Term]:
    if any(sighting.velocity is None for sighting in sightings):
        return []
    steps = [sighting.velocity or (0.0, 0.0) for sighting in sightings]
    motions = [sighting.thing.motion for sighting in sightings]
    speeds = [float(np.hypot(*step)) for step in steps]
    turning = [abs(motion.spin) >= _SPINS for motion in motions]
    still = [motion.path == "still" and not motion.spin and not motion.pulse for motion in motions]
    clear = zip(speeds, sightings, motions, strict=True)
    busy = [speed > _MOVES or abs(seen.growth) > _SWELLS or abs(move.spin) > _SPINS for speed, seen, move in clear]
    moves, may_move = _bits(speed > _MOVES for speed in speeds), _bits(not rests for rests in still)
    rests, may_rest = _bits(iter(still)), _bits(not active for active in busy)
    spins = _bits(iter(turning))
    # Round plain objects never spin, so that no visible spin means no spin.
    swells = _bits(abs(sighting.growth) > _SWELLS for sighting in sightings)
    may_swell = _bits(motion.pulse > 0 for motion in motions)
    terms = [
        _Term("front", "motion", ("moving",), moves, may_move),
        _Term("tail", "motion", ("that is moving", "that moves"), moves, may_move),
        _Term("front", "motion", ("still", "motionless"), rests, may_rest),
        _Term("tail", "motion", ("that does not move", "that stays still"), rests, may_rest),
        _Term("front", "motion", ("spinning", "rotating"), spins, spins),
        _Term("tail", "motion", ("that is spinning", "that turns"), spins, spins),
        _Term("tail", "motion", ("that changes size",), swells, may_swell),
    ]
    for words, (x, y) in _DIRECTIONS.items():
        along = [step[0] * x + step[1] * y for step in steps]
        aside = [abs(step[0] * y) + abs(step[1] * x) for step in steps]
        true = _bits(a > _MOVES and a > 2.2 * b for a, b in zip(along, aside, strict=True))
        terms.append(_Term("tail", "direction", words, true, _bits(a > _RESTS for a in along)))
    return terms


def _rankings(sightings: Sequence[Sighting]) -> list[_Ranking]:
    x = tuple(sighting.place[0] for sighting in sightings)
    y = tuple(sighting.place[1] for sighting in sightings)
    size = tuple(float(np.log(sighting.extent)) for sighting in sightings)

    def less(values: tuple[float, ...]) -> tuple[float, ...]:
        return tuple(-value for value in values)

    rankings = [
        _Ranking("place", ("leftmost",), ("left",), ("farthest to the left",), less(x), 0.12),
        _Ranking("place", ("rightmost",), ("right",), ("farthest to the right",), x, 0.12),
        _Ranking("place", ("topmost", "highest"), ("upper", "top"), (), less(y), 0.14),
        _Ranking("place", ("lowest",), ("lower", "bottom"), (), y, 0.14),
        _Ranking("size", ("largest", "biggest"), ("larger", "bigger"), (), size, 0.28),
        _Ranking("size", ("smallest",), ("smaller",), (), less(size), 0.28),
    ]
    if all(sighting.velocity is not None for sighting in sightings):
        speeds = (float(np.hypot(*(sighting.velocity or (0.0, 0.0)))) for sighting in sightings)
        speed = tuple(float(np.log(max(value, _MOVES))) for value in speeds)
        rankings.append(_Ranking("motion", ("fastest",), ("faster",), ("that moves fastest",), speed, 0.5))
    return rankings


def _plain(own: Sequence[_Term], target: int, extras: int) -> Iterator[str]:
    """Iterate over the phrases of a noun and ``extras`` other terms that name only the target."""
    nouns = [term for term in own if term.slot == "noun"]
    others = [term for term in own if term.slot != "noun"]
    for chosen in combinations(others, extras):
        slots = {term.slot for term in chosen}
        # "the spinning star that turns" would be redundant.
        if len(slots) < extras or sum(term.kind in ("motion", "direction") for term in chosen) > 1:
            continue
        rest = -1
        for term in chosen:
            rest &= term.maybe
        for noun in nouns:
            if rest & noun.maybe == target:
                free = slots <= {"colour", "size", "texture"}  # such a phrase also reads well with "a" or bare
                for phrase in _phrases([*chosen, noun]):
                    yield from _determined(phrase) if free else (f"the {phrase}",)


def _superlatives(
    own: Sequence[_Term], rankings: Sequence[_Ranking], number: int, sightings: Sequence[Sighting]
) -> Iterator[str]:
    """Iterate over phrases such as "the leftmost red ball", true among all candidates for a red ball."""
    nouns = [term for term in own if term.slot == "noun"]
    for colour in [None, *(term for term in own if term.slot == "colour")]:
        for noun in nouns:
            group = noun.maybe & (colour.maybe if colour else -1)
            rivals = [k for k in range(len(sightings)) if group >> k & 1 and k != number]
            sure = noun.true & (colour.true if colour else -1)
            if sure == 1 << number or not all(sightings[k].visible for k in rivals):
                continue
            two = len(rivals) == 1  # as "the left ball" presumes
            for ranking in rankings:
                if ranking.values[number] - max(ranking.values[k] for k in rivals) < ranking.margin:
                    continue
                for phrase in _phrases([colour, noun] if colour else [noun]):
                    for word in ranking.words + (ranking.words_of_two if two else ()):
                        yield f"the {word} {phrase}"
                    for tail in ranking.tails:
                        yield f"the {phrase} {tail}"


def _phrases(terms: Sequence[_Term]) -> Iterator[str]:
    ordered = sorted(terms, key=lambda term: _SLOTS.index(term.slot))
    return (" ".join(words) for words in product(*(term.words for term in ordered)))
