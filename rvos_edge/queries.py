"""Queries: sentences, and taught queries, which are small files."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, cast

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from tokenizers import Tokenizer

from rvos_edge.atomic import write_output
from rvos_edge.bundle import Bundle
from rvos_edge.errors import UserError
from rvos_edge.language import doubt
from rvos_edge.manifest import TEXT_GRAPH
from rvos_edge.strict import StrictModel
from rvos_edge.text import TextEncoder, check_queries, normalise_query

QUERY_FORMAT: Literal[1] = 1
LARGEST_FILE = 4096
"""Bytes of a query's file."""
LONGEST_NAME = 100
"""Characters of a query's name."""

Vectors = Mapping[str, NDArray[np.float32]]
"""lang1 .. lang4, float32 [c_i]."""


@dataclass(frozen=True, eq=False)
class TaughtQuery:
    """A query that was learned from shown frames: the language vectors of a sentence, moved.

    Attributes:
        vectors: lang1 .. lang4, float32 [c_i], in place of the sentence's own.
        network: ``Manifest.identity`` of the network that it belongs to.
        j: Mean IoU on shown frames, or views of one, that learning did not use; None where it used all.
        sentence_j: The same of the sentence alone.
        presence_shift: Added to the logit of the query's presence.

    Example:
        >>> query = segmenter.teach([frame], [mask], like="a mug")  # doctest: +SKIP
        >>> query.save("my-mug.query")  # doctest: +SKIP
        >>> segmenter.set_queries([TaughtQuery.load("my-mug.query"), "a red ball"])  # doctest: +SKIP
    """

    sentence: str
    vectors: Vectors
    network: str
    name: str = ""
    shots: int = 0
    j: float | None = None
    sentence_j: float | None = None
    presence_shift: float = 0.0

    @property
    def label(self) -> str:
        """The name, or else the sentence: what results call it."""
        return self.name or self.sentence

    def to_json(self) -> str:
        """The query as a document of JSON of at most 4 kB; it holds no pixels.

        Raises:
            UserError: It would be larger, or its name has more than 100 characters.
        """
        if len(self.name) > LONGEST_NAME:
            raise UserError(
                f"the name of a query has at most {LONGEST_NAME} characters, not {len(self.name)}; "
                "give a shorter one, or a file with a shorter name."
            )
        facts = {name: getattr(self, name) for name in _QueryFile.model_fields if name != "format_version"}
        vectors = {
            name: base64.b64encode(vector.astype("<f4").tobytes()).decode() for name, vector in self.vectors.items()
        }
        document = _QueryFile.model_construct(**{**facts, "format_version": QUERY_FORMAT, "vectors": vectors})
        text = document.model_dump_json(indent=1) + "\n"
        if len(text.encode()) > LARGEST_FILE:
            raise UserError(
                f"the file of the query would be larger than {LARGEST_FILE} bytes; give a shorter name or sentence."
            )
        return text

    def save(self, path: str | Path) -> None:
        """Write ``to_json`` to a file.

        Raises:
            UserError: The file cannot be written, or would be larger than 4 kB, or the name is too long.
        """
        write_output(Path(path), self.to_json())

    @classmethod
    def load(cls, path: str | Path) -> TaughtQuery:
        """Read a query's file.

        Raises:
            UserError: The file is missing, no query, damaged or of another format version.
        """
        try:
            with Path(path).open("rb") as file:
                return cls.from_json(file.read(LARGEST_FILE + 1), str(path))
        except OSError as error:
            raise UserError(f"{path} cannot be read ({error.strerror}); make it with 'rvos-edge teach'.") from error

    @classmethod
    def from_json(cls, data: bytes, name: str = "the file") -> TaughtQuery:
        """Read the bytes of a query's file; errors call it ``name``.

        Raises:
            UserError: They are no query, damaged or of another format version.
        """
        if len(data) > LARGEST_FILE:
            raise UserError(f"{name} is larger than {LARGEST_FILE} bytes and no query; give a file of 'teach'.")
        damaged = f"{name} is not a taught query or is damaged; make it again with 'rvos-edge teach'."
        try:
            content = json.loads(data)
            version = content.get("format_version") if isinstance(content, dict) else None
            if version is not None and version != QUERY_FORMAT:
                raise UserError(
                    f"{name} has format version {version}, this version reads {QUERY_FORMAT}; teach it again."
                )
            document = _QueryFile.model_validate(content)
            vectors = {
                key: np.frombuffer(base64.b64decode(text, validate=True), "<f4").astype(np.float32)
                for key, text in document.vectors.items()
            }
        except UserError:
            raise
        except (ValueError, RecursionError) as error:  # JSON, Unicode, base64 and pydantic raise kinds of the first
            raise UserError(damaged) from error
        if not all(np.isfinite(vector).all() for vector in vectors.values()):
            raise UserError(f"{name} holds numbers that are not finite; make it again with 'rvos-edge teach'.")
        (sentence,) = check_queries([document.sentence])
        facts = {key: getattr(document, key) for key in _QueryFile.model_fields if key != "format_version"}
        return cls(**{**facts, "sentence": sentence, "vectors": vectors})

    def named(self, name: str) -> TaughtQuery:
        """The same query under another name."""
        return replace(self, name=name)


