"""Queries to language vectors: encoded once, then kept in memory and on disk."""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
import threading
import zipfile
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer

from rvos_edge.bundle import TEXT_GRAPH, Bundle
from rvos_edge.engines.base import HostGraph
from rvos_edge.errors import UserError

CACHE_VARIABLE = "RVOS_EDGE_CACHE"
_SHOWN_CHARACTERS = 40
_LONGEST_WORD = 100

Vectors = dict[str, NDArray[Any]]
"""lang1 .. lang4 and, where the network has it, lang5, each [c_i]."""


def default_cache_dir() -> Path | None:
    """Where caches are kept: $RVOS_EDGE_CACHE, or rvos-edge in the user's cache folder; None without a home."""
    if configured := os.environ.get(CACHE_VARIABLE):
        return Path(configured)
    try:
        home = Path.home()
    except RuntimeError:
        return None
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = home / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache")
    return base / "rvos-edge"


def normalise_query(query: str) -> str:
    """Strip a query and collapse its inner whitespace."""
    return " ".join(query.split())


class TextEncoder:
    """The text graph behind two caches; safe to share between threads.

    Example:
        >>> encoder = TextEncoder(bundle=bundle, graph=backend.load_host(path, spec), cache_dir=None)
        >>> encoder.encode(["a dog", "a red ball"])["lang1"].shape
        (2, 48)
    """

    def __init__(
        self,
        *,
        bundle: Bundle,
        graph: HostGraph,
        cache_dir: Path | None,
        memory_entries: int = 1024,
        disk_entries: int = 8192,
    ) -> None:
        """Read the tokenizer.

        Args:
            bundle: Gives the tokenizer, the longest query and the key of the disk cache.
            graph: The loaded text graph.
            cache_dir: Folder of the disk cache, made when needed; None for no disk cache.
            memory_entries: Queries kept in memory.
            disk_entries: Files kept on disk; beyond it the oldest quarter is removed.

        Raises:
            UserError: The tokenizer cannot be read.
        """
        try:
            self._tokenizer: Tokenizer = Tokenizer.from_file(str(bundle.tokenizer_path))
        except Exception as error:  # tokenizers raises bare Exception
            raise UserError(
                f"{bundle.tokenizer_path} is not a tokenizer ({error}); export the bundle again."
            ) from error
        # A query that is too long is refused, never cut.
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        spec = bundle.manifest.graphs[TEXT_GRAPH]
        self._max_tokens = bundle.manifest.text.max_tokens
        self._inputs = {tensor.name for tensor in spec.inputs}
        self._outputs = {tensor.name: (tensor.dtype, tensor.shape[1:]) for tensor in spec.outputs}
        self._graph = graph
        self._memory: OrderedDict[str, Vectors] = OrderedDict()
        self._memory_entries = memory_entries
        self._disk = _DiskCache(cache_dir, bundle.fingerprint, disk_entries) if cache_dir is not None else None
        self._lock = threading.Lock()

    def check(self, queries: Sequence[str]) -> tuple[str, ...]:
        """Normalise queries that can be encoded, without encoding them: takes microseconds and waits for nobody.

        Raises:
            UserError: As ``encode``.
        """
        normalised = check_queries(queries)
        for query in normalised:
            self._tokenize(query)
        return normalised

    def encode(self, queries: Sequence[str]) -> Vectors:
        """Encode queries.

        Args:
            queries: At least one; normalised here.

        Returns:
            lang1, lang2, ..., each [Q,c_i], in the order of the queries.

        Raises:
            UserError: There is no query, or one is empty or too long.
        """
        normalised = check_queries(queries)
        with self._lock:
            encoded = [self._one(query) for query in normalised]
        return {name: np.stack([vectors[name] for vectors in encoded]) for name in self._outputs}

    def _one(self, query: str) -> Vectors:
        vectors = self._memory.pop(query, None)
        if vectors is None and self._disk is not None:
            vectors = self._disk.load(query)
            if vectors is not None and not self._fits(vectors):
                vectors = None
        if vectors is None:
            vectors = self._run(query)
            if self._disk is not None:
                self._disk.store(query, vectors)
        self._memory[query] = vectors
        while len(self._memory) > self._memory_entries:
            self._memory.popitem(last=False)
        return vectors

    def _fits(self, vectors: Vectors) -> bool:
        found = {name: (str(vector.dtype), vector.shape) for name, vector in vectors.items()}
        return found == self._outputs and all(bool(np.isfinite(vector).all()) for vector in vectors.values())

    def _run(self, query: str) -> Vectors:
        encoding = self._tokenize(query)
        inputs = {"input_ids": encoding.ids, "attention_mask": encoding.attention_mask}
        arrays = {name: np.asarray([ids], np.int64) for name, ids in inputs.items() if name in self._inputs}
        return {name: array[0] for name, array in self._graph.run(arrays).items()}

    def _tokenize(self, query: str) -> Encoding:
        encoding = self._tokenizer.encode(query)
        count = len(encoding.ids)
        if count > self._max_tokens:
            raise UserError(
                f"query '{_shorten(query)}' has {count} tokens and this bundle takes at most {self._max_tokens}; "
                "shorten it."
            )
        return encoding


def check_queries(queries: Sequence[str]) -> tuple[str, ...]:
    """Normalise queries.

    Raises:
        UserError: It is not a list of strings, is empty, or a query is empty, endless or not valid Unicode.
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
            raise UserError(f"query {_shorten(query)!a} is not valid Unicode; type it anew.") from error
    return normalised


def _shorten(query: str) -> str:
    return query if len(query) <= _SHOWN_CHARACTERS else query[: _SHOWN_CHARACTERS - 3] + "..."


class _DiskCache:
    """One small file per query. Whatever goes wrong with it is a miss: a cache is never the only copy."""

    def __init__(self, folder: Path, fingerprint: str, entries: int) -> None:
        self._folder = folder
        self._fingerprint = fingerprint
        self._entries = entries

    def load(self, query: str) -> Vectors | None:
        try:
            with np.load(self._path(query), allow_pickle=False) as archive:
                return {name: archive[name] for name in archive.files}
        except (OSError, ValueError, KeyError, EOFError, TypeError, AttributeError, zipfile.BadZipFile, MemoryError):
            return None

    def store(self, query: str, vectors: Vectors) -> None:
        path = self._path(query)
        temporary: str | None = None
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=self._folder, suffix=".tmp", delete=False) as file:
                temporary = file.name
                np.savez(file, allow_pickle=False, **vectors)
            os.replace(temporary, path)
            temporary = None
            self._prune()
        except OSError:
            pass
        finally:
            if temporary is not None:
                Path(temporary).unlink(missing_ok=True)

    def _prune(self) -> None:
        files = [entry for entry in os.scandir(self._folder) if entry.name.endswith(".npz")]
        if len(files) > self._entries:
            files.sort(key=lambda entry: entry.stat().st_mtime)
            for entry in files[: max(1, len(files) // 4)]:
                Path(entry.path).unlink(missing_ok=True)

    def _path(self, query: str) -> Path:
        return self._folder / f"{hashlib.sha256((self._fingerprint + query).encode()).hexdigest()}.npz"
