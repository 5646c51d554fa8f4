"""Masks as indexed PNGs, the way DAVIS stores them."""

from __future__ import annotations

import os
import struct
import zlib
from contextlib import ExitStack
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from rvos_edge.atomic import make_folders, new_file, only_writer, remove_folders
from rvos_edge.errors import UserError
from rvos_edge.outputs import check_name, check_replaceable, mark_png, names_path
from rvos_edge.result import Overlap, Result
from rvos_edge.streaming.overlay import palette
from rvos_edge.streaming.sinks.base import Look, Sink, draw_look
from rvos_edge.streaming.sources import Frame


class MaskSink(Sink):
    """Writes indexed PNGs with the DAVIS palette, called after `Frame.name`: 0 is background, i+1 is query i.

    With several queries and `Overlap.KEEP` each has a folder of its own, "1", "2", ..., with its whole mask. With
    `Overlap.HIGHER` one file per frame holds all queries; where they overlap the later one wins, the rule of DAVIS-17.
    A file is whole as soon as it has its name.

    Args:
        folder: Made if it is missing; masks of the same name are replaced.
        locked: The caller holds the folder, so that no other run writes into it.

    Raises:
        UserError: The folder cannot be written, another run writes into it, or it holds PNGs of other programs.
    """

    def __init__(self, folder: str | Path, *, overlap: Overlap = Overlap.HIGHER, locked: bool = False) -> None:
        self.folder = Path(folder)
        self._overlap = overlap
        self._apart: bool | None = None  # decided by the first frame
        check_name(self.folder)
        if self.folder.exists() and not self.folder.is_dir():
            raise UserError(f"{folder} is a file; masks need a folder, one PNG is written per frame")
        for path in [*self.folder.glob("*.png"), *self.folder.glob("[0-9]*/*.png")]:
            check_replaceable(path)
        self._made = make_folders(self.folder)
        self._written: list[Path] = []
        self._held = ExitStack()
        try:
            if not os.access(self.folder, os.W_OK):
                raise UserError(f"{folder} cannot be written; choose another folder or change its permissions")
            if not locked:
                self._held.enter_context(only_writer(self.folder))
        except UserError:
            self.abort()
            raise

    def write(self, frame: Frame, result: Result, overlay: NDArray[np.uint8] | None) -> None:
        self._apart = self._overlap is Overlap.KEEP and len(result.masks) > 1 if self._apart is None else self._apart
        if not self._apart:
            self._put(self.folder / f"{frame.name}.png", indexed_png(label_image(result.masks)))
            return
        for value, mask in enumerate(result.masks, start=1):
            folder = self.folder / str(value)
            if not folder.is_dir():
                self._made = make_folders(folder) + self._made
            self._put(folder / f"{frame.name}.png", indexed_png(mask * np.uint8(min(value, 255))))

    def _put(self, path: Path, content: bytes) -> None:
        with names_path(path), new_file(path) as temporary:
            temporary.write_bytes(content)
        self._written.append(path)

    def close(self) -> None:
        self._made, self._written = [], []
        self._held.close()

    def abort(self) -> None:
        for path in self._written:
            path.unlink(missing_ok=True)
        remove_folders(self._made)
        self.close()


class CutoutSink(MaskSink):
    """Writes one PNG per frame with an alpha channel: opaque where a query is; see ``MaskSink``."""

    def write(self, frame: Frame, result: Result, overlay: NDArray[np.uint8] | None) -> None:
        picture = draw_look(Look.CUTOUT, frame, result, overlay)
        self._put(self.folder / f"{frame.name}.png", mark_png(cv2.imencode(".png", picture)[1].tobytes()))


def label_image(masks: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Masks bool [Q,H,W], at most 255, as one uint8 [H,W] image: 0 background, i+1 query i, a later query over an
    earlier one.
    """
    if len(masks) > 255:
        raise UserError(f"{len(masks)} queries do not fit into an indexed PNG; give at most 255")
    labels = np.zeros(masks.shape[1:], dtype=np.uint8)
    for value, mask in enumerate(masks, start=1):
        labels[mask] = value
    return labels


def indexed_png(labels: NDArray[np.uint8]) -> bytes:
    """A PNG (8 bit, palette of DAVIS) whose pixel values are `labels` [H,W]. OpenCV cannot write palettes."""
    height, width = labels.shape
    rows = np.zeros((height, width + 1), dtype=np.uint8)  # each row starts with its filter: 0, none
    rows[:, 1:] = labels
    header = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)
    chunks = (
        (b"IHDR", header),
        (b"PLTE", palette().tobytes()),
        (b"IDAT", zlib.compress(rows.tobytes())),
        (b"IEND", b""),
    )
    return mark_png(
        b"\x89PNG\r\n\x1a\n"
        + b"".join(
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
            for kind, data in chunks
        )
    )
