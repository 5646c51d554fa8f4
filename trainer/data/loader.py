"""The batches of a run: batch i is the same whatever happened before, and so is each rank's part of it."""

from __future__ import annotations

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


class Fed(Protocol):
    """The part of a run's configuration on which its batches depend."""

    @property
    def data(self) -> DataConfig:
        """Whose ``queries`` and ``spare_queries`` are the pairs of a sample."""

    @property
    def batch(self) -> int:
        """Samples of a batch, of all processes together."""

    @property
    def workers(self) -> int:
        """Loader processes, for each training process."""


def batches(data: MixtureDataset, config: Fed, *, start: int, stop: int) -> Iterator[Batch]:
    """This rank's part of the batches from iteration ``start`` to ``stop``.

    The whole batch i holds samples ``i*B .. i*B+B-1``, so resuming is starting further on; rank r has every world-th of
    them, from the r-th.

    Raises:
        UserError: The processes cannot share the batch evenly; or, at that batch, a sample's file cannot be read.
    """
    if config.batch % world():
        raise UserError(f"batch {config.batch} cannot be shared by {world()} processes; make it a multiple of them.")
    loader: DataLoader[Any] = DataLoader(
        _Guarded(data),
        batch_size=config.batch // world(),
        sampler=range(start * config.batch + rank(), stop * config.batch, world()),
        num_workers=config.workers,
        collate_fn=_Collate(config.data.queries + config.data.spare_queries),
        pin_memory=torch.cuda.is_available(),
        worker_init_fn=_start_worker,
    )
    return _unguarded(loader)


def _unguarded(loader: DataLoader[Any]) -> Iterator[Batch]:
    for item in loader:
        if isinstance(item, UserError):
            raise item
        yield item


class _Guarded(Dataset[Any]):
    """Hands bad input on as a value: raised in a worker, it would come back with the worker's traceback in it."""

    def __init__(self, data: MixtureDataset) -> None:
        self.data = data

    def __getitem__(self, index: int) -> Sample | UserError:
        try:
            return self.data[index]
        except UserError as error:
            return error


class _Collate:
    def __init__(self, queries: int) -> None:
        self.queries = queries

    def __call__(self, samples: Sequence[Sample | UserError]) -> Batch | UserError:
        for sample in samples:
            if isinstance(sample, UserError):
                return sample
        return collate(samples, self.queries)  # type: ignore[arg-type]


def _start_worker(worker: int) -> None:
    quiet_worker(worker)
    ignore_signals()
