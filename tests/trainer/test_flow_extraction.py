"""Flow extraction and the sources of a run."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from pydantic import ValidationError
from rich.console import Console
from support.layouts import cut_off, write_a2d, write_davis17, write_refcoco, write_youtube_vos

from rvos_edge.errors import UserError
from rvos_edge.trainer.data.clips_dataset import ClipsDataset
from rvos_edge.trainer.data.config import DataConfig
from rvos_edge.trainer.data.flow_cache import FlowCache, FlowKey
from rvos_edge.trainer.data.readers.a2d import A2dClips
from rvos_edge.trainer.flow_extraction import extract_clips, prepare_data
from rvos_edge.trainer.model.hinet import HINet
from rvos_edge.trainer.model.presets import model_config

VIDEOS = {"video1": [("a penguin", 1)], "video2": [("a bus", 1), ("the giraffe", 2)], "video3": [("a train", 1)]}
KEY = FlowKey(checkpoint="c", size=(32, 64), scale=1, iterations=1)
QUIET = Console(file=io.StringIO())


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_youtube_vos(tmp_path / "ytvos", VIDEOS)


def test_flow_of_frames_in_a_video_file_is_stored_and_knows_its_file(tmp_path: Path) -> None:
    root = write_a2d(tmp_path / "a2d")
    clips = A2dClips(root)
    store = FlowCache(tmp_path / "flow", key=KEY)

    class Brightness:
        """A flow network whose flow is the brightness of the frame."""

        def stream(self, frames: Iterable[NDArray[np.uint8]]) -> Iterator[NDArray[np.float32]]:
            for frame in frames:
                assert frame.shape == (*KEY.size, 3)
                yield np.full((1, 2, 8, 16), frame[10, 10].mean(), np.float32)

    missing = [(clips, store, video) for video in clips.videos]
    extract_clips(missing, Brightness(), console=QUIET)  # type: ignore[arg-type]
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
    config = DataConfig.model_validate(
        {"sources": [{"kind": "youtube_vos", "root": str(root), "share": 1.0}], "flow": str(tmp_path / "flow")}
    )
    torch.manual_seed(0)
    with pytest.warns(UserWarning, match=r"00005\.jpg.*its flow is that of a still camera"):
        prepare_data(config, HINet(config=model_config("test")), 0, console=QUIET)
    stored = sorted(path.name for path in (tmp_path / "flow").glob("*/youtube_vos/*.npy"))
    assert stored == ["video1.npy", "video2.npy", "video3.npy"]


def _flow(root: Path, folder: Path, **changes: object) -> tuple[DataConfig, HINet, str]:
    document = {"sources": [{"kind": "youtube_vos", "root": str(root), "share": 1.0}], "flow": str(folder), **changes}
    config = DataConfig.model_validate(document)
    torch.manual_seed(0)
    console = Console(file=io.StringIO(), width=400)
    model = HINet(config=model_config("test"))
    prepare_data(config, model, 0, console=console)
    return config, model, console.file.getvalue()  # type: ignore[attr-defined]


def test_videos_side_by_side_have_the_flow_of_videos_one_by_one(root: Path, tmp_path: Path) -> None:
    """The size of the store is said before, and a part of the videos is each rank's."""
    _, _, said = _flow(root, tmp_path / "one")
    assert "flow of 3 videos, 9 frames, is computed and stored in" in said
    assert "0.00 GB (" in said
    assert "data.flow_store: uint8 0.00 GB, half 0.00 GB, none 0 GB" in said
    _flow(root, tmp_path / "three", flow_batch=3)
    _, _, said = _flow(root, tmp_path / "three", flow_batch=3)
    assert said == "", "it is there already"
    for file in (tmp_path / "one").rglob("*.npy"):
        other = next((tmp_path / "three").rglob(file.name))
        np.testing.assert_allclose(np.load(other), np.load(file), atol=0.02)


def test_each_rank_computes_its_part_of_the_flow(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rvos_edge.trainer.flow_extraction.world", lambda: 2)
    monkeypatch.setattr("rvos_edge.trainer.flow_extraction.rank", lambda: 1)
    with pytest.raises(UserError, match="no flow of 'video1'"):  # that of rank 0, which is not there
        _flow(root, tmp_path / "flow")
    assert [path.stem for path in (tmp_path / "flow").rglob("*.npy")] == ["video2"]


def test_a_disk_that_is_too_small_is_refused_before(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=1000))
    with pytest.raises(
        UserError, match=r"The flow needs 0\.0 GB and .* set data\.flow to another disk, or data\.flow_st"
    ):
        _flow(root, tmp_path / "flow")
    assert not (tmp_path / "flow").exists()


def test_flow_may_be_computed_on_every_use(root: Path, tmp_path: Path) -> None:
    config, model, said = _flow(root, tmp_path / "flow", flow_store="none")
    assert said == ""
    assert not (tmp_path / "flow").exists()
    live = prepare_data(config, model, 0, console=QUIET)
    stored_config, stored_model, _ = _flow(root, tmp_path / "stored")
    stored = prepare_data(stored_config, stored_model, 0, console=QUIET)
    flows = [(live[index].flow, stored[index].flow) for index in range(6)]
    assert any(flow.any() for flow, _ in flows)
    for one, other in flows:
        np.testing.assert_allclose(one, other, atol=0.05)


def test_every_source_can_be_named_in_a_configuration(root: Path, tmp_path: Path) -> None:
    sources = [
        {"kind": "refcoco", "root": str(write_refcoco(tmp_path / "refcoco")), "share": 1.0},
        {"kind": "youtube_vos", "root": str(root), "share": 2.0, "videos": ["video1", "video3"]},
        {"kind": "davis17", "root": str(write_davis17(tmp_path / "davis", {"train": ["bear"]})), "share": 1.0},
        {"kind": "a2d", "root": str(write_a2d(tmp_path / "a2d")), "share": 1.0},
    ]
    config = DataConfig.model_validate({"sources": sources, "flow": str(tmp_path / "flow")})
    torch.manual_seed(0)
    data = prepare_data(config, HINet(config=model_config("test")), 0, console=QUIET)
    assert dict(data.shares) == {"youtube_vos": 0.4, "davis17": 0.2, "a2d": 0.2, "refcoco": 0.2}
    said = {sentence for index in range(30) for sentence in data[index].expressions}
    for word in ("penguin", "box of bear", "standing", "box on the"):
        assert any(word in sentence for sentence in said), word
    with pytest.raises(ValidationError, match="for evaluation only; train on a2d"):
        DataConfig.model_validate({"sources": [{"kind": "jhmdb", "root": "x", "share": 1.0}]})
    missing = DataConfig.model_validate({"sources": [{"kind": "youtube_vos", "root": "nowhere", "share": 1.0}]})
    with pytest.raises(
        UserError, match=r"^data\.sources\.0: The youtube_vos .* does not exist.*data check --dataset youtube_vos"
    ):
        prepare_data(missing, HINet(config=model_config("test")), 0, console=QUIET)
