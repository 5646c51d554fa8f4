"""Checkpoints: complete, safe to read, and never half written."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
import torch
from support.full_disk import files_at_most

import rvos_edge.trainer.checkpoint
from rvos_edge.errors import UserError
from rvos_edge.trainer.checkpoint import Checkpoint, load_checkpoint, load_training_state, save_checkpoint
from rvos_edge.trainer.model.hinet import HINet
from rvos_edge.trainer.model.language import small_tokenizer
from rvos_edge.trainer.model.presets import model_config


def _checkpoint(seed: int = 0) -> Checkpoint:
    torch.manual_seed(seed)
    return Checkpoint(HINet(config=model_config("test")), small_tokenizer(512), {"name": f"seed {seed}"})


def test_round_trip(tmp_path: Path) -> None:
    before = _checkpoint()
    save_checkpoint(tmp_path / "run/checkpoint", before, training={"iteration": 7, "moment": torch.ones(2)})
    after = load_checkpoint(tmp_path / "run/checkpoint", preset="test")
    assert after.model.config == before.model.config
    assert not after.model.training
    weights = before.model.state_dict()
    assert after.model.state_dict().keys() == weights.keys()
    assert all(torch.equal(value, weights[key]) for key, value in after.model.state_dict().items())
    assert after.card == {"name": "seed 0"}
    assert after.tokenizer.encode("the dog").tokens == ["[CLS]", "the", "dog", "[SEP]"]
    assert load_training_state(tmp_path / "run/checkpoint")["iteration"] == 7
    assert os.listdir(tmp_path / "run") == ["checkpoint"]


def test_other_weights_than_the_networks_own_can_be_stored(tmp_path: Path) -> None:
    checkpoint = _checkpoint()
    average = {key: torch.zeros_like(value) for key, value in checkpoint.model.state_dict().items()}
    save_checkpoint(tmp_path / "c", checkpoint, weights=average)
    assert not any(value.any() for value in load_checkpoint(tmp_path / "c").model.state_dict().values())


def test_a_missing_or_foreign_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"is not a checkpoint: there is no such folder"):
        load_checkpoint(tmp_path / "none")
    save_checkpoint(tmp_path / "run/checkpoint", _checkpoint())
    with pytest.raises(UserError, match=r"run is the folder of a run; give its checkpoint, .*run/checkpoint"):
        load_checkpoint(tmp_path / "run")
    save_checkpoint(tmp_path / "c", _checkpoint())
    with pytest.raises(UserError, match="is of preset 'test', not 'edge'"):
        load_checkpoint(tmp_path / "c", preset="edge")
    with pytest.raises(UserError, match=r"holds no training\.pt"):
        load_training_state(tmp_path / "c")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("config.json", "not readable JSON"),
        ("model.safetensors", "does not fit its config"),
        ("tokenizer.json", "not a readable tokenizer"),
        ("card.json", "not readable JSON"),
        ("training.pt", "is damaged"),
    ],
)
def test_a_damaged_file_is_named(name: str, message: str, tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "c", _checkpoint(), training={"iteration": 1})
    file = tmp_path / "c" / name
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    read = load_training_state if name == "training.pt" else load_checkpoint
    with pytest.raises(UserError, match=message) as caught:
        read(tmp_path / "c")
    assert name in str(caught.value)


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "c", _checkpoint())
    config = model_config("test", motion_channels=4)
    (tmp_path / "c/config.json").write_text(config.model_dump_json(), encoding="utf-8")
    with pytest.raises(UserError, match="does not fit its config"):
        load_checkpoint(tmp_path / "c")


@pytest.mark.parametrize("renames", [0, 1])
def test_a_crash_while_replacing_leaves_the_old_one(
    renames: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_checkpoint(tmp_path / "c", _checkpoint(0))
    done: list[str] = []

    def rename(source: Path, target: Path) -> None:
        if len(done) == renames:
            raise KeyboardInterrupt
        done.append(str(source))
        os.replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", rename)
        with pytest.raises(KeyboardInterrupt):
            save_checkpoint(tmp_path / "c", _checkpoint(1))
    assert (tmp_path / "c").exists() == (renames == 0)
    assert load_checkpoint(tmp_path / "c").card == {"name": "seed 0"}
    save_checkpoint(tmp_path / "c", _checkpoint(2))
    assert load_checkpoint(tmp_path / "c").card == {"name": "seed 2"}
    assert os.listdir(tmp_path) == ["c"]


def test_a_full_disk_leaves_the_old_one(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "c", _checkpoint(0))
    after = _checkpoint(1)
    with files_at_most(20_000), pytest.raises(UserError, match="Cannot save the checkpoint") as caught:
        save_checkpoint(tmp_path / "c", after)
    assert "\n" not in str(caught.value)
    # torch and safetensors fail in different ways.
    with files_at_most(20_000), pytest.raises(UserError, match="Cannot save the checkpoint"):
        save_checkpoint(tmp_path / "c", after, weights={}, training={"big": torch.zeros(10_000)})
    assert load_checkpoint(tmp_path / "c").card == {"name": "seed 0"}
    assert os.listdir(tmp_path) == ["c"]


def _fill_the_disk(file: object) -> None:
    """Write a part of what was asked for, then fail as the kernel does."""
    if isinstance(file, (str, os.PathLike)):
        Path(file).write_bytes(b"half of it")
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("writer", ["weights", "optimiser"])
def test_a_disk_that_fills_up_in_the_middle_leaves_the_old_one(
    writer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_checkpoint(tmp_path / "c", _checkpoint(0), training={"iteration": 3})
    with monkeypatch.context() as patch:
        if writer == "weights":
            patch.setattr(rvos_edge.trainer.checkpoint, "save_file", lambda state, file: _fill_the_disk(file))
        else:
            patch.setattr(torch, "save", lambda state, file: _fill_the_disk(file))
        with pytest.raises(UserError, match=r"Cannot save the checkpoint .*No space left on device.*; free some space"):
            save_checkpoint(tmp_path / "c", _checkpoint(1), training={"iteration": 6})
    assert os.listdir(tmp_path) == ["c"]
    assert load_checkpoint(tmp_path / "c").card == {"name": "seed 0"}
    assert load_training_state(tmp_path / "c")["iteration"] == 3
    save_checkpoint(tmp_path / "c", _checkpoint(1), training={"iteration": 6})
    assert load_training_state(tmp_path / "c")["iteration"] == 6
