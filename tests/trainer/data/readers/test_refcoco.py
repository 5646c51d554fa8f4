"""RefCOCO: images as clips of one frame, and a pickle that is never read."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from support.layouts import ids, picture, write_image, write_refcoco

from rvos_edge.errors import UserError
from rvos_edge.trainer.data.clips_dataset import ClipsDataset
from rvos_edge.trainer.data.readers.refcoco import RefCocoClips
from rvos_edge.trainer.data.transforms import Augmentation


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_refcoco(tmp_path)


def test_an_image_is_a_video_of_one_frame(root: Path) -> None:
    clips = RefCocoClips(root)
    assert clips.videos == ("7",)
    assert clips.frames("7") == ["COCO_train2014_000000000007"]
    said = {query.key: query.expression for query in clips.queries("7")}
    assert said == {"701/0": "box on the left", "701/1": "left box", "702/0": "box on the right", "702/1": "right box"}
    masks = clips.masks("7", 0)
    assert masks is not None
    # A polygon's edge may take its pixels along.
    assert np.count_nonzero(masks[0] ^ (ids(2) == 1)) <= 70
    assert np.count_nonzero(masks[3] ^ (ids(2) == 2)) <= 70
    assert RefCocoClips(root, split="all").videos == ("7", "8")


def test_still_clips_get_the_motion_of_a_camera(root: Path) -> None:
    data = ClipsDataset(
        RefCocoClips(root), size=(48, 96), flow_size=(12, 24), still=True, augmentation=Augmentation.none()
    )
    samples = [data.draw(np.random.default_rng(seed)) for seed in range(8)]
    assert sum(bool(sample.flow.any()) for sample in samples) >= 3
    assert all(sample.flow.shape == (12, 24, 2) for sample in samples)


def test_the_pickle_is_refused_with_the_way_out(root: Path) -> None:
    (root / "refs.json").rename(root / "refs(unc).p")
    with pytest.raises(UserError, match=r"refs\(unc\)\.p is a pickle.*convert it once with python -c"):
        RefCocoClips(root)
    with pytest.raises(UserError, match=r"other\.p is a pickle"):
        RefCocoClips(root, expressions=root / "other.p")


def test_what_is_missing_or_wrong_is_named(root: Path) -> None:
    with pytest.raises(UserError, match="no split 'testA'"):
        RefCocoClips(root, split="testA")
    path = root / "refs.json"
    references = json.loads(path.read_text())
    path.write_text(json.dumps([references[0] | {"ann_id": 5}, *references[1:]]))
    with pytest.raises(UserError, match=r"instances.json lacks \(refs 701\)"):
        RefCocoClips(root)
    path.write_text(json.dumps([references[0] | {"sentences": []}]))
    with pytest.raises(UserError, match=r"refs\.json is not a list of references"):
        RefCocoClips(root)
    path.write_text(json.dumps(references))
    write_image(root / "images" / "COCO_train2014_000000000007.jpg", picture(ids(2))[:20])
    with pytest.raises(UserError, match=r"\(96, 48\), its image \(96, 20\)"):
        RefCocoClips(root).masks("7", 0)
    (root / "instances.json").unlink()
    with pytest.raises(UserError, match=r"instances\.json do not exist"):
        RefCocoClips(root)
