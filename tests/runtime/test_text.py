"""Language vectors: encoded once per query and kept in memory."""

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
from rvos_edge.manifest import GraphSpec
from rvos_edge.queries import check_asked, language_vectors
from rvos_edge.segmenter import Segmenter
from rvos_edge.text import TextEncoder


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


def _encoder(bundle: Bundle, graph: CountingGraph, **limits: int) -> TextEncoder:
    return TextEncoder(bundle=bundle, graph=graph, **limits)


def test_the_text_graph_is_loaded_with_the_first_sentence(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[str] = []
    load_host = OnnxRuntimeBackend.load_host

    def load(backend: OnnxRuntimeBackend, path: Path, spec: GraphSpec) -> HostGraph:
        loaded.append(path.stem)
        return load_host(backend, path, spec)

    monkeypatch.setattr(OnnxRuntimeBackend, "load_host", load)
    segmenter = Segmenter(bundle=bundle, backend=OnnxRuntimeBackend(device="cpu", threads=1))
    segmenter.check_queries("a dog")
    assert loaded == []
    for query in ("a dog", "a cat"):
        segmenter.set_queries(query)
        assert loaded == ["text"]


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


def test_too_many_queries_are_refused(bundle: Bundle, graph: CountingGraph) -> None:
    limit = bundle.manifest.max_queries
    encoder = _encoder(bundle, graph)
    check_asked(["a dog"] * limit, encoder, bundle)
    with pytest.raises(UserError, match=f"{limit + 1} queries are more than the {limit}"):
        language_vectors(["a dog"] * (limit + 1), encoder, bundle)
    assert graph.runs == 0
    encoder.encode(["a dog"] * (limit + 1))  # candidates of teaching are not asked at once


class PanicException(BaseException):
    """Stands in for the exception of the same name that pyo3 raises when Rust code panics."""


@pytest.mark.parametrize("error", [PanicException("index out of bounds"), ValueError("no merges")])
def test_a_tokenizer_that_panics_is_refused(
    bundle: Bundle, graph: CountingGraph, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    class Tokenizer:
        def encode(self, _: str) -> None:
            raise error

    encoder = _encoder(bundle, graph)
    monkeypatch.setattr(encoder, "tokenizer", Tokenizer())
    with pytest.raises(UserError, match=r"tokenizer\.json is not a usable tokenizer"):
        encoder.check(["a dog"])


def test_ctrl_c_in_the_tokenizer_passes(bundle: Bundle, graph: CountingGraph, monkeypatch: pytest.MonkeyPatch) -> None:
    class Tokenizer:
        def encode(self, _: str) -> None:
            raise KeyboardInterrupt

    encoder = _encoder(bundle, graph)
    monkeypatch.setattr(encoder, "tokenizer", Tokenizer())
    with pytest.raises(KeyboardInterrupt):
        encoder.check(["a dog"])


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
def test_queries_that_are_not_a_list_of_sentences_are_refused(
    bundle: Bundle, graph: CountingGraph, queries: Any, match: str
) -> None:
    with pytest.raises(UserError, match=match):
        _encoder(bundle, graph).encode(queries)
