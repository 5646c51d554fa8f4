"""A run that is stopped or killed loses nothing but the time since."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file
from support.tiny_training import small_config
from typer.testing import CliRunner

from rvos_edge.cli import app
from rvos_edge.trainer.checkpoint import load_checkpoint, load_training_state
from rvos_edge.trainer.config import TrainConfig
from rvos_edge.trainer.data.sample import Batch
from rvos_edge.trainer.loop import Trainer, train


def _config(**changes: Any) -> TrainConfig:
    often: dict[str, Any] = {"iterations": 12, "ema": 0.9, "threads": 1, "log_every": 1, "checkpoint_every": 2}
    return small_config(**{**often, **changes})


def _quiet() -> Console:
    return Console(file=io.StringIO(), width=500)


def _tensors(state: Any, where: str = "") -> dict[str, Any]:
    """The leaves of a nested state by path."""
    if isinstance(state, dict):
        return {path: leaf for key, value in state.items() for path, leaf in _tensors(value, f"{where}/{key}").items()}
    if isinstance(state, list):
        return {path: leaf for i, value in enumerate(state) for path, leaf in _tensors(value, f"{where}/{i}").items()}
    return {where: state}


def _assert_same_run(one: Path, other: Path) -> None:
    weights, others = load_file(one / "model.safetensors"), load_file(other / "model.safetensors")
    assert weights.keys() == others.keys()
    assert [key for key in weights if not torch.equal(weights[key], others[key])] == []
    states = [_tensors(load_training_state(path)) for path in (one, other)]
    for state in states:
        del state["/config"]  # the number of workers may differ
    assert states[0].keys() == states[1].keys()
    unequal = [
        key
        for key, value in states[0].items()
        if not (torch.equal(value, states[1][key]) if isinstance(value, torch.Tensor) else value == states[1][key])
    ]
    assert unequal == []


@pytest.mark.slow
def test_a_killed_run_continues_bit_for_bit(tmp_path: Path) -> None:
    config = _config(iterations=8, checkpoint_every=4, workers=1)
    file = tmp_path / "small.json"
    file.write_text(config.model_dump_json(), encoding="utf-8")
    command = [sys.executable, "-m", "rvos_edge.cli", "train", str(file), "--output", str(tmp_path / "killed")]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True, start_new_session=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("small 5/8"):  # a checkpoint of iteration 4 lies there, the next is not due
                break
        process.kill()
    assert process.returncode == -signal.SIGKILL
    assert load_training_state(tmp_path / "killed/checkpoint")["iteration"] == 4
    again = config.model_copy(update={"workers": 0})
    killed = train(again, tmp_path / "killed", resume=True, console=_quiet())
    whole = train(again, tmp_path / "whole", console=_quiet())
    _assert_same_run(whole, killed)


@pytest.mark.parametrize(
    ("number", "error", "code"),
    [
        (signal.SIGINT, KeyboardInterrupt, None),
        pytest.param(signal.SIGTERM, SystemExit, 143, marks=pytest.mark.slow),
    ],
)
def test_a_signal_saves_before_leaving(
    number: signal.Signals,
    error: type[BaseException],
    code: int | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = _config(iterations=6, checkpoint_every=100)
    before = signal.getsignal(number)
    console = _quiet()
    with monkeypatch.context() as patch:
        _signal_at(2, number, patch)
        with pytest.raises(error) as caught:
            train(config, tmp_path / "cut", console=console)
    if code is not None:
        assert caught.value.code == code  # type: ignore[attr-defined]
    assert signal.getsignal(number) == before
    assert console.file.getvalue().splitlines()[-1] == (  # type: ignore[attr-defined]
        f"Stopped after 3 of 6 iterations; continue with: rvos-edge train --resume {tmp_path / 'cut'}"
    )
    assert load_training_state(tmp_path / "cut/checkpoint")["iteration"] == 3
    assert load_checkpoint(tmp_path / "cut/checkpoint").card["interrupted"]
    cut = train(config, tmp_path / "cut", resume=True, console=_quiet())
    whole = train(config, tmp_path / "whole", console=_quiet())
    _assert_same_run(whole, cut)


def test_before_anything_is_learnt_nothing_is_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    console = _quiet()
    build = Trainer.__init__

    def signalled(self: Trainer, *args: Any, **kwargs: Any) -> None:
        build(self, *args, **kwargs)
        monkeypatch.setattr("rvos_edge.trainer.loop.largest", lambda code: int(signal.SIGINT))

    monkeypatch.setattr(Trainer, "__init__", signalled)
    with pytest.raises(KeyboardInterrupt):
        train(_config(), tmp_path / "run", console=console)
    assert not (tmp_path / "run/checkpoint").exists()
    assert "Stopped after 0 of 12 iterations; nothing was learnt yet" in console.file.getvalue()  # type: ignore[attr-defined]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_the_command_ends_as_signals_end_commands(
    number: signal.Signals, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "small.json"
    file.write_text(_config(iterations=4).model_dump_json(), encoding="utf-8")
    _signal_at(0, number, monkeypatch)
    result = CliRunner().invoke(app, ["train", str(file), "--output", str(tmp_path / "run")])
    assert result.exit_code == code, result.output
    assert "Stopped after 1 of 4 iterations; continue with: rvos-edge train --resume" in result.stderr
    assert load_training_state(tmp_path / "run/checkpoint")["iteration"] == 1


def test_a_second_ctrl_c_ends_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    step = Trainer.step

    def impatient(self: Trainer, batch: Batch) -> float:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        return step(self, batch)

    monkeypatch.setattr(Trainer, "step", impatient)
    with pytest.raises(KeyboardInterrupt):
        train(_config(), tmp_path / "run", console=_quiet())
    assert not (tmp_path / "run/checkpoint").exists()


def _signal_at(iteration: int, number: signal.Signals, monkeypatch: pytest.MonkeyPatch) -> None:
    """Send a signal in the middle of a step; that step is finished."""
    step = Trainer.step

    def signalled(self: Trainer, batch: Batch) -> float:
        if self.iteration == iteration:
            signal.raise_signal(number)
        return step(self, batch)

    monkeypatch.setattr(Trainer, "step", signalled)
