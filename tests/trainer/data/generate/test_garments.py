"""Clothes and their colours as sentences, from labels per pixel."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from rvos_edge.errors import UserError
from rvos_edge.trainer.data.generate.garments import Garments, colour_name

RED, BLUE, MIXED = (20, 20, 200), (190, 60, 20), None


def test_garments_are_told_with_the_colour_of_their_pixels(tmp_path: Path) -> None:
    (tmp_path / "labels.json").write_text(json.dumps(["null", "dress", "bag", "skin", "boots"]))
    (tmp_path / "labels").mkdir()
    labels = np.zeros((80, 40), np.uint8)
    labels[10:60], labels[20:40, :8], labels[62:78, 10:30] = 1, 2, 4
    image = np.full((80, 40, 3), 128, np.uint8)
    image[labels == 1], image[labels == 2], image[labels == 4] = RED, BLUE, (20, 20, 20)
    cv2.imwrite(str(tmp_path / "labels" / "one.png"), labels)
    garments = Garments(tmp_path / "labels")
    everywhere = np.ones((80, 40), bool)
    assert garments.traits("one", image, everywhere) == ("in a red dress", "in black boots", "with a blue bag")
    assert garments.traits("other", image, everywhere) == ()
    with pytest.raises(UserError, match=r"one\.png are of size"):
        garments.traits("one", image[:40], everywhere[:40])
    (tmp_path / "labels.json").unlink()
    with pytest.raises(UserError, match=r"labels\.json is no list"):
        Garments(tmp_path / "labels")


@pytest.mark.parametrize(
    ("colour", "name"),
    [((20, 20, 200), "red"), ((190, 60, 20), "blue"), ((245, 245, 245), "white"), ((15, 15, 15), "black"),
     ((40, 70, 110), "brown"), ((125, 125, 125), "gray"), ((60, 160, 60), "green")],
)  # fmt: skip
def test_a_colour_is_named_where_most_pixels_agree(colour: tuple[int, int, int], name: str) -> None:
    pixels = np.full((200, 3), colour, np.uint8)
    assert colour_name(pixels) == name
    pixels[100:] = (190, 60, 20) if name != "blue" else (20, 20, 200)
    assert colour_name(pixels) is None
    assert colour_name(pixels[:10]) is None, "too few"
