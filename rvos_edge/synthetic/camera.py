"""The synthetic camera: rendered scenes with exact masks, exact flow and true expressions.

Example:
    >>> camera = SyntheticCamera(seed=3, size=(64, 96), frames=4)
    >>> [frame.image.shape for frame in camera]
    [(64, 96, 3), (64, 96, 3), (64, 96, 3), (64, 96, 3)]
    >>> camera.expressions(2)[0][:2]  # expressions that are true of object 0 alone in frame 2
    (...)
"""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from rvos_edge.errors import UserError
from rvos_edge.synthetic.backdrops import draw_backdrop
from rvos_edge.synthetic.expressions import KINDS, Sighting, absent, describe
from rvos_edge.synthetic.scene import Matrix, ObjectMotion, Scene, SceneObject, placed, sample_scene
from rvos_edge.synthetic.sprites import Sprite, draw_sprite

__all__ = ["KINDS", "ObjectMotion", "SceneObject", "SyntheticCamera", "SyntheticFrame"]

_MIN_SIDE, _MAX_SIDE = 32, 4320
_MAX_OBJECTS = 8
_KEPT_SIGHTINGS = 32
_HEADROOM = 1.2  # sprite pixels per frame pixel at the nominal size, for zoom and pulse


@dataclass(frozen=True)
class SyntheticFrame:
    """One rendered frame.

    Attributes:
        image: uint8 [H,W,3] BGR.
        masks: bool [N,H,W], the visible pixels of each object (coverage above one half); they never overlap.
        flow: float32 [2,H,W] in pixels: pixel p of this frame was at p + flow(p) in the frame before (channel 0 is x).
            Each pixel moves with its object or with the background; zeros in frame 0.
    """

    index: int
    image: NDArray[np.uint8]
    masks: NDArray[np.bool_]
    flow: NDArray[np.float32]


class _Drawn(NamedTuple):
    """The pictures of a scene that its frames are put together from; nobody writes to them."""

    scene: Scene
    sprites: tuple[Sprite, ...]
    margin: tuple[int, int]
    backdrop: NDArray[np.uint8]
    noise: NDArray[np.uint8]
    flicker: float


@lru_cache(maxsize=2)  # drawing takes as long as twenty frames, and a source may be opened again
def _draw(seed: int, size: tuple[int, int], count: int | None) -> _Drawn:
    scene = sample_scene(np.random.default_rng([seed, 0]), count)
    unit = min(size)
    sprites = tuple(
        draw_sprite(
            thing.shape,
            thing.colour,
            thing.texture,
            _HEADROOM * thing.diameter * unit,
            scene.light,
            np.random.default_rng([seed, 1, number]),
        )
        for number, thing in enumerate(scene.objects)
    )
    margin = scene.camera.margin(size)
    shape = (size[0] + 2 * margin[0], size[1] + 2 * margin[1])
    look = np.random.default_rng([seed, 2])
    backdrop = draw_backdrop(scene.backdrop, shape, unit, look)
    # One picture of noise, read at a random offset per frame: new normal numbers would cost more than the rest
    # of the frame.
    sigma = look.uniform(0.5, 3.0)
    spread = (size[0] + 31, size[1] + 31, 3)
    noise = np.clip(look.normal(128.0, sigma, spread).round(), 0, 255).astype(np.uint8)
    return _Drawn(scene, sprites, margin, backdrop, noise, float(look.uniform(0.0, 0.02)))


