"""The contents of a synthetic scene: objects that are easy to confuse, their motion and that of the camera.

Units do not depend on the size of the frame, so that a seed gives the same scene at any size. All paths are closed
formulas of the frame number, so that a frame can be rendered without its predecessors.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rvos_edge.synthetic.backdrops import BACKDROPS
from rvos_edge.synthetic.sprites import COLOURS, SHAPES, TEXTURES

Matrix = NDArray[np.float64]

_SIZES: dict[str | None, tuple[float, float]] = {"small": (0.16, 0.2), None: (0.25, 0.29), "large": (0.37, 0.45)}
_ROOM = 0.4  # objects keep their centres within this distance of the world's centre, as a fraction of the frame


@dataclass(frozen=True)
class ObjectMotion:
    """Motion of an object against the background.

    Attributes:
        path: "still", "bounce" (straight, off the walls), "circle" or "sway" (to and fro on a line).
        start: Place in frame 0 (for circle and sway: the centre), fraction of width and height.
        velocity: Per frame, in shorter frame sides; bounce only.
        reach: Radius of the circle or half length of the sway as (x, y), in shorter frame sides.
        pulse: Relative change of size, 0 for a constant size.
        pulse_period: Frames per pulse.
    """

    path: str
    start: tuple[float, float]
    velocity: tuple[float, float] = (0.0, 0.0)
    reach: tuple[float, float] = (0.0, 0.0)
    period: float = 100.0
    phase: float = 0.0
    angle: float = 0.0
    spin: float = 0.0
    pulse: float = 0.0
    pulse_period: float = 60.0

    def place(self, index: int, size: tuple[int, int]) -> tuple[float, float]:
        """Return the centre (x, y) at a frame, in pixels of the unmoved camera."""
        unit = min(size)
        turn = 2 * np.pi * index / self.period + self.phase
        out = []
        for start, side, speed, reach, wave in (
            (self.start[0], size[1], self.velocity[0], self.reach[0], np.cos(turn)),
            (self.start[1], size[0], self.velocity[1], self.reach[1], np.sin(turn)),
        ):
            if self.path == "sway":
                wave = np.sin(turn)
            if self.path == "bounce":
                low, span = (0.5 - _ROOM) * side, 2 * _ROOM * side
                along = (start * side - low + speed * unit * index) % (2 * span)
                out.append(low + min(along, 2 * span - along))
            else:
                out.append(start * side + reach * unit * float(wave))
        return out[0], out[1]

    def scale(self, index: int) -> float:
        """Return the size at a frame relative to the nominal size."""
        return 1 + self.pulse * float(np.sin(2 * np.pi * index / self.pulse_period + self.phase))

    def __str__(self) -> str:
        extras = [name for name, value in (("spin", self.spin), ("pulse", self.pulse)) if value]
        return "+".join([self.path, *extras])


@dataclass(frozen=True)
class SceneObject:
    """One object of the scene.

    Attributes:
        size_name: "small", "large" or None for neither.
        diameter: Nominal diameter in shorter frame sides.
    """

    shape: str
    colour: str
    size_name: str | None
    texture: str
    diameter: float
    motion: ObjectMotion


@dataclass(frozen=True)
class CameraMotion:
    """Pan, zoom and roll as sums of slow sines.

    Attributes:
        pan: Amplitude (x, y), fractions of width and height.
        zoom: Largest magnification minus one.
        roll: Amplitude in radians.
        shake: Amplitude of the hand's tremor in shorter frame sides.
        periods: Frames per swing of x, y, zoom, roll.
        phases: Radians at frame 0 of the same.
    """

    pan: tuple[float, float]
    zoom: float
    roll: float
    shake: float
    periods: tuple[float, ...]
    phases: tuple[float, ...]

    def view(self, index: int, size: tuple[int, int]) -> Matrix:
        """Return the map from world to frame pixels at a frame, [3,3]."""
        height, width = size
        x, y, near, lean = (
            float(np.sin(2 * np.pi * index / period + phase))
            for period, phase in zip(self.periods, self.phases, strict=True)
        )
        tremor = self.shake * min(size)
        x = x * self.pan[0] * width + tremor * np.sin(index * 0.9 + self.phases[0])
        y = y * self.pan[1] * height + tremor * np.sin(index * 0.7 + self.phases[1])
        return placed(
            ((width - 1) / 2 + x, (height - 1) / 2 + y),
            ((width - 1) / 2, (height - 1) / 2),
            self.roll * lean,
            1 + self.zoom * (0.5 + 0.5 * near),
        )

    def margin(self, size: tuple[int, int]) -> tuple[int, int]:
        """Return the pixels of background (y, x) needed beyond each side of the frame."""
        height, width = size
        tremor = self.shake * min(size)
        across = abs(np.sin(self.roll))
        y = self.pan[1] * height + tremor + across * width / 2
        x = self.pan[0] * width + tremor + across * height / 2
        return int(np.ceil(y)) + 3, int(np.ceil(x)) + 3


@dataclass(frozen=True)
class Scene:
    """Description of a scene before any pixel is drawn. Later objects cover earlier ones."""

    objects: tuple[SceneObject, ...]
    camera: CameraMotion
    backdrop: str
    light: tuple[float, float]


def placed(source: tuple[float, float], target: tuple[float, float], angle: float, scale: float) -> Matrix:
    """Return the similarity [3,3] that rotates and scales about ``source`` and moves it to ``target``."""
    cos, sin = scale * np.cos(angle), scale * np.sin(angle)
    return np.array(
        [
            [cos, -sin, target[0] - cos * source[0] + sin * source[1]],
            [sin, cos, target[1] - sin * source[0] - cos * source[1]],
            [0.0, 0.0, 1.0],
        ]
    )


def sample_scene(rng: np.random.Generator, count: int | None) -> Scene:
    """Draw a random scene of ``count`` objects, None for 2 to 5."""
    if count is None:
        count = int(rng.choice([2, 3, 4, 5], p=[0.25, 0.35, 0.25, 0.15]))
    looks: list[tuple[str, str, str | None, str]] = []
    for _ in range(count):
        looks.append(_look(rng, looks))
    starts: list[tuple[float, float]] = []
    objects = []
    for shape, colour, size_name, texture in looks:
        starts.append(_free_place(rng, starts))
        turnable = shape not in ("circle", "ring") or texture in ("striped", "dotted", "checkered")
        motion = _motion(rng, starts[-1], turnable, upright=shape != "circle")
        objects.append(SceneObject(shape, colour, size_name, texture, float(rng.uniform(*_SIZES[size_name])), motion))
    order = rng.permutation(count)
    bearing = rng.uniform(-0.9 * np.pi, -0.1 * np.pi)  # the light comes from above
    return Scene(
        tuple(objects[k] for k in order),
        _camera(rng),
        str(rng.choice(list(BACKDROPS))),
        (float(np.cos(bearing)), float(np.sin(bearing))),
    )


def _look(rng: np.random.Generator, others: list[tuple[str, str, str | None, str]]) -> tuple[str, str, str | None, str]:
    """Draw shape, colour, size and texture, mostly sharing some of them with an object already drawn."""
    shape, colour = str(rng.choice(list(SHAPES))), str(rng.choice(list(COLOURS)))
    size_name = (None, "small", "large")[rng.choice(3, p=[0.4, 0.27, 0.33])]
    texture = str(rng.choice(TEXTURES, p=[0.4, 0.18, 0.13, 0.11, 0.18]))
    if not others:
        return shape, colour, size_name, texture
    twin = others[rng.integers(len(others))]
    kind = rng.choice(["shape", "colour", "size", "place", "free"], p=[0.32, 0.24, 0.16, 0.08, 0.2])
    if kind == "shape":
        return twin[0], _another(rng, list(COLOURS), twin[1]), size_name, texture
    if kind == "colour":
        return _another(rng, list(SHAPES), twin[0]), twin[1], size_name, texture
    if kind == "size":
        opposite = {"small": "large", "large": "small"}.get(twin[2] or "", "large" if rng.random() < 0.5 else "small")
        return twin[0], twin[1], opposite, twin[3] if rng.random() < 0.6 else texture
    if kind == "place":
        return twin
    return shape, colour, size_name, texture


def _another(rng: np.random.Generator, names: list[str], than: str) -> str:
    return str(rng.choice([name for name in names if name != than]))


def _free_place(rng: np.random.Generator, taken: list[tuple[float, float]]) -> tuple[float, float]:
    """Return the one of a few random places that is farthest from the taken ones."""
    tries = rng.uniform(0.14, 0.86, (6, 2))
    if taken:
        gaps = np.linalg.norm(tries[:, None] - np.array(taken)[None], axis=2).min(axis=1)
        tries = tries[[int(gaps.argmax())]]
    return float(tries[0, 0]), float(tries[0, 1])


def _motion(rng: np.random.Generator, start: tuple[float, float], turnable: bool, upright: bool) -> ObjectMotion:
    path = str(rng.choice(["bounce", "circle", "sway", "still"], p=[0.42, 0.12, 0.16, 0.3]))
    spin = float(rng.uniform(0.035, 0.12) * rng.choice([-1, 1])) if turnable and rng.random() < 0.27 else 0.0
    pulse = float(rng.uniform(0.1, 0.16)) if rng.random() < 0.12 else 0.0
    angle = float(rng.normal(0, 0.15)) if upright else 0.0
    bearing, speed = rng.uniform(0, 2 * np.pi), rng.uniform(0.007, 0.022)
    if rng.random() < 0.6:  # mostly along an axis, where a direction has a name
        bearing = rng.integers(4) * np.pi / 2 + rng.normal(0, 0.12)
    along = (float(np.cos(bearing)), float(np.sin(bearing)))
    reach = (0.0, 0.0)
    if path == "circle":
        radius = float(rng.uniform(0.1, 0.22))
        reach = (radius, radius * float(rng.choice([-1, 1])))
    elif path == "sway":
        length = float(rng.uniform(0.1, 0.25))
        reach = (along[0] * length, along[1] * length)
    if path in ("circle", "sway"):  # keep the whole path in view
        start = (0.5 + 0.75 * (start[0] - 0.5), 0.5 + 0.75 * (start[1] - 0.5))
    return ObjectMotion(
        path=path,
        start=start,
        velocity=(along[0] * speed, along[1] * speed) if path == "bounce" else (0.0, 0.0),
        reach=reach,
        period=float(rng.uniform(50, 130)),
        phase=float(rng.uniform(0, 2 * np.pi)),
        angle=angle,
        spin=spin,
        pulse=pulse,
        pulse_period=float(rng.uniform(30, 70)),
    )


def _camera(rng: np.random.Generator) -> CameraMotion:
    moving = rng.random() < 0.65
    return CameraMotion(
        pan=(float(rng.uniform(0.03, 0.12)), float(rng.uniform(0.0, 0.08))) if moving else (0.0, 0.0),
        zoom=float(rng.uniform(0.05, 0.25)) if moving and rng.random() < 0.6 else 0.0,
        roll=float(rng.uniform(0.01, 0.05)) if moving and rng.random() < 0.25 else 0.0,
        shake=float(rng.uniform(0.001, 0.004)) if rng.random() < 0.25 else 0.0,
        periods=tuple(float(rng.uniform(70, 260)) for _ in range(4)),
        phases=tuple(float(rng.uniform(0, 2 * np.pi)) for _ in range(4)),
    )
