"""The rule for outputs: a file or folder is written where there is none, or where this program wrote the one there.

Files carry a mark that costs readers nothing: a ``tEXt`` chunk in a PNG, a ``free`` box at the end of an mp4, an
element ``Void`` after a Matroska, the bare name after a GIF or JPEG, a comment at the top of a YAML file, and the keys
of a JSON document. A folder is known by all of its files.
"""

from __future__ import annotations

import itertools
import json
import os
import stat
import struct
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path

from rvos_edge.errors import UserError

_PNG_START = b"\x89PNG\r\n\x1a\n"
_PNG_HEAD = len(_PNG_START) + 25
"""Bytes of the signature and the header chunk, which has to be the first."""
_PNG_TEXT = b"tEXt" + b"Software\0rvos-edge"
_PNG_MARK = struct.pack(">I", len(_PNG_TEXT) - 4) + _PNG_TEXT + struct.pack(">I", zlib.crc32(_PNG_TEXT))
_MARK = b"rvos-edge"
_MARK_HEADS = {
    **dict.fromkeys((".mp4", ".mov"), struct.pack(">I", 8 + len(_MARK)) + b"free"),
    **dict.fromkeys((".mkv", ".webm"), bytes((0xEC, 0x80 | len(_MARK)))),
}
"""Bytes before the mark at the end of a file, by its suffix."""
_MARKED = frozenset({*_MARK_HEADS, ".gif", ".jpg", ".jpeg"})
_DOCUMENTS = (
    {"frame", "timestamp", "source", "queries", "timings_ms"},  # run --json
    {"image_id", "file_name", "category_id", "text", "segmentation"},  # run --rle
    {"event", "query", "frame", "timestamp"},  # run --events
    {"event", "camera", "time", "message", "cause"},
    {"rvos-edge", "facts"},  # a ledger
    {"rvos-edge", "annotations", "images", "categories"},  # run --coco
    {"model", "command"},  # eval --json
    {"format_version", "network", "sentence", "vectors"},  # a taught query
    {"format_version", "made", "tool", "machine", "runs"},  # bench --json
    {"task", "init_from", "checkpoint_every"},  # the config.json of a training run
    {"name", "stages"},  # and of one in several stages
)
"""Keys by which a JSON document, or the first of several lines, is known."""
YAML_MARK = "# rvos-edge"
"""Beginning of a YAML file of options."""
XML_MARK = "<!-- rvos-edge -->"
"""Comment in an XML file, which CVAT does not keep when it exports a corrected one."""
_FOLDERS = (
    (
        ("manifest.json", {"format_version", "graphs"}),
        ("manifest.json", "tokenizer.json", "card.json", "README.md", "reference.npz", "*.onnx", "*.data", "engines/*"),
    ),
    (
        ("config.json", {"preset", "backbone"}),
        ("model.safetensors", "config.json", "card.json", "tokenizer.json", "training.pt"),
    ),
    (("report.json", {"data", "runs"}), ("index.html", "report.json", "*.png", "*.pdf", "*.csv", "*.tex")),
    (
        ("instances.json", {"rvos-edge", "annotations", "images", "categories"}),
        ("instances.json", "annotations.xml", "label-studio.json", "data.yaml", "images/*.jpg", "labels/*.txt"),
    ),
)
"""Bundles, checkpoints, reports and data sets: the document by which one is known, its keys, and the files in it."""
_NEVER_SHOWN = (".DS_Store", "Thumbs.db", ".*.part-*")
"""Files that file managers leave in any folder, and unfinished outputs of a run that was killed."""


def check_outputs(outputs: Iterable[str | Path | None], inputs: Iterable[str | Path | None] = ()) -> None:
    """Refuse outputs that are an input, hold one, or are something that this program did not write; call it before
    anything is read or computed. Entries that are None are ignored.
    """
    written = [Path(output) for output in outputs if output is not None]
    check_inputs(written, inputs)
    for path in written:
        check_replaceable(path)


