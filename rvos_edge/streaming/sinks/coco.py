"""Masks as annotations to go on with: a COCO file, and a data set in the forms of COCO and YOLO."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from rvos_edge.atomic import PendingFile, new_directory
from rvos_edge.errors import UserError
from rvos_edge.outputs import YAML_MARK, mark_file, names_path
from rvos_edge.streaming.sources import Frame

if TYPE_CHECKING:
    from rvos_edge.result import Result

COCO_FILE = "instances.json"
"""Name of the COCO file in a data set."""


class CocoSink:
    """Writes a COCO instances file: ``images``, ``annotations`` of `Result.to_coco`, ``categories``, one per query.

    ``track_id`` of an annotation is that of its query. Nothing is kept in memory.

    Raises:
        UserError: The path cannot be written.
    """

    wants_overlay = False

    def __init__(self, path: str | Path) -> None:
        if Path(path).suffix.lower() != ".json":
            raise UserError(f"{path} must end in .json; choose such a name.")
        self._file = PendingFile(path)
        self._categories: dict[str, int] = {}
        self._frames = self._count = 0
        with names_path(path):
            self._images = tempfile.TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115 (closed with the sink)
            self._out = self._file.partial.open("w", encoding="utf-8")
            self._out.write('{\n"rvos-edge": "run",\n"annotations": [')

    def write(self, frame: Frame, result: Result, overlay: NDArray[np.uint8] | None) -> None:
        height, width = frame.image.shape[:2]
        self._frames += 1
        name = frame.file or f"{frame.name}.jpg"
        image = {"id": self._frames, "file_name": name, "height": height, "width": width}
        ids = [self._categories.setdefault(query, len(self._categories) + 1) for query in result.queries]
        entries = []
        for entry in result.to_coco(self._frames):
            self._count += 1
            category = ids[entry["category_id"] - 1]
            entries.append({"id": self._count, **entry, "category_id": category, "track_id": category})
        with names_path(self._file.path):
            _append(self._images, [image], first=self._frames == 1)
            _append(self._out, entries, first=self._count == len(entries))

    def close(self) -> None:
        if self._out.closed:
            return
        categories = [{"id": number, "name": query} for query, number in self._categories.items()]
        self._images.seek(0)
        with names_path(self._file.path):
            self._out.write('\n],\n"images": [')
            shutil.copyfileobj(self._images, self._out)
            self._out.write(f'\n],\n"categories": {json.dumps(categories, ensure_ascii=False)}\n}}\n')
            self._out.close()
        self._images.close()
        self._file.commit()

    def abort(self) -> None:
        self._images.close()
        self._out.close()
        self._file.discard()


class DatasetSink:
    """Writes a data set to train and annotate with: ``images/NAME.jpg``, ``instances.json`` (COCO), and for YOLO
    ``labels/NAME.txt`` (segments: the outer outlines) and ``data.yaml``.

    Args:
        folder: Gets its name when it is whole.

    Raises:
        UserError: The folder cannot be written, or is none of this program's.
    """

    wants_overlay = False

    def __init__(self, folder: str | Path) -> None:
        self._path = Path(folder)
        self._held = ExitStack()
        with names_path(folder):
            self._folder = self._held.enter_context(new_directory(self._path))
            for name in ("images", "labels"):
                (self._folder / name).mkdir()
        self._coco = CocoSink(self._folder / COCO_FILE)
        self._queries: dict[str, int] = {}

    def write(self, frame: Frame, result: Result, overlay: NDArray[np.uint8] | None) -> None:
        lines = []
        for query, mask in zip(result.queries, result.masks, strict=True):
            number = self._queries.setdefault(query, len(self._queries))
            lines += [f"{number} {segment}\n" for segment in _segments(mask)]
        image = self._folder / "images" / f"{frame.name}.jpg"
        with names_path(self._path):
            image.write_bytes(cv2.imencode(".jpg", frame.image)[1].tobytes())
            mark_file(image)
            (self._folder / "labels" / f"{frame.name}.txt").write_text("".join(lines))
        self._coco.write(replace(frame, file=image.name), result, overlay)

    def close(self) -> None:
        self._coco.close()
        names = "".join(
            f"  {number}: {json.dumps(name, ensure_ascii=False)}\n" for name, number in self._queries.items()
        )
        text = f"{YAML_MARK} run\npath: .\ntrain: images\nval: images\nnames:\n{names}"
        with names_path(self._path):
            (self._folder / "data.yaml").write_text(text, encoding="utf-8")
            self._held.close()

    def abort(self) -> None:
        self._coco.abort()
        self._held.__exit__(InterruptedError, InterruptedError(), None)


def _append(file: IO[str], entries: Iterable[dict[str, Any]], *, first: bool) -> None:
    for entry in entries:
        file.write("\n" if first else ",\n")
        file.write(json.dumps(entry, ensure_ascii=False, allow_nan=False))
        first = False


def _segments(mask: NDArray[np.bool_]) -> Iterable[str]:
    """The outer outlines of a mask, as x y x y ... in fractions of width and height."""
    height, width = mask.shape
    outlines, _ = cv2.findContours(mask.view(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    for outline in outlines:
        if len(outline) >= 3:
            points = (outline[:, 0] + 0.5) / (width, height)
            yield " ".join(f"{value:.6g}" for value in points.ravel())
