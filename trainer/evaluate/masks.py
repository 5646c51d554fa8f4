"""Predicted masks as files, in the layouts of the public evaluation codes and servers."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from rvos_edge.errors import UserError
from rvos_edge.streaming.sinks import indexed_png


class MaskFolder:
    """A folder of predicted masks at the size of the frames.

    ``Annotations/VIDEO/KEY/FRAME.png``: one query each, 0 or 255 (format of the Refer-YouTube-VOS server).
    ``Combined/SET/VIDEO/FRAME.png``: DAVIS-17, ids of all objects in the palette of DAVIS; every SET is a folder of
    results for the public davis2017-evaluation.

    The folders of a video get their names when the video is complete, replacing older ones.

    Args:
        root: The folder; created if missing.

    Raises:
        UserError: The folder is a file or cannot be written.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        with _writing(root):
            root.mkdir(parents=True, exist_ok=True)

    @contextlib.contextmanager
    def video(self, name: str) -> Iterator[VideoMasks]:
        """Collect the masks of a video; after an error none of them is left."""
        masks = VideoMasks(self.root, name)
        try:
            yield masks
            masks.commit()
        finally:
            masks.discard()


class VideoMasks:
    """The masks of one video, under temporary names until ``commit``."""

    def __init__(self, root: Path, video: str) -> None:
        self.root, self.video = root, video
        self._folders: dict[Path, Path] = {}

    def write(self, key: str, frame: str, mask: NDArray[np.bool_]) -> None:
        """Store the mask of a query on a frame, bool [H,W]."""
        folder = self._folder(_inside(self.root / "Annotations", self.video))
        image = mask.view(np.uint8) * np.uint8(255)
        # Level 1: masks compress well at any level, and higher ones are slow.
        content = cv2.imencode(".png", image, [cv2.IMWRITE_PNG_COMPRESSION, 1])[1].tobytes()
        self._put(_inside(folder, key, f"{frame}.png"), content)

    def write_objects(self, runs: str, frame: str, ids: NDArray[np.uint8]) -> None:
        """Store the map of object ids, uint8 [H,W], of a set of expressions."""
        folder = self._folder(_inside(self.root / "Combined", runs, self.video))
        self._put(_inside(folder, f"{frame}.png"), indexed_png(ids))

    def commit(self) -> None:
        """Give the folders their names."""
        for path, partial in self._folders.items():
            with _writing(path):
                shutil.rmtree(path, ignore_errors=True)
                os.replace(partial, path)
        self._folders = {}

    def discard(self) -> None:
        """Remove the temporary folders."""
        for partial in self._folders.values():
            shutil.rmtree(partial, ignore_errors=True)
        self._folders = {}

    def _folder(self, path: Path) -> Path:
        if path not in self._folders:
            partial = path.with_name(f".{path.name}.part")
            # Left by an evaluation that was killed.
            shutil.rmtree(partial, ignore_errors=True)
            self._folders[path] = partial
        return self._folders[path]

    @staticmethod
    def _put(path: Path, content: bytes) -> None:
        with _writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)


def _inside(root: Path, *names: str) -> Path:
    """A path below ``root``; names from a data set's files must not lead out of it."""
    for name in names:
        parts = name.split("/")
        if any(part in ("", ".", "..") for part in parts) or "\\" in name or "\0" in name:
            raise UserError(f"'{name}' cannot be the name of a mask's file or folder; rename it in the data set.")
    return root.joinpath(*names)


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(f"Cannot write {path} ({error.strerror}); choose another folder for --masks.") from error
