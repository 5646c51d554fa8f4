"""Which words name which things: categories, synonyms, and what must never be called absent."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache

from rvos_edge import nouns as _nouns
from rvos_edge.nouns import load_nouns


def _split(text: str) -> tuple[str, ...]:
    return tuple(text.split())


# What people call a category (the first is the COCO name or its everyday form). No word guesses a gender.
_SYNONYMS: dict[str, tuple[str, ...]] = {
    "person": ("person", "person", "person", "human"),
    "bicycle": ("bicycle", "bike"),
    "motorcycle": ("motorcycle", "motorbike"),
    "airplane": ("airplane", "plane"),
    "couch": ("couch", "sofa"),
    "tv": ("tv", "television", "screen"),
    "cell phone": ("cell phone", "mobile phone", "phone"),
    "dining table": ("dining table", "table"),
    "potted plant": ("potted plant",),
    "sports ball": ("ball", "sports ball"),
    "refrigerator": ("refrigerator", "fridge"),
    "hair drier": ("hair dryer",),
    "donut": ("donut", "doughnut"),
    "remote": ("remote control", "remote"),
    "mouse": ("computer mouse", "mouse"),
    "object": ("object", "thing"),
    "handbag": ("handbag", "bag"),
    "suitcase": ("suitcase", "piece of luggage"),
    "backpack": ("backpack", "rucksack"),
    "tie": ("tie", "necktie"),
    "laptop": ("laptop", "laptop computer"),
    "teddy bear": ("teddy bear",),
    "microwave": ("microwave", "microwave oven"),
}
# Nouns that only come in pairs read badly as "a skis".
PLURAL_ONLY = frozenset({"skis", "scissors"})

ANIMALS = frozenset(_split("bird cat dog horse sheep cow elephant bear zebra giraffe rhino camel penguin kangaroo"))
VEHICLES = frozenset({"car", "motorcycle", "airplane", "bus", "train", "truck", "boat"})

# What a person rides: rider and mount move as one, and DAVIS-2016 takes them as one foreground.
MOUNTS = frozenset(_split("bicycle motorcycle horse elephant skateboard surfboard snowboard skis"))

# What a person carries: it tells one person from others.
CARRIED = frozenset(
    """backpack,handbag,umbrella,suitcase,frisbee,sports ball,baseball bat,tennis racket,surfboard,snowboard,teddy bear,
