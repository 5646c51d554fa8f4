"""Sentences about a scene, true and unambiguous, made from what is known about its things."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from rvos_edge.trainer.data.generate import vocabulary

# A colour counts when it covers this share of a thing, and every other one stays below the second number.
_CLEAR, _OTHER = 0.55, 0.2
_HUES = (("red", 0, 6), ("orange", 9, 19), ("yellow", 23, 34), ("green", 38, 82), ("blue", 95, 128), ("red", 173, 180))
_COLOURLESS = frozenset(
    """tv,laptop,clock,zebra,person,mouse,cell phone,bird,dog,cat,orange,broccoli,carrot,wine glass,sink,potted plant,
fork,knife,spoon,traffic light,book,keyboard,remote,dining table,pizza,sandwich,hot dog,cake""".replace("\n", "").split(
        ","
    )
)
COLOURS = ("red", "orange", "yellow", "green", "blue", "white", "black")
_STILL, _MOVING = 0.35, 2.0  # pixels per frame
_PLACES: dict[str, Callable[[float, float], bool]] = {
    "left": lambda x, y: x < 0.5,
    "right": lambda x, y: x > 0.5,
    "middle": lambda x, y: 0.3 < x < 0.7,
    "center": lambda x, y: 0.3 < x < 0.7,
    "top": lambda x, y: y < 0.5,
    "bottom": lambda x, y: y > 0.5,
}
_PLACE_PATTERN = re.compile(r"\b(?:on|at|in) the (left|right|middle|center|top|bottom)\b(?! of\b)")


@dataclass(frozen=True)
class Thing:
    """One object of a scene, in the geometry of the final image.

    Attributes:
        mask: bool [H,W], the visible pixels.
        category: its name in `vocabulary.COCO_CATEGORIES`, or "" when only `sentences` describe it.
        sentences: sentences known to be true of it alone.
        colour: its colour when that is beyond doubt.
        motion: (dx, dy) in pixels per frame relative to the background, None when unknown.
        cut: the thing touches the border of the image, so its full size is unknown.
    """

    mask: NDArray[np.bool_]
    category: str = ""
    sentences: tuple[str, ...] = ()
    colour: str | None = None
    motion: tuple[float, float] | None = None
    cut: bool = False
    area: int = field(init=False)
    centre: tuple[float, float] = field(init=False)
    box: tuple[int, int, int, int] = field(init=False)

    def __post_init__(self) -> None:
        moments = cv2.moments(self.mask.view(np.uint8), binaryImage=True)
        area = max(moments["m00"], 1.0)
        height, width = self.mask.shape
        x, y, w, h = cv2.boundingRect(self.mask.view(np.uint8))
        object.__setattr__(self, "box", (x, y, x + w, y + h))
        object.__setattr__(self, "area", int(moments["m00"]))
        object.__setattr__(self, "centre", (moments["m10"] / area / width, moments["m01"] / area / height))


Pair = tuple[str, NDArray[np.bool_]]


def describe(
    things: Sequence[Thing], *, uncertain: Iterable[str] = (), rng: np.random.Generator, tails: bool = False
) -> list[Pair]:
    """All kinds of true, unambiguous sentences about a scene, with wording drawn from ``rng``.

    Args:
        things: every visible thing of the categories that occur.
        uncertain: categories that have further instances too small to count; nothing is said about their places or
            about the smallest of them.
        rng: chooses between wordings.
        tails: let some phrases be followed by what things may do and where they may be, true or not: for training,
            so that the noun decides.
    """
    pairs: list[Pair] = [(s, thing.mask) for thing in things for s in thing.sentences]
    doubtful = frozenset(uncertain)
    for category, group in _by_category(things).items():
        doubt = category in doubtful
        if len(group) == 1:
            pairs += _of_one(group[0], doubt=doubt, rng=rng, tails=tails)
        else:
            union = np.logical_or.reduce([thing.mask for thing in group])
            many = vocabulary.plural(_pick(rng, vocabulary.names(category)))
            pairs += [(_pick(rng, (many, f"the {many}", f"all the {many}", f"all {many}")), union)]
            if rng.random() < 0.3:
                pairs.append((_pick(rng, vocabulary.names(category)), union))
            pairs += _of_several(group, doubt=doubt, rng=rng)
    return pairs + _of_riders(things, doubtful, rng) + _of_kinds(things, doubtful, rng)


def contradictions(things: Sequence[Thing], *, uncertain: Iterable[str] = (), rng: np.random.Generator) -> list[str]:
    """Sentences that name a thing of the scene with an attribute it clearly has not: their masks are empty."""
    out = []
    doubtful = frozenset(uncertain)
    for category, group in _by_category(things).items():
        if category in doubtful:
            continue
        noun = _pick(rng, vocabulary.names(category))
        x, _ = group[0].centre
        if len(group) == 1 and abs(x - 0.5) > 0.25:
            out.append(f"the {noun} on the {'right' if x < 0.5 else 'left'}")
        if all(thing.colour in ("red", "blue", "green", "yellow", "white", "black") for thing in group):
            have = {thing.colour for thing in group}
            near = {"red": "orange", "yellow": "orange"}
            others = [c for c in COLOURS if c not in have and c not in {near.get(h or "") for h in have}]
            out.append(f"the {_pick(rng, others)} {noun}")
        for word, axis, sign in (("left", 0, -1), ("right", 0, 1)):
            if all(thing.motion is not None and thing.motion[axis] * sign < -_MOVING for thing in group):
                out.append(f"the {noun} moving to the {word}")
        if all(thing.motion is not None and np.hypot(*thing.motion) < 0.05 for thing in group):
            out.append(_pick(rng, (f"the moving {noun}", f"the {noun} that is moving")))
    return out


def absent(categories: Sequence[str], rng: np.random.Generator) -> str:
    """A sentence about something of one of the categories, worded as often with attributes as the true ones are."""
    category = _pick(rng, categories)
    noun = _pick(rng, vocabulary.names(category))
    if noun in vocabulary.PLURAL_ONLY:
        return _pick(rng, (noun, f"the {noun}"))
    colour, side = _pick(rng, COLOURS), _pick(rng, ("left", "right"))
    kind = rng.random()
    if kind < 0.45:
        return _told(category, _single(noun, rng), rng)
    if kind < 0.55:
        many = vocabulary.plural(noun)
        return _pick(rng, (many, f"the {many}", f"all the {many}", f"all {many}"))
    if kind < 0.7:
        end = _pick(rng, ("top", "bottom"))
        forms = (f"the {noun} on the {side}", f"the {side} {noun}", f"the {side}most {noun}")
        return _pick(rng, (*forms, f"the {noun} in the middle", f"the {noun} at the {end}"))
    if kind < 0.82 and colour != noun:
        return _pick(rng, (f"the {colour} {noun}", vocabulary.article(f"{colour} {noun}")))
    if kind < 0.9:
        return f"the {_pick(rng, ('largest', 'biggest', 'smallest', 'smaller', 'big'))} {noun}"
    return _pick(rng, (f"the moving {noun}", f"the {noun} moving to the {side}", f"the {noun} that is moving"))


def flip_words(sentence: str) -> str:
    """Swap left and right, for a mirrored image."""
    swap = {"left": "right", "right": "left", "leftmost": "rightmost", "rightmost": "leftmost"}
    return re.sub(r"\b(left|right|leftmost|rightmost)\b", lambda m: swap[m.group(1)], sentence)


def place_holds(sentence: str, mask: NDArray[np.bool_]) -> bool:
    """Whether "on the left", "in the middle" and the like are true of a mask [H,W]; other sentences hold."""
    words = _PLACE_PATTERN.findall(sentence)
    if not words or not mask.any():
        return True
    x, y = Thing(mask=mask).centre
    return all(_PLACES[word](x, y) for word in words)


def dominant_colour(image: NDArray[np.uint8], mask: NDArray[np.bool_], category: str) -> str | None:
    """The colour of a thing when a clear majority of its pixels agree, else None.

    Args:
        image: RGB uint8 [H,W,3].
        mask: bool [H,W].
        category: screens, animals, food and people are never given a colour.
    """
    if category in _COLOURLESS:
        return None
    x, y, w, h = cv2.boundingRect(mask.view(np.uint8))
    pixels = image[y : y + h, x : x + w][mask[y : y + h, x : x + w]]
    if len(pixels) < 200:
        return None
    step = max(1, len(pixels) // 2000)
    hsv = cv2.cvtColor(pixels[::step][None], cv2.COLOR_RGB2HSV)[0].astype(np.int32)
    hue, saturation, value = hsv.T
    chromatic = (saturation > 110) & (value > 70)
    share: dict[str, float] = defaultdict(float)
    # Between skin, wood and brown, only a vivid orange is beyond doubt.
    vivid = chromatic & (saturation > 150) & (value > 150)
    for name, low, high in _HUES:
        share[name] += float(((vivid if name == "orange" else chromatic) & (hue >= low) & (hue <= high)).mean())
    share["white"] = float(((saturation < 40) & (value > 185)).mean())
    share["black"] = float((value < 50).mean())
    ranked = sorted(share.items(), key=lambda item: -item[1])
    return ranked[0][0] if ranked[0][1] >= _CLEAR and ranked[1][1] <= _OTHER else None


def _by_category(things: Sequence[Thing]) -> dict[str, list[Thing]]:
    groups: dict[str, list[Thing]] = defaultdict(list)
    for thing in things:
        if thing.category:
            groups[thing.category].append(thing)
    return groups


def _pick(rng: np.random.Generator, options: Sequence[str]) -> str:
    return options[int(rng.integers(len(options)))]


def _single(noun: str, rng: np.random.Generator) -> str:
    if noun in vocabulary.PLURAL_ONLY:
        return _pick(rng, (noun, f"the {noun}"))
    forms = (f"the {noun}", f"the {noun}", vocabulary.article(noun), vocabulary.article(noun), noun)
    return _pick(rng, (*forms, "someone") if noun == "person" else forms)


def _told(category: str, phrase: str, rng: np.random.Generator) -> str:
    """A phrase, at times with what people add to it, true or not: the mask is that of the phrase all the same."""
    actions = vocabulary.actions(category)
    if actions and rng.random() < 0.3:
        phrase = f"{phrase} {_pick(rng, actions)}"
    if rng.random() < 0.3:
        one, other = rng.choice(len(COLOURS), 2, replace=False)
        colours = _pick(rng, (f"{COLOURS[one]} ", f"{COLOURS[one]} and {COLOURS[other]} ", "", ""))
        relation, surroundings = (_pick(rng, vocabulary.RELATIONS), _pick(rng, vocabulary.SURROUNDINGS))
        phrase = f"{phrase} {relation} {_pick(rng, ('the ', ''))}{colours}{surroundings}"
    return phrase


def _of_one(thing: Thing, *, doubt: bool, rng: np.random.Generator, tails: bool) -> list[Pair]:
    noun = _pick(rng, vocabulary.names(thing.category))
    sentences = [_single(noun, rng)]
    if noun in vocabulary.PLURAL_ONLY:
        return [(sentences[0], thing.mask)]
    if tails:
        sentences = [_told(thing.category, sentences[0], rng)]
    x, _ = thing.centre
    if not doubt and abs(x - 0.5) > 0.2 and rng.random() < 0.4:
        sentences.append(f"the {noun} on the {'left' if x < 0.5 else 'right'}")
    if thing.colour:
        coloured = _coloured(noun, thing.colour, rng)
        sentences.append(_told(thing.category, coloured, rng) if tails else coloured)
    if not doubt:
        sentences += _motions(noun, thing.motion, rng)
    return [(s, thing.mask) for s in sentences]


def _coloured(noun: str, colour: str, rng: np.random.Generator) -> str:
    return _pick(rng, (f"the {colour} {noun}", vocabulary.article(f"{colour} {noun}"), f"the {noun} that is {colour}"))


def _motions(noun: str, motion: tuple[float, float] | None, rng: np.random.Generator) -> list[str]:
    if motion is None or np.hypot(*motion) < _MOVING:
        return []
    out = [_pick(rng, (f"the moving {noun}", f"the {noun} that is moving", f"a moving {noun}"))]
    if abs(motion[0]) > max(_MOVING, 2 * abs(motion[1])):
        side = "left" if motion[0] < 0 else "right"
        out.append(_pick(rng, (f"the {noun} moving to the {side}", f"the {noun} moving {side}")))
    return out


def _of_several(group: Sequence[Thing], *, doubt: bool, rng: np.random.Generator) -> list[Pair]:
    """Sentences that single out one of several things of a category by place, size, colour or motion."""
    noun = _pick(rng, vocabulary.names(group[0].category))
    if noun in vocabulary.PLURAL_ONLY:
        return []
    pairs: list[Pair] = []
    by_size = sorted(group, key=lambda thing: -thing.area)
    if by_size[0].area > 1.8 * by_size[1].area:
        words = ["largest", "biggest"] + (["bigger", "big", "large"] if by_size[0].area > 2.5 * by_size[1].area else [])
        pairs.append((f"the {_pick(rng, words)} {noun}", by_size[0].mask))
    smallest = by_size[-1]
    if not doubt and not smallest.cut and by_size[-2].area > 1.8 * smallest.area:
        words = ["smallest"] + (["smaller", "small", "little"] if len(group) == 2 else [])
        pairs.append((f"the {_pick(rng, words)} {noun}", smallest.mask))
    for thing in group:
        others = [other for other in group if other is not thing]
        if thing.colour and all(other.colour and other.colour != thing.colour for other in others):
            pairs.append((_coloured(noun, thing.colour, rng), thing.mask))
        if not doubt:
            pairs += [(s, thing.mask) for s in _apart_by_motion(noun, thing, others, rng)]
    return pairs if doubt else pairs + _by_place(noun, group, rng)


def _apart_by_motion(noun: str, thing: Thing, others: Sequence[Thing], rng: np.random.Generator) -> list[str]:
    if thing.motion is None or any(other.motion is None for other in others):
        return []
    motions = [other.motion or (0.0, 0.0) for other in others]
    out = []
    if np.hypot(*thing.motion) > _MOVING and all(np.hypot(*m) < _STILL for m in motions):
        told = [
            f"{_pick(rng, (f'the {noun}', vocabulary.article(noun)))} {move}"
            for move in vocabulary.moves(thing.category)
        ]
        out.append(_pick(rng, (f"the moving {noun}", f"the {noun} that is moving", *told)))
    if np.hypot(*thing.motion) < 0.05 and all(np.hypot(*m) > _MOVING for m in motions):
        out.append(_pick(rng, (f"the {noun} that is standing still", f"the {noun} that is not moving")))
    dx, dy = thing.motion
    side = -1 if dx < 0 else 1
    if abs(dx) > max(_MOVING, 2 * abs(dy)) and all(m[0] * side < _STILL for m in motions):
        word = "left" if side < 0 else "right"
        out.append(_pick(rng, (f"the {noun} moving to the {word}", f"the {noun} moving {word}")))
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
                pairs.append((_pick(rng, forms), thing.mask))
        if axis == 0 and len(group) == 3:
            left, middle, right = (thing.centre[0] for thing in ordered)
            if min(middle - left, right - middle) > margin and abs(middle - 0.5) < 0.2:
                pairs.append((_pick(rng, (f"the {noun} in the middle", f"the middle {noun}")), ordered[1].mask))
    return pairs


def _ahead(thing: Thing, group: Sequence[Thing], axis: int, end: int) -> bool:
    """Whether both edges of a thing along an axis lie before (end 0) or beyond (end 1) those of all the others."""
    sign = 1 - 2 * end
    return all(sign * thing.box[edge] <= sign * other.box[edge] for other in group for edge in (axis, axis + 2))


def _of_riders(things: Sequence[Thing], doubtful: frozenset[str], rng: np.random.Generator) -> list[Pair]:
    """A person and what carries it, as the one foreground that DAVIS-2016 takes them for."""
    people = [thing for thing in things if thing.category == "person"]
    pairs: list[Pair] = []
    for category, group in _by_category(things).items():
        if category not in vocabulary.MOUNTS or category in doubtful:
            continue
        manned = [(mount, near) for mount in group if (near := _at(mount, people))]
        if len(manned) != 1:  # others may stand there empty
            continue
        mount, riders = manned[0]
        # A second person at the mount leaves open who rides, and whoever stands beside it reaches further down.
        if len(riders) != 1 or not _sits_on(riders[0], mount):
            continue
        noun = _pick(rng, vocabulary.names(category))
        one, its = (noun, "their") if noun in vocabulary.PLURAL_ONLY else (vocabulary.article(noun), "its")
        person = _pick(rng, ("person", "rider"))
        forms = (
            f"a person riding {one}",
            f"a {person} on {one}",
            f"{one} with {its} rider",
            f"the {noun} and {its} rider",
        )
        union = riders[0].mask | mount.mask
        # The paper's own form names both: "a man riding a motocross bike and a motorbike".
        both = (f"a person riding {one} and {one}", f"a person and {one}")
        pairs += [(_pick(rng, forms), union), (_pick(rng, both), union)]
    return pairs


def _at(mount: Thing, people: Sequence[Thing]) -> list[Thing]:
    """Those who touch a mount."""
    near = cv2.dilate(mount.mask.view(np.uint8), np.ones((5, 5), np.uint8)).view(np.bool_)
    return [person for person in people if (person.mask & near).any()]


def _sits_on(person: Thing, mount: Thing) -> bool:
    """Whether a person is over its mount and does not stand on the same ground."""
    height = mount.box[3] - mount.box[1]
    over = person.centre[1] < mount.centre[1] and mount.box[0] < person.centre[0] * person.mask.shape[1] < mount.box[2]
    return over and person.box[3] <= mount.box[3] + 0.1 * height


def _of_kinds(things: Sequence[Thing], doubtful: frozenset[str], rng: np.random.Generator) -> list[Pair]:
    """ "the animal", "all the vehicles": only where every thing has a category."""
    if any(not thing.category for thing in things):
        return []
    pairs: list[Pair] = []
    for word, kind in (("animal", vocabulary.ANIMALS), ("vehicle", vocabulary.VEHICLES)):
        members = [thing for thing in things if thing.category in kind]
        blurred = any(thing.category in ("bicycle", "skateboard", "teddy bear") for thing in things)
        if not members or doubtful & kind or blurred or rng.random() < 0.5:
            continue
        if len(members) == 1:
            pairs.append((_pick(rng, (f"the {word}", vocabulary.article(word))), members[0].mask))
        else:
            union = np.logical_or.reduce([thing.mask for thing in members])
            pairs.append((_pick(rng, (f"{word}s", f"the {word}s", f"all the {word}s")), union))
    return pairs
