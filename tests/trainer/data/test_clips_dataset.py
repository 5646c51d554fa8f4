"""Samples of referring clips through the mixture: damaged files, absent expressions."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
from support.layouts import cut_off, ids, write_palette, write_youtube_vos

from rvos_edge.errors import UserError
from rvos_edge.trainer.data.clips_dataset import ClipsDataset
from rvos_edge.trainer.data.mixture import MixtureDataset
from rvos_edge.trainer.data.readers.base import few
from rvos_edge.trainer.data.readers.youtube_vos import YouTubeVosClips
from rvos_edge.trainer.data.sample import Sample

VIDEOS = {"video1": [("a penguin", 1)], "video2": [("a bus", 1), ("the giraffe", 2)], "video3": [("a train", 1)]}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_youtube_vos(tmp_path / "ytvos", VIDEOS)


def mixture(root: Path) -> MixtureDataset:
    data = ClipsDataset(YouTubeVosClips(root), size=(32, 64), flow_size=(8, 16))
    return MixtureDataset([(data, 1.0)], length=40, queries=3, seed=5)


def equal(one: Sample, other: Sample) -> bool:
    arrays = all(np.array_equal(getattr(one, k), getattr(other, k)) for k in ("image", "flow", "masks"))
    return arrays and one.expressions == other.expressions


def test_a_damaged_frame_is_replaced_the_same_way_in_every_run(root: Path) -> None:
    before = [mixture(root)[index] for index in range(40)]
    path = root / "train/JPEGImages/video2/00005.jpg"
    cut_off(path)
    with pytest.warns(UserWarning, match=r"video2/00005\.jpg: it is damaged.*another sample takes its place"):
        after = [mixture(root)[index] for index in range(40)]
    same = [equal(a, b) for a, b in zip(before, after, strict=True)]
    assert 20 < sum(same) < 40, "only the samples of that frame are others"
    first = same.index(False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert equal(mixture(root)[first], after[first]), "a resumed run draws the same replacement"


def test_equal_warnings_are_shown_once(root: Path) -> None:
    cut_off(root / "train/JPEGImages/video2/00005.jpg")
    data = mixture(root)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        _ = [data[index] for index in range(40)]
    assert len(caught) == 1


def test_a_data_set_of_damaged_files_is_an_error(root: Path) -> None:
    for path in (root / "train/Annotations").rglob("*.png"):
        path.write_bytes(b"nothing")
    with (
        pytest.warns(UserWarning, match="another sample takes its place"),
        pytest.raises(UserError, match=r"\.png.*8 samples in a row"),
    ):
        mixture(root)[0]


def test_masks_that_do_not_fit_end_the_run(root: Path) -> None:
    for path in (root / "train/Annotations").rglob("*.png"):
        write_palette(path, ids(1)[:30])
    with pytest.raises(UserError, match=r"\(96, 30\), its image \(96, 48\)"):
        mixture(root)[0]


def test_sentences_of_the_other_videos_are_the_absent_ones(root: Path) -> None:
    data = ClipsDataset(YouTubeVosClips(root), size=(32, 64), flow_size=(8, 16), distractors=["a zebra"])
    others = data._others["video2"]
    assert list(others) == ["a penguin", "a train", "a zebra"]
    assert others[1:] == ["a train", "a zebra"]
    with pytest.raises(IndexError):
        others[3]
    sample = data.draw(np.random.default_rng(1))
    present = {s for s, m in zip(sample.expressions, sample.masks, strict=True) if m.any()}
    absent = set(sample.expressions) - present
    assert present
    assert absent


def test_long_lists_are_shortened_in_messages() -> None:
    assert few(["a", "b"]) == "a, b"
    assert few(["a", "b", "c", "d", "e"]) == "a, b, c and 2 more"
