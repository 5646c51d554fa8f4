"""Ways to show an object: masks in files, a box around it or points on it, on frames of a source."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from rvos_edge.errors import UserError
from rvos_edge.rle import decode_rle
from rvos_edge.streaming.sources import Source

Box = tuple[int, int, int, int]
Point = tuple[int, int]

_LONGEST = 480
"""Pixels of the longer side at which GrabCut works."""
_ROUNDS = 5
_INSIDE = 0.7
"""Share of a box's sides that the ellipse has from which the object's colours are learned: few objects fill the
corners. On 30 training frames of DAVIS with boxes 4 % too large the mean IoU is .67 (.63 from the whole box)."""
_FILLED = 0.1
"""Share of a box that a network's mask fills where it is believed."""
_CORE, _AROUND = 0.02, 0.2
"""Radii around a point, as shares of the frame's shorter side: surely the object, and possibly."""


@dataclass(frozen=True)
class ShownFrame:
    """A frame uint8 [H,W,3] BGR by its name, the one before it or None, and the object's mask bool [H,W]."""

    name: str
    frame: NDArray[np.uint8]
    previous: NDArray[np.uint8] | None
    mask: NDArray[np.bool_]


def mask_of_box(frame: NDArray[np.uint8], box: Box, guess: NDArray[np.bool_] | None = None) -> NDArray[np.bool_]:
    """The object inside a box, by GrabCut.

    Args:
        frame: uint8 [H,W,3] BGR.
        box: x, y, width and height in pixels.
        guess: A network's mask, bool [H,W]; where it fills enough of the box, GrabCut begins from it, and what is in
            the box is taken as it is where GrabCut finds nothing.

    Raises:
        UserError: The box is empty or leaves the frame, or no object is found in it.
    """
    height, width = frame.shape[:2]
    x, y, w, h = box
    if not (x >= 0 and y >= 0 and w > 1 and h > 1 and x + w <= width and y + h <= height):
        raise UserError(f"the box {x},{y},{w},{h} is not inside the frame of {width}x{height}; give x,y,width,height.")
    labels = np.full((height, width), cv2.GC_BGD, np.uint8)
    labels[y : y + h, x : x + w] = cv2.GC_PR_BGD
    if guess is not None:
        inside = np.zeros_like(guess)
        inside[y : y + h, x : x + w] = guess[y : y + h, x : x + w]
        if np.count_nonzero(inside) >= _FILLED * w * h:
            labels[inside] = cv2.GC_PR_FGD
            try:
                return _cut(frame, labels, "")
            except UserError:
                return inside
    axes = max(1, round(_INSIDE * w / 2)), max(1, round(_INSIDE * h / 2))
    cv2.ellipse(labels, (x + w // 2, y + h // 2), axes, 0, 0, 360, cv2.GC_PR_FGD, -1)
    return _cut(frame, labels, f"the box {x},{y},{w},{h}")


def mask_of_points(frame: NDArray[np.uint8], points: Sequence[Point]) -> NDArray[np.bool_]:
    """The object that points (x, y in pixels) of a frame uint8 [H,W,3] BGR lie on, by GrabCut.

    Raises:
        UserError: A point leaves the frame, or no object is found there.
    """
    height, width = frame.shape[:2]
    labels = np.full((height, width), cv2.GC_PR_BGD, np.uint8)
    for x, y in points:
        if not (0 <= x < width and 0 <= y < height):
            raise UserError(f"the point {x},{y} is not inside the frame of {width}x{height}; give x,y in pixels.")
        cv2.circle(labels, (x, y), max(2, round(_AROUND * min(height, width))), cv2.GC_PR_FGD, -1)
    for x, y in points:
        cv2.circle(labels, (x, y), max(1, round(_CORE * min(height, width))), cv2.GC_FGD, -1)
    return _cut(frame, labels, f"the point {points[0][0]},{points[0][1]}")


def read_shown(
    source: Source,
    masks: Path | None,
    boxes: Mapping[int, Box],
    points: Mapping[int, Sequence[Point]],
) -> list[ShownFrame]:
    """The frames of a source that something is shown on, in their order.

    Args:
        masks: Folder of PNGs named by a frame's name or number; what is not black is the object, and an all black one
            says that it is absent. Or a COCO file whose images are so named; all of an image's annotations together are
            the object, and images without annotations are not shown.

    Raises:
        UserError: A mask cannot be read or has no frame, or nothing is shown.
    """
    files = {} if masks is None else _masks_in(masks)
    wanted = {*boxes, *points}
    last = max(wanted, default=-1)
    shown: list[ShownFrame] = []
    previous = None
    for frame in source:
        image = frame.image.copy()
        stem = next((stem for stem in files if stem == frame.name or _number(stem) == frame.index), None)
        mask = None
        if stem is not None:
            mask = files.pop(stem)((image.shape[0], image.shape[1]))
        elif frame.index in boxes:
            mask = mask_of_box(image, boxes[frame.index])
        elif frame.index in points:
            mask = mask_of_points(image, points[frame.index])
        if mask is not None:
            shown.append(ShownFrame(frame.name, image, previous, mask))
            wanted.discard(frame.index)
        previous = image if previous is None or previous.shape == image.shape else None
        if not files and frame.index >= last:
            break
    if files:
        raise UserError(f"{masks}: '{next(iter(files))}' belongs to no frame; name it by a frame's name or number.")
    if wanted:
        raise UserError(f"there is no frame {min(wanted)}; frames are counted from 0.")
    if not shown:
        raise UserError("nothing is shown; give --masks, --box or --point.")
    return shown


def parse_boxes(given: Sequence[str]) -> dict[int, Box]:
    """``"12:x,y,w,h"`` -> {12: (x, y, w, h)}.

    Raises:
        UserError: One is written otherwise.
    """
    boxes: dict[int, Box] = {}
    for text in given:
        match = re.fullmatch(r"(\d+):(\d+),(\d+),(\d+),(\d+)", text.replace(" ", ""))
        if not match:
            raise UserError(f"--box {text}: write FRAME:x,y,width,height in pixels, such as 12:40,60,200,120.")
        number, x, y, width, height = map(int, match.groups())
        boxes[number] = (x, y, width, height)
    return boxes


def parse_points(given: Sequence[str]) -> dict[int, list[Point]]:
    """``"12:x,y"``, several for a frame -> {12: [(x, y), ...]}.

    Raises:
        UserError: One is written otherwise.
    """
    points: dict[int, list[Point]] = defaultdict(list)
    for text in given:
        match = re.fullmatch(r"(\d+):(\d+),(\d+)", text.replace(" ", ""))
        if not match:
            raise UserError(f"--point {text}: write FRAME:x,y in pixels, such as 12:140,120.")
        number, x, y = map(int, match.groups())
        points[number].append((x, y))
    return dict(points)


def _number(stem: str) -> int | None:
    return int(stem) if stem.isdigit() else None


def _masks_in(masks: Path) -> dict[str, Callable[[tuple[int, int]], NDArray[np.bool_]]]:
    """Functions from a frame's (H, W) to its mask, by the stem of the frame's name."""
    if masks.suffix != ".json":
        files = sorted(masks.glob("*.png"))
        if not files:
            raise UserError(f"{masks} has no PNG; put a mask for each shown frame there, named by the frame's number.")
        return {path.stem: partial(_read_mask, path) for path in files}
    try:
        document = json.loads(masks.read_text(encoding="utf-8-sig"))
        names = {image["id"]: Path(image["file_name"]).stem for image in document["images"]}
        shapes: dict[str, list[Any]] = defaultdict(list)
        for entry in document["annotations"]:
            shapes[names[entry["image_id"]]].append(entry["segmentation"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{masks} cannot be read as COCO instances; give such a file, or a folder of PNGs.") from error
    if not shapes:
        raise UserError(f"{masks} has no annotations; outline the object on a frame at least.")
    return {stem: partial(_draw, masks, stem, each) for stem, each in shapes.items()}


def _draw(path: Path, stem: str, shapes: Sequence[Any], size: tuple[int, int]) -> NDArray[np.bool_]:
    """The union of COCO's segmentations: polygons or run lengths."""
    mask = np.zeros(size, np.uint8)
    try:
        for shape in shapes:
            if isinstance(shape, dict):
                if tuple(shape["size"]) != size:
                    raise ValueError(shape["size"])
                mask |= decode_rle(shape["counts"], size)
            else:
                for part in shape:
                    points = np.asarray(part, np.float32).reshape(-1, 2)
                    cv2.fillPoly(mask, [np.rint((points - 0.5) * 16).astype(np.int32)], 1, shift=4)
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path}: an outline on '{stem}' cannot be read or is of another size; draw it anew."
        ) from error
    return mask.view(np.bool_)


def _read_mask(path: Path, size: tuple[int, int]) -> NDArray[np.bool_]:
    image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if image is None:
        raise UserError(f"{path} is not a picture; write the mask as a PNG.")
    if image.shape[:2] != size:
        raise UserError(f"{path} is {image.shape[1]}x{image.shape[0]} and its frame {size[1]}x{size[0]}; scale it.")
    colours = image[..., :3] if image.ndim == 3 else image[..., None]
    return np.asarray(colours.any(axis=-1))


def _cut(frame: NDArray[np.uint8], labels: NDArray[np.uint8], what: str) -> NDArray[np.bool_]:
    height, width = labels.shape
    scale = min(1.0, _LONGEST / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    small = cv2.resize(frame, size, interpolation=cv2.INTER_AREA)
    found = cv2.resize(labels, size, interpolation=cv2.INTER_NEAREST)
    cv2.setRNGSeed(0)  # its clusters start at random
    try:
        cv2.grabCut(small, found, (0, 0, 1, 1), np.zeros((1, 65)), np.zeros((1, 65)), _ROUNDS, cv2.GC_INIT_WITH_MASK)
    except cv2.error as error:
        raise UserError(f"no object is found by {what}; draw a larger box, or give a mask.") from error
    inside = ((found == cv2.GC_FGD) | (found == cv2.GC_PR_FGD)).astype(np.uint8)
    if not inside.any():
        raise UserError(f"no object is found by {what}; draw a larger box, or give a mask.")
    return np.asarray(cv2.resize(inside, (width, height), interpolation=cv2.INTER_NEAREST) > 0)
