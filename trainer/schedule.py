"""Optimisers and the poly learning rate schedule (supplement, section 1)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import torch
from pydantic import Field

from rvos_edge.strict import StrictModel
from rvos_edge.trainer.model.hinet import HINet


class OptimizerConfig(StrictModel):
    """Optimiser of a run: SGD with poly decay, as in the paper, or AdamW for short budgets.

    Momentum, warm-up and separate rates of parts are our reading; the supplement is silent.
    """

    name: Literal["sgd", "adamw"] = "sgd"
    lr: float = Field(default=0.01, gt=0)
    weight_decay: float = Field(default=1e-4, ge=0)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    power: float = Field(default=0.9, gt=0)
    warmup: int = Field(default=0, ge=0)
    """Iterations of linear warm-up."""
    backbone_lr: float = Field(default=1.0, ge=0)
    """Multiple of ``lr`` for the backbone."""
    language_lr: float = Field(default=1.0, gt=0)
    """Multiple of ``lr`` for the language projections, which get one vector where the rest gets thousands of pixels."""
    text_lr: float = Field(default=0.0, ge=0)
    """Multiple of ``lr`` for BERT; 0 freezes it and caches its sentence vectors."""
    clip: float | None = Field(default=None, gt=0)
    """Largest norm of the gradient; None does not clip."""


def build_optimizer(
    model: HINet, config: OptimizerConfig, *, extra: Iterable[torch.nn.Parameter] = ()
) -> torch.optim.Optimizer:
    """The optimiser, with parameter groups for backbone, language projections, BERT and the rest.

    Frozen parameters are left out; ``extra`` are parameters of the losses.
    """
    backbone = list(model.backbone.parameters())
    text = list(model.sentence.parameters())
    language = list(model.language.parameters())
    flow = list(model.flow.parameters()) if model.flow is not None else []
    apart = {id(parameter) for parameter in (*backbone, *text, *language, *flow)}
    rest = [parameter for parameter in (*model.parameters(), *extra) if id(parameter) not in apart]
    groups = []
    parts = ((rest, 1.0), (backbone, config.backbone_lr), (language, config.language_lr), (text, config.text_lr))
    for parameters, multiple in parts:
        trained = [parameter for parameter in parameters if parameter.requires_grad]
        if trained and multiple > 0:
            groups.append({"params": trained, "lr": config.lr * multiple, "multiple": multiple})
    if config.name == "sgd":
        return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum, weight_decay=config.weight_decay)
    return torch.optim.AdamW(groups, lr=config.lr, weight_decay=config.weight_decay)


def learning_rate(config: OptimizerConfig, iteration: int, total: int) -> float:
    """Learning rate lr * (1 - iteration / total)^power, after a linear warm-up.

    Example:
        >>> learning_rate(OptimizerConfig(lr=0.01), 0, 100)
        0.01
    """
    warm = min(1.0, (iteration + 1) / config.warmup) if config.warmup else 1.0
    return float(config.lr * warm * (1 - iteration / total) ** config.power)


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set the learning rate of every group, times the group's multiple."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["multiple"]
