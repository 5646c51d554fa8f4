"""Textured backgrounds of the synthetic camera, drawn once and larger than the frame."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

from rvos_edge.synthetic.sprites import cloud

Picture = NDArray[np.float32]


def draw_backdrop(kind: str, shape: tuple[int, int], unit: float, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Draw one background, uint8 [H,W,3] BGR; ``unit`` is the shorter side of the frame in pixels."""
    picture = BACKDROPS[kind](shape, unit, rng)
    across = 12 * min(shape) / unit
    grain = 0.86 + 0.28 * cloud(shape, rng, across, 4)[..., None]
    dust = rng.normal(0, 3, (*shape, 1)).astype(np.float32)
    return np.asarray(np.clip(picture * grain + cv2.GaussianBlur(dust, (0, 0), 0.8)[..., None], 0, 255), np.uint8)


def _muted(rng: np.random.Generator, value: tuple[float, float] = (0.3, 0.85), most: float = 0.32) -> Picture:
    """Draw a colour that is too dull for an object, float32 [3]."""
    # Half of them are colours of earth and leaves.
    hue = rng.uniform(20, 130) if rng.random() < 0.5 else rng.uniform(0, 360)
    saturation = rng.uniform(0.04, most) * (0.6 if 250 < hue < 350 else 1)
    hsv = np.array([[[hue, saturation, rng.uniform(*value)]]], np.float32)
    return np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR)[0, 0] * 255, np.float32)


def _near(colour: Picture, rng: np.random.Generator, least: float, most: float) -> Picture:
    """Make a colour clearly lighter or darker."""
    change = rng.uniform(least, most)
    darker = colour.mean() > 150 or (colour.mean() > 90 and rng.random() < 0.5)
    return np.asarray(np.clip(colour * (1 - change if darker else 1 + change), 0, 255), np.float32)


def _mix(first: Picture, second: Picture, weight: Picture) -> Picture:
    return np.asarray(first + (second - first) * weight[..., None], np.float32)


