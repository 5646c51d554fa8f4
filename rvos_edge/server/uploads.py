"""Uploaded clips and photos: kept in a temporary folder, within limits, and nothing else."""

from __future__ import annotations

import shutil
import tempfile
import threading
import uuid
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import BinaryIO

from rvos_edge.atomic import only_writer
from rvos_edge.demo import CLIP, QUERIES
from rvos_edge.errors import UserError
from rvos_edge.server.player import Choice
from rvos_edge.server.single_image import decode_picture, picture_size
from rvos_edge.streaming.sources import ImageFiles, Source, VideoFile, open_source

LARGEST_CLIP = 256 << 20
"""Largest clip, in bytes."""
_ALL_CLIPS = 1 << 30
"""Limit of all clips together, those being received included, in bytes."""
_MOST_CLIPS = 20
_LARGEST_FRAME = 4096 * 2304
"""Largest frame, in pixels: a decoder holds a dozen frames."""
_LONGEST_CLIP = 3600
"""Longest clip, in seconds."""
_LONGEST_NAME = 120
_FORMATS = "mov,mp4,matroska,webm,avi"
"""Containers that are opened: a playlist must never be, for FFmpeg would open what it names."""
_HEAD = 1 << 20
"""Bytes within which a photo states its size, after whatever its camera wrote."""
_SPARE = 512 << 20
"""Space to leave free on the disk, in bytes."""


class Library:
    """All sources that the page can choose, and the temporary folder of uploads.

    Only the source that the command line named, the sample, the synthetic camera and uploads can be played: the page
    opens no paths and no addresses of the server's network.
    """

    def __init__(self, first: Choice) -> None:
        try:
            # The number of the source: the next server of it finds the recordings, should this one be killed.
            self.folder = Path(tempfile.mkdtemp(prefix=f"rvos-edge-{zlib.crc32(first.name.encode()):08x}-"))
        except OSError as error:
            raise UserError(
                "--serve needs a temporary folder, and none can be written; set TMPDIR to a folder that can be."
            ) from error
        self._held = ExitStack()
        self._held.enter_context(only_writer(self.folder))
        self._lock = threading.Lock()
        # One thread, because each thread keeps some of the memory of the frames that it decoded.
        self._checker = ThreadPoolExecutor(1, "clips")
        sample = Choice("sample", "Sample clip", lambda: open_source(str(CLIP)), examples=QUERIES)
        self._choices = {first.id: first}
        if first.name != CLIP.name:
            self._choices[sample.id] = sample
        self._sizes: dict[str, int] = {}
        if not first.name.startswith("synthetic"):
            camera = Choice("synthetic", "Synthetic camera", lambda: open_source("synthetic"))
            self._choices[camera.id] = camera

    @property
    def choices(self) -> tuple[Choice, ...]:
        """All sources, in the order in which they came."""
        with self._lock:
            return tuple(self._choices.values())

    def find(self, choice: str) -> Choice:
        """The source with this id; KeyError where there is none."""
        with self._lock:
            return self._choices[choice]

    def start(self) -> Upload:
        """Begin to receive a clip, if there are not too many."""
        with self._lock:
            if len(self._sizes) >= _MOST_CLIPS:
                raise UserError(f"there are {len(self._sizes)} clips already, and no more are kept; remove one.")
            upload = Upload(self, uuid.uuid4().hex)
            self._sizes[upload.id] = 0
            return upload

    def grow(self, upload: str, size: int) -> None:
        """Count bytes that an upload is about to store, or refuse them: all clips together have a limit, and the disk
        has.
        """
        with self._lock:
            if sum(self._sizes.values()) + size > _ALL_CLIPS:
                raise UserError(f"the clips would be larger than {_ALL_CLIPS >> 20} MiB together; remove one.")
            if shutil.disk_usage(self.folder).free < _SPARE + size:
                raise UserError("the server's disk is nearly full; remove clips, or free some space.")
            self._sizes[upload] += size

    def forget(self, upload: str) -> None:
        """Remove an upload's file, and no longer count it."""
        for path in self.folder.glob(f"{upload}.*"):
            path.unlink(missing_ok=True)
        with self._lock:
            self._choices.pop(upload, None)
            self._sizes.pop(upload, None)

    def add(self, upload: Upload, name: str) -> Choice:
        """Keep a complete upload that holds a video or a photo (JPEG or PNG).

        Args:
            upload: The upload; the caller discards it after an error.
            name: The sender's name for it; shown, never used as a path.

        Raises:
            UserError: It is neither, or it is too large or too long.
        """
        shown = " ".join("".join(letter if letter.isprintable() else " " for letter in name).split())
        shown = shown[:_LONGEST_NAME] or "clip"
        path = upload.finish()

        with path.open("rb") as file:
            photo = picture_size(file.read(_HEAD)) is not None

        def open_clip() -> Source:
            if photo:
                return ImageFiles([path], name=shown)
            return VideoFile(path, name=shown, formats=_FORMATS, limit=_LARGEST_FRAME)

        def check() -> None:
            if photo:
                decode_picture(path.read_bytes())
                return
            with VideoFile(path, name=shown, formats=_FORMATS, limit=_LARGEST_FRAME) as source:
                seconds = source.duration()
            if seconds > _LONGEST_CLIP:
                raise UserError(f"{shown} takes {seconds:,.0f} s; send at most {_LONGEST_CLIP:,} s.")

        self._checker.submit(check).result()
        choice = Choice(upload.id, shown, open_clip, uploaded=True)
        with self._lock:
            self._choices[choice.id] = choice
        return choice

    def remove(self, choice: Choice) -> None:
        """Forget an upload and its file; a source that has it open goes on."""
        if not choice.uploaded:
            raise UserError(f"{choice.name} was not uploaded and cannot be removed.")
        self.forget(choice.id)

    def close(self) -> None:
        """Remove the folder with all that is in it."""
        self._checker.shutdown(wait=False)
        shutil.rmtree(self.folder, ignore_errors=True)
        self._held.close()


class Upload:
    """A file that is being received."""

    def __init__(self, library: Library, id: str) -> None:
        self.id = id
        self._library = library
        self._path = library.folder / f"{id}.clip"
        self._file: BinaryIO = self._path.open("wb")

    def write(self, data: bytes) -> None:
        """Store the next bytes; they are refused where they are too many, or the disk is full."""
        self._library.grow(self.id, len(data))
        try:
            self._file.write(data)
        except OSError as error:
            raise UserError(f"the clip cannot be stored: {error.strerror or error}; free some space.") from error

    def finish(self) -> Path:
        """Close the file and return its path."""
        try:
            self._file.close()
        except OSError as error:
            raise UserError(f"the clip cannot be stored: {error.strerror or error}; free some space.") from error
        return self._path

    def discard(self) -> None:
        """Remove the file."""
        with suppress(OSError):
            self._file.close()
        self._library.forget(self.id)
