"""Captions that refer to one thing, so that they are sentences with a mask."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rvos_edge.errors import UserError
from rvos_edge.trainer.data.generate.captions import read_captions, referring_captions


@pytest.mark.parametrize(
    ("caption", "refers"),
    [
        ("A man riding a wave on top of a surfboard.", True),
        ("A MAN IS PLAYING TENNIS", True),
        ("Tennis player getting ready to hit the ball", True),
        ("A young woman with long hair sits on a bench.", True),
        ("Two men riding waves.", False),  # several
        ("A man and a dog on a beach.", False),
        ("A picture of a man on a horse.", False),
        ("A group of people in the snow.", False),
        ("A surfboard under a man.", False),  # not about the person
        ("View of a man from behind.", False),
    ],
)
def test_a_caption_refers_to_the_person_it_begins_with(caption: str, refers: bool) -> None:
    assert (0 in referring_captions([caption], ["person"])) == refers


def test_a_caption_refers_to_the_only_thing_of_its_category() -> None:
    assert referring_captions(["A brown puppy sleeping."], ["person", "dog"]) == {1: ("a brown puppy sleeping",)}
    assert referring_captions(["A puppy sleeping."], ["dog", "dog"]) == {}, "which of the two?"


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "captions.json"
    path.write_text(json.dumps({"1.jpg": ["a dog"]}))
    assert read_captions(path) == {"1.jpg": ["a dog"]}
    path.write_text("[1]")
    with pytest.raises(UserError, match="holds no captions"):
        read_captions(path)
    with pytest.raises(UserError, match="do not exist"):
        read_captions(tmp_path / "none.json")
