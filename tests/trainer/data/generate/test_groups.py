"""One of several of a kind: by clothes, order in a row, what is carried, narrower names."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from rvos_edge.trainer.data.generate.templates import Thing, describe


def at(x: int, category: str = "person", height: int = 60, width: int = 30, **facts: object) -> Thing:
    mask = np.zeros((100, 300), bool)
    mask[95 - height : 95, x : x + width] = True
    return Thing(mask=mask, category=category, **facts)  # type: ignore[arg-type]


def said(things: list[Thing]) -> dict[str, Thing]:
    """Every sentence that comes up, with the one thing it is said of; those about several are left out."""
    out: dict[str, Thing] = {}
    for seed in range(200):
        for sentence, mask in describe(things, rng=np.random.default_rng(seed)):
            for thing in things:
                if np.array_equal(mask, thing.mask):
                    assert out.get(sentence, thing) is thing, f"'{sentence}' is said of two"
                    out[sentence] = thing
    return out


def test_people_are_told_apart_by_their_clothes() -> None:
    one = at(20, traits=("in a red dress", "in black boots"))
    two = at(200, traits=("in a blue coat", "in black boots"))
    sentences = said([one, two])
    assert sentences["the person in a red dress"] is one
    assert sentences["a human wearing a blue coat"] is two
    assert not any("boots" in sentence for sentence in sentences), "both wear them"


def test_a_garment_of_unknown_colour_may_be_the_same() -> None:
    one, two = at(20, traits=("in a red coat",)), at(200, traits=("in a coat",))
    assert not any("coat" in sentence for sentence in said([one, two]))
    bare = replace(two, traits=())  # nothing is known of what it wears
    assert not any("coat" in sentence for sentence in said([one, bare]))


def test_a_row_has_an_order() -> None:
    row = [at(x) for x in (10, 80, 150, 220)]
    sentences = said(row)
    assert sentences["the third person from the left"] is row[2]
    assert sentences["the third person from the right"] is row[1]
    assert sentences["second person from left"] is row[1]
    crooked = [*row[:3], at(140, width=150)]  # wide: it begins before the one that stands before it
    assert not any("third" in sentence for sentence in said(crooked))


def test_people_are_told_apart_by_what_they_carry() -> None:
    one, two = at(20), at(200)
    bag = at(50, "handbag", height=20, width=20)
    sentences = said([one, two, bag])
    assert sentences["the person carrying a bag"] is one
    between = at(50, "handbag", height=20, width=150)
    assert not any("carrying" in sentence for sentence in said([one, two, between])), "whose is it?"


def test_dogs_are_told_apart_by_their_breeds() -> None:
    one, two = at(20, "dog", names=("collie", "shepherd dog")), at(200, "dog", names=("beagle", "hound"))
    sentences = said([one, two])
    assert sentences["the collie"] is one
    assert sentences["a beagle"] is two
    assert not any("collie" in sentence for sentence in said([one, at(200, "dog")])), "the other may be one too"


def test_an_object_without_a_name_is_the_object_where_it_is_alone() -> None:
    assert "the object" in said([at(20, "object")])
    assert not any("object" in sentence for sentence in said([at(20, "object"), at(200, "dog")]))
    assert said([at(20, "object", names=("otter", "animal")), at(200, "car")])["the animal"]
