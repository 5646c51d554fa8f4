"""Faster or smaller training: precision, compilation, recomputed activations."""

from __future__ import annotations

import contextlib
import platform
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from rvos_edge.strict import StrictModel
from rvos_edge.trainer.model.hinet import HINet


class SpeedConfig(StrictModel):
    """Speed and memory of a run. None of it changes what is learnt beyond rounding, so a resumed run may change it."""

    checkpointing: bool = False
    """Recompute activations in the backward pass instead of keeping them: less memory for about a third more time."""
    compile: str | None = None
    """Backend of ``torch.compile`` for backbone, ASPP, interaction and decoder, such as ``inductor``; None runs them as
    they are."""
    tf32: bool = False
    """Matrix products of float32 in TF32 on NVIDIA GPUs from Ampere on."""
    cudnn_benchmark: bool = False
    """Let cuDNN measure its algorithms and take the fastest: repeated runs may then differ in their last bits."""


def use_hardware(model: HINet, config: SpeedConfig) -> None:
    """Apply all of a configuration but ``checkpointing``."""
    if config.tf32:
        torch.set_float32_matmul_precision("high")
        torch.backends.cudnn.allow_tf32 = True
    if config.cudnn_benchmark:
        torch.backends.cudnn.benchmark = True
    if config.compile is not None:
        for module in (model.backbone, model.aspp, *model.interaction, model.decoder):
            module.compile(backend=config.compile)


def recompute_activations(model: HINet) -> None:
    """Let the blocks of a network recompute their activations in the backward pass."""
    for module in (*_blocks(model.backbone), model.aspp, *model.interaction, model.decoder):
        _recompute(module)


def _blocks(backbone: nn.Module) -> Iterator[nn.Module]:
    """The blocks of the backbone's stages; a stage of single layers is one block."""
    for stage in backbone.children():
        inner = list(stage.children())
        yield from inner if any(list(block.children()) for block in inner) else [stage]


def _recompute(module: nn.Module) -> None:
    forward = module.forward

    def recomputed(*inputs: Any) -> Any:
        return checkpoint(
            forward,
            *inputs,
            use_reentrant=False,
            context_fn=lambda: (contextlib.nullcontext(), _kept_statistics(module)),
        )

    module.forward = recomputed


@contextlib.contextmanager
def _kept_statistics(module: nn.Module) -> Iterator[None]:
    """Batch norms do not count the same batch twice."""
    norms = [norm for norm in module.modules() if isinstance(norm, nn.BatchNorm2d) and norm.training]
    before = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum = 0.0  # without the statistics the recomputed tensors would be others
        norm.num_batches_tracked = norm.num_batches_tracked.clone()  # type: ignore[union-attr]
    try:
        yield
    finally:
        for norm, (momentum, counted) in zip(norms, before, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, counted


def autocast_dtype(amp: str, device: torch.device) -> torch.dtype | None:
    """Type of mixed precision; None where there is none.

    Warns:
        UserWarning: ``bf16`` was asked for on a CPU that computes it in software.
    """
    if amp in ("auto", "fast") and device.type == "cuda":
        return torch.float16
    if amp == "fast":
        return torch.bfloat16 if torch.cpu._is_avx512_bf16_supported() else None
    if amp == "bf16" and _bfloat16_is_emulated(device):
        # Matrix products were 80 times slower than in float32 on an EPYC of 2021.
        warnings.warn(
            "amp: bf16: this CPU has no AVX512-BF16 and computes bfloat16 many times more slowly than float32; "
            "'fast' takes what is faster.",
            stacklevel=2,
        )
    return {"auto": None, "off": None, "bf16": torch.bfloat16, "fp16": torch.float16}[amp]


def _bfloat16_is_emulated(device: torch.device) -> bool:
    x86 = platform.machine().lower() in ("x86_64", "amd64")
    return device.type == "cpu" and x86 and not torch.cpu._is_avx512_bf16_supported()
