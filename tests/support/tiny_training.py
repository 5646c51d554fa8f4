"""Small trainings on synthetic scenes."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from rvos_edge.trainer.checkpoint import Checkpoint
from rvos_edge.trainer.config import TrainConfig
from rvos_edge.trainer.data.generate.synthetic import SyntheticDataset
from rvos_edge.trainer.data.sample import Batch, arrange, collate
from rvos_edge.trainer.loop import Trainer
from rvos_edge.trainer.model.hinet import HINet
from rvos_edge.trainer.model.language import small_tokenizer


def small_config(**changes: Any) -> TrainConfig:
    document: dict[str, Any] = {
        "name": "small",
        "model": {"preset": "test"},
        "data": {"sources": [{"kind": "synthetic", "share": 1.0}], "queries": 2},
        "optimizer": {"lr": 0.01},
        "iterations": 6,
        "batch": 2,
        "flow_dropout": 0.3,
        "checkpoint_every": 3,
        **changes,
    }
    return TrainConfig.model_validate(document)


def quiet() -> Console:
    return Console(file=io.StringIO())


def make_trainer(config: TrainConfig) -> Trainer:
    torch.manual_seed(0)
    assert config.iterations is not None
    model = HINet(config=config.model_config_of())
    return Trainer(config, Checkpoint(model, small_tokenizer(512)), total=config.iterations)


def make_batch(queries: int = 2) -> Batch:
    data, rng = SyntheticDataset(size=(64, 96), flow_size=(64, 96)), np.random.default_rng(0)
    return collate([arrange(data.draw(rng), queries, rng) for _ in range(2)], queries)


def poison(indices: set[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the flow of some iterations infinite, and with it the loss."""
    inner = Trainer._loss

    def poisoned(self: Trainer, batch: Batch) -> torch.Tensor:
        loss = inner(self, batch)
        return loss * float("nan") if self.iteration in indices else loss

    monkeypatch.setattr(Trainer, "_loss", poisoned)
