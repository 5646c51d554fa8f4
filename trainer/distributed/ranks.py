"""Training by several processes, started by ``torchrun``: what a rank asks of the others.

Every function works in a single process too, where it leaves its argument alone. Rank r takes samples r::world of each
batch, and a rank's loss is made so that its mean over the ranks is the loss of the whole batch: DistributedDataParallel
averages the gradients.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from rvos_edge.errors import UserError

_Result = TypeVar("_Result")

# Rank 0 may compute the flow of a whole data set while the others wait.
_PATIENCE = timedelta(days=7)
_patient: Any = None
"""The group of those who wait for rank 0."""


def world() -> int:
    """The number of processes."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """This process's number, from 0."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


@contextlib.contextmanager
def joined() -> Iterator[torch.device]:
    """Join the processes that torchrun's environment names, if it does; yields this process's device.

    Tensors on the CPU travel by gloo, those on GPUs by nccl.

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
    global _patient
    dist.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo")
    group = dist.new_group(backend="gloo", timeout=_PATIENCE)
    _patient = group if isinstance(group, dist.ProcessGroup) else None
    try:
        yield device
    finally:
        dist.destroy_process_group()


def first(action: Callable[[], _Result]) -> _Result | None:
    """Run something on rank 0 while the others wait; its result there, None elsewhere.

    Raises:
        UserError: On rank 0, what the action raised; the other ranks leave with exit code 2 and without a word.
    """
    if world() == 1:
        return action()
    result, fault = None, None
    if rank() == 0:
        try:
            result = action()
        except UserError as error:
            fault = error
    failed = torch.tensor(int(fault is not None))
    dist.all_reduce(failed, group=_patient)
    if failed:
        raise fault or SystemExit(2)
    return result


def largest(code: int) -> int:
    """The largest of the ranks' numbers."""
    if world() == 1:
        return code
    value = torch.tensor(code)
    dist.all_reduce(value, dist.ReduceOp.MAX)
    return int(value)


def average(value: Tensor) -> Tensor:
    """The mean over the ranks, without gradient."""
    value = value.detach()
    if world() == 1:
        return value
    value = value.clone()
    dist.all_reduce(value)
    return value / world()


def per_rank(count: Tensor) -> Tensor:
    """What to divide a rank's sum over counted things by: the count over all ranks, at least 1, per rank.

    The mean of the quotients over the ranks is then the mean over all counted things, however they are spread.
    """
    return (average(count) * world()).clamp(min=1) / world()


def shared_sum(value: Tensor) -> Tensor:
    """The sum over the ranks; gradients come back from all of them."""
    return value if world() == 1 else _Sum.apply(value)


def gathered(value: Tensor) -> Tensor:
    """[n,...] of every rank, one after the other: [world*n,...]; gradients come back from all of them."""
    return value if world() == 1 else _Gather.apply(value)


def gathered_list(items: Sequence[_Result]) -> list[_Result]:
    """The items of every rank, in the order of ``gathered``."""
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


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        parts = [torch.empty_like(value, memory_format=torch.contiguous_format) for _ in range(world())]
        dist.all_gather(parts, value.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        total = gradient.clone()
        dist.all_reduce(total)
        return total.chunk(world())[rank()]