def check_inputs(outputs: Iterable[Path], inputs: Iterable[str | Path | None]) -> None:
    """Refuse outputs that are an input, or a folder that holds one."""
    read = {os.path.realpath(path): str(path) for path in inputs if path is not None and os.path.exists(path)}
    parents = {str(parent): name for path, name in read.items() for parent in Path(path).parents}
    for path in outputs:
        check_name(path)
        real = os.path.realpath(path)
        if real in read and not is_special(path):
            raise UserError(f"{path} is the source itself, or another input; choose another output")
        if real in parents:
            raise UserError(f"{path} holds the input {parents[real]}; choose another output")


def check_replaceable(path: Path) -> None:
    """Refuse a path at which something lies that this program did not write, or that cannot be looked at."""
    with names_path(path):
        if path.exists() and not is_ours(path):
            what = "holds what" if path.is_dir() else "exists and is something that"
            raise UserError(f"{path} {what} rvos-edge did not write; choose another output, or remove it first")


def check_name(path: str | Path) -> None:
    """Refuse a name that is not UTF-8, which neither OpenCV nor JSON can take."""
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        raise UserError(f"the name {str(path)!a} is not UTF-8; rename it") from error


def is_special(path: Path) -> bool:
    """True for pipes, sockets and character devices, which are written through and never replaced."""
    if not path.exists():
        return False
    mode = path.stat().st_mode
    return stat.S_ISFIFO(mode) or stat.S_ISCHR(mode) or stat.S_ISSOCK(mode)


def is_ours(path: Path) -> bool:
    """True for a file or folder that this program wrote, or that is empty.

    Folders are bundles, checkpoints and reports without other files, and those that hold nothing but masks.

    Raises:
        OSError: It cannot be read.
    """
    if path.is_dir():
        return _is_known_folder(path) or all(file.suffix == ".png" and _is_marked(file) for file in _files(path))
    return is_special(path) or (path.is_file() and _is_marked(path))


def free_path(path: Path, suffix: str = "") -> Path:
    """The path, or where it exists the first of NAME-2, NAME-3, ... that does not; ``suffix`` is added to each."""
    names = itertools.chain([path.name], (f"{path.name}-{number}" for number in itertools.count(2)))
    return next(free for name in names if not (free := path.with_name(name + suffix)).exists())


def mark_png(content: bytes) -> bytes:
    """Add the mark to the bytes of a PNG."""
    return content[:_PNG_HEAD] + _PNG_MARK + content[_PNG_HEAD:]


def mark_file(path: Path) -> None:
    """Add the mark to a finished picture or video.

    Raises:
        OSError: It cannot be written.
    """
    if path.suffix.lower() == ".png":
        path.write_bytes(mark_png(path.read_bytes()))
        return
    with path.open("ab") as file:
        file.write(_MARK_HEADS.get(path.suffix.lower(), b"") + _MARK)


@contextmanager
def names_path(path: Path | str) -> Iterator[None]:
    """Turn errors of the system into a `UserError` that names the path."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror or error}; choose another path") from error


def _files(folder: Path) -> Iterator[Path]:
    for path in folder.rglob("*"):
        if not (path.is_dir() or any(fnmatch(path.name, name) for name in _NEVER_SHOWN)):
            yield path


def _is_known_folder(folder: Path) -> bool:
    return any(
        (folder / head).is_file()
        and keys <= _document(folder / head).keys()
        and all(any(fnmatch(file.relative_to(folder).as_posix(), name) for name in names) for file in _files(folder))
        for (head, keys), names in _FOLDERS
    )


def _is_marked(path: Path) -> bool:
    with path.open("rb") as file:
        head = file.read(1024)
        if not head:
            return True
        if head.startswith(_PNG_START):
            return head[_PNG_HEAD:].startswith(_PNG_MARK)
        if head.startswith(YAML_MARK.encode()) or XML_MARK.encode() in head:
            return True
        file.seek(max(0, path.stat().st_size - len(_MARK)))
        if file.read() == _MARK and path.suffix.lower() in _MARKED:
            return True
    return head.startswith(b"{") and any(keys <= _document(path).keys() for keys in _DOCUMENTS)


def _document(path: Path) -> dict[str, object]:
    """A JSON document, or the first of several lines; empty if it is neither."""
    with path.open("rb") as file:
        line = file.readline()
        for content in (line, line + file.read() if line.strip() == b"{" else b""):
            try:
                value = json.loads(content)
            except (ValueError, RecursionError):
                continue
            return value if isinstance(value, dict) else {}
    return {}
