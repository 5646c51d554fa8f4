"""Augmentation: one view (crop, resize, mirror) for image, masks and flow, then colour and noise.

Expressions that are generated from instances are made after the view and hold for it. In written expressions left and
right are swapped where the view mirrors; expressions whose place no longer holds are dropped.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, cast

import cv2
import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """Strength of the augmentation; `Augmentation.none()` only resizes.

    Attributes:
        zoom: Range of the window's height, as a share of the source's height.
        stretch: Largest factor by which the window's aspect ratio deviates.
        letterbox: Probability of a window that extends beyond the source (bars in a flat colour).
        colour: Strength of brightness, contrast, saturation and tint changes, 0 to 1.
        view: Choice of the window: "edge" as in `random_view`, "paper" as in `paper_view`, where of the geometry only
            ``flip`` applies.
    """

    zoom: tuple[float, float] = (0.6, 1.0)
    stretch: float = 1.2
    letterbox: float = 0.25
    flip: float = 0.5
    colour: float = 1.0
    blur: float = 0.25
    noise: float = 0.2
    jpeg: float = 0.2
    view: Literal["edge", "paper"] = "edge"

    @classmethod
    def paper(cls, *, flip: float = 0.0) -> Augmentation:
        """The paper's augmentation: a random crop, and mirroring with probability ``flip``."""
        return cls(flip=flip, colour=0.0, blur=0.0, noise=0.0, jpeg=0.0, view="paper")

    @classmethod
    def none(cls) -> Augmentation:
        """No augmentation: images are only resized."""
        return cls(zoom=(1.0, 1.0), stretch=1.0, letterbox=0.0, flip=0.0, colour=0.0, blur=0.0, noise=0.0, jpeg=0.0)


