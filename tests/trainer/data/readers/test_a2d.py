"""A2D-Sentences: a few annotated frames of videos, masks in HDF5."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from support.layouts import cut_off, ids, write_a2d, write_instances

from rvos_edge.errors import UserError
from rvos_edge.trainer.data.clips_dataset import ClipsDataset
from rvos_edge.trainer.data.readers.a2d import A2dClips
from rvos_edge.trainer.data.readers.images import DamagedFileError
from rvos_edge.trainer.data.transforms import Augmentation


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_a2d(tmp_path)


def test_splits_follow_videoset_and_leave_out_missed_videos(root: Path) -> None:
    assert A2dClips(root).videos == ("train_a-1", "train_b")
    assert A2dClips(root, split="test").videos == ("test_c",)
    assert len(A2dClips(root, split="all").videos) == 3
    queries = A2dClips(root).queries("train_a-1")
    assert [(q.key, q.expression, q.object_id) for q in queries] == [
        ("0", "a white box is standing on the left", 0),
        ("1", "box rolling", 1),
    ], "without the instance '1 (copy)'"


def test_annotated_frames_have_a_mask_per_query_and_others_none(root: Path) -> None:
    clips = A2dClips(root)
    assert clips.frames("train_a-1") == [f"{i:05d}" for i in range(1, 7)]
    assert clips.annotated("train_a-1") == [1, 4], "frame 00002 is the second"
    assert clips.masks("train_a-1", 0) is None
    masks = clips.masks("train_a-1", 1)
    assert masks is not None
    assert np.array_equal(masks, [ids(2) == 1, ids(2) == 2])
    later = clips.masks("train_a-1", 4)
    assert later is not None
    assert later[0].any()
    assert not later[1].any(), "an instance that is not in the frame"


def test_frames_come_out_of_the_video_in_any_order(root: Path) -> None:
    clips = A2dClips(root)
    assert clips.image_path("train_b", 3) == root / "Release/clips320H/train_b.mp4"
    bright = {index: clips.image("train_b", index)[20, 20].mean() for index in (3, 0, 5, 1, 1)}
    for index, value in bright.items():
        assert value == pytest.approx(255 // (1 + index), abs=6)
    again = pickle.loads(pickle.dumps(clips))
    assert np.array_equal(again.image("train_b", 3), clips.image("train_b", 3)), "workers open the video anew"
    with pytest.raises(DamagedFileError, match=r"frame 7 of the video .*train_b\.mp4"):
        clips.image("train_b", 6)


def test_extracted_frames_are_read_where_they_are(tmp_path: Path) -> None:
    root = write_a2d(tmp_path, pngs=True)
    clips = A2dClips(root)
    assert clips.image_path("train_b", 3) == root / "Release/pngs320H/train_b/00004.png"
    assert clips.image("train_b", 3)[20, 20].tolist() == [63] * 3
    assert clips.masks("train_b", 1) is not None


def test_samples_are_drawn_from_annotated_frames_alone(root: Path) -> None:
    data = ClipsDataset(A2dClips(root), size=(48, 96), flow_size=(12, 24), augmentation=Augmentation.none())
    for seed in range(6):
        sample = data.draw(np.random.default_rng(seed))
        assert any(mask.any() for mask in sample.masks)


def test_a_surplus_instance_of_an_official_file_is_left_out(root: Path) -> None:
    import h5py

    path = root / "text_annotations/a2d_annotation_with_instances/train_a-1/00002.h5"
    with h5py.File(path, "a") as file:
        del file["instance"]
        file["instance"] = np.array([0.0, 1.0, 1.0])
    masks = A2dClips(root).masks("train_a-1", 1)
    assert masks is not None
    assert np.array_equal(masks[1], ids(2) == 2)


def test_what_is_missing_or_wrong_is_named(root: Path) -> None:
    masks = root / "text_annotations/a2d_annotation_with_instances"
    clips = A2dClips(root)
    write_instances(masks / "train_b/00002.h5", {0: np.ones((20, 30), bool)})
    with pytest.raises(UserError, match=r"00002\.h5 is \(30, 20\), its image \(96, 48\)"):
        clips.masks("train_b", 1)
    cut_off(masks / "train_b/00005.h5", 0.3)
    with pytest.raises(DamagedFileError, match=r"train_b/00005\.h5 are damaged"):
        clips.masks("train_b", 4)
    for path in (masks / "train_b").iterdir():
        path.unlink()
    with pytest.raises(UserError, match=r"'train_b' .* has no annotated frame"):
        ClipsDataset(A2dClips(root), size=(32, 32), flow_size=(4, 4))
    video = root / "Release/clips320H/train_b.mp4"
    video.write_bytes(b"nothing")
    with pytest.raises(DamagedFileError, match=r"train_b\.mp4: it is damaged"):
        A2dClips(root).image("train_b", 0)
    with pytest.raises(UserError, match="'val' is not a split"):
        A2dClips(root, split="val")
    text = root / "text_annotations/a2d_annotation.txt"
    text.write_text(text.read_text() + "unicorn,0,a unicorn\n")
    with pytest.raises(UserError, match=r"1 videos that videoset.csv does not have \(unicorn\)"):
        A2dClips(root)
    text.write_text("video_id,instance_id,query\ntrain_b,a box\n")
    with pytest.raises(UserError, match="line 2 is not of the form video_id,instance_id,query"):
        A2dClips(root)
    (root / "Release/videoset.csv").write_text("a,b\n")
    with pytest.raises(UserError, match=r"line 1 is not a line of videoset\.csv"):
        A2dClips(root)
