"""Collective operations of distributed training, started by ``torchrun``.

In a single process every function returns its argument. Rank r takes samples r::world of each batch, and where
gradients are accumulated, every n-th of those at a time: a batch has world * n parts. The loss of a rank is scaled so
that the mean over ranks is the loss of the whole batch, as DistributedDataParallel averages gradients.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor

from rvos_edge.errors import UserError

_Result = TypeVar("_Result")

# Rank 0 may extract the flow of a whole data set while the others wait.
_PATIENCE = timedelta(days=7)
_patient: Any = None
"""Process group with a long timeout, for waiting on rank 0."""
_alone = False
"""True while rank 0 works as if there were no other process."""
_accumulated = (0, 1)
"""Number of the part that is being accumulated, and of all parts of this rank."""


def world() -> int:
    """Number of processes that work together."""
    return dist.get_world_size() if not _alone and dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Number of this process, from 0."""
    return dist.get_rank() if not _alone and dist.is_available() and dist.is_initialized() else 0


def part() -> slice:
    """Samples of the whole batch that this process is working on."""
    index, count = _accumulated
    return slice(rank() + index * world(), None, world() * count)


def parts() -> int:
    """Number of parts of a batch: processes times accumulated parts."""
    return world() * _accumulated[1]


@contextlib.contextmanager
def accumulating(index: int, count: int) -> Iterator[None]:
    """Work on part ``index`` of the ``count`` parts of this rank."""
    global _accumulated
    _accumulated = index, count
    try:
        yield
    finally:
        _accumulated = 0, 1


@contextlib.contextmanager
def joined() -> Iterator[torch.device]:
    """Join the process group of torchrun's environment, if there is one; yields this process's device.

    CPU tensors are exchanged by gloo, those on GPUs by nccl. A process that has joined stays so, as a second group on
    the addresses of the first one fails.

    Raises:
        UserError: There are more processes than GPUs on this machine.
    """
    cuda = torch.cuda.is_available()
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield torch.device("cuda" if cuda else "cpu")
        return
    device = torch.device("cpu")
    if cuda:
        local = int(os.environ.get("LOCAL_RANK", "0"))
        if local >= torch.cuda.device_count():
            raise UserError(
                f"There are more processes than the {torch.cuda.device_count()} GPUs of this machine; "
                "lower torchrun's --nproc-per-node."
            )
        device = torch.device("cuda", local)
        torch.cuda.set_device(device)
    if dist.is_initialized():
        yield device
        return
    global _patient
    dist.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo")
    group = dist.new_group(backend="gloo", timeout=_PATIENCE)
    _patient = group if isinstance(group, dist.ProcessGroup) else None
    try:
        yield device
    finally:
        dist.destroy_process_group()


def first(action: Callable[[], _Result]) -> _Result | None:
    """Run an action on rank 0 while the others wait; they get None, and leave with code 2 after an error."""
    return together(action) if rank() == 0 else together(lambda: None)


def first_alone(action: Callable[[], object]) -> None:
    """Run an action that needs a single process on rank 0, as if it were the only one, while the others wait."""

    def run() -> None:
        global _alone
        _alone = True
        try:
            action()
        finally:
            _alone = False

    first(run)


def together(action: Callable[[], _Result]) -> _Result:
    """Run an action on every rank and wait for all; after an error of one the others leave with code 2."""
    if world() == 1:
        return action()
    result, fault = None, None
    try:
        result = action()
    except UserError as error:
        fault = error
    failed = torch.tensor(int(fault is not None))
    dist.all_reduce(failed, group=_patient)
    if failed:
        raise fault or SystemExit(2)
    return cast("_Result", result)


def largest(code: int) -> int:
    """Largest of the ranks' numbers."""
    if world() == 1:
        return code
    value = torch.tensor(code)
    dist.all_reduce(value, dist.ReduceOp.MAX)
    return int(value)


def average(value: Tensor) -> Tensor:
    """Mean over the ranks, without gradient."""
    value = value.detach()
    if world() == 1:
        return value
    value = value.clone()
    dist.all_reduce(value)
    return value / world()


def per_rank(count: Tensor) -> Tensor:
    """Divisor of a rank's sum: the count over all ranks, at least 1, divided by the number of ranks.

    The mean of the quotients over the ranks is the mean over all counted items, however they are distributed.
    """
    return (average(count) * world()).clamp(min=1) / world()


def shared_sum(value: Tensor) -> Tensor:
    """Sum over the ranks, with gradients from all of them."""
    return value if world() == 1 else _Sum.apply(value)


def gathered(value: Tensor) -> Tensor:
    """Concatenation of [n,...] over the ranks, [world*n,...], with gradients from all of them."""
    if world() == 1:
        return value
    return shared_sum(torch.cat([value if one == rank() else torch.zeros_like(value) for one in range(world())]))


def gathered_list(items: Sequence[_Result]) -> list[_Result]:
    """Items of all ranks, in the order of ``gathered``."""
    if world() == 1:
        return list(items)
    parts: list[Any] = [None] * world()
    dist.all_gather_object(parts, list(items))
    return [item for part in parts for item in part]


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        total = value.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        total = gradient.clone()
        dist.all_reduce(total)
        return total
