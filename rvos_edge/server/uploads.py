"""Clips that people upload: into a temporary folder, within limits, and nothing but videos."""

from __future__ import annotations

import shutil
import tempfile
import threading
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from rvos_edge.errors import UserError
from rvos_edge.server.player import Choice
from rvos_edge.streaming.sources import Source, open_source

LARGEST_CLIP = 256 << 20
"""Bytes of one clip ..."""
_ALL_CLIPS = 1 << 30
"""... and of all."""
_MOST_CLIPS = 20
_LONGEST_NAME = 120
_SPARE = 512 << 20
"""Bytes of the disk that are left free."""


class Library:
    """Everything that can be chosen on the page, and the temporary folder of what came through it.

    Only what the command line named, the synthetic camera and uploads can be played: the page opens no paths and no
    addresses of the server's network.

    Args:
        first: What plays at the start.

    Attributes:
        folder: The temporary folder; ``close`` removes it.
    """

    def __init__(self, first: Choice) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="rvos-edge-"))
        self._lock = threading.Lock()
        self._choices = {first.id: first}
        if not first.name.startswith("synthetic"):
            camera = Choice("synthetic", "Synthetic camera", lambda: open_source("synthetic"))
            self._choices[camera.id] = camera

    @property
    def choices(self) -> tuple[Choice, ...]:
        """In the order in which they came."""
        with self._lock:
            return tuple(self._choices.values())

    def find(self, choice: str) -> Choice:
        """A choice by its id.

        Raises:
            KeyError: There is none.
        """
        with self._lock:
            return self._choices[choice]

    def start(self) -> Upload:
        """Begin to take a clip.

        Raises:
            UserError: There are too many already, or the disk is nearly full.
        """
        with self._lock:
            uploads = sum(choice.uploaded for choice in self._choices.values())
        if uploads >= _MOST_CLIPS:
            raise UserError(f"there are {uploads} clips already, and no more are kept; remove one.")
        if shutil.disk_usage(self.folder).free < _SPARE + LARGEST_CLIP:
            raise UserError("the server's disk is nearly full; remove clips, or free some space.")
        return Upload(self.folder / f"{uuid.uuid4().hex}.clip", self._used)

    def add(self, upload: Upload, name: str) -> Choice:
        """Keep an upload that holds a video.

        Args:
            upload: Complete; removed where it is refused.
            name: What the sender calls it; shown, never used as a path.

        Raises:
            UserError: It is no video that can be played.
        """
        shown = " ".join("".join(letter if letter.isprintable() else " " for letter in name).split())
        shown = shown[:_LONGEST_NAME] or "clip"
        try:
            path = upload.finish()

            def open_clip() -> Source:
                source = open_source(str(path))
                source.name = shown
                return source

            try:
                open_clip().close()
            except UserError as error:
                raise UserError(f"{shown} holds no video that can be decoded here; try an mp4 with H.264.") from error
        except BaseException:
            upload.discard()
            raise
        choice = Choice(path.stem, shown, open_clip, uploaded=True)
        with self._lock:
            self._choices[choice.id] = choice
        return choice

    def remove(self, choice: Choice) -> None:
        """Forget an upload and its file; a source that has it open goes on.

        Raises:
            UserError: It was not uploaded.
        """
        if not choice.uploaded:
            raise UserError(f"{choice.name} was not uploaded and cannot be removed.")
        with self._lock:
            self._choices.pop(choice.id, None)
        for path in self.folder.glob(f"{choice.id}.*"):
            path.unlink(missing_ok=True)

    def close(self) -> None:
        """Remove the folder with all that is in it."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _used(self) -> int:
        used = 0
        for path in self.folder.iterdir():
            with suppress(OSError):
                used += path.stat().st_size
        return used


class Upload:
    """A file that is being received.

    Args:
        path: Where to.
        used: Says how many bytes all clips take.
    """

    def __init__(self, path: Path, used: Callable[[], int]) -> None:
        self._path = path
        self._room = _ALL_CLIPS - used()
        self._size = 0
        self._file: BinaryIO = path.open("wb")

    def write(self, data: bytes) -> None:
        """Take the next bytes.

        Raises:
            UserError: They are too many, or the disk is full.
        """
        self._size += len(data)
        if self._size > self._room:
            raise UserError(f"the clips would be larger than {_ALL_CLIPS >> 20} MiB together; remove one.")
        try:
            self._file.write(data)
        except OSError as error:
            raise UserError(f"the clip cannot be stored: {error.strerror or error}; free some space.") from error

    def finish(self) -> Path:
        """Close the file and return its path, with the suffix of what it is.

        Raises:
            UserError: It is none of the kinds that are taken.
        """
        self._file.close()
        with self._path.open("rb") as file:
            suffix = container(file.read(512))
        if suffix is None:
            raise UserError("the clip is not a video that is taken here; send an mp4, mov, mkv, webm or avi.")
        path = self._path.with_suffix(suffix)
        self._path.rename(path)
        self._path = path
        return path

    def discard(self) -> None:
        """Remove it."""
        with suppress(OSError):
            self._file.close()
        self._path.unlink(missing_ok=True)


def container(head: bytes) -> str | None:
    """The suffix of a video by its first bytes, None for anything else.

    A playlist or a list of files must never reach the decoder: it would open what they name.
    """
    if head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free"):
        return ".mp4"
    if head[:4] == b"\x1aE\xdf\xa3":
        return ".webm" if b"webm" in head else ".mkv"
    if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
        return ".avi"
    return None