def _landscape(shape: tuple[int, int], unit: float, rng: np.random.Generator) -> Picture:
    height, width = shape
    sky = np.array([rng.uniform(190, 240), rng.uniform(170, 205), rng.uniform(130, 190)], np.float32)
    haze = np.asarray(sky * 0.35 + 235 * 0.65, np.float32)
    ground = _muted(rng, (0.3, 0.6), 0.5)
    y = np.linspace(0, 1, height, dtype=np.float32)[:, None] * np.ones((1, width), np.float32)
    horizon = rng.uniform(0.35, 0.65)
    hills = horizon + 0.3 * (cloud((width, width), rng, 3, 3)[width // 2 :][:1] - 0.5)
    above = _mix(sky, haze, np.clip(y / horizon, 0, 1))
    above = _mix(above, np.full(3, 245, np.float32), 0.7 * np.clip(cloud(shape, rng, 3, 4) * 2 - 1.1, 0, 1))
    below = _mix(ground, _near(ground, rng, 0.25, 0.45), cloud(shape, rng, 8 * min(shape) / unit, 5))
    return _mix(above, below, np.clip((y - hills) * height / 3, 0, 1))


def _wall(shape: tuple[int, int], unit: float, rng: np.random.Generator) -> Picture:
    y = np.linspace(0, 1, shape[0], dtype=np.float32)[:, None]
    x = np.linspace(0, 1, shape[1], dtype=np.float32)[None]
    first = _muted(rng)
    slant = rng.uniform(0, 1)
    return _mix(first, _near(first, rng, 0.25, 0.5), slant * x + (1 - slant) * y)


def _noise(shape: tuple[int, int], unit: float, rng: np.random.Generator) -> Picture:
    first, cells = _muted(rng), rng.uniform(2, 8) * min(shape) / unit
    second = _near(first, rng, 0.3, 0.5) if rng.random() < 0.6 else _muted(rng)
    return _mix(first, second, cloud(shape, rng, cells, 5))


def _checker(shape: tuple[int, int], unit: float, rng: np.random.Generator) -> Picture:
    height, width = shape
    cell = unit * rng.uniform(0.1, 0.2)
    y, x = np.mgrid[:height, :width].astype(np.float32)
    if rng.random() < 0.6:  # a floor seen at a slant
        depth = 1 + rng.uniform(0.4, 1.2) * (1 - y / height)
        x, y = (x - width / 2) * depth, y * depth * 1.3
    else:
        turn = rng.uniform(0, np.pi / 2)
        x, y = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
    first = _muted(rng)
    field = np.sin(np.pi * x / cell) * np.sin(np.pi * y / cell)
    return _mix(first, _near(first, rng, 0.15, 0.5), np.clip(0.5 + field * cell / 4, 0, 1).astype(np.float32))


def _bricks(shape: tuple[int, int], unit: float, rng: np.random.Generator) -> Picture:
    high, joint = unit * rng.uniform(0.06, 0.11), max(1.5, unit * 0.008)
    long = high * rng.uniform(1.9, 2.8)
    y, x = np.mgrid[: shape[0], : shape[1]].astype(np.float32)
    row = np.floor(y / high)
    x = x + (row % 2) * np.float32(long / 2)
    column = np.floor(x / long)
    edge = np.minimum(np.minimum(y % high, high - y % high), np.minimum(x % long, long - x % long))
    lots = rng.random(997).astype(np.float32)
    tone = lots[((row * 31 + column * 17) % 997).astype(np.intp)]
    first = _muted(rng, (0.35, 0.7), 0.45)
    brick = _mix(first, _near(first, rng, 0.2, 0.4), tone)
    return _mix(_muted(rng, (0.6, 0.8), 0.1), brick, np.clip((edge - joint / 2) / joint * 2, 0, 1))


def _planks(shape: tuple[int, int], unit: float, rng: np.random.Generator) -> Picture:
    wide = unit * rng.uniform(0.1, 0.22)
    y, x = np.mgrid[: shape[0], : shape[1]].astype(np.float32)
    if rng.random() < 0.5:
        x, y = y, x
    board = np.floor(x / wide)
    lots = rng.random(211).astype(np.float32)
    tone = lots[(board % 211).astype(np.intp)]
    veins = np.sin(x / unit * 90 + 6 * np.sin(y / unit * 5 + tone * 20) * tone + tone * 40) * 0.15
    first = _muted(rng, (0.35, 0.75), 0.5)
    wood = _mix(first, _near(first, rng, 0.2, 0.4), np.clip(tone * 0.8 + veins, 0, 1))
    gap = np.clip(np.minimum(x % wide, wide - x % wide) / max(1.0, unit * 0.004) - 0.3, 0.4, 1)
    return np.asarray(wood * gap[..., None], np.float32)


def _clutter(shape: tuple[int, int], unit: float, rng: np.random.Generator) -> Picture:
    height, width = shape
    picture = np.tile(_muted(rng), (height, width, 1))
    for _ in range(int(rng.integers(30, 70))):
        count, size = int(rng.integers(5, 9)), unit * rng.uniform(0.04, 0.2)
        angles = np.sort(rng.uniform(0, 2 * np.pi, count))
        reach = size * rng.uniform(0.5, 1, count)
        centre = rng.uniform(0, (width, height))
        points = centre + np.stack([np.cos(angles) * reach, np.sin(angles) * reach], 1)
        cv2.fillPoly(picture, [points.astype(np.int32)], _muted(rng, (0.3, 0.8), 0.3).tolist(), cv2.LINE_AA)
    return np.asarray(cv2.GaussianBlur(picture, (0, 0), unit * rng.uniform(0.003, 0.02)), np.float32)


BACKDROPS: dict[str, Callable[[tuple[int, int], float, np.random.Generator], Picture]] = {
    "landscape": _landscape,
    "wall": _wall,
    "noise": _noise,
    "checker": _checker,
    "bricks": _bricks,
    "planks": _planks,
    "clutter": _clutter,
}
