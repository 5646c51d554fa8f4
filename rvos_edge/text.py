"""Queries to language vectors: normalise, tokenize, run the text graph once per sentence and remember the result."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer

from rvos_edge.bundle import Bundle
from rvos_edge.engines.base import HostGraph
from rvos_edge.errors import UserError, one_line
from rvos_edge.manifest import TEXT_GRAPH

_SHOWN_CHARACTERS = 40
_LONGEST_WORD = 100

Vectors = dict[str, NDArray[Any]]
"""Language vectors by name: lang1 .. lang4, each [c_i]."""


def normalise_query(query: str) -> str:
    """Strip a query and collapse its inner whitespace."""
    return " ".join(query.split())


class LateGraph:
    """A host graph that is loaded when it first runs; its caller lets one run at a time."""

    def __init__(self, load: Callable[[], HostGraph]) -> None:
        self._load = load
        self._graph: HostGraph | None = None

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Run on named arrays and return the named outputs.

        Raises:
            UserError: The graph cannot be loaded, or fails.
        """
        self._graph = self._graph or self._load()
        return self._graph.run(inputs)


class TextEncoder:
    """Encodes queries with the text graph and keeps the most recent ones in memory; safe to share between threads."""

    def __init__(self, *, bundle: Bundle, graph: HostGraph, memory_entries: int = 1024) -> None:
        """Read the tokenizer.

        Raises:
            UserError: The tokenizer cannot be read.
        """
        self._tokenizer_path = bundle.tokenizer_path
        with self._tokenizer_errors():
            self.tokenizer: Tokenizer = Tokenizer.from_file(str(bundle.tokenizer_path))
            # A query that is too long is refused, never cut.
            self.tokenizer.no_truncation()
            self.tokenizer.no_padding()
        spec = bundle.manifest.graphs[TEXT_GRAPH]
        self._max_tokens = bundle.manifest.text.max_tokens
        self._inputs = {tensor.name for tensor in spec.inputs}
        self._outputs = [tensor.name for tensor in spec.outputs]
        self._graph = graph
        self._memory: OrderedDict[str, Vectors] = OrderedDict()
        self._memory_entries = memory_entries
        self._lock = threading.Lock()

    def check(self, queries: Sequence[str]) -> tuple[str, ...]:
        """Normalise queries and check that ``encode`` would take them, without encoding them: takes microseconds."""
        normalised = check_queries(queries)
        for query in normalised:
            self._tokenize(query)
        return normalised

    def encode(self, queries: Sequence[str]) -> Vectors:
        """Encode queries, which are normalised here: lang1, lang2, ..., each [Q,c_i], in their order.

        Raises:
            UserError: There is no query, one is empty or too long, or the tokenizer or the graph fails.
        """
        normalised = self.check(queries)
        with self._lock:
            encoded = [self._one(query) for query in normalised]
        return {name: np.stack([vectors[name] for vectors in encoded]) for name in self._outputs}

    def _one(self, query: str) -> Vectors:
        vectors = self._memory.pop(query, None) or self._run(query)
        self._memory[query] = vectors
        while len(self._memory) > self._memory_entries:
            self._memory.popitem(last=False)
        return vectors

    def _run(self, query: str) -> Vectors:
        encoding = self._tokenize(query)
        inputs = {"input_ids": encoding.ids, "attention_mask": encoding.attention_mask}
        arrays = {name: np.asarray([ids], np.int64) for name, ids in inputs.items() if name in self._inputs}
        return {name: array[0] for name, array in self._graph.run(arrays).items()}

    def _tokenize(self, query: str) -> Encoding:
        with self._tokenizer_errors():
            encoding = self.tokenizer.encode(query)
        count = len(encoding.ids)
        if count > self._max_tokens:
            raise UserError(
                f"query '{_shorten(query)}' has {count} tokens and this bundle takes at most {self._max_tokens}; "
                "shorten it."
            )
        return encoding

    @contextmanager
    def _tokenizer_errors(self) -> Iterator[None]:
        """Turn the errors of the tokenizers library into ``UserError``."""
        try:
            yield
        except BaseException as error:
            # The library raises bare Exception, and a panic of its Rust code is not even one of those.
            if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
                raise
            detail = one_line(error)
            raise UserError(
                f"{self._tokenizer_path} is not a usable tokenizer ({detail}); export the bundle again."
            ) from error


def check_queries(queries: Sequence[str]) -> tuple[str, ...]:
    """Normalise queries and check their form.

    Raises:
        UserError: ``queries`` is not a list of strings or is empty, or a query is empty, has an endless word or is not
            valid Unicode.

    Example:
        >>> check_queries(["  the dog\\ton the left "])
        ('the dog on the left',)
    """
    if isinstance(queries, (str, bytes)):
        raise UserError(
            f"queries must be a list of sentences, not the string '{_shorten(str(queries))}'; put it in a list."
        )
    if not queries:
        raise UserError("there is no query; give at least one, such as 'the dog on the left'.")
    for query in queries:
        if not isinstance(query, str):
            raise UserError(f"a query must be a string, not {type(query).__name__}; give a sentence.")
    normalised = tuple(normalise_query(query) for query in queries)
    for index, query in enumerate(normalised):
        if not query:
            raise UserError(f"query {index + 1} is empty; describe an object, such as 'the dog on the left'.")
        # Counting tokens is not enough: an endless word is a single unknown token.
        longest = max(map(len, query.split()))
        if longest > _LONGEST_WORD:
            raise UserError(
                f"query '{_shorten(query)}' has a word of {longest} characters and at most {_LONGEST_WORD} are read; "
                "shorten it."
            )
        try:
            query.encode()
        except UnicodeEncodeError as error:
            raise UserError(f"query {_shorten(query)!a} is not valid Unicode; type it again.") from error
    return normalised


def _shorten(query: str) -> str:
    return query if len(query) <= _SHOWN_CHARACTERS else query[: _SHOWN_CHARACTERS - 3] + "..."
