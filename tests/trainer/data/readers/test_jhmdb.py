"""J-HMDB-Sentences: puppet masks in .mat files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat
from support.layouts import cut_off, ids, write_jhmdb

from rvos_edge.errors import UserError
from rvos_edge.trainer.data.readers.images import DamagedFileError
from rvos_edge.trainer.data.readers.jhmdb import JhmdbClips


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_jhmdb(tmp_path)


def test_every_video_is_read_with_its_masks(root: Path) -> None:
    clips = JhmdbClips(root)
    assert clips.videos == ("ball_catch_1", "wave_2")
    assert clips.frames("wave_2") == ["00001", "00002", "00003", "00004"]
    (query,) = clips.queries("ball_catch_1")
    assert (query.expression, query.object_id) == ("a man doing a catch", None)
    assert clips.image("wave_2", 0).shape == (48, 96, 3)
    masks = clips.masks("wave_2", 2)
    assert masks is not None
    assert np.array_equal(masks, [ids(1) == 1])
    assert clips.masks("wave_2", 3) is None, "the last frames may have no mask"
    assert clips.annotated("wave_2") == [0, 1, 2]


def test_what_is_missing_or_wrong_is_named(root: Path) -> None:
    with pytest.raises(UserError, match=r"no split 'train'.*train on A2D"):
        JhmdbClips(root, split="train")
    path = root / "puppet_mask/wave/wave_2/puppet_mask.mat"
    savemat(path, {"part_mask": np.ones((10, 20, 3), np.uint8)})
    with pytest.raises(UserError, match=r"puppet_mask\.mat is \(20, 10\), its image \(96, 48\)"):
        JhmdbClips(root).masks("wave_2", 0)
    savemat(path, {"other": np.ones(3)})
    with pytest.raises(DamagedFileError, match=r"wave_2/puppet_mask\.mat are damaged"):
        JhmdbClips(root).masks("wave_2", 0)
    cut_off(path, 0.4)
    with pytest.raises(DamagedFileError, match=r"wave_2/puppet_mask\.mat are damaged"):
        JhmdbClips(root).masks("wave_2", 0)
    path.unlink()
    with pytest.raises(DamagedFileError, match=r"wave_2/puppet_mask\.mat are missing"):
        JhmdbClips(root).annotated("wave_2")
    text = root / "jhmdb_annotation.txt"
    text.write_text(text.read_text() + "unicorn,a unicorn\n")
    with pytest.raises(UserError, match=r"1 videos that .*Rename_Images does not have \(unicorn\)"):
        JhmdbClips(root)
    text.write_text("video_id,query\n")
    with pytest.raises(UserError, match="holds no sentences"):
        JhmdbClips(root)
