"""Writes small checkpoints for the tests of export and of the command line."""

from __future__ import annotations

from pathlib import Path

import torch

from rvos_edge.trainer.checkpoint import Checkpoint, save_checkpoint
from rvos_edge.trainer.model.hinet import HINet
from rvos_edge.trainer.model.presets import model_config
from rvos_edge.trainer.model.weights import InitialWeights, initialise


def write_checkpoint(path: Path, **changes: object) -> Path:
    """A checkpoint of the ``test`` preset with random weights that are the same every time."""
    torch.manual_seed(0)
    model = HINet(config=model_config("test", **changes)).eval()
    save_checkpoint(path, Checkpoint(model, initialise(model, InitialWeights()), {"name": "tested"}))
    return path
