"""Masks that are the same on every machine (integers only), for figures that the public code was run on."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

Masks = NDArray[np.bool_]
REAL = ("bmx-bumps", "dance-jump", "mallard-fly")


def random_object(rng: np.random.Generator, size: tuple[int, int]) -> Masks:
    """A few discs, one of them often cut by the border, with holes of single pixels."""
    y, x = np.ogrid[: size[0], : size[1]]
    mask = np.zeros(size, bool)
    for _ in range(int(rng.integers(1, 5))):
        cy, cx, radius = (rng.integers(0, size[0]), rng.integers(0, size[1]), rng.integers(3, size[0] // 3))
        mask |= (y - cy) ** 2 + (x - cx) ** 2 <= radius**2
    return mask & (rng.integers(0, 200, size) > 0)


def perturb(rng: np.random.Generator, mask: Masks) -> Masks:
    """Shift a mask by up to 12 pixels, and shrink it, grow it or leave its size."""
    moved = np.roll(mask, rng.integers(-12, 13, 2).tolist(), (0, 1)).astype(np.uint8)
    kind, width = int(rng.integers(3)), int(rng.integers(2, 10))
    if kind < 2:
        moved = np.asarray((cv2.erode, cv2.dilate)[kind](moved, np.ones((width, width), np.uint8)), np.uint8)
    return moved > 0


def random_sequence(seed: int, frames: int = 9) -> tuple[Masks, Masks]:
    """Truth and answers, bool [T,H,W]; now and then one of them, or both, is empty."""
    rng = np.random.default_rng(seed)
    size = ((60, 100), (97, 53), (120, 200), (33, 41))[seed % 4]
    truth = np.stack([random_object(rng, size) for _ in range(frames)])
    result = np.stack([perturb(rng, mask) for mask in truth])
    truth[[1, 3]] = False
    result[[2, 3]] = False
    return truth, result


def real_sequence(root: Path, video: str) -> tuple[Masks, Masks]:
    """Every sixth annotation of a DAVIS-16 video, and the same perturbed, bool [T,H,W]."""
    rng = np.random.default_rng(len(video))
    paths = sorted((root / "Annotations" / "480p" / video).glob("*.png"))[::6]
    truth = np.stack([cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) > 0 for path in paths])
    return truth, np.stack([perturb(rng, mask) for mask in truth])


def id_video(seed: int, frames: int = 7, objects: int = 3) -> tuple[NDArray[np.uint8], Masks]:
    """A video of DAVIS-17: annotated ids, uint8 [T,H,W], and answers that overlap each other, bool [N,T,H,W]."""
    rng = np.random.default_rng([seed, 17])
    size = (72, 110)
    ids = np.zeros((frames, *size), np.uint8)
    answers = np.zeros((objects, frames, *size), bool)
    for frame in range(frames):
        for number in range(objects):
            mask = random_object(rng, size)
            ids[frame][mask] = number + 1
            answers[number, frame] = perturb(rng, mask)
    return ids, answers