laptop,cell phone,bottle,wine glass,cup,kite""".replace("\n", "").split(",")
)

# What follows a thing in a spoken sentence without changing which thing is meant. None of these words names a category.
RELATIONS = ("on", "in", "near", "next to", "in front of", "behind", "through", "past", "over", "across", "beside")
SURROUNDINGS = _split(
    """grass water road field fence poles wall sand snow rocks street building crossing obstacles ramp bushes lines
    stairs bars hill"""
)
_ACTIONS: dict[str, tuple[str, ...]] = {
    "person": ("walking", "standing", "running", "jumping", "sitting", "playing", "waiting", "turning"),
    "animal": ("walking", "running", "standing", "jumping", "resting", "looking around", "eating"),
    "bird": ("flying", "swimming", "standing", "landing", "floating", "walking"),
    "vehicle": ("driving", "turning", "parked", "standing", "moving along", "passing"),
}
_MOVES = frozenset({"walking", "running", "flying", "swimming", "driving", "moving along", "passing"})

# Pairs of categories that look or are called alike: where one is, the others are never said to be absent.
_ALIKE: tuple[frozenset[str], ...] = (
    frozenset({"car", "truck", "bus"}),
    frozenset({"bicycle", "motorcycle"}),
    frozenset({"cup", "bowl", "wine glass", "vase", "bottle", "potted plant"}),
    frozenset({"couch", "chair", "bench", "bed"}),
    frozenset({"handbag", "backpack", "suitcase"}),
    frozenset({"fork", "knife", "spoon"}),
    frozenset({"oven", "microwave", "toaster"}),
    frozenset({"tv", "laptop", "keyboard", "mouse"}),
    frozenset({"remote", "cell phone"}),
    frozenset({"skis", "snowboard"}),
    frozenset({"surfboard", "skateboard", "snowboard"}),
    frozenset({"boat", "surfboard"}),
    frozenset({"sandwich", "hot dog", "pizza", "cake", "donut"}),
    frozenset({"orange", "apple", "sports ball"}),
    frozenset({"broccoli", "carrot"}),
    frozenset({"teddy bear", "bear"}),
    frozenset({"kite", "umbrella"}),
    frozenset({"baseball bat", "tennis racket"}),
    frozenset({"horse", "cow", "zebra"}),
    frozenset({"toilet", "sink"}),
)
# Often in the picture without being annotated.
_NEVER_ABSENT = frozenset({"dining table", "potted plant", "book", "tie"})
# Word -> the categories it may speak of. A word about people speaks of a person, and so on.
_WORDS: dict[str, tuple[str, ...]] = {}
_PEOPLE = """person people human humans man men woman women boy boys girl girls lady ladies guy guys child children kid
kids baby mother father dancer rider riders cyclist hiker skater surfer windsurfer player players jockey someone
somebody athlete driver pedestrian adult crowd surfers breakdancing hiking dancing"""
_WORDS |= dict.fromkeys(_split(_PEOPLE), ("person",))
_WORDS |= dict.fromkeys(("bike", "bikes"), ("bicycle", "motorcycle"))
_WORDS |= dict.fromkeys(("bmx", "bicycle", "bicycles"), ("bicycle",))
_WORDS |= dict.fromkeys(_split("motorbike motorbikes motorcycle motorcycles scooter moped motocross"), ("motorcycle",))
_WORDS |= dict.fromkeys(_split("car cars jeep suv van vehicle truck drift"), ("car", "truck"))
_WORDS |= dict.fromkeys(_split("boat ship yacht sail sailboat sailboard windsurfing"), ("boat", "surfboard", "kite"))
_WORDS |= dict.fromkeys(_split("bird birds duck mallard flamingo goose"), ("bird",))
_WORDS |= dict.fromkeys(_split("dog dogs collie puppy"), ("dog",))
_WORDS |= dict.fromkeys(_split("rhino rhinoceros"), ("rhino",))
_WORDS |= dict.fromkeys(_split("animal animals creature"), tuple(sorted(ANIMALS)))
_WORDS |= dict.fromkeys(_split("ball football soccer"), ("sports ball",))
_WORDS |= dict.fromkeys(_split("parachute paraglider paragliding kite"), ("kite",))
_WORDS |= dict.fromkeys(("train", "locomotive", "wagons"), ("train",))
_WORDS |= dict.fromkeys(_split("bag bags rucksack"), ("handbag", "backpack", "suitcase"))
_WORDS |= dict.fromkeys(_split("plant tree flowers flower"), ("potted plant",))
_WORDS |= dict.fromkeys(_split("stroller pram carriage"), ("stroller",))
_STOP = frozenset(
    _split(
        """a an the of on in at to and with by from for his her its their is that this or into onto over under up down
    next front behind left right top bottom middle center side large big small little tall long young old black white
    gray grey brown red green blue yellow orange pink purple silver light dark walking running moving standing past
    driving riding two one water road grass rocks air legs hand head hair shirt trousers jeans dress playing"""
    )
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
    """Actions of things of a category; nothing for what only lies about."""
    kind = "animal" if category in ANIMALS else "vehicle" if category in VEHICLES else category
    return _ACTIONS.get("bird" if category == "bird" else kind, ())


def moves(category: str) -> tuple[str, ...]:
    """Those of its actions that take a thing from its place."""
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
    """The COCO categories, and those of a user's ``own``, that a picture annotated for them with the given ones
    surely does not hold: nothing alike, and no wider or narrower word for one of them.
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


COCO_CATEGORIES = tuple(
    """person,bicycle,car,motorcycle,airplane,bus,train,truck,boat,traffic light,fire hydrant,stop sign,parking meter,
bench,bird,cat,dog,horse,sheep,cow,elephant,bear,zebra,giraffe,backpack,umbrella,handbag,tie,suitcase,frisbee,skis,
snowboard,sports ball,kite,baseball bat,baseball glove,skateboard,surfboard,tennis racket,bottle,wine glass,cup,fork,
knife,spoon,bowl,banana,apple,sandwich,orange,broccoli,carrot,hot dog,pizza,donut,cake,chair,couch,potted plant,bed,
dining table,toilet,tv,laptop,mouse,remote,keyboard,cell phone,microwave,oven,toaster,sink,refrigerator,book,clock,
vase,scissors,teddy bear,hair drier,toothbrush""".replace("\n", "").split(",")
)
# "orange" is a colour far more often than a fruit.
_CATEGORY_PATTERN = re.compile(
    r"\b(" + "|".join(sorted((c for c in COCO_CATEGORIES if c != "orange"), key=len, reverse=True)) + r")(?:s|es)?\b"
)
