"""Writes small checkpoints for the tests of export and of the command line."""

from __future__ import annotations

from pathlib import Path

import torch

from rvos_edge.trainer.checkpoint import Checkpoint, save_checkpoint
from rvos_edge.trainer.model.hinet import HINet
from rvos_edge.trainer.model.presets import model_config
from rvos_edge.trainer.model.weights import InitialWeights, initialise


def write_checkpoint(
    path: Path, *, weights: InitialWeights | None = None, alike: bool = True, **changes: object
) -> Path:
    """A checkpoint of the ``test`` preset with random weights, the same every time, but for those that are given.

    Args:
        alike: Give what a changed network has in common with the preset the same weights, so that equal graphs need
            not be traced again; False for a network of its own, where a proof in float16 depends on the draw.
    """
    model = _network(**changes)
    if changes and alike:
        own, preset = model.state_dict(), _network().state_dict()
        common = {name for name in own.keys() & preset.keys() if own[name].shape == preset[name].shape}
        model.load_state_dict({name: preset[name] for name in common}, strict=False)
    save_checkpoint(path, Checkpoint(model, initialise(model, weights or InitialWeights()), {"name": "tested"}))
    return path


def _network(**changes: object) -> HINet:
    """Norms and biases are as training leaves them, no two alike: the exporter merges what is equal and drops zeros."""
    torch.manual_seed(0)
    model = HINet(config=model_config("test", **changes)).eval()
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if tensor.ndim == 1:
                tensor *= 1 + 0.3 * torch.rand_like(tensor)
                if not name.endswith("running_var"):
                    tensor += 0.05 * torch.randn_like(tensor)
    return model
