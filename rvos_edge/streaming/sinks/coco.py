"""Masks as annotations to go on with: a COCO file, and a data set in the forms of COCO, YOLO, CVAT and Label Studio."""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import IO

import cv2
import numpy as np
from numpy.typing import NDArray

from rvos_edge.annotations import (
    AnnotatedObject,
    AnnotatedPicture,
    AnnotationWriter,
    CocoWriter,
    CvatWriter,
    LabelStudioWriter,
)
from rvos_edge.atomic import PendingFile, new_directory
from rvos_edge.errors import UserError
from rvos_edge.outputs import YAML_MARK, mark_file, names_path
from rvos_edge.result import Result
from rvos_edge.streaming.sinks.base import Sink
from rvos_edge.streaming.sources import Frame

COCO_FILE, CVAT_FILE, LABEL_STUDIO_FILE = "instances.json", "annotations.xml", "label-studio.json"
"""Names of the documents in a data set."""


class CocoSink(Sink):
    """Writes a COCO instances file; ``track_id`` of an annotation is that of its query."""

    def __init__(self, path: str | Path) -> None:
        if Path(path).suffix.lower() != ".json":
            raise UserError(f"{path} must end in .json; choose such a name.")
        self._file = PendingFile(path)
        self._tracks: dict[str, int] = {}
        with names_path(path):
            self._out = self._file.partial.open("w", encoding="utf-8")
            self._writer = CocoWriter(self._out)

    def write(self, frame: Frame, result: Result, overlay: NDArray[np.uint8] | None) -> None:
        with names_path(self._file.path):
            self._writer.add(_picture(frame.file or f"{frame.name}.jpg", result, self._tracks))

    def close(self) -> None:
        if self._out.closed:
            return
        with names_path(self._file.path):
            self._writer.finish()
            self._out.close()
        self._writer.close()
        self._file.commit()

    def abort(self) -> None:
        self._writer.close()
        self._out.close()
        self._file.discard()


class DatasetSink(Sink):
    """Writes a data set to train and annotate with: ``images/NAME.jpg``; ``instances.json`` (COCO),
    ``annotations.xml`` (CVAT for images 1.1) and ``label-studio.json``; for YOLO ``labels/NAME.txt`` (segments: the
    outer outlines) and ``data.yaml``.

    Args:
        folder: Gets its name when it is whole.
    """

    def __init__(self, folder: str | Path) -> None:
        self._path = Path(folder)
        self._held = ExitStack()
        self._tracks: dict[str, int] = {}
        with names_path(folder):
            self._folder = self._held.enter_context(new_directory(self._path))
            for name in ("images", "labels"):
                (self._folder / name).mkdir()
            documents = [
                self._held.enter_context((self._folder / name).open("w", encoding="utf-8"))
                for name in (COCO_FILE, CVAT_FILE, LABEL_STUDIO_FILE)
            ]
            self._writers = _writers(*documents)
            for writer in self._writers:
                self._held.callback(writer.close)

    def write(self, frame: Frame, result: Result, overlay: NDArray[np.uint8] | None) -> None:
        image = self._folder / "images" / f"{frame.name}.jpg"
        picture = _picture(image.name, result, self._tracks)
        lines = [
            f"{(found.track or 1) - 1} {segment}\n" for found in picture.objects for segment in _segments(found.mask)
        ]
        with names_path(self._path):
            image.write_bytes(cv2.imencode(".jpg", frame.image)[1].tobytes())
            mark_file(image)
            (self._folder / "labels" / f"{frame.name}.txt").write_text("".join(lines))
            for writer in self._writers:
                writer.add(picture)

    def close(self) -> None:
        names = "".join(
            f"  {number - 1}: {json.dumps(name, ensure_ascii=False)}\n" for name, number in self._tracks.items()
        )
        text = f"{YAML_MARK} run\npath: .\ntrain: images\nval: images\nnames:\n{names}"
        with names_path(self._path):
            for writer in self._writers:
                writer.finish()
            (self._folder / "data.yaml").write_text(text, encoding="utf-8")
            self._held.close()

    def abort(self) -> None:
        self._held.__exit__(InterruptedError, InterruptedError(), None)


def _writers(coco: IO[str], cvat: IO[str], label_studio: IO[str]) -> list[AnnotationWriter]:
    return [CocoWriter(coco), CvatWriter(cvat), LabelStudioWriter(label_studio, "/data/local-files/?d=images/")]


def _picture(file: str, result: Result, tracks: dict[str, int]) -> AnnotatedPicture:
    """A frame with its masks; ``tracks`` are the numbers of the queries so far, and gets those of new ones."""
    height, width = result.masks.shape[1:]
    rows = zip(result.queries, result.masks, result.scores.tolist(), strict=True)
    objects = [
        AnnotatedObject(query, mask, tracks.setdefault(query, len(tracks) + 1), score) for query, mask, score in rows
    ]
    return AnnotatedPicture(file, (height, width), objects)


def _segments(mask: NDArray[np.bool_]) -> Iterable[str]:
    """The outer outlines of a mask, as x y x y ... in fractions of width and height."""
    height, width = mask.shape
    outlines, _ = cv2.findContours(mask.view(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    for outline in outlines:
        if len(outline) >= 3:
            points = (outline[:, 0] + 0.5) / (width, height)
            yield " ".join(f"{value:.6g}" for value in points.ravel())
