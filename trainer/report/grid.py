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

_DPI = 150
_CELL, _LINE = 2.25, 0.22
"""Width of a picture and height of a line of text, in inches."""
_READABLE = 12.5
"""Width from which on text grows with the figure, because the page shows all figures equally wide."""


@dataclass(frozen=True)
class Cell:
    """A picture, uint8 [H,W,3] BGR or [H,W] grey, and the line below it, or ""."""

    image: NDArray[np.uint8]
    below: str = ""


@dataclass(frozen=True)
class GridRow:
    """A title, captions with swatches of their colours (BGR), then pictures side by side, as large as the first."""

    title: str
    cells: Sequence[Cell]
    captions: Sequence[tuple[str, Colour]] = ()


def at_drawn_size(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """An image uint8 [H,W] or [H,W,3] at its width in the figure, so that thin lines drawn on it stay visible."""
    width = round(_CELL * _DPI)
    height = round(width * image.shape[0] / image.shape[1])
    return np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA), np.uint8)


def draw_grid(path: Path, rows: Sequence[GridRow], heads: Sequence[str] = ()) -> None:
    """Draw rows, of which one may be longer than another, one below the other into a PNG, with headings of columns."""
    columns = max(len(row.cells) for row in rows)
    width = columns * _CELL
    font = 9 * max(1.0, width / _READABLE)
    line = _LINE * font / 9
    pictures = [_CELL * row.cells[0].image.shape[0] / row.cells[0].image.shape[1] for row in rows]
    lines = [bool(row.title) + len(row.captions) + (bool(heads) and not number) for number, row in enumerate(rows)]
    below = [line * any(cell.below for cell in row.cells) for row in rows]
    heights = [line * above + picture + under for above, picture, under in zip(lines, pictures, below, strict=True)]
    figure = Figure(figsize=(width, sum(heights)), dpi=_DPI, facecolor="white")
    parts = figure.subfigures(len(rows), 1, height_ratios=heights, squeeze=False)[:, 0]
    for number, (part, row, height) in enumerate(zip(parts, rows, heights, strict=True)):
        texts: list[tuple[str, Colour | None]] = [(row.title, None)] if row.title else []
        for place, (text, colour) in enumerate([*texts, *row.captions]):
            text = textwrap.shorten(text, int(width / (0.0075 * font)), placeholder=" \N{HORIZONTAL ELLIPSIS}")
            at = (0.004, 1 - (place + 0.5) * line / height)
            part.text(at[0] + (0.016 if colour else 0), at[1], text, va="center", fontsize=font, parse_math=False,
                      fontweight="normal" if colour else "bold")  # fmt: skip
            if colour is not None:
                corner = (at[0], at[1] - 0.3 * line / height)
                shade = [value / 255 for value in colour[::-1]]
                part.add_artist(
                    Rectangle(corner, 0.012, 0.6 * line / height, color=shade, transform=part.transSubfigure)
                )
        for column, cell in enumerate(row.cells):
            extent = (1 / columns - 0.008, 0.96 * pictures[number] / height)
            axes = part.add_axes((column / columns + 0.004, below[number] / height, *extent))
            image = cell.image if cell.image.ndim == 3 else np.repeat(cell.image[..., None], 3, axis=2)
            axes.imshow(image[..., ::-1], aspect="auto", interpolation="antialiased")
            axes.set(xticks=[], yticks=[], frame_on=False)
            axes.set_xlabel(cell.below, fontsize=font, parse_math=False)
            if heads and not number:
                axes.set_title(heads[column], fontsize=font, fontweight="bold", pad=2)
    # Without the software's version, so that equal figures are equal files.
    figure.savefig(path, format="png", metadata={"Software": None})
