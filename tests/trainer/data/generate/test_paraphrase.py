"""Additions to a sentence keep the kind of thing that it names."""

from __future__ import annotations

import numpy as np
import pytest

from rvos_edge.trainer.data.generate import vocabulary
from rvos_edge.trainer.data.generate.paraphrase import reword


@pytest.mark.parametrize("sentence", ["a dog", "the red bus", "an elephant", "two people", "the largest cup"])
def test_the_kind_of_thing_stays(sentence: str) -> None:
    rng = np.random.default_rng(0)
    said = {reword(sentence, rng) for _ in range(50)}
    assert len(said) > 20
    for other in said:
        assert vocabulary.concepts(other) == vocabulary.concepts(sentence)
        assert set(sentence.split()) - {"a", "an"} <= set(other.split())


def test_a_colour_is_not_contradicted() -> None:
    rng = np.random.default_rng(0)
    for _ in range(100):
        assert reword("the red bus", rng).startswith("the red bus")


def test_the_article_fits() -> None:
    rng = np.random.default_rng(0)
    said = [reword("an elephant", rng).split()[:2] for _ in range(200)]
    assert ["an", "old"] in said
    assert ["a", "gray"] in said
    assert all((first == "an") == (second[0] in "aeiou") for first, second in said)


def test_equal_generators_say_the_same() -> None:
    one, two = (reword("a dog", np.random.default_rng(5)) for _ in range(2))
    assert one == two
