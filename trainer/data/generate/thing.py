"""One object of a frame, its properties, and the words for it alone."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from rvos_edge.result import mask_boxes
from rvos_edge.trainer.data.generate import vocabulary
from rvos_edge.trainer.data.generate.garments import colour_name

# A colour counts when it covers this share of a thing, and every other one stays below the second number.
_CLEAR, _OTHER = 0.55, 0.2
_HUES = (("red", 0, 6), ("orange", 9, 19), ("yellow", 23, 34), ("green", 38, 82), ("blue", 95, 128), ("red", 173, 180))
_COLOURLESS = frozenset(
    """tv,laptop,clock,zebra,giraffe,person,mouse,cell phone,bird,orange,broccoli,carrot,wine glass,sink,potted plant,
fork,knife,spoon,traffic light,book,keyboard,remote,dining table,pizza,sandwich,hot dog,cake""".replace("\n", "").split(
        ","
    )
)
COLOURS = ("red", "orange", "yellow", "green", "blue", "white", "black")
STILL, MOVING = 0.35, 2.0  # pixels per frame


@dataclass(frozen=True)
class Thing:
    """One object of a scene, in the geometry of the final image.

    Attributes:
        mask: bool [H,W], the visible pixels.
        category: one of `vocabulary.COCO_CATEGORIES`, "object" when it has none, "" when only `sentences` describe it.
        sentences: sentences known to be true of it alone.
        colour: its colour when that is beyond doubt.
        motion: (dx, dy) in pixels per frame relative to the background, None when unknown.
        cut: the thing touches the border of the image, so its full size is unknown.
        names: narrower names than its category, the narrowest first.
        traits: what follows its noun truly, "in a red dress"; empty when nothing is known of that.
    """

    mask: NDArray[np.bool_]
    category: str = ""
    sentences: tuple[str, ...] = ()
    colour: str | None = None
    motion: tuple[float, float] | None = None
    cut: bool = False
    names: tuple[str, ...] = ()
    traits: tuple[str, ...] = ()
    area: int = field(init=False)
    centre: tuple[float, float] = field(init=False)
    box: tuple[int, int, int, int] = field(init=False)

    def __post_init__(self) -> None:
        moments = cv2.moments(self.mask.view(np.uint8), binaryImage=True)
        area = max(moments["m00"], 1.0)
        height, width = self.mask.shape
        object.__setattr__(self, "box", tuple(mask_boxes(self.mask[None])[0].tolist()))
        object.__setattr__(self, "area", int(moments["m00"]))
        object.__setattr__(self, "centre", (moments["m10"] / area / width, moments["m01"] / area / height))


Pair = tuple[str, NDArray[np.bool_]]


def dominant_colour(image: NDArray[np.uint8], mask: NDArray[np.bool_], category: str) -> str | None:
    """The colour of a thing when a clear majority of its pixels agree, else None; screens, animals, food and people
    never have one.
    """
    if category in _COLOURLESS:
        return None
    if category in vocabulary.ANIMALS:
        return _coat(image, mask)
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


def _coat(image: NDArray[np.uint8], mask: NDArray[np.bool_]) -> str | None:
    """The colour of an animal, RGB uint8 [H,W,3]: one of those that coats have, where most of it agrees."""
    colour = colour_name(image[mask][:, ::-1])
    return colour if colour in ("black", "white", "brown", "gray") else None


def by_category(things: Sequence[Thing]) -> dict[str, list[Thing]]:
    groups: dict[str, list[Thing]] = defaultdict(list)
    for thing in things:
        if thing.category:
            groups[thing.category].append(thing)
    return groups


def pick(rng: np.random.Generator, options: Sequence[str]) -> str:
    return options[int(rng.integers(len(options)))]


def coloured(noun: str, colour: str, rng: np.random.Generator) -> str:
    return pick(rng, (f"the {colour} {noun}", vocabulary.article(f"{colour} {noun}"), f"the {noun} that is {colour}"))


def touching(mount: Thing, people: Sequence[Thing]) -> list[Thing]:
    """Those people who touch a thing."""
    near = cv2.dilate(mount.mask.view(np.uint8), np.ones((5, 5), np.uint8)).view(np.bool_)
    return [person for person in people if (person.mask & near).any()]
