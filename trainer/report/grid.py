"""Grids of pictures with captions, as PNG."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

Colour = tuple[int, int, int]

# Lengths are in inches.
_DPI = 150
_CELL = 2.25
_GAP = 0.06
_MARGIN = 0.12
_LINE = 0.2
_HEAD = 0.26
_BETWEEN = 0.12
_FONT = 9.0
_LETTER = 0.068
"""Mean width of a letter at that size, for shortening long captions."""
_READABLE = 12.5
"""Width from which on text grows with the figure, because the page shows all figures equally wide."""


@dataclass(frozen=True)
class Cell:
    """A picture and the line below it.

    Attributes:
        image: uint8 [H,W,3] BGR, or [H,W] grey.
        below: Text of the line, or "".
    """

    image: NDArray[np.uint8]
    below: str = ""


@dataclass(frozen=True)
class Caption:
    """A line above a row, optionally with a swatch of a colour (BGR)."""

    text: str
    colour: Colour | None = None
    bold: bool = False


@dataclass(frozen=True)
class GridRow:
    """Captions, then pictures side by side, all as large as the first."""

    captions: Sequence[Caption]
    cells: Sequence[Cell]


def at_drawn_size(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """An image uint8 [H,W] or [H,W,3] at its width in the figure, so that thin lines drawn on it stay visible."""
    width = round(_CELL * _DPI)
    height = round(width * image.shape[0] / image.shape[1])
    return np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA), np.uint8)


def draw_grid(path: Path, rows: Sequence[GridRow], heads: Sequence[str] = ()) -> None:
    """Draw rows, one below the other, into a PNG.

    Args:
        path: The file.
        rows: At least one row; rows may differ in length.
        heads: Headings of the columns.
    """
    columns = max(len(row.cells) for row in rows)
    width = 2 * _MARGIN + columns * _CELL + (columns - 1) * _GAP
    scale = max(1.0, width / _READABLE)
    line, head_height = _LINE * scale, _HEAD * scale if heads else 0.0
    below = [line if any(cell.below for cell in row.cells) else 0.0 for row in rows]
    each = [
        len(row.captions) * line + _picture_height(row) + under + _BETWEEN
        for row, under in zip(rows, below, strict=True)
    ]
    sheet = _Sheet(width, 2 * _MARGIN + head_height + sum(each) - _BETWEEN, scale)
    for column, head in enumerate(heads):
        centre = _MARGIN + column * (_CELL + _GAP) + _CELL / 2
        sheet.text(centre, _MARGIN + head_height / 2, head, _CELL, align="center", bold=True)
    start = _MARGIN + head_height
    for row, under, extent in zip(rows, below, each, strict=True):
        top = start
        for caption in row.captions:
            sheet.caption(caption, top + line / 2, width - 2 * _MARGIN)
            top += line
        picture = _picture_height(row)
        for column, cell in enumerate(row.cells):
            left = _MARGIN + column * (_CELL + _GAP)
            sheet.image(cell.image, left, top, picture)
            sheet.text(left + _CELL / 2, top + picture + under / 2, cell.below, _CELL, align="center")
        start += extent
    sheet.save(path)


class _Sheet:
    """A white page with coordinates in inches from its top left corner; text is scaled by ``scale``."""

    def __init__(self, width: float, height: float, scale: float) -> None:
        self.width, self.height, self.scale = width, height, scale
        self.figure = Figure(figsize=(width, height), dpi=_DPI, facecolor="white")

    def image(self, image: NDArray[np.uint8], left: float, top: float, height: float) -> None:
        box = (left / self.width, 1 - (top + height) / self.height, _CELL / self.width, height / self.height)
        axes = self.figure.add_axes(box)
        axes.set_axis_off()
        if image.ndim == 2:
            image = np.repeat(image[..., None], 3, axis=2)
        axes.imshow(image[..., ::-1], aspect="auto", interpolation="antialiased")

    def text(self, x: float, y: float, text: str, room: float, *, align: str = "left", bold: bool = False) -> None:
        """Draw a line centred at height ``y``, shortened to ``room``."""
        letters = max(int(room / (_LETTER * self.scale)), 8)
        self.figure.text(
            x / self.width,
            1 - y / self.height,
            textwrap.shorten(text, letters, placeholder=" \N{HORIZONTAL ELLIPSIS}"),
            ha=align,
            va="center",
            fontsize=_FONT * self.scale,
            fontweight="bold" if bold else "normal",
            color="#222222",
            parse_math=False,
        )

    def caption(self, caption: Caption, y: float, room: float) -> None:
        left = _MARGIN
        if caption.colour is not None:
            side = 0.12 * self.scale
            corner = (left / self.width, 1 - (y + side / 2) / self.height)
            blue, green, red = (value / 255 for value in caption.colour)
            self.figure.add_artist(
                Rectangle(corner, side / self.width, side / self.height, color=(red, green, blue), linewidth=0)
            )
            left += 1.6 * side
        self.text(left, y, caption.text, room + _MARGIN - left, bold=caption.bold)

    def save(self, path: Path) -> None:
        # Without the software's version, so that equal figures are equal files.
        self.figure.savefig(path, format="png", metadata={"Software": None})


def _picture_height(row: GridRow) -> float:
    height, width = row.cells[0].image.shape[:2]
    return float(_CELL * height / width)
