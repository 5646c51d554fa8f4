"""The C++ runtime behind ``SegmenterProtocol``; it is installed apart, as the package ``rvos_edge_cpp``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from rvos_edge.adaptation import check_adapt
from rvos_edge.bundle import Bundle
from rvos_edge.errors import UserError
from rvos_edge.flow.policy import FlowDecision, FlowOptions
from rvos_edge.language import warn_of
from rvos_edge.pictures import Picture, as_frame
from rvos_edge.preprocess import threshold_logit
from rvos_edge.presence import MIN_PRESENCE
from rvos_edge.protocol import SegmenterProtocol
from rvos_edge.queries import Query, TaughtQuery, as_queries
from rvos_edge.result import Result

_MODULE = "rvos_edge_cpp"
_INSTALL = "run in a clone, in this environment: pip install openvino && pip install ./cpp_bindings"


def load_runtime() -> ModuleType:
    """Import ``rvos_edge_cpp``.

    Raises:
        UserError: The package is not installed, or its libraries cannot be loaded.
    """
    try:
        return import_module(_MODULE)
    except ModuleNotFoundError as error:
        if error.name != _MODULE:
            raise
        raise UserError(f"runtime 'cpp' needs {_MODULE}, which is not installed; {_INSTALL}") from error
    except ImportError as error:
        raise UserError(f"runtime 'cpp' cannot be used: {error}") from error


class CppSegmenter(SegmenterProtocol):
    """Segments with the C++ runtime: the same bundle and the same masks; ``step`` releases the GIL."""

    def __init__(
        self,
        path: Path,
        *,
        size: tuple[int, int] | None = None,
        device: str = "auto",
        backend: str = "auto",
        flow: FlowOptions | None = None,
        threads: int | None = None,
        threshold: float = 0.5,
        min_presence: float = MIN_PRESENCE,
        adapt: str = "off",
    ) -> None:
        """Load the graphs; the arguments are those of ``rvos_edge.open``.

        Raises:
            UserError: The errors of ``rvos_edge.open``, or the C++ package is not installed.
        """
        if min_presence not in (0, MIN_PRESENCE):
            raise UserError(
                f"the C++ runtime decides presence at {MIN_PRESENCE} or, with 0, not at all; or use --runtime python."
            )
        cpp = load_runtime()
        self._path, self._size = path, size
        self._bundle: Bundle | None = None
        self._threshold, self._always = threshold, min_presence == 0
        self._cpp: Any = cpp.Segmenter(
            path,
            size=size,
            device=device,
            backend=backend,
            flow=cpp.FlowOptions(**(flow or FlowOptions()).model_dump()),
            threads=threads,
            threshold=threshold_logit(threshold),
            keep_absent=self._always,
        )
        self.set_adapt(adapt)

    @property
    def bundle(self) -> Bundle:
        """The opened bundle, read again by Python on first use."""
        if self._bundle is None:
            self._bundle = Bundle.open(self._path, size=self._size)
        return self._bundle

    @property
    def backend_name(self) -> str:
        return f"C++, {self._cpp.backend_name}"

    @property
    def backend_reason(self) -> str:
        return str(self._cpp.backend_reason)

    @property
    def iterations(self) -> int | None:
        found: int | None = self._cpp.iterations
        return found

    def set_threshold(self, threshold: float) -> None:
        self._cpp.set_threshold(threshold_logit(threshold))
        self._threshold = threshold

    def set_iterations(self, iterations: int) -> None:
        self._cpp.set_iterations(iterations)

    def set_keep_flow(self, keep: bool) -> None:
        self._cpp.set_keep_flow(keep)

    def check_queries(self, queries: Query | Iterable[Query]) -> tuple[str, ...]:
        found: tuple[str, ...] = self._cpp.check_queries(_as_strings(as_queries(queries)))
        return found

    @property
    def _tokenizer(self) -> Tokenizer:
        return _read_tokenizer(self.bundle.tokenizer_path)

    def set_queries(self, queries: Query | Iterable[Query]) -> None:
        queries = as_queries(queries)
        self._cpp.set_queries(_as_strings(queries))
        self._remember(queries)
        warn_of(self.doubts(queries))

    def set_adapt(self, adapt: str, *, background: bool = False) -> None:
        self._adapt = check_adapt(adapt)
        self._cpp.set_adapt(self._adapt, background=background)

    def reset(self) -> None:
        self._cpp.reset()

    def close(self) -> None:
        self._cpp = None

    def step(self, frame: Picture, *, color: str | None = None) -> Result:
        image = as_frame(frame, color)
        if self._cpp is None:
            raise UserError("the segmenter is closed; open the bundle again.")
        found = self._cpp.step(image)
        return Result(
            found.queries,
            found.masks,
            found.margins,
            found.scores,
            found.timings,
            found.flow_used,
            found.flow,
            found.index,
            _decision(found.decision),
            found.presence,
            np.ones_like(found.present) if self._always and self.bundle.manifest.has_presence else found.present,
            adapted=found.adapted,
            image=image,
        )


@cache
def _read_tokenizer(path: Path) -> Tokenizer:
    return Tokenizer.from_file(str(path))


def _as_strings(queries: Sequence[Query]) -> object:
    """Queries as the module takes them: a taught one is the JSON of its file, and no sentence may name a file."""
    if isinstance(queries, (str, bytes)):
        return queries  # refused there
    for query in queries:
        if isinstance(query, str) and query.startswith(("@", "{")):
            raise UserError(f"a sentence does not begin with '{query[0]}'; load a file with TaughtQuery.load.")
    return [query.to_json() if isinstance(query, TaughtQuery) else query for query in queries]


def _decision(found: Any | None) -> FlowDecision | None:
    if found is None:
        return None
    return FlowDecision(found.action, found.reason, found.iterations, found.warm, found.encode, found.late)
