"""MeViS: an expression may name several objects."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from support.layouts import ids, write_mevis

from rvos_edge.errors import UserError
from rvos_edge.trainer.data.check import check_dataset, is_complete
from rvos_edge.trainer.data.clips_dataset import ClipsDataset
from rvos_edge.trainer.data.datasets import open_clips
from rvos_edge.trainer.data.readers.mevis import MevisClips


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_mevis(tmp_path / "mevis")


def test_a_mask_is_the_union_of_what_is_named(root: Path) -> None:
    clips = open_clips("mevis", root)
    assert [query.expression for query in clips.queries("v1")] == ["the two that move", "the left one", "both"]
    assert [query.object_id for query in clips.queries("v1")] == [0, 1, 0]
    masks = clips.masks("v1", 0)
    assert masks is not None
    assert np.array_equal(masks[0], ids(2) > 0)
    assert np.array_equal(masks[1], ids(2) == 1)
    absent = clips.masks("v1", 1)
    assert absent is not None
    assert not absent.any(), "a frame without run lengths does not show the object"
    assert clips.annotated("v1") == [0, 1]


def test_it_is_trained_on_and_checked(root: Path) -> None:
    data = ClipsDataset(MevisClips(root, split="train"), size=(32, 64), flow_size=(8, 16))
    assert data.pairs == 6
    assert [referred.sentences for referred in data.objects["v1"]] == [("the two that move", "both"), ("the left one",)]
    assert is_complete(check_dataset("mevis", root))
    assert MevisClips(root, split="valid").masks("v1", 0) is None


def test_what_is_missing_is_named(root: Path) -> None:
    masks = root / "train/mask_dict.json"
    masks.write_text(json.dumps({"7": [None]}))
    with pytest.raises(UserError, match=r"annotation 7 of 'v1' in .* is missing, or has another number of frames"):
        MevisClips(root, split="train")
    masks.unlink()
    with pytest.raises(UserError, match=r"mask_dict\.json does not exist: give the folder"):
        MevisClips(root, split="train")
    (root / "train/meta_expressions.json").write_text('{"videos": {"v1": {}}}')
    with pytest.raises(UserError, match=r"is not a meta_expressions\.json of MeViS: 'frames' is missing"):
        MevisClips(root, split="train")
    with pytest.raises(UserError, match="'test' is not a split of MeViS"):
        MevisClips(root, split="test")
