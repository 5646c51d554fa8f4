"""Recordings that a killed run left: they get a name, and are cut where they are whole."""

from __future__ import annotations

import os
import shutil
import struct
import time
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path

from rvos_edge.atomic import leftovers, only_writer
from rvos_edge.errors import UserError
from rvos_edge.outputs import free_path, is_ours, mark_file, names_path

STAMPED = r"[0-9]{8}T[0-9]{6}Z"
"""Pattern of `stamp`."""
_FRESH_SECONDS = 60.0
_CONTENT = frozenset({b"ftyp", b"moov", b"mdat"})


def stamp(seconds: float) -> str:
    """Seconds since the epoch as UTC in the name of a file.

    Example:
        >>> stamp(0)
        '19700101T000000Z'
    """
    return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y%m%dT%H%M%SZ")


def rescue(path: Path) -> list[Path]:
    """Give a name to what killed runs recorded for an output or its segments: with their time, never an old one.

    ``door.mp4`` becomes ``door-20261130T081000Z.mp4`` by the time of its last change. What is not whole at the end, a
    line of JSON or a fragment of a video, is cut off.

    Raises:
        UserError: Another run writes the output, or the file system refuses.
    """
    rescued = []
    with names_path(path):
        for other, stem in leftovers(path, f"(?:-{STAMPED}(?:-[0-9]+)?)?"):
            changed = other.stat().st_mtime
            if (whole := _whole(other)) < other.stat().st_size:
                os.truncate(other, whole)
            if not whole:
                other.unlink()
                continue
            if stem == path.stem:
                stem = f"{stem}-{stamp(changed)}"
            if not is_ours(other):
                mark_file(other)
            rescued.append(other.rename(free_path(path.with_name(stem), path.suffix)))
    return rescued


def rescue_folders(folder: Path, name: str) -> list[Path]:
    """Move the recordings ``name`` that killed servers left in their temporary folders into this one; the oldest first.

    Their folders lie beside it, have the same name up to the last hyphen and the same owner, and no process holds them;
    they are removed.
    """
    stem, _, suffix = name.rpartition(".")
    owner = folder.stat().st_uid
    for other in folder.parent.glob(f"{folder.name.rpartition('-')[0]}-*"):
        with suppress(UserError, OSError):
            status = other.lstat()
            # A server that starts holds its folder a moment later.
            fresh = time.time() - status.st_mtime < _FRESH_SECONDS and not any(other.glob(f"*{stem}-*"))
            if status.st_uid != owner or fresh:
                continue
            with only_writer(other) as held:
                if held:
                    rescue(other / name)
                    for file in other.glob(f"{stem}-*"):
                        file.rename(folder / file.name)
                    shutil.rmtree(other, ignore_errors=True)
    return sorted(folder.glob(f"{stem}-*.{suffix}"))


def _whole(path: Path) -> int:
    """Bytes up to the end of the last whole line or fragment; 0 if there is nothing to be read or played."""
    size = path.stat().st_size
    if path.suffix == ".jsonl":
        return path.read_bytes().rfind(b"\n") + 1
    if path.suffix not in (".mp4", ".mov"):
        return size
    position, whole, found = 0, 0, set()
    with path.open("rb") as file:
        while position + 16 <= size:
            file.seek(position)
            length, kind, long = struct.unpack(">I4sQ", file.read(16))
            length = long if length == 1 else length
            if length < 8 or position + length > size:
                break
            position += length
            found.add(kind)
            if kind != b"moof":  # the head of a fragment
                whole = position
    return whole if found >= _CONTENT else 0
