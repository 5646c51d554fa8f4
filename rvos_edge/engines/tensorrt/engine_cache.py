"""The engine cache: engines built from the graphs of a bundle, kept beside them in ``engines/``.

An engine serves one graph file, one version of TensorRT, one GPU (or the compute capabilities that it was built for)
and one range of shapes, which together are its key. The folder of an engine is named after the hash of the key and
contains the key, so that an engine that does not fit can be refused with the reason.
"""

from __future__ import annotations

import contextlib
import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from pydantic import ValidationError

from rvos_edge.atomic import new_directory
from rvos_edge.bundle import Bundle, sha256_of
from rvos_edge.errors import UserError
from rvos_edge.strict import StrictModel

_FOLDER = "engines"


class EngineKey(StrictModel):
    """The inputs of an engine build; an engine serves exactly one key."""

    graph: str
    onnx_sha256: str
    flavour: str
    version: str
    gpu: str
    """GPU on which the engine was built; empty if it was built for compute capabilities without a GPU."""
    capabilities: tuple[str, ...]
    shapes: dict[str, tuple[int | str, ...]]
    max_queries: int
    precision: str

    @property
    def fingerprint(self) -> str:
        """Name of the folder of the engine."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:16]


class Entry(StrictModel):
    """The contents of key.json beside an engine."""

    key: EngineKey
    sha256: str


class EngineCache:
    """The engines of a bundle."""

    def __init__(self, bundle: Bundle) -> None:
        self.root = bundle.path / _FOLDER

    def find(self, key: EngineKey) -> Path | None:
        """Return the undamaged engine of exactly this key, or None."""
        folder = self.root / key.fingerprint
        entry = _read(folder)
        path = folder / f"{key.graph}.engine"
        if entry is None or entry.key != key or not path.is_file() or sha256_of(path) != entry.sha256:
            return None
        return path

    def why_not(self, key: EngineKey) -> str:
        """Explain why there is no engine of this key: how the nearest one of the same graph differs."""
        others = [entry.key for _, entry in self.entries() if entry.key.graph == key.graph]
        if not others:
            return f"there is no engine of graph '{key.graph}'"
        asked = key.model_dump()
        differences = [[name for name, value in other.model_dump().items() if value != asked[name]] for other in others]
        nearest, names = min(zip(others, differences, strict=True), key=lambda pair: len(pair[1]))
        if not names:
            return f"the engine of graph '{key.graph}' is damaged"
        there = nearest.model_dump()
        words = ", ".join(f"{_WORDS[name]} {_show(there[name])} and not {_show(asked[name])}" for name in names)
        return f"the engine of graph '{key.graph}' was made for {words}"

    def store(self, key: EngineKey, plan: bytes | memoryview) -> Path:
        """Write an engine under its key, atomically, and remove older engines that it replaces.

        Raises:
            UserError: The bundle cannot be written.
        """
        folder = self.root / key.fingerprint
        try:
            with new_directory(folder, cache=True) as temporary:
                path = temporary / f"{key.graph}.engine"
                path.write_bytes(plan)
                entry = Entry(key=key, sha256=sha256_of(path))
                (temporary / "key.json").write_text(entry.model_dump_json(indent=2) + "\n", encoding="utf-8")
        except OSError as error:
            raise UserError(
                f"{folder} cannot be written ({error.strerror}); free some space, or copy the bundle to a folder of "
                "your own."
            ) from error
        self._forget_older(key)
        return folder / f"{key.graph}.engine"

    def entries(self) -> Iterator[tuple[Path, Entry]]:
        """Iterate over the folder and the contents of every readable entry."""
        if self.root.is_dir():
            for folder in sorted(self.root.iterdir()):
                entry = _read(folder)
                if entry is not None:
                    yield folder, entry

    def _forget_older(self, key: EngineKey) -> None:
        """Remove engines of the same graph for the same GPU and shapes: of an older graph file or TensorRT."""
        same = ("graph", "flavour", "gpu", "capabilities", "shapes", "max_queries")
        for folder, entry in list(self.entries()):
            if folder.name != key.fingerprint and all(getattr(entry.key, n) == getattr(key, n) for n in same):
                with contextlib.suppress(OSError):
                    shutil.rmtree(folder)


_WORDS = {
    "graph": "graph",
    "onnx_sha256": "the graph file",
    "flavour": "target",
    "version": "version",
    "gpu": "GPU",
    "capabilities": "compute capability",
    "shapes": "shapes",
    "max_queries": "queries up to",
    "precision": "precision",
}


def _show(value: object) -> str:
    if isinstance(value, (tuple, list)):
        return "+".join(map(str, value)) or "any"
    text = str(value)
    return text[:16] if len(text) == 64 else text or "none"


def _read(folder: Path) -> Entry | None:
    try:
        return Entry.model_validate_json((folder / "key.json").read_text(encoding="utf-8"))
    except (OSError, ValidationError, UnicodeDecodeError):
        return None
