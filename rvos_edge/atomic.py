"""Files and folders that get their name when they are whole; the one writer of both.

Temporary names are unique and locked while their process lives: a second run with the same output is refused, and what
a killed run left is removed. Links stay, and their targets are written.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

from rvos_edge.errors import UserError
from rvos_edge.outputs import check_name, check_replaceable, is_special, names_path

try:
    import fcntl
except ModuleNotFoundError:  # Windows: there temporary names are unique, and no second run is refused
    fcntl = None  # type: ignore[assignment]

_SYNC_SECONDS = 2.0
_held: set[int] = set()
"""Locks of this process."""


class PendingFile:
    """A file that gets its name by `commit`.

    Missing parent folders are made at once, so that a path that cannot be written is refused before the work starts.

    Args:
        path: The file. A pipe or a device is written through: `partial` is the path itself then.

    Attributes:
        partial: The path to write to; exists and is empty.

    Raises:
        UserError: The path cannot be written, another run writes it, or this program did not write the file there.

    Example:
        >>> import tempfile
        >>> file = PendingFile(Path(tempfile.mkdtemp()) / "deep" / "masks.json")
        >>> _ = file.partial.write_text("{}")
        >>> file.commit()
        >>> file.path.read_text()
        '{}'
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if self.path.is_dir():
            raise UserError(f"{path} is a folder; give the name of a file")
        check_name(self.path)
        check_replaceable(self.path)
        self._lock: int | None = None
        self._synced = time.monotonic()
        self._syncing: threading.Thread | None = None
        self._made: list[Path] = []
        with names_path(self.path):
            self.through = is_special(self.path)
            self._target = _target(self.path)
        if self.through:
            self.partial = self.path
            return
        self._made = make_folders(self._target.parent)
        self.partial = _temporary(self._target)
        try:
            with names_path(self.path):
                _remove_leftovers(self._target)
                self.partial.touch(exist_ok=False)
                self._lock = _lock(self.partial, self.path)
        except BaseException:
            self.discard()
            raise

    def sync(self) -> None:
        """Have what was written brought to the disk, at most every two seconds: a power cut costs no more than that."""
        if self.through or time.monotonic() < self._synced + _SYNC_SECONDS:
            return
        self._synced = time.monotonic()
        if self._syncing is None or not self._syncing.is_alive():  # a slow disk must not stop the stream
            self._syncing = threading.Thread(target=_sync, args=[self.partial], name="sync", daemon=True)
            self._syncing.start()

    def commit(self) -> None:
        """Give the file its name, replacing an older one."""
        if not self.through:
            with names_path(self.path):
                os.replace(self.partial, self._target)
        self._unlock()

    def discard(self) -> None:
        """Remove the temporary file and the folders that were made for it."""
        if not self.through:
            self.partial.unlink(missing_ok=True)
            remove_folders(self._made)
        self._unlock()

    def _unlock(self) -> None:
        lock, self._lock = self._lock, None
        if lock is not None:
            _unlock(lock)


@contextlib.contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """Replace a file of this program's own, such as a manifest or a cache, at the end; after an error it is as before.

    Yields the path to write to; missing parent folders are made. A pipe or a device is written through.

    Raises:
        OSError: It cannot be written.
    """
    if is_special(path):
        yield path
        return
    target = _target(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary(target)
    try:
        yield temporary
        os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_output(path: Path, content: str | bytes) -> None:
    """Write a whole file for the user; one that this program did not write there is refused."""
    file = PendingFile(path)
    try:
        with names_path(path):
            file.partial.write_bytes(content.encode() if isinstance(content, str) else content)
        file.commit()
    except BaseException:
        file.discard()
        raise


@contextlib.contextmanager
def new_directory(path: Path, *, cache: bool = False) -> Iterator[Path]:
    """A temporary directory beside ``path`` that takes its place at the end; after an error nothing is left.

    An older directory at ``path`` stays whole until then.

    Args:
        cache: Replace whatever is there, also beside another run: for a place that is this program's alone.

    Raises:
        UserError: Another run writes there, or this program did not write the directory there.
        OSError: It cannot be made or moved; the old one is back in its place.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> with new_directory(folder / "bundle") as temporary:
        ...     _ = (temporary / "manifest.json").write_text("{}")
        >>> (folder / "bundle" / "manifest.json").read_text()
        '{}'
    """
    if path.exists() and not path.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path))
    target = _target(path)
    if not cache:
        check_replaceable(path)
        check_replaceable(_old(target))
    temporary, lock = _temporary(target), None
    new_parents = [parent for parent in target.parents if not parent.exists()]
    try:
        if not cache:
            _remove_leftovers(target)
        temporary.mkdir(parents=True)
        lock = _lock(temporary, path)
        yield temporary
        _replace(temporary, target)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        recover(target)
        remove_folders(new_parents)
        raise
    finally:
        if lock is not None:
            _unlock(lock)