Query = str | TaughtQuery
"""A query as ``set_queries`` takes it."""


class _QueryFile(StrictModel):
    """The JSON document; vectors are base64 of little-endian float32."""

    format_version: Literal[1]
    network: str = Field(max_length=64)
    name: str = Field(max_length=LONGEST_NAME)
    sentence: str
    shots: int = Field(ge=0)
    j: float | None = Field(default=None, ge=0, le=1)
    sentence_j: float | None = Field(default=None, ge=0, le=1)
    presence_shift: float = Field(default=0.0, allow_inf_nan=False)
    vectors: dict[str, str]


def as_queries(queries: Query | Iterable[Query]) -> tuple[Query, ...]:
    """Queries in a tuple; one may stand alone, several be an array or a generator.

    Raises:
        UserError: They are nothing that can be iterated over.
    """
    if isinstance(queries, str | TaughtQuery):
        return (queries,)
    if not isinstance(queries, Iterable):
        raise UserError(f"queries must be sentences, not {type(queries).__name__}; give for example 'a dog'.")
    return tuple(queries.ravel().tolist() if isinstance(queries, np.ndarray) else queries)


def read_queries(given: Sequence[str]) -> tuple[Query, ...]:
    """Queries of a command line: sentences, and ``@FILE`` for a taught one.

    Raises:
        UserError: A file cannot be used.
    """
    return tuple(TaughtQuery.load(text[1:]) if text.startswith("@") else text for text in given)


def read_query_file(path: str | Path) -> tuple[str, ...]:
    """The queries of a text file, one a line; empty lines and those that begin with # are left out.

    Raises:
        UserError: The file cannot be read, or holds none.
    """
    try:
        lines = [line.strip() for line in Path(path).read_text(encoding="utf-8-sig").splitlines()]
    except (OSError, UnicodeError) as error:
        raise UserError(f"{path} cannot be read as UTF-8 text; give a file with one query a line.") from error
    found = tuple(line for line in lines if line and not line.startswith("#"))
    if not found:
        raise UserError(f"{path} holds no query; write one a line.")
    return found


def doubts(queries: Sequence[Query], tokenizer: Tokenizer) -> tuple[str, ...]:
    """For each query the reason why it is unlikely to be understood, in one sentence; empty for taught ones."""
    sentences = ["" if isinstance(query, TaughtQuery) else normalise_query(query) for query in queries]
    return tuple(sentence and doubt(sentence, tokenizer.encode(sentence).tokens) for sentence in sentences)


def normalise(queries: Sequence[Query]) -> tuple[Query, ...]:
    """The same queries with their sentences normalised."""
    return tuple(query if isinstance(query, TaughtQuery) else normalise_query(query) for query in queries)


def labels(queries: Sequence[Query]) -> tuple[str, ...]:
    """The names of queries in results; sentences are normalised."""
    return tuple(query.label if isinstance(query, TaughtQuery) else query for query in normalise(queries))


def check_asked(queries: Sequence[Query], encoder: TextEncoder, bundle: Bundle) -> tuple[str, ...]:
    """Check queries without encoding them; returns their sentences, normalised.

    Raises:
        UserError: There is no query or too many, one is empty or too long, or was taught to another network.
    """
    for query in queries:
        if isinstance(query, TaughtQuery):
            _check_network(query, bundle)
    if len(queries) > bundle.manifest.max_queries:
        raise UserError(
            f"{len(queries)} queries are more than the {bundle.manifest.max_queries} that this bundle takes at once; "
            "give fewer."
        )
    return encoder.check([query.sentence if isinstance(query, TaughtQuery) else query for query in queries])


def language_vectors(queries: Sequence[Query], encoder: TextEncoder, bundle: Bundle) -> dict[str, NDArray[np.float32]]:
    """The language vectors of queries: lang1, lang2, ..., each float32 [Q,c_i].

    What a taught query does not hold is its sentence's.

    Raises:
        UserError: The errors of ``check_asked``.
    """
    stacked = encoder.encode(check_asked(queries, encoder, bundle))
    for row, query in enumerate(queries):
        if isinstance(query, TaughtQuery):
            for name, vector in query.vectors.items():
                stacked[name][row] = vector
    return stacked


def _check_network(query: TaughtQuery, bundle: Bundle) -> None:
    """Refuse a query of another network, in one sentence with the remedy."""
    identity = bundle.manifest.identity
    expected = {spec.name: spec.shape[-1] for spec in bundle.manifest.graphs[TEXT_GRAPH].outputs}
    fits = all(expected.get(name) == len(vector) for name, vector in query.vectors.items())
    if query.network != identity or not fits:
        raise UserError(
            f"query '{query.label}' was taught to another network ({query.network[:8]}) than that of {bundle.path} "
            f"({identity[:8]}); teach it again with: rvos-edge teach, or use a bundle of its network."
        )


def float_vectors(vectors: Mapping[str, NDArray[np.float32]], row: int) -> dict[str, NDArray[np.float32]]:
    """One query's row of stacked language vectors, copied."""
    return {name: cast("NDArray[np.float32]", stacked[row].astype(np.float32)) for name, stacked in vectors.items()}