@dataclass(frozen=True)
class CropView:
    """A window of a source image, resized to the output and optionally mirrored.

    Attributes:
        source: Height and width of the source.
        window: (x, y, width, height) in source pixels; may extend beyond the source.
        size: Height and width of the output.
        flip: Mirrored left to right.
    """

    source: tuple[int, int]
    window: tuple[int, int, int, int]
    size: tuple[int, int]
    flip: bool = False

    @property
    def scale(self) -> tuple[float, float]:
        """Output pixels per source pixel along x and y."""
        return self.size[1] / self.window[2], self.size[0] / self.window[3]

    def image(self, source: NDArray[np.uint8], *, fill: int = 0) -> NDArray[np.uint8]:
        """View of an image uint8 [h,w,3] or [h,w] (bilinear), with ``fill`` beyond the source."""
        x0, y0, w, h = self.window
        left, top = max(x0, 0), max(y0, 0)
        right, bottom = min(x0 + w, self.source[1]), min(y0 + h, self.source[0])
        sx, sy = self.scale
        u0, u1 = round((left - x0) * sx), round((right - x0) * sx)
        v0, v1 = round((top - y0) * sy), round((bottom - y0) * sy)
        crop = cv2.resize(source[top:bottom, left:right], (u1 - u0, v1 - v0), interpolation=cv2.INTER_LINEAR)
        if (v1 - v0, u1 - u0) != self.size:
            out = np.full(self.size + source.shape[2:], fill, np.uint8)
            out[v0:v1, u0:u1] = crop
            crop = out
        return cast("NDArray[np.uint8]", cv2.flip(crop, 1) if self.flip else crop)

    def mask(self, source: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """View of a mask, bool [h,w]."""
        return self.image(source.view(np.uint8) * np.uint8(255)) > 127

    def points(self, points: NDArray[np.float32]) -> NDArray[np.float32]:
        """Output coordinates of source points, float32 [N,2] (x, y), with pixel edges at integers."""
        sx, sy = self.scale
        out = (points - np.asarray(self.window[:2], np.float32)) * np.asarray((sx, sy), np.float32)
        if self.flip:
            out[:, 0] = self.size[1] - out[:, 0]
        return cast("NDArray[np.float32]", out.astype(np.float32))

    def flow(
        self,
        field: NDArray[np.floating],
        flow_size: tuple[int, int],
        *,
        unit: tuple[int, int] | None = None,
        beyond: NDArray[np.float32] | None = None,
    ) -> NDArray[np.float32]:
        """View of a flow field [2,h,w] of the whole source at any size -> float32 [h,w,2] in pixels of the output.

        Args:
            unit: Size of the image in whose pixels the values are given, the source's by default.
            beyond: Flow (x, y) beyond the source, in pixels of the output; zero by default.
        """
        height, width = field.shape[1:]
        # Crop first, so that only the window's part of a memory map is read.
        fx, fy = width / self.source[1], height / self.source[0]
        x0, y0, w, h = (self.window[0] * fx, self.window[1] * fy, self.window[2] * fx, self.window[3] * fy)
        left, top = max(int(x0) - 1, 0), max(int(y0) - 1, 0)
        part = field[:, top : int(y0 + h) + 2, left : int(x0 + w) + 2]
        planes = np.ascontiguousarray(np.moveaxis(np.asarray(part, np.float32), 0, -1))
        sx, sy = w / flow_size[1], h / flow_size[0]
        matrix = np.array([[sx, 0, x0 - left + 0.5 * sx - 0.5], [0, sy, y0 - top + 0.5 * sy - 0.5]], np.float32)
        mode = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        warped = cv2.warpAffine(planes, matrix, flow_size[::-1], flags=mode, borderMode=cv2.BORDER_REPLICATE)
        out = np.asarray(warped, np.float32)
        out *= np.abs(self._pixels(unit))
        self._clear_outside(out, 0 if beyond is None else beyond * np.sign(self._pixels(unit)))
        if self.flip:
            out = np.ascontiguousarray(out[:, ::-1])
            out[..., 0] *= -1
        return out

    def camera(self, field: NDArray[np.floating], *, unit: tuple[int, int] | None = None) -> NDArray[np.float32]:
        """Statistics of a whole flow field [2,h,w] in pixels of the output, as ``Sample.camera``: float32 [3]."""
        planes = np.asarray(field, np.float32) * self._pixels(unit)[:, None, None]
        mean = planes.mean(axis=(1, 2))
        return np.append(mean, np.linalg.norm(planes - mean[:, None, None], axis=0).mean()).astype(np.float32)

    def _pixels(self, unit: tuple[int, int] | None) -> NDArray[np.float32]:
        """Factors of flow (x, y) from pixels of an image of size ``unit`` to those of the output."""
        height, width = unit or self.source
        zoom_x, zoom_y = self.scale
        x = zoom_x * self.source[1] / width * (-1 if self.flip else 1)
        return np.asarray((x, zoom_y * self.source[0] / height), np.float32)

    def _clear_outside(self, flow: NDArray[np.float32], value: NDArray[np.float32] | int) -> None:
        x0, y0, w, h = self.window
        height, width = flow.shape[:2]
        flow[:, : max(0, round(-x0 / w * width))] = value
        flow[: max(0, round(-y0 / h * height))] = value
        flow[:, round((self.source[1] - x0) / w * width) :] = value
        flow[round((self.source[0] - y0) / h * height) :] = value


def whole_view(source: tuple[int, int], size: tuple[int, int]) -> CropView:
    """The view that only resizes."""
    return CropView(source=source, window=(0, 0, source[1], source[0]), size=size)


def random_view(
    rng: np.random.Generator,
    source: tuple[int, int],
    size: tuple[int, int],
    augmentation: Augmentation,
    boxes: NDArray[np.float32] | None = None,
) -> CropView:
    """A random window of about the output's aspect ratio that shows most of one of the boxes, float32 [N,4] x0 y0 x1
    y1.
    """
    if augmentation == Augmentation.none():
        return whole_view(source, size)
    if augmentation.view == "paper":
        return paper_view(rng, source, size, flip=augmentation.flip)
    height, width = source
    aspect = size[1] / size[0] * float(np.exp(rng.uniform(-1, 1) * np.log(augmentation.stretch)))
    inside = min(height, width / aspect)
    if rng.random() < augmentation.letterbox:
        window_h = rng.uniform(inside, min(max(height, width / aspect), 1.6 * inside) * 1.05)
    else:
        window_h = inside * rng.uniform(*augmentation.zoom)
    h, w = max(16, round(window_h)), max(16, round(window_h * aspect))
    flip = bool(rng.random() < augmentation.flip)
    box = boxes[rng.integers(len(boxes))] if boxes is not None and len(boxes) else None
    x = y = 0
    for attempt in range(9):
        x, y = _place(rng, w, width), _place(rng, h, height)
        if box is None or _shown(box, x, y, w, h) >= 0.6:
            break
        if attempt == 7:
            x = _clamp(round((box[0] + box[2] - w) / 2), w, width)
            y = _clamp(round((box[1] + box[3] - h) / 2), h, height)
            break
    return CropView(source=source, window=(x, y, w, h), size=size, flip=flip)


def paper_view(
    rng: np.random.Generator, source: tuple[int, int], size: tuple[int, int], *, flip: float = 0.0
) -> CropView:
    """The source resized to the output's height, and a random crop of the output's width (supplement, section 1).

    A source that is then narrower than the output is placed at random between bars (our reading).
    """
    height, width = source
    window = max(1, round(size[1] * height / size[0]))
    x = _place(rng, window, width)
    return CropView(source=source, window=(x, 0, window, height), size=size, flip=bool(rng.random() < flip))


def photometric(image: NDArray[np.uint8], rng: np.random.Generator, augmentation: Augmentation) -> NDArray[np.uint8]:
    """Vary brightness, colour and quality of an image, RGB uint8 [H,W,3], so little that colour words stay true."""
    k = augmentation.colour
    if k > 0 and rng.random() < 0.9:
        luma = np.array([0.299, 0.587, 0.114], np.float32)
        saturation = 1 + k * rng.uniform(-0.3, 0.3)
        gain = (1 + k * rng.uniform(-0.25, 0.25)) * (1 + k * rng.uniform(-0.04, 0.04, 3))
        matrix = (saturation * np.eye(3) + (1 - saturation) * luma[None]) * gain[:, None]
        offset = np.full((3, 1), k * rng.uniform(-15, 15))
        image = cast("NDArray[np.uint8]", cv2.transform(image, np.hstack([matrix, offset]).astype(np.float32)))
        if rng.random() < 0.3:
            gamma = float(np.exp(k * rng.uniform(-0.3, 0.3)))
            table = (np.linspace(0, 1, 256) ** gamma * 255).astype(np.uint8)
            image = cast("NDArray[np.uint8]", cv2.LUT(image, table))
    if rng.random() < augmentation.blur:
        image = _blur(image, rng)
    if rng.random() < augmentation.noise:
        strength = int(rng.integers(2, 14))
        grain = rng.integers(-strength, strength + 1, image.shape, dtype=np.int16)
        image = np.clip(image + grain, 0, 255).astype(np.uint8)
    if rng.random() < augmentation.jpeg:
        quality = int(rng.integers(30, 90))
        _, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
        image = cast("NDArray[np.uint8]", cv2.imdecode(data, cv2.IMREAD_COLOR))
    return image


def _blur(image: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    if rng.random() < 0.5:
        # Sometimes strong enough that motion is the main cue.
        sigma = rng.uniform(2.0, 5.0) if rng.random() < 0.3 else rng.uniform(0.5, 1.6)
        return cast("NDArray[np.uint8]", cv2.GaussianBlur(image, (0, 0), float(sigma)))
    length = int(rng.integers(3, 18))
    kernel = np.zeros((length, length), np.float32)
    angle = rng.uniform(0, np.pi)
    reach = (length - 1) / 2 * np.array([np.cos(angle), np.sin(angle)])
    middle = (length - 1) / 2
    start, stop = np.rint(middle - reach).astype(int), np.rint(middle + reach).astype(int)
    cv2.line(kernel, (int(start[0]), int(start[1])), (int(stop[0]), int(stop[1])), 1.0)
    return cast("NDArray[np.uint8]", cv2.filter2D(image, -1, kernel / kernel.sum()))


def _place(rng: np.random.Generator, window: int, source: int) -> int:
    low, high = sorted((0, source - window))
    return int(rng.integers(low, high + 1))


def _clamp(at: int, window: int, source: int) -> int:
    low, high = sorted((0, source - window))
    return min(max(at, low), high)


def _shown(box: NDArray[np.float32], x: int, y: int, w: int, h: int) -> float:
    width = min(box[2], x + w) - max(box[0], x)
    height = min(box[3], y + h) - max(box[1], y)
    area = max((box[2] - box[0]) * (box[3] - box[1]), 1e-6)
    return float(max(width, 0) * max(height, 0) / area)
