"""Queries become language vectors once; the caches never change an answer."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from support.tiny_bundle import Reference, write_tiny_bundle

from rvos_edge.bundle import Bundle
from rvos_edge.engines.base import HostGraph
from rvos_edge.engines.onnxruntime import OnnxRuntimeBackend
from rvos_edge.errors import UserError
from rvos_edge.text import TextEncoder, default_cache_dir


class CountingGraph:
    """The text graph, counting how often it runs."""

    def __init__(self, graph: HostGraph) -> None:
        self.graph, self.runs = graph, 0

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        self.runs += 1
        return self.graph.run(inputs)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return Bundle.open(write_tiny_bundle(tmp_path_factory.mktemp("tiny")))


@pytest.fixture
def graph(bundle: Bundle) -> CountingGraph:
    backend = OnnxRuntimeBackend(device="cpu", threads=1)
    return CountingGraph(backend.load_host(bundle.graph_path("text"), bundle.manifest.graphs["text"]))


def _encoder(bundle: Bundle, graph: CountingGraph, cache: Path | None = None, **limits: int) -> TextEncoder:
    return TextEncoder(bundle=bundle, graph=graph, cache_dir=cache, **limits)


def test_vectors_are_stacked_in_the_order_of_the_queries(bundle: Bundle, graph: CountingGraph) -> None:
    queries = ["the red ball", "a black car", "the red ball"]
    vectors = _encoder(bundle, graph).encode(queries)
    assert {name: array.shape for name, array in vectors.items()} == {
        "lang1": (3, 4),
        "lang2": (3, 4),
        "lang3": (3, 4),
        "lang4": (3, 6),
    }
    for row, query in enumerate(queries):
        for name, expected in zip(vectors, Reference().text(query), strict=True):
            np.testing.assert_allclose(vectors[name][row], expected, rtol=1e-5, atol=1e-6)
    assert not np.allclose(vectors["lang1"][0], vectors["lang1"][1])
    assert graph.runs == 2


def test_whitespace_does_not_matter(bundle: Bundle, graph: CountingGraph) -> None:
    encoder = _encoder(bundle, graph)
    first = encoder.encode(["the red ball"])
    second = encoder.encode(["  the\tred \n ball "])
    assert graph.runs == 1
    np.testing.assert_array_equal(first["lang4"], second["lang4"])


def test_memory_forgets_the_least_recently_used(bundle: Bundle, graph: CountingGraph) -> None:
    encoder = _encoder(bundle, graph, memory_entries=2)
    for query in ("a dog", "a cat", "a dog", "a ball", "a dog"):
        encoder.encode([query])
    assert graph.runs == 3
    encoder.encode(["a cat"])
    assert graph.runs == 4


def test_the_disk_remembers_across_encoders(bundle: Bundle, graph: CountingGraph, tmp_path: Path) -> None:
    cache = tmp_path / "made" / "on demand"
    first = _encoder(bundle, graph, cache).encode(["a dog"])
    second = _encoder(bundle, graph, cache).encode(["a dog"])
    assert graph.runs == 1
    np.testing.assert_array_equal(first["lang1"], second["lang1"])
    assert [path.suffix for path in cache.iterdir()] == [".npz"]


@pytest.mark.parametrize("damage", ["empty", "garbage", "half", "nan", "shape", "pickle"])
def test_a_corrupt_file_is_a_miss(bundle: Bundle, graph: CountingGraph, tmp_path: Path, damage: str) -> None:
    expected = _encoder(bundle, graph, tmp_path).encode(["a dog"])
    (path,) = tmp_path.iterdir()
    vectors: dict[str, Any] = {name: array[0] for name, array in expected.items()}
    if damage == "empty":
        path.write_bytes(b"")
    elif damage == "garbage":
        path.write_bytes(b"PK\x03\x04 not really")
    elif damage == "half":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    elif damage == "pickle":
        np.savez(path, **vectors | {"lang1": np.array([{}], dtype=object)})
    else:
        wrong = np.full(4, np.nan, np.float32) if damage == "nan" else np.zeros(5, np.float32)
        np.savez(path, **vectors | {"lang1": wrong})
    again = _encoder(bundle, graph, tmp_path).encode(["a dog"])
    assert graph.runs == 2
    np.testing.assert_array_equal(again["lang1"], expected["lang1"])
    _encoder(bundle, graph, tmp_path).encode(["a dog"])  # the miss mended the file
    assert graph.runs == 2


def test_an_unusable_folder_is_no_error(bundle: Bundle, graph: CountingGraph, tmp_path: Path) -> None:
    blocked = tmp_path / "a file"
    blocked.write_text("not a folder")
    assert _encoder(bundle, graph, blocked).encode(["a dog"])["lang1"].shape == (1, 4)


def test_the_disk_cache_is_bounded(bundle: Bundle, graph: CountingGraph, tmp_path: Path) -> None:
    encoder = _encoder(bundle, graph, tmp_path, disk_entries=4)
    for word in ("dog", "cat", "ball", "car", "person", "red", "left"):
        encoder.encode([word])
        assert len(list(tmp_path.iterdir())) <= 4


def test_another_bundle_has_its_own_entries(
    bundle: Bundle, graph: CountingGraph, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    other = Bundle.open(write_tiny_bundle(tmp_path_factory.mktemp("other"), flow=False))
    _encoder(bundle, graph, tmp_path).encode(["a dog"])
    _encoder(other, graph, tmp_path).encode(["a dog"])
    assert graph.runs == 2


@pytest.mark.parametrize("query", ["", "   ", "\n\t"])
def test_an_empty_query_is_refused(bundle: Bundle, graph: CountingGraph, query: str) -> None:
    with pytest.raises(UserError, match="query 2 is empty"):
        _encoder(bundle, graph).encode(["a dog", query])
    assert graph.runs == 0


def test_a_long_query_is_refused_and_not_cut(bundle: Bundle, graph: CountingGraph) -> None:
    query = ("the red ball " * 1000)[:10_000]
    with pytest.raises(UserError) as caught:
        _encoder(bundle, graph).encode([query])
    message = str(caught.value)
    assert "at most 16" in message
    assert "shorten" in message
    assert int(message.split(" has ")[1].split()[0]) > 2000
    assert len(message) < 150
    longest = " ".join(["dog"] * 14)  # with [CLS] and [SEP] exactly 16
    _encoder(bundle, graph).encode([longest])
    with pytest.raises(UserError, match="has 17 tokens"):
        _encoder(bundle, graph).encode([longest + " dog"])


@pytest.mark.parametrize(
    ("queries", "match"),
    [([], "no query"), ("a dog", "must be a list"), ([3], "not int"), (["a \ud800 dog"], "not valid Unicode")],
)
def test_what_is_no_list_of_sentences_is_refused(
    bundle: Bundle, graph: CountingGraph, queries: Any, match: str
) -> None:
    with pytest.raises(UserError, match=match):
        _encoder(bundle, graph).encode(queries)


def test_the_cache_folder_is_the_users_or_the_one_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RVOS_EDGE_CACHE", str(tmp_path))
    assert default_cache_dir() == tmp_path
    monkeypatch.delenv("RVOS_EDGE_CACHE")
    folder = default_cache_dir()
    assert folder is not None
    assert folder.name == "rvos-edge"
