"""Pictures for people: masks drawn over a frame with a legend, and contact sheets."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]

_FONT_OF_WEIGHT_500 = 500
_BACKING = 0.35
"""Share of the picture that shines through behind text."""
_COLOURS = (
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (240, 228, 66),
    (0, 114, 178),
    (213, 94, 0),
    (204, 121, 167),
    (187, 187, 187),
)
"""RGB of the queries: orange, sky blue, green, yellow, blue, vermilion, purple, and grey in place of black."""


class LabelledMasks(Protocol):
    """The part of a ``Result`` that is drawn."""

    @property
    def queries(self) -> tuple[str, ...]: ...

    @property
    def masks(self) -> NDArray[np.bool_]: ...

    @property
    def scores(self) -> NDArray[np.float32]: ...


@dataclass(frozen=True)
class OverlayView:
    """Display settings of a stream; they change the pictures, not the masks.

    Attributes:
        note: A line at the bottom of what a screen shows, such as the query that is being typed; never recorded.
    """

    opacity: float = 0.5
    outline: bool = True
    hidden: frozenset[int] = frozenset()
    note: str = ""


def draw_view(image: Image, result: LabelledMasks, view: OverlayView) -> Image:
    """The overlay of a frame as `view` has it, without the note; see `draw_overlay`."""
    return draw_overlay(image, result, opacity=view.opacity, outline=view.outline, hidden=view.hidden)


def draw_note(image: Image, note: str) -> Image:
    """Write one line on a dark strip at the bottom of a copy of a BGR image; what does not fit is cut at its start."""
    out = image.copy()
    height, width = out.shape[:2]
    font = _font_height(height)
    pad = max(2, font // 3)
    top = max(0, height - math.ceil(font * 1.3) - 2 * pad)
    strip = out[top:]
    cv2.convertScaleAbs(strip, strip, alpha=_BACKING)
    room = width - 2 * pad
    while len(note) > 1 and _text(note, font).shape[1] > room:
        note = _ELLIPSIS + note.removeprefix(_ELLIPSIS)[1:]
    _write(out, note, (pad, top + pad), font, room)
    return out


def draw_overlay(
    image: Image,
    result: LabelledMasks,
    *,
    opacity: float = 0.5,
    outline: bool = True,
    legend: bool = True,
    names: bool = False,
    hidden: frozenset[int] = frozenset(),
) -> Image:
    """Draw the masks and their queries over a copy of a frame, uint8 [H,W,3] BGR.

    ``legend`` lists colour, query and score at the top left; ``names`` writes each query on its mask; ``hidden`` are
    indices of queries listed as hidden, not drawn.

    Raises:
        ValueError: The masks have another size than the image, or `opacity` is out of range.
    """
    shown = [index for index in range(len(result.masks)) if index not in hidden]
    masks = result.masks if not hidden else result.masks[shown]
    out = draw_masks(image, masks, colours=shown, opacity=opacity, outline=outline)
    if names:
        for index in shown:
            _draw_name(out, result.queries[index], result.masks[index], index)
    if legend and result.queries:
        _draw_legend(out, result, hidden)
    return out


def draw_masks(
    image: Image,
    masks: NDArray[np.bool_],
    *,
    colours: Sequence[int] | None = None,
    opacity: float = 0.5,
    outline: bool = True,
) -> Image:
    """Draw masks bool [Q,H,W] alone over a copy of a frame, uint8 [H,W,3] BGR; ``colours``: whose colour each mask
    gets.

    Raises:
        ValueError: The masks have another size than the image, or `opacity` is out of range.
    """
    if masks.shape[1:] != image.shape[:2]:
        raise ValueError(f"masks {masks.shape[1:]} and image {image.shape[:2]} differ in size")
    if not 0 <= opacity <= 1:
        raise ValueError(f"opacity {opacity} is not between 0 and 1")
    out = image.copy()
    thickness = max(1, round(min(image.shape[:2]) / 400)) if outline else 0
    for colour, mask in zip(range(len(masks)) if colours is None else colours, masks, strict=True):
        _draw_mask(out, mask, colour, opacity, thickness)
    return out


def palette() -> NDArray[np.uint8]:
    """The 256 colours of PASCAL VOC and DAVIS, uint8 [256,3] RGB: index bits dealt to R, G, B from the top bit down."""
    return _palette().copy()


def query_colour(query: int) -> tuple[int, int, int]:
    """BGR of a query. The colours are Okabe and Ito's, which colour-blind people can distinguish; from the ninth query
    on they come again, every other time lighter.
    """
    again, place = divmod(query, len(_COLOURS))
    red, green, blue = ((value + 255) // 2 if again % 2 else value for value in _COLOURS[place])
    return blue, green, red


def contact_sheet(images: Sequence[Image], columns: int, captions: Sequence[str] | None = None) -> Image:
    """Put BGR pictures side by side, row by row, each at the size of the first, with a line of text below.

    Raises:
        ValueError: No pictures, no columns, or another number of captions.
    """
    if not images or columns < 1:
        raise ValueError("a contact sheet needs at least one picture and one column")
    if captions is not None and len(captions) != len(images):
        raise ValueError(f"{len(captions)} captions for {len(images)} pictures")
    height, width = images[0].shape[:2]
    columns = min(columns, len(images))
    rows = math.ceil(len(images) / columns)
    font = _font_height(height)
    gap = max(2, font // 3)
    strip = font + 2 * gap if captions else 0
    cell_height, cell_width = height + strip + gap, width + gap
    sheet = np.full((rows * cell_height + gap, columns * cell_width + gap, 3), 24, dtype=np.uint8)
    for index, image in enumerate(images):
        top = gap + index // columns * cell_height
        left = gap + index % columns * cell_width
        if image.shape[:2] != (height, width):
            image = np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA), dtype=np.uint8)
        sheet[top : top + height, left : left + width] = image
        if captions:
            _write(sheet, captions[index], (left + gap, top + height + gap), font, width - 2 * gap)
    return sheet


@lru_cache(maxsize=1)
def _palette() -> NDArray[np.uint8]:
    index = np.arange(256)
    colours = np.zeros((256, 3), dtype=np.uint8)
    for bit in range(8):
        for channel in range(3):
            colours[:, channel] |= (((index >> (3 * bit + channel)) & 1) << (7 - bit)).astype(np.uint8)
    return colours


def _draw_mask(out: Image, mask: NDArray[np.bool_], index: int, opacity: float, thickness: int) -> None:
    """Work on the mask's bounding box, in uint8."""
    pixels = np.ascontiguousarray(mask).view(np.uint8)
    x, y, width, height = cv2.boundingRect(pixels)
    if width == 0:
        return
    region = out[y : y + height, x : x + width]
    inside = pixels[y : y + height, x : x + width]
    colour = query_colour(index)
    cv2.copyTo(cv2.LUT(region, _blend_table(colour, opacity)), inside, region)
    if thickness:
        contours, _ = cv2.findContours(inside, cv2.RETR_LIST, cv2.CHAIN_APPROX_SIMPLE, offset=(x, y))
        cv2.drawContours(out, contours, -1, colour, thickness)


