"""Results of the finished parts of an evaluation, from which an interrupted one continues."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rvos_edge.errors import UserError

Metrics = dict[str, Any]


class EvaluationLedger:
    """Results by part ("davis16") and name (a video), one JSON line each in a file, or in memory alone.

    A line is on the disk before the next video starts; a line that a crash truncated is dropped. JSON preserves numbers
    exactly, so that a resumed evaluation ends with the same results.

    Args:
        path: The file; None keeps everything in memory.
        facts: Model and options, the first line of the file.
        resume: Continue from the file; False starts anew.

    Raises:
        UserError: The file holds an evaluation of another model or with other options, or cannot be written.

    Example:
        >>> ledger = EvaluationLedger(None, {"split": "val"})
        >>> ledger.put("davis16", "bear", {"j": 0.5})
        {'j': 0.5}
        >>> ledger.get("davis16", "bear"), ledger.get("davis16", "boat")
        ({'j': 0.5}, None)
    """

    def __init__(self, path: Path | None, facts: Mapping[str, Any], *, resume: bool = True) -> None:
        self.path = path
        self._head = _line(facts)
        self._rows: dict[tuple[str, str], Metrics] = {}
        if path is None:
            return
        with _writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            lines, size = _read(path) if resume else ([], 0)
            # A head without rows may be overwritten.
            if len(lines) > 1:
                _check(path, lines[0], json.loads(self._head))
                self._rows = {(line["part"], line["name"]): line["row"] for line in lines[1:]}
                os.truncate(path, size)

    def __len__(self) -> int:
        return len(self._rows)

    def get(self, part: str, name: str) -> Metrics | None:
        """The row of a finished video; None if it is not finished."""
        return self._rows.get((part, name))

    def put(self, part: str, name: str, row: Metrics) -> Metrics:
        """Store the row of a finished video and return it as it will be read back.

        Raises:
            UserError: The file cannot be written.
        """
        line = _line({"part": part, "name": name, "row": row})
        if self.path is not None:
            with _writing(self.path), self.path.open("ab" if self._rows else "wb") as file:
                file.write(line if self._rows else self._head + line)
                file.flush()
                os.fsync(file.fileno())
        self._rows[part, name] = json.loads(line)["row"]
        return self._rows[part, name]

    def remove(self) -> None:
        """Delete the file: the evaluation is done."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)


def _line(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, allow_nan=False).encode() + b"\n"


def _read(path: Path) -> tuple[list[Any], int]:
    """The complete lines of the file and their size in bytes."""
    lines: list[Any] = []
    size = 0
    for line in path.read_bytes().splitlines(keepends=True) if path.is_file() else []:
        try:
            lines.append(json.loads(line) if line.endswith(b"\n") else None)
        except ValueError:
            break
        if lines[-1] is None:
            lines.pop()
            break
        size += len(line)
    return lines, size


def _check(path: Path, then: Any, now: Mapping[str, Any]) -> None:
    if not isinstance(then, dict):
        raise UserError(f"{path} is not an interrupted evaluation; move it away or give another --json.")
    changed = [name for name in now if then.get(name) != now[name]]
    if changed:
        raise UserError(
            f"{path} holds an interrupted evaluation with another {', '.join(changed)}; finish that one, "
            "give another --json, or start anew with --no-resume."
        )


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(f"Cannot write {path} ({error.strerror}); choose another place for --json.") from error
