"""Annotated pictures as files of annotation tools: COCO, CVAT and Label Studio.

The writers take one picture after the other and keep none of them in memory; masks are kept exactly.
``rvos_edge.trainer.data.convert`` reads the three forms back.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Sequence
from itertools import pairwise
from typing import IO, Any, NamedTuple, Protocol
from xml.sax.saxutils import quoteattr

import numpy as np
from numpy.typing import NDArray

from rvos_edge.outputs import XML_MARK
from rvos_edge.result import coco_entry, mask_boxes, rounded


class AnnotatedObject(NamedTuple):
    """An object of a picture; the mask is bool [H,W], the track the same number in every picture of one object."""

    label: str
    mask: NDArray[np.bool_]
    track: int | None = None
    score: float | None = None


class AnnotatedPicture(NamedTuple):
    """The file name of a picture, its size (H,W) and its objects."""

    file: str
    size: tuple[int, int]
    objects: Sequence[AnnotatedObject]


class AnnotationWriter(Protocol):
    """Writes one document."""

    def add(self, picture: AnnotatedPicture) -> None:
        """Write a picture; objects with an empty mask are left out."""

    def finish(self) -> None:
        """Write what comes last; the file stays open."""

    def close(self) -> None:
        """Release temporary files."""


class CocoWriter:
    """Writes a COCO instances document: ``images``, ``annotations`` with compressed run lengths, ``categories``.

    Args:
        out: Text file, UTF-8, which the caller closes.
    """

    def __init__(self, out: IO[str]) -> None:
        self._out = out
        self._images = tempfile.TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115 (closed with the writer)
        self._categories: dict[str, int] = {}
        self._pictures = self._count = 0
        out.write('{\n"rvos-edge": "run",\n"annotations": [')

    def add(self, picture: AnnotatedPicture) -> None:
        self._pictures += 1
        height, width = picture.size
        image = {"id": self._pictures, "file_name": picture.file, "height": height, "width": width}
        self._images.write(("\n" if self._pictures == 1 else ",\n") + _dump(image))
        for found in picture.objects:
            category = self._categories.setdefault(found.label, len(self._categories) + 1)
            entry = coco_entry(found.mask)
            if not entry["area"]:
                continue
            self._count += 1
            entry = {"id": self._count, "image_id": self._pictures, "category_id": category, **entry}
            entry |= {} if found.track is None else {"track_id": found.track}
            entry |= {} if found.score is None else {"score": rounded(found.score, 4)}
            self._out.write(("\n" if self._count == 1 else ",\n") + _dump(entry))

    def finish(self) -> None:
        categories = [{"id": number, "name": label} for label, number in self._categories.items()]
        self._out.write('\n],\n"images": [')
        _append(self._images, self._out)
        self._out.write(f'\n],\n"categories": {_dump(categories)}\n}}\n')

    def close(self) -> None:
        self._images.close()


class CvatWriter:
    """Writes "CVAT for images 1.1" (XML): a ``mask`` for each object, its track and score as attributes.

    Args:
        out: Text file, UTF-8, which the caller closes.
    """

    def __init__(self, out: IO[str]) -> None:
        self._out = out
        self._body = tempfile.TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115 (closed with the writer)
        self._labels: dict[str, None] = {}
        self._pictures = 0

    def add(self, picture: AnnotatedPicture) -> None:
        height, width = picture.size
        head = f"id={quoteattr(str(self._pictures))} name={quoteattr(picture.file)}"
        self._body.write(f'  <image {head} width="{width}" height="{height}">\n')
        self._pictures += 1
        for found in picture.objects:
            self._labels.setdefault(found.label)
            x0, y0, x1, y1 = mask_boxes(found.mask[None])[0].tolist()
            if x1 == x0:
                continue
            runs = ", ".join(map(str, _runs(found.mask[y0:y1, x0:x1].ravel())))
            place = f'left="{x0}" top="{y0}" width="{x1 - x0}" height="{y1 - y0}" z_order="0"'
            what = f'label={quoteattr(found.label)} source="auto" occluded="0"'
            self._body.write(f'    <mask {what} rle="{runs}" {place}>\n')
            score = None if found.score is None else rounded(found.score, 4)
            for name, value in (("track_id", found.track), ("score", score)):
                if value is not None:
                    self._body.write(f'      <attribute name="{name}">{value}</attribute>\n')
            self._body.write("    </mask>\n")
        self._body.write("  </image>\n")

    def finish(self) -> None:
        fields = "".join(
            f"<attribute><name>{name}</name><mutable>True</mutable><input_type>text</input_type></attribute>"
            for name in ("track_id", "score")
        )
        labels = "".join(
            f"      <label><name>{_text(label)}</name><type>mask</type><attributes>{fields}</attributes></label>\n"
            for label in self._labels
        )
        self._out.write(
            f'<?xml version="1.0" encoding="utf-8"?>\n{XML_MARK}\n<annotations>\n  <version>1.1</version>\n'
            f"  <meta><task>\n    <size>{self._pictures}</size><mode>annotation</mode>\n    <labels>\n{labels}"
            "    </labels>\n  </task></meta>\n"
        )
        _append(self._body, self._out)
        self._out.write("</annotations>\n")

    def close(self) -> None:
        self._body.close()


class LabelStudioWriter:
    """Writes tasks of Label Studio (JSON) with brush masks as predictions.

    They fit the labelling configuration ``<View><Image name="image" value="$image"/><BrushLabels name="mask"
    toName="image">...</BrushLabels></View>``, a ``Label`` for each query.

    Args:
        out: Text file, UTF-8, which the caller closes.
        folder: Put before the file names, so that Label Studio finds them.
    """

    def __init__(self, out: IO[str], folder: str = "/data/local-files/?d=") -> None:
        self._out, self._folder, self._pictures = out, folder, 0
        out.write("[")

    def add(self, picture: AnnotatedPicture) -> None:
        height, width = picture.size
        results = [
            {
                "id": f"{self._pictures}-{number}",
                "from_name": "mask",
                "to_name": "image",
                "type": "brushlabels",
                "original_width": width,
                "original_height": height,
                "value": {"format": "rle", "rle": encode_brush(found.mask), "brushlabels": [found.label]},
                **({} if found.score is None else {"score": rounded(found.score, 4)}),
                **({} if found.track is None else {"meta": {"track_id": found.track}}),
            }
            for number, found in enumerate(picture.objects)
            if found.mask.any()
        ]
        task = {
            "data": {"image": self._folder + picture.file, "width": width, "height": height},
            "predictions": [{"model_version": "rvos-edge", "result": results}],
        }
        self._out.write(("\n" if self._pictures == 0 else ",\n") + _dump(task))
        self._pictures += 1

    def finish(self) -> None:
        self._out.write("\n]\n")

    def close(self) -> None:
        """Nothing is held."""


_RUN_BITS = 16
"""Bits of a run's length; Label Studio's decoder reads the sizes from the header."""
_HEADER_BITS = (32, 5, 4, 4, 4, 4)
"""Number of values; then, each less one, bits of a value and the four sizes of runs."""


def encode_brush(mask: NDArray[np.bool_]) -> list[int]:
    """A mask bool [H,W] as the bytes of Label Studio's brush: runs of an RGBA picture that is white inside.

    A run is a bit 1, two bits for the size of its length, the length less one, and the value (rle-pack of thi.ng).
    """
    runs = np.asarray(_runs(mask.ravel()), np.int64) * 4  # four channels of the same value
    values = np.resize([0, 255], len(runs))
    pieces = -(-runs // (1 << _RUN_BITS))  # a run of none has no piece
    lengths = np.full(int(pieces.sum()), 1 << _RUN_BITS, np.int64)
    last = np.cumsum(pieces)[pieces > 0] - 1
    lengths[last] = (runs - (pieces - 1) * (1 << _RUN_BITS))[pieces > 0]
    words = 0b111 << (_RUN_BITS + 8) | (lengths - 1) << 8 | np.repeat(values, pieces)
    body = words[:, None] >> np.arange(_RUN_BITS + 10, -1, -1) & 1
    header = "".join(
        f"{value:0{bits}b}" for value, bits in zip((mask.size * 4, 7, 2, 3, 7, 15), _HEADER_BITS, strict=True)
    )
    bits = np.concatenate([np.array(list(header), np.uint8), body.ravel().astype(np.uint8)])
    found: list[int] = np.packbits(bits).tolist()
    return found


def _runs(flat: NDArray[np.bool_]) -> list[int]:
    """Lengths of runs, of False and True in turn, beginning with False."""
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    ends = [0, *([0] if flat.size and flat[0] else []), *changes.tolist(), flat.size]
    return [after - before for before, after in pairwise(ends)]


def _append(body: IO[str], out: IO[str]) -> None:
    body.seek(0)
    shutil.copyfileobj(body, out)


def _dump(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _text(value: str) -> str:
    return quoteattr(value)[1:-1].replace("&quot;", '"')