@lru_cache(maxsize=256)
def _blend_table(colour: tuple[int, int, int], opacity: float) -> NDArray[np.uint8]:
    """uint8 [1,256,3]: every pixel value blended with `colour`."""
    values = np.arange(256, dtype=np.float32)[:, None]
    blended = values * (1 - opacity) + np.asarray(colour, dtype=np.float32) * opacity
    return np.rint(blended).astype(np.uint8)[None]


def _draw_name(out: Image, name: str, mask: NDArray[np.bool_], index: int) -> None:
    """Write a query at the top of the largest part of its mask, above it where there is room."""
    count, _, parts, _ = cv2.connectedComponentsWithStats(np.ascontiguousarray(mask).view(np.uint8))
    if count < 2:
        return
    x, y, part_width = parts[1:][
        parts[1:, cv2.CC_STAT_AREA].argmax(), [cv2.CC_STAT_LEFT, cv2.CC_STAT_TOP, cv2.CC_STAT_WIDTH]
    ]
    font = _font_height(out.shape[0])
    pad = max(2, font // 4)
    text = _fit(name, font, min(24 * font, out.shape[1] - 2 * pad))
    height, width = _text(text, font).shape
    left = int(np.clip(x + part_width // 2 - width // 2 - pad, 0, max(0, out.shape[1] - width - 2 * pad)))
    top = max(0, int(y) - height - 1)
    box = out[top : top + height, left : left + width + 2 * pad]
    cv2.convertScaleAbs(box, box, alpha=_BACKING)
    box[:, : max(1, pad // 2)] = query_colour(index)
    _write(out, text, (left + pad, top), font, width)


def _draw_legend(out: Image, result: LabelledMasks, hidden: frozenset[int]) -> None:
    height, width = out.shape[:2]
    font = _font_height(height)
    pad = max(2, font // 3)
    row = font + pad
    swatch = round(font * 0.8)
    rows = max(1, min(len(result.queries), (height - 2 * pad) // row))
    more = len(result.queries) - rows
    scores = ["hidden" if index in hidden else f"{score:.2f}" for index, score in enumerate(result.scores[:rows])]
    if more:
        scores[-1] = f"+{more} more"
    score_width = max(_text(score, font).shape[1] for score in scores)
    room = min(width - 5 * pad - swatch - score_width, 30 * font) - 2 * pad
    texts = [_fit(query, font, room) for query in result.queries[:rows]]
    text_width = max(_text(text, font).shape[1] for text in texts)
    right = min(width, 5 * pad + swatch + text_width + score_width + pad)
    bottom = min(height, 2 * pad + rows * row)
    box = out[pad:bottom, pad:right]
    cv2.convertScaleAbs(box, box, alpha=_BACKING)
    for index, (text, score) in enumerate(zip(texts, scores, strict=True)):
        top = pad + pad // 2 + index * row
        colour = query_colour(index)
        corner, opposite = (2 * pad, top + font // 8), (2 * pad + swatch, top + font // 8 + swatch)
        cv2.rectangle(out, corner, opposite, colour, 1 if index in hidden else cv2.FILLED)
        _write(out, text, (3 * pad + swatch, top), font, room)
        _write(out, score, (4 * pad + swatch + text_width, top), font, score_width)


def _font_height(image_height: int) -> int:
    """Height of a line of text in pixels."""
    return max(10, round(image_height * 0.032))


def _write(out: Image, text: str, corner: tuple[int, int], font: int, room: int) -> None:
    """White text with its top left corner at (x, y), shortened to `room` pixels and clipped to the image."""
    x, y = corner
    stencil = _text(_fit(text, font, room), font)
    region = out[y : y + stencil.shape[0], x : x + stencil.shape[1]]
    if region.size:
        stencil = stencil[: region.shape[0], : region.shape[1]]
        np.maximum(region, stencil[..., None], out=region)


def _fit(text: str, font: int, room: int) -> str:
    """Shorten `text` with an ellipsis until it is at most `room` pixels wide."""
    return _fit_cached(" ".join(text.split()), font, max(room, 0))


@lru_cache(maxsize=256)
def _fit_cached(text: str, font: int, room: int) -> str:
    if _text(text, font).shape[1] <= room:
        return text
    low, high = 0, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        if _text(text[:middle].rstrip() + _ELLIPSIS, font).shape[1] <= room:
            low = middle
        else:
            high = middle - 1
    return text[:low].rstrip() + _ELLIPSIS


@lru_cache(maxsize=512)
def _text(text: str, font: int) -> Image:
    """Text as uint8 [font*1.3,w], white on black; a legend changes little, so its pieces are kept."""
    height = math.ceil(font * 1.3)
    base = round(font * 0.95)
    if _TRUETYPE is not None:
        _, _, width, _ = cv2.getTextSize((0, 0), text, (0, 0), _TRUETYPE, font, _FONT_OF_WEIGHT_500)
        canvas = np.zeros((height, width + 2), dtype=np.uint8)
        cv2.putText(canvas, text, (0, base), (255,), _TRUETYPE, font, _FONT_OF_WEIGHT_500)
        return canvas
    # OpenCV 4 draws ASCII alone.
    text = "".join(letter if " " <= letter <= "~" else "?" for letter in text)
    scale, thickness = (cv2.getFontScaleFromHeight(cv2.FONT_HERSHEY_SIMPLEX, round(font * 0.7)), max(1, font // 14))
    (width, _), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, thickness)
    canvas = np.zeros((height, width + 2), dtype=np.uint8)
    cv2.putText(canvas, text, (0, base), cv2.FONT_HERSHEY_SIMPLEX, scale, (255,), thickness, cv2.LINE_AA)
    return canvas


def _truetype() -> Any:
    """The UTF-8 font built into OpenCV 5, None in OpenCV 4."""
    face = getattr(cv2, "FontFace", None)
    return None if face is None else face("sans")


_TRUETYPE = _truetype()
_ELLIPSIS = "..." if _TRUETYPE is None else "\N{HORIZONTAL ELLIPSIS}"