def recover(path: Path) -> None:
    """Put back the old directory where a crash came between the two renames of a replacement."""
    old = _old(path)
    if old.is_dir() and not path.exists():
        os.rename(old, path)


@contextlib.contextmanager
def only_writer(folder: Path) -> Iterator[bool]:
    """Hold a folder into which files are written one by one; yields False where the system has no locks.

    Raises:
        UserError: Another run writes into it.
    """
    lock = _lock(folder, folder)
    try:
        yield lock is not None
    finally:
        if lock is not None:
            _unlock(lock)


def make_folders(folder: Path) -> list[Path]:
    """Make `folder` and its missing parents; returns those that were made, innermost first.

    Raises:
        UserError: They cannot be made.
    """
    missing = []
    for candidate in (folder, *folder.parents):
        if candidate.exists():
            break
        missing.append(candidate)
    with names_path(folder):
        folder.mkdir(parents=True, exist_ok=True)
    return missing


def remove_folders(folders: list[Path]) -> None:
    """Remove folders that were made here, unless something else was put there since."""
    for folder in folders:
        with contextlib.suppress(OSError):
            folder.rmdir()


@contextlib.contextmanager
def unless_refused(folder: Path, *names: str) -> Iterator[None]:
    """Remove ``names`` from a folder again, and the folders made for them, where the work ends with a `UserError`
    before anything else was written there.
    """
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    before = set(folder.iterdir()) if folder.is_dir() else set()
    try:
        yield
    except (UserError, SystemExit):  # a rank leaves by SystemExit where another one was refused
        new = set(folder.iterdir()) - before if folder.is_dir() else set()
        if new <= {folder / name for name in names}:
            for path in new:
                if path.is_dir():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink(missing_ok=True)
            remove_folders(made)
        raise


def _target(path: Path) -> Path:
    """The file or folder that a link leads to, else the path itself."""
    return Path(os.path.realpath(path)) if path.is_symlink() else path


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.stem}.part-{os.getpid()}-{uuid.uuid4().hex[:8]}{path.suffix}")


def _sync(path: Path) -> None:
    with contextlib.suppress(OSError):  # it has its name already, or the disk fails, which the next write tells
        file = os.open(path, os.O_RDONLY)
        try:
            os.fsync(file)
        finally:
            os.close(file)


def leftovers(path: Path, segments: str = "") -> Iterator[tuple[Path, str]]:
    """Partial files of this output that killed runs left, locked, each with its stem; a living run's is refused."""
    stem, suffix = re.escape(path.stem), re.escape(path.suffix)
    names = re.compile(rf"\.({stem}{segments})\.part-[0-9]+-[0-9a-f]{{8}}{suffix}")
    for other in list(path.parent.iterdir()) if fcntl is not None and path.parent.is_dir() else ():
        if (match := names.fullmatch(other.name)) and (lock := _lock(other, path)) is not None:
            yield other, match[1]
            _unlock(lock)


def _remove_leftovers(path: Path) -> None:
    for other, _ in leftovers(path):
        if other.is_dir():
            shutil.rmtree(other, ignore_errors=True)
        else:
            other.unlink(missing_ok=True)


def _lock(path: Path, output: Path) -> int | None:
    """Lock a file or a folder until the number that is returned is closed, or refuse one that another run holds; None
    where the system has no locks.
    """
    if fcntl is None:
        return None
    lock = None
    try:
        lock = os.open(path, os.O_RDONLY)
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if lock is not None:
            os.close(lock)
        if isinstance(error, BlockingIOError):
            raise UserError(
                f"{output} is being written by another run; wait for it, or choose another output"
            ) from error
        return None  # a file system without locks, or the other run has just ended
    _held.add(lock)
    return lock


def _unlock(lock: int) -> None:
    _held.discard(lock)
    os.close(lock)


def _leave_locks_to_the_parent() -> None:
    # A forked worker that outlives a killed run must not keep its outputs locked.
    for lock in _held:
        os.close(lock)
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_locks_to_the_parent)


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
