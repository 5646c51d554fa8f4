"""Shaded, textured pictures of single shapes with alpha, drawn once per object of the synthetic camera."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

COLOURS: dict[str, tuple[tuple[float, float], tuple[float, float], tuple[float, float]]] = {
    # ranges of hue in degrees, saturation and value of objects of that name
    "red": ((-6, 6), (0.82, 0.98), (0.72, 0.92)),
    "orange": ((24, 31), (0.88, 1.0), (0.94, 1.0)),
    "yellow": ((50, 57), (0.78, 0.96), (0.92, 1.0)),
    "green": ((105, 140), (0.65, 0.92), (0.45, 0.75)),
    "cyan": ((178, 188), (0.7, 0.95), (0.85, 1.0)),
    "blue": ((216, 234), (0.75, 0.97), (0.62, 0.92)),
    "purple": ((270, 284), (0.6, 0.85), (0.5, 0.72)),
    "pink": ((322, 338), (0.36, 0.55), (0.95, 1.0)),
    "brown": ((18, 28), (0.58, 0.76), (0.4, 0.52)),
    "white": ((0, 360), (0.0, 0.03), (0.94, 1.0)),
    "gray": ((0, 360), (0.0, 0.05), (0.46, 0.56)),
    "black": ((0, 360), (0.0, 0.12), (0.08, 0.14)),
}
TEXTURES = ("plain", "striped", "dotted", "checkered", "mottled")
_TO_WHITE = frozenset({"orange", "yellow", "pink", "cyan"})  # darkened, these would have another name

Contours = list[NDArray[np.float64]]


@dataclass(frozen=True)
class Sprite:
    """Upright picture of one object, to be warped into frames.

    Attributes:
        pixels: Premultiplied BGRA, uint8 [S,S,4].
        shadow: Darkness of its drop shadow, uint8 [s,s], at ``1 / shadow_step`` of the sprite's resolution.
    """

    pixels: NDArray[np.uint8]
    shadow: NDArray[np.uint8]
    shadow_step: float
    diameter: float


def named_bgr(colour: str, rng: np.random.Generator) -> NDArray[np.float32]:
    """Draw a random colour of that name, float32 [3], BGR in 0..255."""
    hue, saturation, value = (float(rng.uniform(*limits)) for limits in COLOURS[colour])
    hsv = np.array([[[hue % 360, saturation, value]]], np.float32)
    return np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR)[0, 0] * 255, np.float32)


def cloud(
    shape: tuple[int, int], rng: np.random.Generator, cells: float = 4.0, octaves: int = 4
) -> NDArray[np.float32]:
    """Draw smooth noise of several octaves, float32 [H,W], about 0..1 with mean near 0.5."""
    height, width = shape
    total = np.zeros(shape, np.float32)
    weight = 0.0
    for octave in range(octaves):
        across = cells * 2.0**octave
        if octave and across > min(shape):
            break
        rows, columns = (max(2, round(across * height / min(shape))), max(2, round(across * width / min(shape))))
        grid = rng.random((rows + 1, columns + 1), dtype=np.float32)
        total += cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC) * np.float32(0.6**octave)
        weight += 0.6**octave
    return np.asarray(np.clip(0.5 + 1.6 * (total / weight - 0.5), 0, 1), np.float32)


def draw_sprite(
    shape: str, colour: str, texture: str, diameter: float, light: tuple[float, float], rng: np.random.Generator
) -> Sprite:
    """Draw one object of a nominal diameter in sprite pixels; ``light`` is the unit vector (x right, y down) towards
    the light.
    """
    half = max(4.0, diameter / 2)
    side = 2 * (int(np.ceil(half)) + 2)
    alpha = _coverage(SHAPES[shape](rng), side, half)
    base = named_bgr(colour, rng)
    paint = _paint(colour, base, texture, side, half, rng)
    shade, gloss = _light(alpha, half, 1.0 if shape in ("circle", "ellipse") else float(rng.uniform(0.12, 0.5)), light)
    low, high = {"white": (0.82, 1.05), "gray": (0.82, 1.12), "black": (0.6, 1.3)}.get(colour, (0.6, 1.15))
    if colour in _TO_WHITE:
        low = 0.76
    lit = paint * np.clip(shade, low, high)[..., None] + (gloss * rng.uniform(0, 150))[..., None]
    pixels = np.empty((side, side, 4), np.uint8)
    pixels[..., :3] = np.clip(lit, 0, 255) * alpha[..., None] + 0.5
    pixels[..., 3] = alpha * 255 + 0.5
    shadow, step = _shadow(alpha, half, float(rng.uniform(0.2, 0.5)))
    return Sprite(pixels, shadow, step, 2 * half)


def _coverage(contours: Contours, side: int, half: float) -> NDArray[np.float32]:
    """Rasterise contours, given in units of the half diameter, to anti-aliased coverage [side,side]."""
    factor = 4 if side < 400 else 2
    # A pixel's centre is its coordinate, so a point p of the sprite lies at (p + 0.5) * factor - 0.5 of the fine grid.
    centre = side * factor / 2 - 0.5
    fine = np.zeros((side * factor, side * factor), np.uint8)
    points = [np.round((contour * half * factor + centre) * 16).astype(np.int32) for contour in contours]
    cv2.fillPoly(fine, points, 255, lineType=cv2.LINE_8, shift=4)
    small = cv2.resize(fine, (side, side), interpolation=cv2.INTER_AREA)
    return np.asarray(small, np.float32) / np.float32(255)


def _light(
    alpha: NDArray[np.float32], half: float, bevel: float, light: tuple[float, float]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Compute shade (1 where the surface faces the viewer) and gloss (0..1) of a cushion with rounded edges."""
    inside = cv2.distanceTransform((alpha > 0.5).astype(np.uint8), cv2.DIST_L2, 5)
    reach = min(max(2.0, bevel * half), max(2.0, float(inside.max())))
    rise = np.clip(inside / reach, 0, 1)
    height = cv2.GaussianBlur(np.sqrt(1 - (1 - rise) ** 2) * reach, (0, 0), max(0.8, 0.03 * half))
    slope_x = cv2.Sobel(height, cv2.CV_32F, 1, 0, ksize=3, scale=0.125)
    slope_y = cv2.Sobel(height, cv2.CV_32F, 0, 1, ksize=3, scale=0.125)
    length = np.sqrt(slope_x**2 + slope_y**2 + 1)
    facing = 1 / length
    towards = -(slope_x * light[0] + slope_y * light[1]) / length
    y, x = np.mgrid[: len(alpha), : len(alpha)].astype(np.float32) / np.float32(len(alpha) / 2) - 1
    slant = np.float32(0.1) * (x * light[0] + y * light[1])
    shade = 0.45 + 0.55 * facing + 0.4 * towards + slant
    half_way = np.clip(0.85 * facing + 0.5 * towards, 0, 1)  # halfway between viewer and light, about 30 degrees off
    return shade.astype(np.float32), np.asarray(np.clip(half_way / 0.985, 0, 1) ** 40, np.float32)


