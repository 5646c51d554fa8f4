"""Which files of a batch are finished, so that an interrupted one goes on after its last file."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rvos_edge.bundle import Bundle, shipped_bundle
from rvos_edge.errors import UserError
from rvos_edge.streaming.batch import BatchJob, BatchRow

LEDGER_NAME = ".rvos-edge-batch.jsonl"


class BatchLedger:
    """A file of JSON lines in the first output folder: the job, then one line per finished file.

    A line is on the disk before the next file starts; one that a crash cut short is dropped. A file is finished when
    it has a line, is the same as then (size and time of its last change), and all its outputs are there.

    Args:
        job: What is being done.
        resume: Go on with what the ledger holds; otherwise start anew.

    Raises:
        UserError: The ledger is of another bundle, other queries or other options, or cannot be written.
    """

    def __init__(self, job: BatchJob, *, resume: bool = True) -> None:
        self.path = job.folders[0] / LEDGER_NAME
        self._job = job
        self._rows: dict[str, Any] = {}
        self._facts = describe(job)
        with _writing(self.path):
            lines, size = _read(self.path) if resume else ([], 0)
            # A head without rows is no work that could be lost.
            if len(lines) > 1:
                _check(self.path, lines[0], self._facts)
                self._rows = {line["name"]: line for line in lines[1:]}
                if size < self.path.stat().st_size:
                    os.truncate(self.path, size)

    def finished(self, row: BatchRow) -> bool:
        """Whether nothing is left to do for a file."""
        line = self._rows.get(row["name"])
        if line is None or line["source"] != _identity(row["source"]):
            return False
        return all(path.exists() for path in self._job.outputs(row["name"]))

    def add(self, row: BatchRow) -> None:
        """Note a finished file.

        Raises:
            UserError: The ledger cannot be written.
        """
        line = {"name": row["name"], "source": _identity(row["source"]), "frames": row["frames"]}
        with _writing(self.path), self.path.open("ab" if self._rows else "wb") as file:
            file.write(_line(line) if self._rows else _line(self._facts) + _line(line))
            file.flush()
            os.fsync(file.fileno())
        self._rows[row["name"]] = line


def describe(job: BatchJob) -> dict[str, Any]:
    """All that the outputs of a job depend on, apart from the files."""
    bundle = Bundle.open(shipped_bundle() if job.bundle is None else job.bundle, size=job.size)
    flow = None if job.flow is None else job.flow.model_dump()
    return {
        "bundle": bundle.fingerprint,
        "queries": list(job.queries),
        "options": {
            "size": list(bundle.manifest.size),
            "frames": job.frames,
            "opacity": job.opacity,
            "overlap": job.overlap.value,
            "device": job.device,
            "backend": job.backend,
            "runtime": job.runtime,
            "flow": flow,
        },
    }


def _identity(source: str) -> list[Any]:
    """Path, size and time of the last change; of a folder the newest change and the number of its files."""
    path = Path(source)
    if path.is_dir():
        stats = [entry.stat() for entry in path.iterdir()]
        return [source, len(stats), max((stat.st_mtime_ns for stat in stats), default=0)]
    stat = path.stat()
    return [source, stat.st_size, stat.st_mtime_ns]


def _line(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=False, allow_nan=False).encode() + b"\n"


def _read(path: Path) -> tuple[list[Any], int]:
    """The whole lines of the file and the bytes that they take."""
    lines: list[Any] = []
    size = 0
    for line in path.read_bytes().splitlines(keepends=True) if path.is_file() else []:
        try:
            value = json.loads(line) if line.endswith(b"\n") else None
        except ValueError:
            break
        if not isinstance(value, dict):
            break
        lines.append(value)
        size += len(line)
    return lines, size


def _check(path: Path, then: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    changed = [name for name in now if then.get(name) != now[name]]
    if changed:
        raise UserError(
            f"{path.parent} holds finished files with another choice of {' and '.join(changed)}; go on with the same, "
            "give another folder, or do all files again with --no-resume"
        )


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(f"{path} cannot be written ({error.strerror}); choose another folder") from error
