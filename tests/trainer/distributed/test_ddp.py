"""Two processes on the loopback, started by torchrun, learn what one process learns; compared in float64."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file
from support import float64
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from rvos_edge.errors import UserError
from rvos_edge.trainer.checkpoint import load_training_state
from rvos_edge.trainer.config import TrainConfig
from rvos_edge.trainer.data import loader
from rvos_edge.trainer.loop import Trainer, train

# Everything that looks beyond a rank's own samples: norms, dropout, Dice, alignment, clipping and the average.
_DOCUMENT: dict[str, Any] = {
    "name": "shared",
    "model": {"preset": "test"},
    "data": {"sources": [{"kind": "synthetic", "share": 1.0}], "queries": 2},
    "loss": {"hardest": 0.15, "dice": 1.0, "alignment": 0.3},
    "optimizer": {"lr": 0.01, "clip": 1.0},
    "iterations": 4,
    "batch": 4,
    "flow_dropout": 0.3,
    "ema": 0.9,
    "threads": 1,
    "log_every": 1,
    "checkpoint_every": 2,
}


def _quiet() -> Console:
    return Console(file=io.StringIO())


def _torchrun(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += [float64.__file__, "train", *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)


def _losses(folder: Path) -> dict[int, float]:
    events = EventAccumulator(str(folder))
    events.Reload()
    return {event.step: event.value for event in events.Scalars("loss")}


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of one process, with its checkpoint of the middle beside it (``half``)."""
    folder = tmp_path_factory.mktemp("single")
    config = TrainConfig.model_validate(_DOCUMENT)
    (folder / "shared.json").write_text(config.model_dump_json(), encoding="utf-8")
    step = Trainer.step

    def keeping(self: Trainer, batch: Any) -> float:
        if self.iteration == 2:
            shutil.copytree(folder / "run", folder / "half")
        return step(self, batch)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "step", keeping)
        patch.setattr(torch.cuda, "is_available", lambda: False)
        float64.use_float64(patch)
        try:
            train(config, folder / "run", console=_quiet())
        finally:
            torch.set_default_dtype(torch.float32)
    return folder


@pytest.mark.parametrize("start", ["fresh", "resumed"])
@pytest.mark.slow
def test_two_processes_give_the_curve_of_one(start: str, single: Path, tmp_path: Path) -> None:
    if start == "fresh":
        output = tmp_path / "run"
        result = _torchrun(single / "shared.json", "--output", output)
    else:
        output = single / "half"
        result = _torchrun("--resume", output)
    assert result.returncode == 0, result.stderr
    assert result.stderr.count("shared 4/4") == 1, "one rank speaks"
    assert result.stdout.count("Wrote") == 1
    expected, found = _losses(single / "run"), _losses(output)
    assert expected.keys() == found.keys() == {1, 2, 3, 4}
    for step, loss in expected.items():
        assert found[step] == pytest.approx(loss, rel=1e-6), step  # event files hold float32
    one, other = (load_file(folder / "checkpoint/model.safetensors") for folder in (single / "run", output))
    assert one.keys() == other.keys()
    for key, value in one.items():
        np.testing.assert_allclose(other[key].numpy(), value.numpy(), rtol=1e-9, atol=1e-9, err_msg=key)
    states = [load_training_state(folder / "checkpoint") for folder in (single / "run", output)]
    assert states[0]["iteration"] == states[1]["iteration"] == 4
    assert one["decoder.head.2.weight"].dtype == torch.float64


def test_a_batch_that_cannot_be_shared_evenly_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loader, "world", lambda: 3)
    with pytest.raises(UserError, match="batch 4 cannot be shared by 3 processes; make it a multiple of them"):
        loader.batches(None, TrainConfig.model_validate(_DOCUMENT), start=0, stop=4)  # type: ignore[arg-type]


def test_the_ranks_parts_are_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    config = TrainConfig.model_validate(_DOCUMENT)
    drawn: list[int] = []

    class Counting:
        def __getitem__(self, index: int) -> Any:
            drawn.append(index)
            raise UserError("that is all")

    for rank in (0, 1):
        monkeypatch.setattr(loader, "world", lambda: 2)
        monkeypatch.setattr(loader, "rank", lambda rank=rank: rank)
        with pytest.raises(UserError, match="that is all"):
            next(loader.batches(Counting(), config, start=3, stop=4))  # type: ignore[arg-type]
    assert drawn == [12, 14, 13, 15]