def _paint(
    colour: str, base: NDArray[np.float32], texture: str, side: int, half: float, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Paint the unlit surface [side,side,3]; the named colour covers most of it."""
    grain = 0.94 + 0.12 * cloud((side, side), rng, 6)
    if texture == "mottled":
        grain = 0.8 + 0.32 * cloud((side, side), rng, float(rng.uniform(5, 9)), 3)
    surface = np.asarray(base * grain[..., None], np.float32)
    if texture in ("plain", "mottled"):
        return surface
    if colour == "black":
        second = np.full(3, rng.uniform(95, 125), np.float32)
    elif colour == "white":
        second = np.full(3, rng.uniform(120, 150), np.float32)
    elif colour in _TO_WHITE:
        second = base * 0.3 + 255 * 0.7
    else:
        second = base * np.float32(0.4) if rng.random() < 0.5 else base * 0.3 + 255 * 0.7
    if texture != "checkered" and colour not in ("black", "white", "gray") and rng.random() < 0.3:
        second = np.full(3, 20.0 if colour in ("yellow", "cyan", "pink") else 240.0, np.float32)
    turn = rng.uniform(0, np.pi)
    y, x = (np.mgrid[:side, :side].astype(np.float32) - np.float32(side / 2 - 0.5)) / np.float32(half)
    u, v = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
    rate = rng.uniform(2.2, 3.6)
    wave_u, wave_v = (np.sin(np.pi * rate * u + rng.uniform(0, 6)), np.sin(np.pi * rate * v + rng.uniform(0, 6)))
    if texture == "striped":
        field = wave_u - 0.35
    elif texture == "dotted":
        field = wave_u * wave_v - 0.42
    else:
        field = np.sign(wave_u) * np.minimum(np.abs(wave_u), np.abs(wave_v)) * np.sign(wave_v)
    # The field changes by about pi * rate / half per pixel: one pixel of softness.
    mix = np.clip(0.5 + field * half / (np.pi * rate), 0, 1)[..., None]
    return np.asarray(surface * (1 - mix) + second * grain[..., None] * mix, np.float32)


def _shadow(alpha: NDArray[np.float32], half: float, darkness: float) -> tuple[NDArray[np.uint8], float]:
    """Blur a coarse copy of the coverage to a shadow, with a margin for the blur."""
    step = max(1.0, half / 12)
    room = int(np.ceil(half * 0.4))
    wide = cv2.copyMakeBorder(alpha, room, room, room, room, cv2.BORDER_CONSTANT, value=(0.0,))
    coarse = max(4, round(len(wide) / step))
    small = cv2.resize(wide, (coarse, coarse), interpolation=cv2.INTER_AREA)
    soft = cv2.GaussianBlur(small, (0, 0), 0.14 * half * coarse / len(wide))
    return np.asarray(soft * (255 * darkness), np.uint8), len(wide) / coarse


def _polar(radii: NDArray[np.float64], start: float) -> NDArray[np.float64]:
    angles = start + np.arange(len(radii)) * (2 * np.pi / len(radii))
    return np.stack([radii * np.cos(angles), radii * np.sin(angles)], axis=1)


def _regular(count: int, rng: np.random.Generator) -> Contours:
    return [_polar(np.ones(count), -np.pi / 2 + float(rng.uniform(-0.12, 0.12)))]


def _oval(ratio: float) -> Contours:
    return [_polar(np.ones(160), 0.0) * np.array([1.0, ratio])]


def _rectangle(x: float, y: float) -> Contours:
    return [np.array([[-x, -y], [x, -y], [x, y], [-x, y]])]


def _star(rng: np.random.Generator) -> Contours:
    points = int(rng.choice([5, 5, 5, 6]))
    radii = np.ones(2 * points)
    radii[1::2] = rng.uniform(0.4, 0.48) if points == 5 else rng.uniform(0.48, 0.55)
    return [_polar(radii, -np.pi / 2)]


def _ring(rng: np.random.Generator) -> Contours:
    return [_polar(np.ones(160), 0.0), _polar(np.full(160, rng.uniform(0.48, 0.66)), 0.0)]


def _heart(rng: np.random.Generator) -> Contours:
    t = np.linspace(0, 2 * np.pi, 160, endpoint=False)
    x = 16 * np.sin(t) ** 3
    y = -(13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t))
    return [np.stack([x, y - 2.5], axis=1) / rng.uniform(16.2, 17.5)]


def _cross(rng: np.random.Generator) -> Contours:
    a = rng.uniform(0.3, 0.38)
    quarter = np.array([[a, -1], [a, -a], [1, -a]])
    turn = np.array([[0.0, 1.0], [-1.0, 0.0]])  # row vectors times this turn by a quarter
    return [np.concatenate([quarter @ np.linalg.matrix_power(turn, k) for k in range(4)])]


def _crescent(rng: np.random.Generator) -> Contours:
    shift, radius = rng.uniform(0.45, 0.6), rng.uniform(0.8, 0.9)
    cut = (1 + shift**2 - radius**2) / (2 * shift)  # x of the two tips
    tip = np.arccos(cut)
    inner_tip = np.arctan2(np.sin(tip), cut - shift)
    outer, inner = (np.linspace(tip, 2 * np.pi - tip, 100), np.linspace(2 * np.pi - inner_tip, inner_tip, 100))
    arcs = [
        np.stack([np.cos(outer), np.sin(outer)], 1),
        np.stack([shift + radius * np.cos(inner), radius * np.sin(inner)], 1),
    ]
    return [np.concatenate(arcs)]


def _triangle(rng: np.random.Generator) -> Contours:
    wide, lean = rng.uniform(0.82, 1.0), rng.uniform(-0.15, 0.15)
    return [np.array([[lean, -0.95], [wide, 0.78], [-wide, 0.78]])]


SHAPES: dict[str, Callable[[np.random.Generator], Contours]] = {
    # contours in units of the half diameter, x right, y down; where two overlap there is a hole
    "circle": lambda rng: _oval(1.0),
    "square": lambda rng: _rectangle(0.84, 0.84),
    "rectangle": lambda rng: _rectangle(1.0, float(rng.uniform(0.45, 0.56))),
    "triangle": _triangle,
    "star": _star,
    "ring": _ring,
    "pentagon": lambda rng: _regular(5, rng),
    "hexagon": lambda rng: _regular(6, rng),
    "heart": _heart,
    "cross": _cross,
    "diamond": lambda rng: [np.array([[0.0, -1.0], [w := float(rng.uniform(0.55, 0.68)), 0.0], [0.0, 1.0], [-w, 0.0]])],
    "ellipse": lambda rng: _oval(float(rng.uniform(0.5, 0.62))),
    "crescent": _crescent,
}
