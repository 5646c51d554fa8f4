"""Ledgers: the finished parts of a batch or of an evaluation, so that an interrupted one goes on after its last."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rvos_edge.atomic import make_folders, remove_folders
from rvos_edge.bundle import Bundle, sha256_of
from rvos_edge.catalogue import find_bundle
from rvos_edge.errors import UserError
from rvos_edge.outputs import check_inputs, check_outputs, check_replaceable, names_path
from rvos_edge.streaming.batch import BatchJob, BatchRow, check_folders, make_rows

LEDGER_NAME = ".rvos-edge-batch.jsonl"


class Ledger:
    """Rows of figures by part ("davis16") and name (a video): a file of JSON lines, or memory alone.

    A line is on the disk before the next one is worked on; one that a crash cut short is dropped. JSON gives numbers
    back exactly, so that resumed work ends with the same figures. The file is made with the first row.

    Args:
        facts: All that the rows depend on, such as the model and the options: the first line of the file.

    Raises:
        UserError: The file is of other facts, is no ledger, or cannot be written.

    Example:
        >>> ledger = Ledger(None, {"split": "val"})
        >>> ledger.put("davis16", "bear", {"j": 0.5})
        {'j': 0.5}
        >>> ledger.get("davis16", "bear"), ledger.get("davis16", "boat")
        ({'j': 0.5}, None)
    """

    def __init__(self, path: Path | None, facts: Mapping[str, Any], *, resume: bool = True) -> None:
        self.path = path
        self._head = _line({"rvos-edge": "ledger", "facts": facts})
        self._rows: dict[tuple[str, str], dict[str, Any]] = {}
        if path is None:
            return
        check_replaceable(path)
        remove_folders(make_folders(path.parent))  # a place that cannot be written is refused at once
        with names_path(path):
            lines, size = _read(path) if resume else ([], 0)
            # A head without rows is no work that could be lost.
            if len(lines) > 1:
                _check(path, lines[0]["facts"], json.loads(self._head)["facts"])
                self._rows = {(line["part"], line["name"]): line["row"] for line in lines[1:]}
                if size < path.stat().st_size:
                    os.truncate(path, size)

    def __len__(self) -> int:
        return len(self._rows)

    def get(self, part: str, name: str) -> dict[str, Any] | None:
        """The row of finished work, else None."""
        return self._rows.get((part, name))

    def put(self, part: str, name: str, row: Mapping[str, Any]) -> dict[str, Any]:
        """Keep a row; returns it as it will be read back."""
        line = _line({"part": part, "name": name, "row": row})
        if self.path is not None:
            make_folders(self.path.parent)
            with names_path(self.path), self.path.open("ab" if self._rows else "wb") as file:
                file.write(line if self._rows else self._head + line)
                file.flush()
                os.fsync(file.fileno())
        self._rows[part, name] = json.loads(line)["row"]
        return self._rows[part, name]

    def remove(self) -> None:
        """Delete the file: the work is done."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)


class BatchLedger:
    """The ledger of a batch, in its first output folder.

    A file is finished when it has a row, is the same as then (size and time of its last change), and all its outputs
    are there.

    Raises:
        UserError: The ledger is of another bundle, other queries or other options, or cannot be written.
    """

    def __init__(self, job: BatchJob, *, resume: bool = True) -> None:
        self._job = job
        self._ledger = Ledger(job.folders[0] / LEDGER_NAME, describe(job), resume=resume)

    def finished(self, row: BatchRow) -> bool:
        """True if nothing is left to do for a file."""
        kept = self._ledger.get("", row["name"])
        if kept is None or kept["source"] != _identity(row["source"]):
            return False
        return all(path.exists() for path in self._job.outputs(row["name"]))

    def add(self, row: BatchRow) -> None:
        """Note a finished file."""
        self._ledger.put("", row["name"], {"source": _identity(row["source"]), "frames": row["frames"]})


def plan(
    job: BatchJob, files: Sequence[Path], *, resume: bool = True
) -> tuple[list[BatchRow], list[BatchRow], BatchLedger]:
    """Prepare a batch: all rows, those that are not finished yet, and the ledger.

    Raises:
        UserError: The job cannot be done, or an output would replace an input or another program's file.
    """
    check_folders(job)
    rows = make_rows(files)
    inputs = [*files, find_bundle(job.bundle)]
    check_inputs([path for row in rows for path in job.outputs(row["name"])], inputs)
    ledger = BatchLedger(job, resume=resume)
    todo = [row for row in rows if not ledger.finished(row)]
    for row in todo:
        check_outputs(job.outputs(row["name"]))
    return rows, todo, ledger


def describe(job: BatchJob) -> dict[str, Any]:
    """All that the outputs of a job depend on, apart from the files."""
    bundle = Bundle.open(find_bundle(job.bundle), size=job.options.get("size"))
    options = {name: value for name, value in job.options.items() if name != "threads"}
    flow = options.get("flow")
    return {
        "bundle": bundle.fingerprint,
        # A taught query counts by what its file holds.
        "queries": [f"{text} {sha256_of(Path(text[1:]))}" if text.startswith("@") else text for text in job.queries],
        "options": {
            **options,
            "size": list(bundle.manifest.size),
            "flow": None if flow is None else flow.model_dump(),
            "frames": job.frames,
            "opacity": job.opacity,
            "overlap": job.overlap.value,
        },
    }


def _identity(source: str) -> list[Any]:
    """Path, size and time of the last change; for a folder the newest change and the number of its files."""
    path = Path(source)
    if path.is_dir():
        stats = [entry.stat() for entry in path.iterdir()]
        return [source, len(stats), max((stat.st_mtime_ns for stat in stats), default=0)]
    stat = path.stat()
    return [source, stat.st_size, stat.st_mtime_ns]


def _line(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, allow_nan=False).encode() + b"\n"


def _read(path: Path) -> tuple[list[dict[str, Any]], int]:
    """The whole lines of the file and the bytes that they take."""
    lines: list[dict[str, Any]] = []
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
            f"{path} is of interrupted or finished work with another {', '.join(changed)}; go on with the same, "
            "choose another output, or start anew with --no-resume"
        )
