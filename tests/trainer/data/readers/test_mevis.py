"""MeViS: an expression may name several objects."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as mask_utils
from support.layouts import ids, picture, write_image

from rvos_edge.errors import UserError
from rvos_edge.trainer.data.check import check_dataset, is_complete
from rvos_edge.trainer.data.clips_dataset import ClipsDataset
from rvos_edge.trainer.data.readers.mevis import MevisClips
from rvos_edge.trainer.evaluate.data import open_clips


def _write(root: Path, split: str) -> None:
    objects = ids(2)
    rles: dict[str, Any] = {}
    for number in (1, 2):
        coded = mask_utils.encode(np.asfortranarray(objects == number, dtype=np.uint8))
        rles[str(number + 6)] = [{"size": coded["size"], "counts": coded["counts"].decode()}, None]
    said = {
        "0": {"exp": "The two that   move", "obj_id": [0, 1], "anno_id": [7, 8]},
        "1": {"exp": "the left one", "obj_id": [0], "anno_id": [7]},
        "2": {"exp": "both", "obj_id": [0, 1], "anno_id": [7, 8]},
    }
    if split == "valid":
        said = {key: {"exp": item["exp"]} for key, item in said.items()}
    frames = ["00000", "00001"]
    for name in frames:
        write_image(root / split / "JPEGImages/v1" / f"{name}.jpg", picture(objects))
    document = {"videos": {"v1": {"vid_id": 0, "expressions": said, "frames": frames}}}
    (root / split / "meta_expressions.json").write_text(json.dumps(document))
    if split != "valid":
        (root / split / "mask_dict.json").write_text(json.dumps(rles))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for split in ("train", "valid_u", "valid"):
        _write(tmp_path / "mevis", split)
    return tmp_path / "mevis"


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
