"""Engines are found when they fit exactly; otherwise the reason is told."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest
from support.tiny_bundle import write_tiny_bundle

from rvos_edge.bundle import Bundle
from rvos_edge.engines.tensorrt.engine_cache import EngineCache, EngineKey
from rvos_edge.errors import UserError

KEY = EngineKey(
    graph="gating",
    onnx_sha256="a" * 64,
    flavour="tensorrt",
    version="10.3.0",
    gpu="Orin",
    capabilities=("87",),
    shapes={"c2": (1, 24, 72, 128), "lang1": ("Q", 24)},
    max_queries=8,
    precision="float16",
)


@pytest.fixture
def cache(tmp_path: Path) -> EngineCache:
    return EngineCache(Bundle.open(write_tiny_bundle(tmp_path / "tiny")))


def _with(**changes: Any) -> EngineKey:
    return KEY.model_copy(update=changes)


def test_an_engine_is_found_again(cache: EngineCache) -> None:
    assert cache.find(KEY) is None
    path = cache.store(KEY, b"plan")
    assert cache.find(KEY) == path
    assert path.read_bytes() == b"plan"
    assert path.parent.parent == cache.root


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"onnx_sha256": "b" * 64}, "the graph file aaaaaaaaaaaaaaaa and not bbbbbbbbbbbbbbbb"),
        ({"version": "10.13.3"}, "version 10.3.0 and not 10.13.3"),
        ({"gpu": "Xavier", "capabilities": ("72",)}, "GPU Orin and not Xavier, compute capability 87 and not 72"),
        ({"max_queries": 64}, "queries up to 8 and not 64"),
        ({"precision": "float32"}, "precision float16 and not float32"),
        ({"flavour": "tensorrt-rtx"}, "made for target tensorrt and not tensorrt-rtx"),
    ],
)
def test_an_engine_that_does_not_fit_is_refused_with_the_reason(
    cache: EngineCache, change: dict[str, Any], reason: str
) -> None:
    cache.store(KEY, b"plan")
    other = _with(**change)
    assert cache.find(other) is None
    assert reason in cache.why_not(other)


def test_the_reason_is_that_of_the_nearest_engine(cache: EngineCache) -> None:
    cache.store(_with(gpu="Xavier", capabilities=("72",), version="8.5"), b"far")
    cache.store(_with(version="10.2.0"), b"near")
    assert cache.why_not(KEY).endswith("version 10.2.0 and not 10.3.0")
    assert cache.why_not(_with(graph="aspp")) == "there is no engine of graph 'aspp'"


def test_a_changed_engine_is_not_used(cache: EngineCache) -> None:
    path = cache.store(KEY, b"plan")
    path.write_bytes(b"plan?")
    assert cache.find(KEY) is None
    assert cache.why_not(KEY) == "the engine of graph 'gating' is damaged"
    assert cache.store(KEY, b"new").read_bytes() == b"new"


def test_an_engine_replaces_older_ones_of_its_place_only(cache: EngineCache) -> None:
    cache.store(KEY, b"old graph")
    cache.store(_with(gpu="Xavier", capabilities=("72",)), b"another GPU")
    cache.store(_with(onnx_sha256="b" * 64, version="10.4"), b"new graph")
    assert sorted(entry.key.gpu for _, entry in cache.entries()) == ["Orin", "Xavier"]


def test_a_full_disk_leaves_nothing(cache: EngineCache, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "rename", full)
    with pytest.raises(UserError, match="No space left on device"):
        cache.store(KEY, b"plan")
    assert not cache.root.exists()


def test_unreadable_entries_are_ignored(cache: EngineCache) -> None:
    (cache.root / "empty").mkdir(parents=True)
    (cache.root / "broken").mkdir()
    (cache.root / "broken" / "key.json").write_text("{")
    assert list(cache.entries()) == []
    assert cache.find(KEY) is None
