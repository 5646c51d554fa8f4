"""Checkpoints: a directory of plain files, without pickled code.

config.json         the ModelConfig
model.safetensors   all weights, frozen ones included
tokenizer.json
card.json           training facts: data, licences, iterations
training.pt         optimiser, scaler and progress, for resuming; read with weights_only
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch import Tensor

from rvos_edge.atomic import new_directory, recover
from rvos_edge.errors import UserError
from rvos_edge.trainer.model.hinet import HINet
from rvos_edge.trainer.model.language import load_tokenizer
from rvos_edge.trainer.model.presets import ModelConfig, parse_config

_CONFIG = "config.json"
_MODEL = "model.safetensors"
_TOKENIZER = "tokenizer.json"
_CARD = "card.json"
_TRAINING = "training.pt"


@dataclass(frozen=True)
class Checkpoint:
    """A network with its tokenizer and card: what running, exporting and further training need."""

    model: HINet
    tokenizer: Tokenizer
    card: dict[str, Any] = field(default_factory=dict)


def unused_checkpoint(output: Path) -> Path:
    """The directory for the checkpoint of a run in the folder ``output``.

    Raises:
        UserError: It exists already.
    """
    path = output / "checkpoint"
    if path.exists():
        raise UserError(f"{path} already holds a checkpoint; choose another --output, or remove it.")
    return path


def save_checkpoint(
    path: Path,
    checkpoint: Checkpoint,
    *,
    weights: Mapping[str, Tensor] | None = None,
    training: Mapping[str, Any] | None = None,
) -> None:
    """Write a checkpoint directory; an older one is replaced when the new one is complete.

    Args:
        weights: State dict to store instead of the network's own (the moving average).
        training: Optimiser and progress; tensors and plain values only.

    Raises:
        UserError: The directory cannot be written; the older one stays.
    """
    try:
        with new_directory(path) as temporary:
            state = weights if weights is not None else checkpoint.model.state_dict()
            save_file({key: value.detach().cpu().contiguous() for key, value in state.items()}, temporary / _MODEL)
            config = checkpoint.model.config.model_dump_json(indent=2)
            (temporary / _CONFIG).write_text(config + "\n", encoding="utf-8")
            shutil.copymode(temporary / _CONFIG, temporary / _MODEL)  # safetensors writes for the owner alone
            (temporary / _CARD).write_text(json.dumps(checkpoint.card, indent=2) + "\n", encoding="utf-8")
            checkpoint.tokenizer.save(str(temporary / _TOKENIZER))
            if training is not None:
                torch.save(dict(training), temporary / _TRAINING)
            for file in temporary.iterdir():
                _reach_the_disk(file)
    except UserError:
        raise
    except Exception as error:  # a full disk is an OSError here, but safetensors, torch and tokenizers raise their own
        reason = str(error).splitlines()[0]
        raise UserError(f"Cannot save the checkpoint {path} ({reason}); free some space, then --resume.") from error


def load_checkpoint(path: Path, *, preset: str | None = None) -> Checkpoint:
    """Read a checkpoint directory; ``preset`` is the preset that it must be of.

    Raises:
        UserError: The checkpoint is missing, damaged, or of another preset.
    """
    config = read_model_config(path)
    if preset is not None and config.preset != preset:
        raise UserError(f"Checkpoint {path} is of preset '{config.preset}', not '{preset}'; give one of that preset.")
    model = HINet(config=config)
    try:
        model.load_state_dict(load_file(path / _MODEL), strict=True)
    except Exception as error:  # safetensors and torch each raise their own
        line = str(error).splitlines()[-1].strip()
        raise UserError(f"{path / _MODEL} does not fit its config.json ({line}); restore the checkpoint.") from error
    card_file = path / _CARD
    try:
        card = json.loads(card_file.read_text(encoding="utf-8")) if card_file.is_file() else {}
    except ValueError as error:
        raise UserError(f"{card_file} is not readable JSON; remove or restore it.") from error
    return Checkpoint(model.eval(), load_tokenizer(path / _TOKENIZER), card)


def read_model_config(path: Path) -> ModelConfig:
    """The network's configuration in a checkpoint directory.

    Raises:
        UserError: The checkpoint is missing, incomplete or damaged.
    """
    recover(path)
    inner = path / "checkpoint"
    if not (path / _MODEL).is_file() and (inner / _MODEL).is_file():
        raise UserError(f"{path} is the folder of a run; give its checkpoint, {inner}.")
    if not path.is_dir():
        raise UserError(f"{path} is not a checkpoint: there is no such folder; give the directory that training wrote.")
    for name in (_CONFIG, _MODEL, _TOKENIZER):
        if not (path / name).is_file():
            raise UserError(f"{path} is not a checkpoint: it has no {name}; give the directory that training wrote.")
    try:
        document = json.loads((path / _CONFIG).read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path / _CONFIG} is not readable JSON; train again or restore the checkpoint.") from error
    return parse_config(ModelConfig, document, str(path / _CONFIG))


def load_training_state(path: Path) -> dict[str, Any]:
    """Optimiser and progress, for resuming.

    Raises:
        UserError: The file is missing or damaged.
    """
    recover(path)
    file = path / _TRAINING
    if not file.is_file():
        raise UserError(f"{path} holds no {_TRAINING}; give --resume the output directory of an unfinished run.")
    try:
        state: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:
        raise UserError(f"{file} is damaged ({type(error).__name__}); start again without --resume.") from error
    return state


def _reach_the_disk(file: Path) -> None:
    # Or the renames could survive a power cut that the contents do not.
    with file.open("rb") as opened:
        os.fsync(opened.fileno())
