"""Words that training never says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rvos_edge.nouns import load_nouns
from rvos_edge.trainer.data.generate.copy_paste import ComposedDataset
from rvos_edge.trainer.data.generate.held_out import HeldOut, load_held_out
from rvos_edge.trainer.data.generate.vocabulary import COCO_CATEGORIES
from rvos_edge.trainer.data.mixture import MixtureDataset
from rvos_edge.trainer.data.readers.coco import CocoDataset
from rvos_edge.trainer.data.sample import Sample


def test_the_list_is_wide_enough() -> None:
    held = load_held_out()
    assert len(held.kinds) >= 15
    assert len(set(held.kinds) & set(COCO_CATEGORIES)) >= 10
    assert {"animal", "vehicle", "object"} <= set(held.kinds.values())
    assert all(load_nouns().row(word) is not None for word in held.kinds)


def test_synonyms_plurals_and_narrower_words_count_too() -> None:
    held = HeldOut({"couch": "furniture", "dog": "animal"})
    assert all(held.says(sentence) for sentence in ("two couches", "A red sofa", "the dogs"))
    assert not held.says("a hot bed")
    assert held.covers("collie")
    assert held.covers("boxer dog"), "as a breed is called whose name means something else too"
    assert not held.covers("tiger")


@pytest.mark.parametrize("kind", ["pictures", pytest.param("compositions", marks=pytest.mark.slow)])
def test_no_sentence_of_training_has_such_a_word(shared: Path, kind: str) -> None:
    held = load_held_out()
    names = dict.fromkeys(range(5000), ("squirrel", "pug", "collie"))
    coco = CocoDataset(
        shared / "data" / "coco-small", size=(64, 96), flow_size=(32, 48), lone_only=True, names=names, held_out=held
    )
    child = coco if kind == "pictures" else ComposedDataset(coco=coco)
    data = MixtureDataset([(child, 1.0)], length=60, queries=6, seed=0, leave_out=held.says)
    said = {sentence for index in range(60) for sentence in data[index].expressions}
    assert len(said) > 60
    assert not [sentence for sentence in said if held.says(sentence)]
    assert not any("sheep" in sentence or "sofa" in sentence for sentence in said)


def test_frames_of_which_nothing_may_be_said_are_replaced() -> None:
    from trainer.data.generate.test_copy_paste import Flat  # a data set of plain frames

    class Either:
        """Frames of a dog or of a cat."""

        def draw(self, rng: np.random.Generator) -> Sample:
            return Flat("cat" if rng.random() < 0.5 else "dog").draw(rng)

    data = MixtureDataset([(Either(), 1)], length=40, queries=2, seed=0, leave_out=lambda sentence: "cat" in sentence)
    first = [data[index].expressions for index in range(40)]
    assert all("dog" in sentence for said in first for sentence in said)
    assert [data[index].expressions for index in range(40)] == first
