"""Samples, the interface of the data sets, and batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray

IGNORE = 255
"""Value of ignored pixels in the masks of a batch."""


@dataclass(frozen=True)
class Sample:
    """One frame with several (expression, mask) pairs.

    Attributes:
        image: uint8 [H,W,3], RGB.
        flow: float32 [hf,wf,2], frame t -> t-1, in pixels of ``image`` at any size hf x wf; zeros where unknown.
        masks: bool [N,H,W]; an expression that names something absent has an empty mask.
        expressions: The N expressions.
        ignore: bool [H,W], pixels that count for no expression, or None.
        camera: float32 [3], mean flow (x, y) of the whole frame of which the sample shows a part, and mean magnitude of
            the flow relative to it, in pixels of ``image``; None where ``flow`` is that of a whole frame.
    """

    image: NDArray[np.uint8]
    flow: NDArray[np.float32]
    masks: NDArray[np.bool_]
    expressions: tuple[str, ...]
    ignore: NDArray[np.bool_] | None = None
    camera: NDArray[np.float32] | None = None


class Drawable(Protocol):
    """A data set of random samples."""

    def draw(self, rng: np.random.Generator) -> Sample:
        """Draw a sample; equal generators give equal samples."""


@runtime_checkable
class Countable(Drawable, Protocol):
    """A data set with a known number of frames, which can be drawn by number."""

    def __len__(self) -> int:
        """Number of annotated frames."""

    def draw_at(self, position: int, rng: np.random.Generator) -> Sample:
        """Draw a sample of frame number ``position``; the rest is random."""


@runtime_checkable
class Paired(Countable, Protocol):
    """A data set with a known number of pairs of expression and frame."""

    @property
    def pairs(self) -> int:
        """Number of pairs."""

    def draw_pair(self, position: int, rng: np.random.Generator) -> Sample:
        """Draw a sample of pair number ``position`` alone; its view is random."""


@dataclass(frozen=True)
class Batch:
    """Tensors of a training step: vision runs once per image, text once per pair.

    Attributes:
        image: uint8 [B,3,H,W], RGB.
        flow: float32 [B,2,hf,wf], pixels of ``image``.
        masks: uint8 [B,Q+S,H,W], 0 background, 1 object, 255 ignore; S spare pairs come last.
        expressions: B lists of Q+S strings.
        camera: float32 [B,3], see ``Sample``; None where all samples are whole frames.
    """

    image: torch.Tensor
    flow: torch.Tensor
    masks: torch.Tensor
    expressions: list[list[str]]
    camera: torch.Tensor | None = None

    def every(self, step: int, start: int) -> Batch:
        """Every ``step``-th sample from ``start`` on."""
        if step == 1:
            return self
        chosen = slice(start, None, step)
        camera = None if self.camera is None else self.camera[chosen]
        return Batch(self.image[chosen], self.flow[chosen], self.masks[chosen], self.expressions[chosen], camera)

    def pin_memory(self) -> Batch:
        """The same batch in pinned memory (``DataLoader(pin_memory=True)`` calls this)."""
        return replace(self, image=self.image.pin_memory(), flow=self.flow.pin_memory(), masks=self.masks.pin_memory())


def keep(sample: Sample, wanted: Sequence[bool]) -> Sample:
    """The sample with some of its pairs."""
    chosen = np.flatnonzero(np.asarray(wanted, np.bool_))
    if len(chosen) == len(sample.expressions):
        return sample
    return replace(sample, masks=sample.masks[chosen], expressions=tuple(sample.expressions[i] for i in chosen))


def arrange(
    sample: Sample, queries: int, rng: np.random.Generator, *, absent_share: float = 0.25, spare: int = 0
) -> Sample:
    """Choose ``queries`` pairs of a sample: different objects first, and a share of absent ones; too few are repeated.

    Args:
        absent_share: Expected share of absent pairs where there are enough of both kinds; with 0 there are none unless
            nothing is present.
    """
    filled = sample.masks.any(axis=(1, 2))
    present = _spread(sample, rng.permutation(np.flatnonzero(filled)))
    absent = rng.permutation(np.flatnonzero(~filled)).tolist()
    if present and not absent_share:
        absent = []
    wanted = min(int(rng.binomial(queries, absent_share)), queries - 1) if present else queries
    wanted = max(wanted, queries - len(present))
    chosen = absent[:wanted]
    chosen = present[: queries - len(chosen)] + chosen
    while len(chosen) < queries:
        chosen.append(chosen[int(rng.integers(len(chosen)))])
    left = [i for i in sorted((*present, *absent)) if i not in chosen]
    order = rng.permutation(np.asarray(chosen))
    if spare:
        order = np.concatenate([order, np.resize(rng.permutation(left or chosen), spare)])
    return replace(sample, masks=sample.masks[order], expressions=tuple(sample.expressions[i] for i in order))


def collate(samples: Sequence[Sample], queries: int) -> Batch:
    """Stack samples of one size into a batch; samples without ``queries`` pairs are arranged first, reproducibly."""
    ready = [s if len(s.expressions) == queries else arrange(s, queries, np.random.default_rng(0)) for s in samples]
    masks = np.stack([s.masks for s in ready]).astype(np.uint8)
    for row, sample in zip(masks, ready, strict=True):
        if sample.ignore is not None:
            row[:, sample.ignore] = IGNORE
    return Batch(
        image=torch.from_numpy(np.stack([s.image.transpose(2, 0, 1) for s in ready])),
        flow=torch.from_numpy(np.stack([s.flow.transpose(2, 0, 1) for s in ready])),
        masks=torch.from_numpy(masks),
        expressions=[list(s.expressions) for s in ready],
        camera=_cameras(ready),
    )


def _cameras(samples: Sequence[Sample]) -> torch.Tensor | None:
    if all(sample.camera is None for sample in samples):
        return None
    rows = []
    for sample in samples:
        row = sample.camera
        if row is None:
            mean = sample.flow.mean(axis=(0, 1))
            row = np.append(mean, np.linalg.norm(sample.flow - mean, axis=-1).mean())
        rows.append(row.astype(np.float32))
    return torch.from_numpy(np.stack(rows))


def _spread(sample: Sample, indices: NDArray[np.int64]) -> list[int]:
    """Order pairs so that the first expressions of all masks come before the second ones."""
    seen: dict[tuple[int, ...], int] = {}
    ranked = []
    for position, index in enumerate(indices.tolist()):
        mask = sample.masks[index]
        rows, columns = mask.any(axis=1), mask.any(axis=0)
        key = (int(mask.sum()), int(rows.argmax()), int(columns.argmax()))
        seen[key] = seen.get(key, 0) + 1
        ranked.append((seen[key], position, index))
    return [index for _, _, index in sorted(ranked)]
