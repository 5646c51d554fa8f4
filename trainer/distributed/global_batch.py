"""Layers that work on the batch of all ranks: normalisation and dropout."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rvos_edge.trainer.distributed.ranks import part, parts, shared_sum, world


class SharedBatchNorm(nn.BatchNorm2d):
    """BatchNorm2d over the batch of all ranks, for CPUs, where PyTorch has no SyncBatchNorm."""

    def forward(self, input: Tensor) -> Tensor:
        """[B,C,h,w] -> [B,C,h,w], of the input's dtype."""
        if not self.training:
            return super().forward(input)
        values = input.float()
        count = values.numel() // values.shape[1] * world()
        mean = shared_sum(values.sum((0, 2, 3))) / count
        centred = values - mean.view(1, -1, 1, 1)
        variance = shared_sum(centred.square().sum((0, 2, 3))) / count
        self._follow(mean.detach(), variance.detach() * count / max(count - 1, 1))
        scale = self.weight * torch.rsqrt(variance + self.eps)
        return (centred * scale.view(1, -1, 1, 1) + self.bias.view(1, -1, 1, 1)).to(input.dtype)

    def _follow(self, mean: Tensor, variance: Tensor) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance, self.momentum)
        self.num_batches_tracked.add_(1)


class SharedDropout(nn.Dropout):
    """Dropout whose mask is drawn for the batch of all ranks and accumulated parts; each applies its part.

    Together they drop exactly what a single process would drop from the whole batch.
    """

    def forward(self, input: Tensor) -> Tensor:
        """[B,...] -> [B,...]."""
        if not self.training or self.p == 0:
            return input
        # The memory format determines the order of the random numbers: keep that of the input.
        whole = torch.cat([torch.ones_like(input)] * parts())
        return input * F.dropout(whole, self.p)[part()]


def span_ranks(module: nn.Module, device: torch.device) -> None:
    """Replace a network's dropouts, and with several ranks its batch norms, by those of the whole batch.

    Frozen norms are unchanged.
    """
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d) and child.training and world() > 1:
            module.add_module(name, _shared_norm(child, device))
        elif type(child) is nn.Dropout:
            module.add_module(name, SharedDropout(child.p).train(child.training))
        else:
            span_ranks(child, device)


def _shared_norm(norm: nn.BatchNorm2d, device: torch.device) -> nn.Module:
    if device.type == "cuda":
        converted: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(norm)  # type: ignore[no-untyped-call]
        return converted
    shared = SharedBatchNorm(norm.num_features, norm.eps, norm.momentum)
    shared.weight, shared.bias = norm.weight, norm.bias
    shared.running_mean, shared.running_var = norm.running_mean, norm.running_var
    shared.num_batches_tracked = norm.num_batches_tracked
    return shared
