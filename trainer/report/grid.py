"""Grids of pictures with captions, as PNG and PDF."""

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

from rvos_edge.streaming.overlay import draw_masks, query_colour

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
    """Pictures side by side, as large as the first, with text above and beside them.

    Attributes:
        heading: Begins a part of the figure.
        captions: Lines with the number of the colour whose swatch stands before them.
        label: Stands on its side at the left.
    """

    cells: Sequence[Cell]
    title: str = ""
    heading: str = ""
    captions: Sequence[tuple[str, int]] = ()
    label: str = ""


def paint(image: NDArray[np.uint8], masks: NDArray[np.bool_], colours: Sequence[int]) -> NDArray[np.uint8]:
    """Masks bool [N,H,W] over an image uint8 [H,W,3], each in its object's colour; at the width that the picture has in
    a figure, so that the lines stay visible.
    """
    width = round(_CELL * _DPI)
    size = (width, round(width * image.shape[0] / image.shape[1]))
    small = [cv2.resize(mask.astype(np.uint8) * 255, size, interpolation=cv2.INTER_AREA) > 127 for mask in masks]
    return draw_masks(
        np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8), np.stack(small), colours=colours
    )


def draw_grid(path: Path, rows: Sequence[GridRow], heads: Sequence[str] = ()) -> None:
    """Draw rows, of which one may be longer than another, one below the other into a PNG and a PDF beside it.

    Args:
        path: The PNG.
        heads: Headings of the columns.
    """
    columns = max(len(row.cells) for row in rows)
    font = 9 * max(1.0, columns * _CELL / _READABLE)
    line = _LINE * font / 9
    left = 1.2 * line if any(row.label for row in rows) else 0.0
    width = columns * _CELL + left
    pictures = [_CELL * row.cells[0].image.shape[0] / row.cells[0].image.shape[1] for row in rows]
    texts = [_texts(row) for row in rows]
    above = [line * (len(text) + (bool(heads) and not number)) for number, text in enumerate(texts)]
    below = [line * any(cell.below for cell in row.cells) for row in rows]
    heights = [sum(parts) for parts in zip(above, pictures, below, strict=True)]
    figure = Figure(figsize=(width, sum(heights)), dpi=_DPI, facecolor="white")
    parts = figure.subfigures(len(rows), 1, height_ratios=heights, squeeze=False)[:, 0]
    for number, (part, row, height) in enumerate(zip(parts, rows, heights, strict=True)):
        for place, (text, colour, bold) in enumerate(texts[number]):
            text = textwrap.shorten(text, int(width / (0.0075 * font)), placeholder=" \N{HORIZONTAL ELLIPSIS}")
            x, y = 0.05 / width, 1 - (place + 0.5) * line / height
            if colour is not None:
                shade = [value / 255 for value in query_colour(colour)[::-1]]
                swatch = (x, y - 0.3 * line / height), 0.8 * line / width, 0.6 * line / height
                part.add_artist(Rectangle(*swatch, fc=shade, ec="0.25", lw=0.6, transform=part.transSubfigure))
                x += line / width
            part.text(x, y, text, va="center", fontsize=font * (1.3 if bold else 1), parse_math=False,
                      fontweight="normal" if colour is not None else "bold")  # fmt: skip
        if row.label:
            middle = (below[number] + pictures[number] / 2) / height
            room = int(pictures[number] / (0.0075 * font))
            part.text(0.5 * line / width, middle, textwrap.shorten(row.label, room, placeholder="..."), rotation=90,
                      ha="center", va="center", fontsize=font, parse_math=False)  # fmt: skip
        for column, cell in enumerate(row.cells):
            corner = ((left + column * _CELL + 0.02) / width, below[number] / height)
            axes = part.add_axes((*corner, (_CELL - 0.04) / width, 0.96 * pictures[number] / height))
            image = cell.image if cell.image.ndim == 3 else np.repeat(cell.image[..., None], 3, axis=2)
            axes.imshow(image[..., ::-1], aspect="auto", interpolation="antialiased")
            axes.set(xticks=[], yticks=[], frame_on=False)
            axes.set_xlabel(cell.below, fontsize=font, parse_math=False)
            if heads and not number:
                axes.set_title(heads[column], fontsize=font, fontweight="bold", pad=2, parse_math=False)
    save(figure, path)


def save(figure: Figure, path: Path) -> None:
    """Write a figure as PNG and PDF; without dates and versions, so that equal figures are equal files."""
    figure.savefig(path, format="png", metadata={"Software": None})
    figure.savefig(
        path.with_suffix(".pdf"), format="pdf", metadata={"Creator": None, "Producer": None, "CreationDate": None}
    )


def _texts(row: GridRow) -> list[tuple[str, int | None, bool]]:
    """Lines above the pictures: text, number of the swatch's colour, and whether it is a heading."""
    lines: list[tuple[str, int | None, bool]] = [(row.heading, None, True)] if row.heading else []
    lines += [(row.title, None, False)] if row.title else []
    return [*lines, *((text, colour, False) for text, colour in row.captions)]
