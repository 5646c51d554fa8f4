"""The structure of uploaded videos, checked before a decoder sees them.

A playlist or a list of files must never reach FFmpeg: it would open what they name. The first bytes are not enough, for
any file can begin like a video; here the whole chain of boxes must fit the file.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

_MP4_BOXES = frozenset(
    b"ftyp moov mdat free skip wide uuid moof mfra sidx ssix styp pdin meta emsg prft udta pnot".split()
)
_EBML, _SEGMENT, _DOC_TYPE, _TRACKS = 0x1A45DFA3, 0x18538067, 0x4282, 0x1654AE6B
_SEGMENT_PARTS = frozenset(
    (_TRACKS, 0x114D9B74, 0x1549A966, 0x1C53BB6B, 0x1F43B675, 0x1043A770, 0x1254C367, 0x1941A469, 0xEC, 0xBF)
)
_MOST_PARTS = 100_000


def container_suffix(path: Path) -> str | None:
    """Suffix of a video by its container: ".mp4" (also QuickTime), ".mkv", ".webm" or ".avi".

    Args:
        path: The file.

    Returns:
        The suffix; None where the parts of the file do not fit together as one of these, or no tracks are among them.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        for check in (_mp4, _matroska, _avi):
            file.seek(0)
            try:
                if suffix := check(file, size):
                    return suffix
            except (ValueError, struct.error):
                continue
    return None


def _mp4(file: BinaryIO, size: int) -> str | None:
    """ISO base media: boxes of a 32-bit size with a name, to the end of the file; the movie holds a track."""
    names = set()
    for name, start, end in _boxes(file, 0, size):
        if name not in _MP4_BOXES:
            return None
        names.add(name)
        if name == b"moov":
            names.update(child for child, _, _ in _boxes(file, start, end))
    return ".mp4" if names >= {b"moov", b"mvhd", b"trak"} and names & {b"mdat", b"moof"} else None


def _boxes(file: BinaryIO, at: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Name, start of the content and end of each box."""
    for _ in range(_MOST_PARTS):
        if at == end:
            return
        file.seek(at)
        length, name = struct.unpack(">I4s", file.read(8))
        head = 8
        if length == 1:
            (length,), head = struct.unpack(">Q", file.read(8)), 16
        elif length == 0:  # to the end
            length = end - at
        if length < head or at + length > end:
            raise ValueError(name)
        yield name, at + head, at + length
        at += length
    raise ValueError("too many boxes")


def _matroska(file: BinaryIO, size: int) -> str | None:
    """EBML: a header that names Matroska or WebM, then a segment whose parts are known and hold tracks."""
    (header, start, end), *_ = parts = list(_elements(file, 0, size))
    segment = next((part for part in parts if part[0] == _SEGMENT), None)
    if header != _EBML or segment is None:
        return None
    kind = b""
    for name, first, last in _elements(file, start, end):
        if name == _DOC_TYPE:
            file.seek(first)
            kind = file.read(min(16, last - first)).rstrip(b"\0")
    names = [name for name, _, _ in _elements(file, *segment[1:])]
    if _TRACKS not in names or not _SEGMENT_PARTS.issuperset(names):
        return None
    return {b"webm": ".webm", b"matroska": ".mkv"}.get(kind)


def _elements(file: BinaryIO, at: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Id, start of the content and end of each EBML element; one of unknown size, as in live streams, is the last."""
    for _ in range(_MOST_PARTS):
        if at == end:
            return
        file.seek(at)
        name, _ = _number(file, keep_marker=True)
        length, unknown = _number(file, keep_marker=False)
        start = file.tell()
        if unknown:
            length = end - start
        if start + length > end:
            raise ValueError(name)
        yield name, start, start + length
        at = start + length
    raise ValueError("too many elements")


def _number(file: BinaryIO, *, keep_marker: bool) -> tuple[int, bool]:
    """EBML's number of variable length, and True where all its bits are set: unknown."""
    first = file.read(1)
    extra = 8 - first[0].bit_length() if first else 8
    rest = file.read(extra)
    if extra > 7 or len(rest) < extra:
        raise ValueError("no number")
    value = int.from_bytes(first + rest, "big")
    mask = (1 << 7 * (extra + 1)) - 1
    return (value if keep_marker else value & mask), value & mask == mask


def _avi(file: BinaryIO, size: int) -> str | None:
    """RIFF: chunks of a 32-bit size with a name, among them the lists of headers and of frames."""
    lists: set[bytes] = set()
    at = 0
    while at < size:
        file.seek(at)
        name, length, kind = struct.unpack("<4sI4s", file.read(12))
        if name != b"RIFF" or kind != (b"AVIX" if at else b"AVI ") or at + 8 + length > size:
            return None
        lists |= _chunks(file, at + 12, at + 8 + length)
        at += 8 + length + length % 2
    return ".avi" if lists >= {b"hdrl", b"movi"} else None


def _chunks(file: BinaryIO, at: int, end: int) -> set[bytes]:
    """Kinds of the lists between two places."""
    lists: set[bytes] = set()
    for _ in range(_MOST_PARTS):
        if at >= end:
            return lists
        file.seek(at)
        name, length, kind = struct.unpack("<4sI4s", file.read(12))
        if at + 8 + length > end or not (name + kind[: 4 * (name == b"LIST")]).isascii():
            raise ValueError(name)
        if name == b"LIST":
            lists.add(kind)
        at += 8 + length + length % 2
    raise ValueError("too many chunks")
