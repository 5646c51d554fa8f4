"""Samples of any clips, through the mixture: what happens to damaged files, and which flow belongs to which frame."""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from rich.console import Console
from support.layouts import cut_off, ids, write_a2d, write_davis17, write_palette, write_refcoco, write_youtube_vos

from rvos_edge.errors import UserError
from rvos_edge.trainer.data.clips_dataset import ClipsDataset
from rvos_edge.trainer.data.config import DataConfig, build_flow, build_mixture
from rvos_edge.trainer.data.flow_cache import FlowCache, FlowKey
from rvos_edge.trainer.data.mixture import MixtureDataset
from rvos_edge.trainer.data.readers.a2d import A2dClips
from rvos_edge.trainer.data.readers.base import few, image_paths
from rvos_edge.trainer.data.readers.youtube_vos import YouTubeVosClips
from rvos_edge.trainer.data.sample import Sample
from rvos_edge.trainer.model.hinet import HINet
from rvos_edge.trainer.model.presets import model_config

VIDEOS = {"video1": [("a penguin", 1)], "video2": [("a bus", 1), ("the giraffe", 2)], "video3": [("a train", 1)]}
KEY = FlowKey(checkpoint="c", size=(32, 64), scale=1, iterations=1)


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


def test_flow_of_frames_in_a_video_file_is_stored_and_knows_its_file(tmp_path: Path) -> None:
    root = write_a2d(tmp_path / "a2d")
    clips = A2dClips(root)
    store = FlowCache(tmp_path / "flow", key=KEY)

    class Brightness:
        """A flow network whose flow is the brightness of the frame."""

        def stream(self, frames: object) -> object:
            for frame in frames:  # type: ignore[attr-defined]
                yield np.full((2, 8, 16), frame[10, 10].mean(), np.float32)

    build_flow(clips, store, Brightness(), console=Console(file=io.StringIO()))  # type: ignore[arg-type]
    assert store.read("train_b", 0)[0, 0, 0] == pytest.approx(255, abs=6)
    assert store.read("train_b", 4)[0, 0, 0] == pytest.approx(51, abs=6)
    data = ClipsDataset(clips, size=(32, 64), flow_size=(8, 16), flow=store)
    assert data.draw(np.random.default_rng(0)).flow.any()
    (root / "Release/clips320H/train_b.mp4").write_bytes(b"another file")
    assert not store.has("train_b", [root / "Release/clips320H/train_b.mp4"] * 6)
    with pytest.raises(UserError, match=r"'train_b' .* has other frames"):
        store.check("train_b", [root / "Release/clips320H/train_b.mp4"] * 6)


def test_a_damaged_frame_does_not_stop_the_flow_of_a_data_set(root: Path, tmp_path: Path) -> None:
    cut_off(root / "train/JPEGImages/video2/00005.jpg")
    clips = YouTubeVosClips(root)
    config = DataConfig.model_validate(
        {"sources": [{"kind": "youtube_vos", "root": str(root), "share": 1.0}], "flow": str(tmp_path / "flow")}
    )
    torch.manual_seed(0)
    with pytest.warns(UserWarning, match=r"00005\.jpg.*its flow is that of a still camera"):
        build_mixture(config, HINet(config=model_config("test")), 0, console=Console(file=io.StringIO()))
    stored = sorted(path.name for path in (tmp_path / "flow").glob("*/youtube_vos/*.npy"))
    assert stored == ["video1.npy", "video2.npy", "video3.npy"]
    assert len(image_paths(clips, "video2")) == 3


def test_every_source_can_be_named_in_a_configuration(root: Path, tmp_path: Path) -> None:
    sources = [
        {"kind": "refcoco", "root": str(write_refcoco(tmp_path / "refcoco")), "share": 1.0},
        {"kind": "youtube_vos", "root": str(root), "share": 2.0, "videos": ["video1", "video3"]},
        {"kind": "davis17", "root": str(write_davis17(tmp_path / "davis", {"train": ["bear"]})), "share": 1.0},
        {"kind": "a2d", "root": str(write_a2d(tmp_path / "a2d")), "share": 1.0},
    ]
    config = DataConfig.model_validate({"sources": sources, "flow": str(tmp_path / "flow")})
    torch.manual_seed(0)
    data = build_mixture(config, HINet(config=model_config("test")), 0, console=Console(file=io.StringIO()))
    assert dict(data.shares) == {"youtube_vos": 0.4, "davis17": 0.2, "a2d": 0.2, "refcoco": 0.2}
    said = {sentence for index in range(30) for sentence in data[index].expressions}
    for word in ("penguin", "box of bear", "standing", "box on the"):
        assert any(word in sentence for sentence in said), word
    with pytest.raises(ValidationError, match="for evaluation only; train on a2d"):
        DataConfig.model_validate({"sources": [{"kind": "jhmdb", "root": "x", "share": 1.0}]})
    missing = DataConfig.model_validate({"sources": [{"kind": "youtube_vos", "root": "nowhere", "share": 1.0}]})
    with pytest.raises(UserError, match=r"youtube_vos folder .* does not exist.*data check --dataset youtube_vos"):
        build_mixture(missing, HINet(config=model_config("test")), 0, console=Console(file=io.StringIO()))


def test_long_lists_are_shortened_in_messages() -> None:
    assert few(["a", "b"]) == "a, b"
    assert few(["a", "b", "c", "d", "e"]) == "a, b, c and 2 more"
