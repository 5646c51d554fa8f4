"""Flow on disk: computed once, resumed, and never mistaken for another's."""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from rvos_edge.errors import UserError
from rvos_edge.trainer.data.flow_cache import FlowCache, FlowKey

KEY = FlowKey(checkpoint="abc", size=(16, 24), scale=2, iterations=6)


@pytest.fixture
def frames(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / f"{i:05d}.jpg" for i in range(3)]
    for i, path in enumerate(paths):
        cv2.imwrite(str(path), np.full((32, 48, 3), 40 * i, np.uint8))
    return paths


def estimate(images: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    for i, image in enumerate(images):
        assert image.shape == (16, 24, 3)
        yield np.full((2, 4, 6), float(i), np.float32)


def test_flow_is_built_once_and_read_back(tmp_path: Path, frames: list[Path]) -> None:
    store = FlowCache(tmp_path / "flow", key=KEY)
    assert not store.has("bear", frames)
    assert store.build("bear", frames, estimate)
    assert not store.build("bear", frames, estimate), "it is there"
    reader = FlowCache(tmp_path / "flow")
    assert reader.image_size("bear") == (16, 24)
    assert reader.read("bear", 2).shape == (2, 4, 6)
    assert reader.read("bear", 2)[0, 0, 0] == 2
    assert sorted(p.name for p in (tmp_path / "flow").iterdir()) == ["bear.json", "bear.npy"]
    assert len(pickle.dumps(reader)) < 2000, "workers reopen the file"


def test_an_estimator_may_leave_the_first_frame_out(tmp_path: Path, frames: list[Path]) -> None:
    store = FlowCache(tmp_path / "flow", key=KEY)
    store.build("bear", frames, lambda images: (f + 1 for i, f in enumerate(estimate(images)) if i))
    assert not store.read("bear", 0).any()
    assert store.read("bear", 1).min() == 2


def test_other_settings_or_frames_are_refused_unless_rebuilt(tmp_path: Path, frames: list[Path]) -> None:
    FlowCache(tmp_path / "flow", key=KEY).build("bear", frames, estimate)
    other = FlowCache(tmp_path / "flow", key=FlowKey(checkpoint="other", size=(16, 24), scale=2, iterations=6))
    with pytest.raises(UserError, match="other settings or weights"):
        other.build("bear", frames, estimate)
    with pytest.raises(UserError, match="other settings or weights"):
        other.check("bear", frames)
    with pytest.raises(UserError, match="other frames"):
        FlowCache(tmp_path / "flow", key=KEY).build("bear", frames[:2], estimate)
    assert other.build("bear", frames, estimate, rebuild=True)
    other.check("bear", frames)


def test_a_broken_off_build_leaves_nothing_behind(tmp_path: Path, frames: list[Path]) -> None:
    store = FlowCache(tmp_path / "flow", key=KEY)

    def stops(images: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        yield next(estimate(images))
        raise RuntimeError("power cut")

    with pytest.raises(RuntimeError):
        store.build("bear", frames, stops)
    assert not store.has("bear")
    assert store.build("bear", frames, estimate)


def test_damage_is_named(tmp_path: Path, frames: list[Path]) -> None:
    root = tmp_path / "flow"
    FlowCache(root, key=KEY).build("bear", frames, estimate)
    with pytest.raises(UserError, match="no flow of 'dog'"):
        FlowCache(root).read("dog", 0)
    with pytest.raises(UserError, match="plain folder name"):
        FlowCache(root).read("../bear", 0)
    facts = json.loads((root / "bear.json").read_text())
    (root / "bear.json").write_text(json.dumps(facts | {"frames": 9}))
    with pytest.raises(UserError, match="not what its"):
        FlowCache(root).read("bear", 0)
    (root / "bear.json").write_text(json.dumps(facts))
    (root / "bear.npy").write_bytes(b"nothing")
    with pytest.raises(UserError, match="damaged"):
        FlowCache(root).read("bear", 0)
