"""Refer-YouTube-VOS: sparse masks by object id, and a validation split without any."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from support.layouts import cut_off, ids, write_json, write_palette, write_youtube_vos

from rvos_edge.errors import UserError
from rvos_edge.trainer.data.clips_dataset import ClipsDataset
from rvos_edge.trainer.data.readers.images import DamagedFileError
from rvos_edge.trainer.data.readers.youtube_vos import YouTubeVosClips
from rvos_edge.trainer.data.transforms import Augmentation

VIDEOS = {"003234408d": [("A  penguin on the left", 1), ("the big zebra", 2)], "0043f083b5": [("a bus", 1)]}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_youtube_vos(tmp_path, VIDEOS)
    return write_youtube_vos(tmp_path, {"00917dcfc4": [("a zebra", 1)]}, split="valid")


def dataset(clips: YouTubeVosClips) -> ClipsDataset:
    return ClipsDataset(clips, size=(32, 64), flow_size=(8, 16), augmentation=Augmentation.none())


def test_masks_follow_the_object_ids_of_the_palette(root: Path) -> None:
    clips = YouTubeVosClips(root)
    assert clips.videos == ("003234408d", "0043f083b5")
    assert clips.frames("0043f083b5") == ["00000", "00005", "00010"]
    queries = clips.queries("003234408d")
    assert [(q.key, q.expression, q.object_id) for q in queries] == [
        ("0", "a penguin on the left", 1),
        ("1", "the big zebra", 2),
    ]
    masks = clips.masks("003234408d", 1)
    assert masks is not None
    assert np.array_equal(masks, [ids(2) == 1, ids(2) == 2])
    assert clips.image("003234408d", 1).shape == (48, 96, 3)


def test_frames_without_a_mask_are_not_annotated(root: Path) -> None:
    (root / "train/Annotations/0043f083b5/00005.png").unlink()
    clips = YouTubeVosClips(root)
    assert clips.masks("0043f083b5", 1) is None
    assert clips.annotated("0043f083b5") == [0, 2]
    data = dataset(clips)
    drawn = {data.random_index("0043f083b5", np.random.default_rng(seed)) for seed in range(20)}
    assert drawn == {0, 2}
    for name in ("00000", "00010"):
        (root / f"train/Annotations/0043f083b5/{name}.png").unlink()
    with pytest.raises(UserError, match=r"'0043f083b5' .* has no annotated frame"):
        dataset(YouTubeVosClips(root))


def test_an_object_out_of_sight_is_an_absent_one(root: Path) -> None:
    for name in ("00000", "00005", "00010"):
        write_palette(root / f"train/Annotations/003234408d/{name}.png", ids(1))
    sample = dataset(YouTubeVosClips(root, videos=["003234408d"])).draw(np.random.default_rng(0))
    masks = dict(zip(sample.expressions, sample.masks, strict=True))
    assert masks["a penguin on the left"].any()
    assert not masks["the big zebra"].any()


def test_the_validation_split_has_no_masks(root: Path) -> None:
    clips = YouTubeVosClips(root, split="valid")
    assert clips.videos == ("00917dcfc4",)
    assert clips.queries("00917dcfc4")[0].object_id is None
    assert clips.masks("00917dcfc4", 0) is None
    assert clips.annotated("00917dcfc4") == []
    with pytest.raises(UserError, match="no annotated frame"):
        dataset(clips)


def test_what_is_missing_or_wrong_is_named(root: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="'val' is not a split"):
        YouTubeVosClips(root, split="val")
    with pytest.raises(UserError, match="test/JPEGImages does not exist"):
        YouTubeVosClips(root, split="test")
    with pytest.raises(UserError, match=r"expressions .*nowhere\.json do not exist"):
        YouTubeVosClips(root, expressions=tmp_path / "nowhere.json")
    with pytest.raises(UserError, match=r"no expressions for 0, 1, 2 and 1 more"):
        YouTubeVosClips(root, videos=["0", "1", "2", "3"])
    path = root / "meta_expressions/train/meta_expressions.json"
    content = json.loads(path.read_text())
    content["videos"] |= {f"gone{i}": content["videos"]["0043f083b5"] for i in range(5)}
    other = write_json(tmp_path / "other.json", content)
    with pytest.raises(UserError, match=r"name 5 of 7 videos that .*JPEGImages .*\(gone0, gone1, gone2 and 2 more\)"):
        YouTubeVosClips(root, expressions=other)
    valid = root / "meta_expressions/valid/meta_expressions.json"
    valid.write_text(valid.read_text().replace("00917dcfc4", "0043f083b5"))
    with pytest.raises(UserError, match="no obj_id for '0043f083b5'"):
        YouTubeVosClips(root, expressions=valid)
    other.write_text("[1]")
    with pytest.raises(UserError, match="not an expressions file"):
        YouTubeVosClips(root, expressions=other)


def test_damaged_and_misfitting_files_are_named(root: Path) -> None:
    clips = YouTubeVosClips(root)
    image = root / "train/JPEGImages/003234408d/00000.jpg"
    cut_off(image)
    with pytest.raises(DamagedFileError, match=r"003234408d/00000\.jpg: it is damaged"):
        clips.image("003234408d", 0)
    image.unlink()
    with pytest.raises(DamagedFileError, match=r"00000\.jpg: it is missing"):
        clips.image("003234408d", 0)
    mask = root / "train/Annotations/003234408d/00005.png"
    write_palette(mask, ids(2)[:20])
    with pytest.raises(UserError, match=r"the mask .*00005\.png is \(96, 20\), its image \(96, 48\)"):
        clips.masks("003234408d", 1)
    write_palette(mask, np.random.default_rng(0).integers(0, 3, (48, 96), np.uint8))
    cut_off(mask)
    with pytest.raises(DamagedFileError, match=r"the mask .*00005\.png: it is damaged"):
        clips.masks("003234408d", 1)


def test_the_published_list_of_valid_holds_the_videos_of_test(tmp_path: Path) -> None:
    root = write_youtube_vos(tmp_path, {"v1": [("a dog", 1)], "v2": [("a cat", 1)]}, split="valid")
    shutil.rmtree(root / "valid/JPEGImages/v2")
    with pytest.raises(UserError, match=r"lists videos of the test split, too: add .*meta_expressions/test"):
        YouTubeVosClips(root, split="valid")
    write_youtube_vos(tmp_path, {"v2": [("a cat", 1)]}, split="test")
    assert YouTubeVosClips(root, split="valid").videos == ("v1",)
    assert YouTubeVosClips(root, split="test").videos == ("v2",)
