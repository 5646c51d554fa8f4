"""Batches of a run: batch i, and each rank's part of it, do not depend on earlier batches."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import torch
from torch.utils.data import DataLoader, Dataset

from rvos_edge.errors import UserError
from rvos_edge.trainer.data.config import DataConfig
from rvos_edge.trainer.data.mixture import MixtureDataset, quiet_worker
from rvos_edge.trainer.data.sample import Batch, Sample, collate
from rvos_edge.trainer.distributed.interrupt import ignore_signals
from rvos_edge.trainer.distributed.ranks import rank, world


class BatchConfig(Protocol):
    """The part of a run's configuration on which its batches depend."""

    @property
    def data(self) -> DataConfig:
        """Data; its ``queries`` and ``spare_queries`` are the pairs of a sample."""

    @property
    def batch(self) -> int:
        """Samples per batch, over all processes."""

    @property
    def workers(self) -> int:
        """Loader processes per training process."""


def check_batches(config: BatchConfig) -> None:
    """Refuse what ``batches`` would refuse, before there is data.

    Raises:
        UserError: The batch is no multiple of the processes, or loader processes would compute flow on a GPU.
    """
    if config.batch % world():
        raise UserError(f"batch {config.batch} cannot be shared by {world()} processes; make it a multiple of them.")
    if config.data.flow_store == "none" and config.workers and torch.cuda.is_available():
        raise UserError("data.flow_store: none computes flow on the GPU in the training process; set workers: 0.")


def batches(data: MixtureDataset, config: BatchConfig, *, start: int, stop: int) -> Iterator[Batch]:
    """This rank's part of the batches of iterations ``start`` to ``stop`` (exclusive).

    Batch i holds samples ``i*B .. i*B+B-1``, so that a resumed run starts further on; rank r gets every world-th of
    them, from the r-th. Warnings of the loader processes are given in this one, each text once.

    Raises:
        UserError: As for ``check_batches``; or, at its batch, a sample cannot be read.
    """
    check_batches(config)
    loader: DataLoader[Any] = DataLoader(
        _Items(data),
        batch_size=config.batch // world(),
        sampler=range(start * config.batch + rank(), stop * config.batch, world()),
        num_workers=config.workers,
        collate_fn=_Collate(config.data.queries + config.data.spare_queries),
        pin_memory=torch.cuda.is_available(),
        worker_init_fn=_start_worker,
    )
    return _batches(loader)


def _batches(loader: DataLoader[Any]) -> Iterator[Batch]:
    given: set[str] = set()
    for item, texts in loader:
        for text in texts:
            if text not in given:
                given.add(text)
                warnings.warn(text, stacklevel=2)
        if isinstance(item, UserError):
            raise item
        yield item


class _Items(Dataset[Any]):
    """Samples or user errors, with the texts of warnings: an exception raised in a worker would carry the worker's
    traceback, and a warning given there would miss the log of the run.
    """

    def __init__(self, data: MixtureDataset) -> None:
        self.data = data

    def __getitem__(self, index: int) -> tuple[Sample | UserError, list[str]]:
        item: Sample | UserError
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            # As Python does: those of libraries are for their developers (pycocotools gives one with NumPy 2).
            warnings.simplefilter("ignore", DeprecationWarning)
            try:
                item = self.data[index]
            except UserError as error:
                item = error
        return item, [str(warning.message) for warning in caught]


class _Collate:
    def __init__(self, queries: int) -> None:
        self.queries = queries

    def __call__(self, items: Sequence[tuple[Sample | UserError, list[str]]]) -> tuple[Batch | UserError, list[str]]:
        texts = [text for _, given in items for text in given]
        samples = []
        for sample, _ in items:
            if isinstance(sample, UserError):
                return sample, texts
            samples.append(sample)
        return collate(samples, self.queries), texts


def _start_worker(worker: int) -> None:
    quiet_worker(worker)
    ignore_signals()
