"""Directories that are replaced whole or not at all."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def new_directory(path: Path) -> Iterator[Path]:
    """A temporary directory beside ``path`` that takes its place at the end; after an error nothing is left.

    An older directory at ``path`` stays whole until then.

    Raises:
        OSError: It cannot be made or moved; the old one is back in its place.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> with new_directory(folder / "bundle") as temporary:
        ...     _ = (temporary / "manifest.json").write_text("{}")
        >>> (folder / "bundle" / "manifest.json").read_text()
        '{}'
    """
    temporary = path.with_name(f".{path.name}.part")
    new_parents = [parent for parent in path.parents if not parent.exists()]
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir(parents=True)
        yield temporary
        _replace(temporary, path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        recover(path)
        for parent in new_parents:
            with contextlib.suppress(OSError):  # something else may have come to lie there
                parent.rmdir()
        raise


def recover(path: Path) -> None:
    """Put back the old directory where a crash came between the two renames of a replacement."""
    old = _old(path)
    if old.is_dir() and not path.exists():
        os.rename(old, path)


def _replace(temporary: Path, path: Path) -> None:
    # A directory cannot be replaced in one step: the old one steps aside, and recover finds it after a crash.
    old = _old(path)
    shutil.rmtree(old, ignore_errors=True)
    if path.exists():
        os.rename(path, old)
    os.rename(temporary, path)
    shutil.rmtree(old, ignore_errors=True)


def _old(path: Path) -> Path:
    return path.with_name(f".{path.name}.old")
