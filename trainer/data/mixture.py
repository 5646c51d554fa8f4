"""Several data sets as one endless, exactly reproducible data set."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from rvos_edge.errors import UserError
from rvos_edge.trainer.data.readers.images import DamagedFileError
from rvos_edge.trainer.data.sample import Countable, Drawable, Paired, Sample, arrange, keep

_MUTE = 100
"""Largest number of frames in a row without any expression."""
_TRIES = 8
"""Largest number of damaged samples in a row; more means that the data set itself is damaged."""


class MixtureDataset(Dataset[Sample]):
    """Samples from data sets by weight; sample ``i`` depends on (seed, i) alone, whatever the order of the workers.

    A single data set of known length is drawn in epochs, in a new order every time: with one query per sample each pair
    of expression and frame once per epoch ("a language query and a video frame", supplement, section 1), with several
    queries each frame once.

    A damaged file does not end training: another sample of the same data set replaces it, with a warning that names
    the file. The replacement also depends on (seed, i) alone, so a resumed run draws the same.

    Args:
        absent_share: Expected share of absent expressions where there are enough present ones.
        spare: Number of further pairs per sample, after the others.
        videos: Names of the videos by kind of source, for the card.
        leave_out: Predicate of expressions that are never drawn.

    Raises:
        UserError: A number or weight is out of range.
    """

    def __init__(
        self,
        children: Sequence[tuple[Drawable, float]],
        *,
        length: int,
        queries: int,
        seed: int,
        absent_share: float = 0.25,
        spare: int = 0,
        shares: tuple[tuple[str, float], ...] = (),
        videos: Mapping[str, Sequence[str]] | None = None,
        leave_out: Callable[[str], bool] | None = None,
    ) -> None:
        weights = np.array([weight for _, weight in children], np.float64)
        if not len(weights) or (weights < 0).any() or weights.sum() <= 0:
            raise UserError("the weights of the data sets must be at least 0, and one of them above 0")
        if queries < 1 or length < 1 or spare < 0:
            raise UserError(f"queries ({queries}) and length ({length}) must be at least 1, spare ({spare}) 0")
        self.children = [child for child, _ in children]
        self.length, self.queries, self.seed, self.absent_share = (length, queries, seed, absent_share)
        self.spare, self.shares, self.videos, self.leave_out = spare, shares, videos or {}, leave_out
        self._cumulative = np.cumsum(weights / weights.sum())
        self._order: tuple[int, NDArray[np.int64]] | None = None
        only = self.children[0] if len(self.children) == 1 else None
        self._pairs = only if isinstance(only, Paired) and queries == 1 and not spare else None
        self._frames = only if isinstance(only, Countable) else None

    @property
    def epoch(self) -> int | None:
        """Samples of an epoch, pairs or frames; None for several data sets, or for one without a length."""
        if self._pairs is not None:
            return self._pairs.pairs
        return None if self._frames is None else len(self._frames)

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < self.length:
            raise IndexError(index)
        rng = np.random.default_rng([self.seed, index])
        # side="right": a data set of weight 0 is never drawn.
        child = min(int(np.searchsorted(self._cumulative, rng.random(), side="right")), len(self.children) - 1)
        for attempt in range(1, _TRIES + 1):
            try:
                sample = self._say(child, index if attempt == 1 else None, rng)
                return arrange(sample, self.queries, rng, absent_share=self.absent_share, spare=self.spare)
            except DamagedFileError as error:
                if attempt == _TRIES:
                    raise UserError(f"{error} ({_TRIES} samples in a row could not be read)") from error
                warnings.warn(f"{error}; another sample takes its place", stacklevel=2)
                rng = np.random.default_rng([self.seed, index, attempt])
        raise AssertionError("unreachable")

    def _say(self, child: int, index: int | None, rng: np.random.Generator) -> Sample:
        """A sample with expressions; with ``absent_share`` 0, with at least one present object, but for pairs."""
        if self._pairs is not None and index is not None:
            pair = self._pairs.draw_pair(self._position(index, self._pairs.pairs), rng)
            if self.leave_out is None or not self.leave_out(pair.expressions[0]):
                return pair
            index = None
        for _ in range(_MUTE):
            drawn = self._draw(child, index, rng)
            sample = drawn
            if self.leave_out is not None:
                sample = keep(drawn, [not self.leave_out(sentence) for sentence in drawn.expressions])
            if sample.masks.any() or (self.absent_share and sample.expressions and sample is drawn):
                return sample
            index = None
        raise UserError(f"{_MUTE} frames in a row hold nothing that may be named: check the annotations and held_out")

    def _draw(self, child: int, index: int | None, rng: np.random.Generator) -> Sample:
        """The sample of an index, or with None a random one."""
        if index is None or self._frames is None:
            return self.children[child].draw(rng)
        return self._frames.draw_at(self._position(index, len(self._frames)), rng)

    def _position(self, index: int, count: int) -> int:
        """The pair or frame that sample ``index`` shows, of ``count``."""
        epoch, place = divmod(index, count)
        if self._order is None or self._order[0] != epoch:
            # The last two numbers distinguish this generator from those of the samples.
            self._order = epoch, np.random.default_rng([self.seed, epoch, 0, 1]).permutation(count)
        return int(self._order[1][place])


def quiet_worker(worker: int) -> None:
    """``worker_init_fn`` of a DataLoader: one thread per worker for OpenCV and PyTorch."""
    del worker
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
