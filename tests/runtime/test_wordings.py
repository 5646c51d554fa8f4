"""Wider words for a sentence, from WordNet's nouns."""

from __future__ import annotations

import pytest

from rvos_edge.nouns import article, load_nouns, plural
from rvos_edge.wordings import main_noun, wordings


@pytest.mark.parametrize(
    ("sentence", "noun", "wider"),
    [
        ("a golden retriever on the left", "golden retriever", "a retriever on the left"),
        ("the okapi", "okapi", "the animal"),
        ("two brown goats", "goats", "two brown animals"),
        ("a zebra crossing the road", "zebra", "an animal crossing the road"),
        ("a man riding a horse", "man", "a person riding a horse"),
        ("the girl with the dog", "girl", "the person with the dog"),
        ("mice eating cheese", "mice", "rodents eating cheese"),
    ],
)
def test_a_sentence_is_said_with_its_noun_alone_and_with_a_wider_word(sentence: str, noun: str, wider: str) -> None:
    assert wordings(sentence) == (sentence, noun, wider, "the moving object")


def test_what_has_no_wider_word_is_not_said_otherwise() -> None:
    assert wordings("a person in red") == ("a person in red", "person", "the moving object")
    assert wordings("the moving object") == ("the moving object",)
    assert wordings("a zorbling") == ("a zorbling", "the moving object")
    assert wordings("a kite flibber on grass") == ("a kite flibber on grass", "the moving object"), "not about a kite"


def test_the_main_noun_is_the_one_before_what_is_said_of_it() -> None:
    found = main_noun("the mountain bike of the boy in the car")
    assert found is not None
    assert (found.start, found.end) == (4, 17)
    assert main_noun("on the left") is None


def test_imagenet_and_coco_have_their_place() -> None:
    nouns = load_nouns()
    assert len(nouns.imagenet) == 1000
    assert [nouns.words[nouns.imagenet[place]][0] for place in (0, 134, 517, 999)] == [
        "tench", "crane", "crane", "toilet tissue"
    ]  # fmt: skip
    assert nouns.imagenet[134] != nouns.imagenet[517], "the bird and the machine"
    assert len(nouns.categories) == 80
    path = [nouns.words[row][0] for row in nouns.above(nouns.categories["airplane"])]
    assert path == ["aircraft", "vehicle"]


def test_plurals_and_articles() -> None:
    assert [plural(noun) for noun in ("bus", "teddy bear", "sheep", "pony", "person")] == [
        "buses", "teddy bears", "sheep", "ponies", "people"
    ]  # fmt: skip
    assert (article("animal"), article("brown animal")) == ("an animal", "a brown animal")
    nouns = load_nouns()
    assert nouns.row("zebras") == nouns.row("zebra")
    assert nouns.row("wolves") == nouns.row("wolf")
