"""Predicted masks as files, in the layouts of the public evaluation codes and servers."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from rvos_edge.atomic import new_directory
from rvos_edge.errors import UserError
from rvos_edge.outputs import mark_png
from rvos_edge.streaming.sinks import indexed_png


class MaskFolder:
    """A folder of predicted masks at the size of the frames.

    ``Annotations/VIDEO/KEY/FRAME.png``: one query each, 0 or 255 (format of the Refer-YouTube-VOS server).
    ``Combined/SET/VIDEO/FRAME.png``: DAVIS-17, ids of all objects in the palette of DAVIS; every SET is a folder of
    results for the public davis2017-evaluation.

    The folders of a video get their names when the video is complete, replacing older ones.

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
        with _writing(self.root), contextlib.ExitStack() as folders:
            yield VideoMasks(self.root, name, folders)


class VideoMasks:
    """The masks of one video, in folders that get their names when ``folders`` is closed."""

    def __init__(self, root: Path, video: str, folders: contextlib.ExitStack) -> None:
        self.root, self.video = root, video
        self._stack = folders
        self._folders: dict[Path, Path] = {}

    def write(self, key: str, frame: str, mask: NDArray[np.bool_]) -> None:
        """Store the mask of a query on a frame, bool [H,W]."""
        folder = self._folder(_inside(self.root / "Annotations", self.video))
        image = mask.view(np.uint8) * np.uint8(255)
        # Level 1: masks compress well at any level, and higher ones are slow.
        content = cv2.imencode(".png", image, [cv2.IMWRITE_PNG_COMPRESSION, 1])[1].tobytes()
        self._put(_inside(folder, key, f"{frame}.png"), mark_png(content))

    def write_objects(self, runs: str, frame: str, ids: NDArray[np.uint8]) -> None:
        """Store the map of object ids, uint8 [H,W], of a set of expressions."""
        folder = self._folder(_inside(self.root / "Combined", runs, self.video))
        self._put(_inside(folder, f"{frame}.png"), indexed_png(ids))

    def _folder(self, path: Path) -> Path:
        if path not in self._folders:
            self._folders[path] = self._stack.enter_context(new_directory(path))
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
