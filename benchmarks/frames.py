"""Frames of a benchmark, read or rendered before anything is timed."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rvos_edge.errors import UserError
from rvos_edge.streaming.sources import open_source

_MOST_BYTES = 512 * 2**20
_COLOURS = ("red", "blue", "green", "black", "white", "yellow", "brown", "grey")
_THINGS = ("dog", "car", "ball", "person", "horse", "bird", "boat", "cat")


@dataclass(frozen=True)
class BenchmarkClip:
    """Frames in memory, uint8 [H,W,3] BGR of one size; ``name`` is that of the source, without folders."""

    name: str
    images: Sequence[NDArray[np.uint8]]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        height, width = self.images[0].shape[:2]
        return height, width

    def at(self, index: int) -> NDArray[np.uint8]:
        """Frame ``index`` of an endless clip that plays forwards and backwards, so that no frame jumps.

        Example:
            >>> clip = BenchmarkClip("three", [np.full((1, 1, 3), value, np.uint8) for value in range(3)])
            >>> [int(clip.at(index)[0, 0, 0]) for index in range(7)]
            [0, 1, 2, 1, 0, 1, 2]
        """
        last = len(self.images) - 1
        if not last:
            return self.images[0]
        return self.images[last - abs(last - index % (2 * last))]


def read_clip(source: str, *, frames: int, size: tuple[int, int]) -> BenchmarkClip:
    """Read the first frames of a source, at most half a GiB of them.

    Raises:
        UserError: The source cannot be read, or its frames differ in size.
    """
    images: list[NDArray[np.uint8]] = []
    with open_source(source, size=size) as opened:
        name = opened.name if source.partition(":")[0] == "synthetic" else Path(opened.name).name
        for frame in itertools.islice(opened, frames):
            if images and frame.image.shape != images[0].shape:
                raise UserError(f"{source}: frame {frame.name} is of another size; benchmark frames of one size.")
            images.append(frame.image)
            if sum(image.nbytes for image in images) > _MOST_BYTES:
                break
    if not images:
        raise UserError(f"{source} gives no frames; choose another --source.")
    return BenchmarkClip(name, images)


def make_queries(count: int) -> list[str]:
    """``count`` different queries; their words do not affect the time.

    Example:
        >>> make_queries(2)
        ['the red dog', 'the blue dog']
    """
    pairs = list(itertools.product(_THINGS, _COLOURS))
    sentences = [f"the {colour} {thing}" for thing, colour in pairs]
    return [sentences[n % len(pairs)] + (f" {n // len(pairs) + 1}" if n >= len(pairs) else "") for n in range(count)]