class SyntheticCamera:
    """Renders shaded objects that move over a textured background while the camera pans and zooms.

    The seed alone determines the scene, at any size. Objects share shapes and colours on purpose, so that only the
    expression tells which one is meant. Frames can be rendered in any order.

    Args:
        size: Height and width of the frames in pixels, each 32 to 4320.
        objects: Number of objects, 1 to 8; None for 2 to 5, chosen by the seed.
        frames: Number of frames of an iteration; None for endless. ``render`` is not limited by it.

    Raises:
        UserError: An argument is out of range.
    """

    def __init__(
        self,
        *,
        seed: int = 0,
        size: tuple[int, int] = (288, 512),
        objects: int | None = None,
        frames: int | None = None,
    ) -> None:
        self._seed = _whole("seed", seed, 0, None)
        if not isinstance(size, (tuple, list)) or len(size) != 2:
            raise UserError(f"size must be (height, width), not {size!r}")
        self._size = (_whole("height", size[0], _MIN_SIDE, _MAX_SIDE), _whole("width", size[1], _MIN_SIDE, _MAX_SIDE))
        count = None if objects is None else _whole("objects", objects, 1, _MAX_OBJECTS)
        self._frames = None if frames is None else _whole("frames", frames, 0, None)
        self._scene, self._sprites, self._margin, self._backdrop, self._noise, self._flicker = _draw(
            self._seed, self._size, count
        )
        self._kept: OrderedDict[int, tuple[Sighting, ...]] = OrderedDict()

    @property
    def objects(self) -> tuple[SceneObject, ...]:
        """Objects in the order of the masks; later ones cover earlier ones."""
        return self._scene.objects

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the frames."""
        return self._size

    def __iter__(self) -> Iterator[SyntheticFrame]:
        """Iterate over frames 0, 1, 2, ... up to ``frames``; each call starts from frame 0."""
        numbers = itertools.count() if self._frames is None else range(self._frames)
        return (self.render(index) for index in numbers)

    def render(self, index: int) -> SyntheticFrame:
        """Render a frame; equal calls give equal frames.

        Raises:
            UserError: ``index`` is negative or not an integer.
        """
        index = _whole("index", index, 0, None)
        height, width = self._size
        view = self._scene.camera.view(index, self._size)
        before = self._scene.camera.view(max(0, index - 1), self._size)
        image = np.asarray(
            cv2.warpAffine(
                self._backdrop,
                (view @ _shift(-self._margin[1], -self._margin[0]))[:2],
                (width, height),
                flags=cv2.INTER_LINEAR,
                borderMode=cv2.BORDER_REFLECT,
            ),
            np.uint8,
        )
        flow = np.empty((2, height, width), np.float32)
        _write_flow(flow, before @ np.linalg.inv(view), (0, 0), None)
        owner = np.zeros((height, width), np.uint8)
        areas: list[int] = []
        for number, (thing, sprite) in enumerate(zip(self._scene.objects, self._sprites, strict=True)):
            pose = view @ self._pose(thing, sprite, index)
            self._cast_shadow(image, sprite, pose)
            warped, corner = _warp(sprite.pixels, pose, self._size)
            rows, columns = (
                slice(corner[1], corner[1] + warped.shape[0]),
                slice(corner[0], corner[0] + warped.shape[1]),
            )
            inside = warped[..., 3] > 127
            areas.append(int(np.count_nonzero(inside)))
            if not warped.size:
                continue
            roi = image[rows, columns]
            fade = cv2.cvtColor(cv2.bitwise_not(warped[..., 3]), cv2.COLOR_GRAY2BGR)
            roi[:] = cv2.add(cv2.multiply(roi, fade, scale=1 / 255), warped[..., :3])
            owner[rows, columns][inside] = number + 1
            if index:
                previous = before @ self._pose(thing, sprite, index - 1)
                _write_flow(flow[:, rows, columns], previous @ np.linalg.inv(pose), corner, inside)
        masks = owner[None] == np.arange(1, len(self._sprites) + 1, dtype=np.uint8)[:, None, None]
        self._keep(index, self._sightings(index, view, masks))
        return SyntheticFrame(index, self._develop(image, index), masks, flow)

    def expressions(self, index: int, *, kinds: Collection[str] | None = None) -> tuple[tuple[str, ...], ...]:
        """List the expressions that are true of exactly one object in a frame.

        An expression is clearly true of its object and clearly false of every other; borderline cases are left out.
        Motion is relative to the background, and absent from frame 0.

        Args:
            kinds: Properties that may be used, among ``KINDS``; None for all. A network that reads only the magnitude
                of motion cannot tell "direction".

        Returns:
            The expressions of each object, sorted; none for an object that is hidden or hardly visible.
        """
        index = _whole("index", index, 0, None)
        allowed = _known(kinds)
        if index not in self._kept:
            self.render(index)
        return describe(self._kept[index], allowed)

    def absent_expressions(
        self, rng: np.random.Generator, count: int, *, kinds: Collection[str] | None = None
    ) -> tuple[str, ...]:
        """Draw well-formed expressions whose combination of colour and shape does not occur in this scene."""
        return absent(self._scene.objects, rng, _whole("count", count, 0, None), _known(kinds))

    def _pose(self, thing: SceneObject, sprite: Sprite, index: int) -> Matrix:
        """Return the map from sprite pixels to world pixels, [3,3]."""
        middle = (sprite.pixels.shape[0] - 1) / 2
        scale = thing.diameter * min(self._size) / sprite.diameter * thing.motion.scale(index)
        angle = thing.motion.angle + thing.motion.spin * index
        return placed((middle, middle), thing.motion.place(index, self._size), angle, scale)

    def _cast_shadow(self, image: NDArray[np.uint8], sprite: Sprite, pose: Matrix) -> None:
        drop = 0.09 * sprite.diameter * float(np.hypot(pose[0, 0], pose[1, 0]))
        away = _shift(-self._scene.light[0] * drop, -self._scene.light[1] * drop)
        step, side, coarse = sprite.shadow_step, sprite.pixels.shape[0], sprite.shadow.shape[0]
        room = (coarse * step - side) / 2
        unfold = np.array([[step, 0, 0.5 * step - 0.5 - room], [0, step, 0.5 * step - 0.5 - room], [0, 0, 1.0]])
        dark, corner = _warp(sprite.shadow, away @ pose @ unfold, self._size)
        if dark.size:
            roi = image[corner[1] : corner[1] + dark.shape[0], corner[0] : corner[0] + dark.shape[1]]
            roi[:] = cv2.multiply(roi, cv2.cvtColor(cv2.bitwise_not(dark), cv2.COLOR_GRAY2BGR), scale=1 / 255)

    def _develop(self, image: NDArray[np.uint8], index: int) -> NDArray[np.uint8]:
        """Add sensor noise and flicker."""
        rng = np.random.default_rng([self._seed, 3, index])
        y, x = rng.integers(0, 32, 2)
        height, width = self._size
        noise = self._noise[y : y + height, x : x + width]
        return np.asarray(cv2.addWeighted(image, 1 + self._flicker * rng.uniform(-1, 1), noise, 1.0, -128), np.uint8)

    def _sightings(self, index: int, view: Matrix, masks: NDArray[np.bool_]) -> tuple[Sighting, ...]:
        """Return the properties of each object that a viewer could describe in this frame."""
        height, width = self._size
        unit = min(self._size)
        out = []
        for thing, sprite, mask in zip(self._scene.objects, self._sprites, masks, strict=True):
            motion = thing.motion
            x, y = motion.place(index, self._size)
            was_x, was_y = motion.place(max(0, index - 1), self._size)
            grown = motion.scale(index)
            seen = int(np.count_nonzero(mask))
            whole = np.count_nonzero(sprite.pixels[..., 3] > 127)
            whole *= (thing.diameter * unit * grown / sprite.diameter) ** 2 * np.linalg.det(view[:2, :2])
            if seen:
                across, down = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
                place = (across[0] + across[-1]) / 2, (down[0] + down[-1]) / 2
            else:
                place = tuple((view @ [x, y, 1.0])[:2])
            out.append(
                Sighting(
                    thing=thing,
                    place=(float(place[0]) / width, float(place[1]) / height),
                    extent=thing.diameter * grown,
                    visible=seen >= max(9, 0.0006 * height * width, 0.3 * whole),
                    velocity=((x - was_x) / unit, (y - was_y) / unit) if index else None,
                    growth=grown / motion.scale(max(0, index - 1)) - 1,
                )
            )
        return tuple(out)

    def _keep(self, index: int, sightings: tuple[Sighting, ...]) -> None:
        self._kept[index] = sightings
        self._kept.move_to_end(index)
        if len(self._kept) > _KEPT_SIGHTINGS:
            self._kept.popitem(last=False)


def _whole(name: str, value: object, low: int, high: int | None) -> int:
    number = int(value) if isinstance(value, (int, np.integer)) and not isinstance(value, bool) else None
    if number is None or number < low or (high is not None and number > high):
        limits = f"at least {low}" if high is None else f"{low} to {high}"
        raise UserError(f"{name} must be a whole number, {limits}, not {value!r}")
    return number


def _known(kinds: Collection[str] | None) -> frozenset[str]:
    chosen = KINDS if kinds is None else frozenset([kinds] if isinstance(kinds, str) else kinds)
    if not chosen <= KINDS:
        raise UserError(f"kinds must be among {', '.join(sorted(KINDS))}, not {kinds!r}")
    return chosen


def _shift(x: float, y: float) -> Matrix:
    return np.array([[1.0, 0.0, x], [0.0, 1.0, y], [0.0, 0.0, 1.0]])


def _warp(
    source: NDArray[np.uint8], matrix: Matrix, size: tuple[int, int]
) -> tuple[NDArray[np.uint8], tuple[int, int]]:
    """Warp into the part of the frame that the picture touches; returns that part and its upper left corner (x, y)."""
    side = source.shape[0]
    ends = (matrix @ np.array([[-1, side, -1, side], [-1, -1, side, side], [1, 1, 1, 1]]))[:2]
    x0, y0 = (max(0, int(np.floor(low))) for low in ends.min(axis=1))
    x1, y1 = (
        min(limit, int(np.ceil(high)) + 1) for limit, high in zip((size[1], size[0]), ends.max(axis=1), strict=True)
    )
    if x1 <= x0 or y1 <= y0:
        return np.zeros((0, 0, *source.shape[2:]), np.uint8), (0, 0)
    local = (_shift(-x0, -y0) @ matrix)[:2]
    return np.asarray(cv2.warpAffine(source, local, (x1 - x0, y1 - y0), flags=cv2.INTER_LINEAR), np.uint8), (x0, y0)


def _write_flow(
    flow: NDArray[np.float32], back: Matrix, corner: tuple[int, int], where: NDArray[np.bool_] | None
) -> None:
    """Write ``back @ p - p`` for the pixels of a part of the frame, [2,h,w], whose corner is given as (x, y)."""
    x = np.arange(corner[0], corner[0] + flow.shape[2], dtype=np.float64)
    y = np.arange(corner[1], corner[1] + flow.shape[1], dtype=np.float64)
    for channel in range(2):
        along_x = back[channel, 0] * x - (x if channel == 0 else 0)
        along_y = back[channel, 1] * y - (y if channel == 1 else 0) + back[channel, 2]
        values = along_y.astype(np.float32)[:, None] + along_x.astype(np.float32)[None]
        if where is None:
            flow[channel] = values
        else:
            np.copyto(flow[channel], values, where=where)
