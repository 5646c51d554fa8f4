"""Stored flow: written once, read back, never mistaken for that of other frames or settings."""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from rvos_edge.errors import UserError
from rvos_edge.trainer.data.flow_cache import FlowCache, FlowKey

KEY = FlowKey(checkpoint="abc", size=(16, 24), scale=2, iterations=6)
FIELDS = [np.full((2, 4, 6), float(i), np.float32) for i in range(3)]


@pytest.fixture
def frames(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / f"{i:05d}.jpg" for i in range(3)]
    for i, path in enumerate(paths):
        path.write_bytes(b"x" * (i + 1))
    return paths


def test_flow_is_read_back(tmp_path: Path, frames: list[Path]) -> None:
    cache = FlowCache(tmp_path / "flow", key=KEY)
    assert not cache.has("bear", frames)
    cache.write("bear", frames, FIELDS)
    reader = FlowCache(tmp_path / "flow", key=KEY)
    assert reader.has("bear", frames)
    assert reader.read("bear", 2).shape == (2, 4, 6)
    assert reader.read("bear", 2)[0, 0, 0] == 2
    assert sorted(p.name for p in (tmp_path / "flow").iterdir()) == ["bear.json", "bear.npy"]
    assert len(pickle.dumps(reader)) < 2000, "loader processes open the file themselves"
    with pytest.raises(ValueError, match="2 flow fields for 3 frames"):
        cache.write("bear", frames, FIELDS[:2])


@pytest.mark.parametrize(("store", "size", "error"), [("uint8", 0.5, 0.06), ("half", 0.25, 1.2)])
def test_flow_is_stored_in_less_space(store: str, size: float, error: float, tmp_path: Path) -> None:
    y, x = np.mgrid[:40, :60].astype(np.float32)
    field = np.stack([x / 4 - 3, np.sin(y / 9)])
    path = tmp_path / "00000.jpg"
    path.write_bytes(b"x")
    files = {}
    for form in ("float16", store):
        cache = FlowCache(tmp_path / form, key=KEY, store=form)
        cache.write("bear", [path], [field])
        files[form] = (tmp_path / form / "bear.npy").stat().st_size - 128  # the header of .npy
        read = FlowCache(tmp_path / form, key=KEY, store=form).read("bear", 0)
    assert files[store] / files["float16"] == size
    again = read if store == "uint8" else np.repeat(np.repeat(read, 2, axis=1), 2, axis=2)
    assert np.abs(again - field).max() < error
    with pytest.raises(UserError, match="not what its"):
        FlowCache(tmp_path / store, key=KEY, store={"uint8": "half", "half": "uint8"}[store]).read("bear", 0)


def test_other_settings_or_frames_are_refused(tmp_path: Path, frames: list[Path]) -> None:
    FlowCache(tmp_path / "flow", key=KEY).write("bear", frames, FIELDS)
    other = FlowCache(tmp_path / "flow", key=FlowKey(checkpoint="other", size=(16, 24), scale=2, iterations=6))
    assert not other.has("bear", frames)
    with pytest.raises(UserError, match="other settings or weights"):
        other.check("bear", frames)
    with pytest.raises(UserError, match="other frames"):
        FlowCache(tmp_path / "flow", key=KEY).check("bear", frames[:2])
    other.write("bear", frames, FIELDS)
    other.check("bear", frames)


def test_interrupted_extraction_leaves_nothing_behind(tmp_path: Path, frames: list[Path]) -> None:
    def power_cut() -> Iterator[NDArray[np.float32]]:
        yield FIELDS[0]
        raise RuntimeError

    cache = FlowCache(tmp_path / "flow", key=KEY)
    with pytest.raises(RuntimeError):
        cache.write("bear", frames, power_cut())
    assert not cache.has("bear", frames)
    assert not (tmp_path / "flow").exists()


def test_damage_is_named(tmp_path: Path, frames: list[Path]) -> None:
    root = tmp_path / "flow"
    FlowCache(root, key=KEY).write("bear", frames, FIELDS)
    with pytest.raises(UserError, match="no flow of 'dog'"):
        FlowCache(root, key=KEY).read("dog", 0)
    with pytest.raises(UserError, match="plain folder name"):
        FlowCache(root, key=KEY).read("../bear", 0)
    facts = json.loads((root / "bear.json").read_text())
    (root / "bear.json").write_text(json.dumps(facts | {"frames": 9}))
    with pytest.raises(UserError, match="not what its"):
        FlowCache(root, key=KEY).read("bear", 0)
    (root / "bear.json").write_text(json.dumps(facts))
    (root / "bear.npy").write_bytes(b"nothing")
    with pytest.raises(UserError, match="damaged"):
        FlowCache(root, key=KEY).read("bear", 0)
