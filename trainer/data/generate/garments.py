"""Garments and their colours, from garments labelled per pixel (Clothing Co-Parsing)."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from rvos_edge.errors import UserError
from rvos_edge.nouns import article
from rvos_edge.trainer.data.generate import vocabulary
from rvos_edge.trainer.data.readers.images import read_annotation

_CARRIED = frozenset({"bag"})
_PLAIN = frozenset({"sunglasses", "glasses"})  # too small for a colour
_SMALLEST, _LARGE = 0.006, 0.03
"""Share of the person that a garment covers at least, to be mentioned and to be mentioned without its colour."""


class Garments:
    """The labels of a folder.

    Args:
        folder: a PNG of label numbers for each picture; ``labels.json`` beside the folder lists their names.

    Raises:
        UserError: the list is missing or damaged.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        path = folder.with_name("labels.json")
        try:
            self.names = [str(name) for name in json.loads(path.read_text(encoding="utf-8"))]
        except (OSError, ValueError) as error:
            raise UserError(f"{path} is no list of label names; give a folder of labels with it beside") from error
        self._pictures = frozenset(one.stem for one in folder.glob("*.png"))

    def has(self, picture: str) -> bool:
        """True if there are labels of a picture, named by its file without the ending."""
        return picture in self._pictures

    def traits(self, picture: str, image: NDArray[np.uint8], mask: NDArray[np.bool_]) -> tuple[str, ...]:
        """True phrases to follow "the person" (a mask on a BGR image): "in a red dress", "with a black bag"; nothing
        without labels. ``picture`` is the file's name without its ending.
        """
        if not self.has(picture):
            return ()
        path = self.folder / f"{picture}.png"
        labels = _read(path)
        if labels.shape != mask.shape:
            raise UserError(f"the labels {path} are of size {labels.shape[:2]}, their image of {mask.shape}")
        out = []
        areas = np.bincount(labels[mask], minlength=len(self.names)) / max(int(mask.sum()), 1)
        for number in np.argsort(-areas[: len(self.names)], kind="stable"):
            word, paired = vocabulary.GARMENTS.get(self.names[number], ("", False))
            if not word or areas[number] < _SMALLEST:
                continue
            colour = None if word in _PLAIN else colour_name(image[mask & (labels == number)])
            if colour is None and word not in _PLAIN and (areas[number] < _LARGE or word == "shoes"):
                continue
            phrase = " ".join(filter(None, (colour, word)))
            joint = "with" if word in _CARRIED else "in" if word not in _PLAIN else "wearing"
            out.append(f"{joint} {phrase if paired else article(phrase)}")
        return tuple(dict.fromkeys(out))


@lru_cache(maxsize=256)
def _read(path: Path) -> NDArray[np.uint8]:
    return read_annotation(path)


# Hue (OpenCV, 0 to 180) from, to; red goes round.
_HUES = (("red", 0, 6), ("orange", 9, 17), ("yellow", 22, 34), ("green", 38, 85), ("blue", 92, 125),
         ("purple", 130, 150), ("pink", 154, 168), ("red", 172, 180))  # fmt: skip
_MOST, _NEXT = 0.6, 0.2


def colour_name(pixels: NDArray[np.uint8]) -> str | None:
    """The colour of BGR pixels uint8 [N,3] where most of them agree, else None."""
    if len(pixels) < 40:
        return None
    hsv = cv2.cvtColor(np.ascontiguousarray(pixels[:: max(1, len(pixels) // 1000)][None]), cv2.COLOR_BGR2HSV)[0]
    hue, saturation, value = hsv.astype(np.int32).T
    dark, pale = value < 55, saturation < 38
    share = {
        "black": float((dark | ((value < 75) & (saturation < 90))).mean()),
        "white": float((pale & (value > 175)).mean()),
        "gray": float((pale & (value > 85) & (value < 165)).mean()),
    }
    coloured = ~dark & (saturation > 75)
    brown = coloured & (hue >= 4) & (hue <= 18) & (value < 150)
    share["brown"] = float(brown.mean())
    for name, low, high in _HUES:
        share[name] = share.get(name, 0.0) + float((coloured & ~brown & (hue >= low) & (hue <= high)).mean())
    ranked = sorted(share.items(), key=lambda item: -item[1])
    return ranked[0][0] if ranked[0][1] >= _MOST and ranked[1][1] <= _NEXT else None
