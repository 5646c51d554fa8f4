"""Two processes on the loopback, started by torchrun, learn what one process learns; compared in float64."""

from __future__ import annotations

import io
import json
import multiprocessing
import os
import re
import shlex
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
from rvos_edge.trainer.data.mixture import MixtureDataset
from rvos_edge.trainer.data.sample import Sample
from rvos_edge.trainer.distributed.ranks import gathered_list
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


_ROOT = Path(__file__).resolve().parents[3]


def _quiet() -> Console:
    return Console(file=io.StringIO())


def _readme(arguments: str, patches: Path) -> subprocess.CompletedProcess[str]:
    """README's torchrun line, in the checkout and with other arguments, in float64."""
    line = re.search(r"^    torchrun (.*) CONFIG --output RUN$", (_ROOT / "README.md").read_text(), re.MULTILINE)
    assert line is not None
    command = [sys.executable, "-m", "torch.distributed.run", *shlex.split(line[1]), *shlex.split(arguments)]
    (patches / "sitecustomize.py").write_text("import float64, pytest\nfloat64.use_float64(pytest.MonkeyPatch())\n")
    path = os.pathsep.join([str(patches), str(Path(float64.__file__).parent)])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": path}
    return subprocess.run(command, cwd=_ROOT, env=environment, capture_output=True, text=True, timeout=600)


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
def test_readmes_line_gives_two_processes_the_curve_of_one(start: str, single: Path, tmp_path: Path) -> None:
    if start == "fresh":
        output = tmp_path / "run"
        result = _readme(f"{single / 'shared.json'} --output {output}", tmp_path)
    else:
        output = single / "half"
        result = _readme(f"--resume {output}", tmp_path)
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


class _Pairs:
    """Forty-eight pairs; the sentence of each is its number."""

    pairs = 48

    def __len__(self) -> int:
        return 6

    def draw(self, rng: np.random.Generator) -> Sample:
        raise AssertionError("pairs are drawn by number")

    def draw_at(self, position: int, rng: np.random.Generator) -> Sample:
        raise AssertionError("pairs are drawn by number")

    def draw_pair(self, position: int, rng: np.random.Generator) -> Sample:
        shape = (32, 32)
        image, flow = np.zeros((*shape, 3), np.uint8), np.zeros((*shape, 2), np.float32)
        return Sample(image, flow, np.ones((1, *shape), np.bool_), (str(position),))


def _see_pairs(rank: int, store: Path) -> None:
    """One of eight ranks: two epochs of sixteen pairs at a time; rank 0 writes down what all have seen."""
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", f"file://{store}", rank=rank, world_size=8)
    config = TrainConfig.model_validate({**_DOCUMENT, "batch": 16, "data": {**_DOCUMENT["data"], "queries": 1}})
    data = MixtureDataset([(_Pairs(), 1.0)], length=1000, queries=1, seed=2)
    seen = [[text for (text,) in batch.expressions] for batch in loader.batches(data, config, start=0, stop=6)]
    batches = [gathered_list(part) for part in seen]
    if rank == 0:
        store.with_suffix(".json").write_text(json.dumps(batches))
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


def test_eight_ranks_see_each_pair_once_an_epoch(tmp_path: Path) -> None:
    ranks = [
        multiprocessing.get_context("fork").Process(target=_see_pairs, args=(rank, tmp_path / "store"))
        for rank in range(8)
    ]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(120)
    assert [process.exitcode for process in ranks] == [0] * 8
    batches = json.loads((tmp_path / "store.json").read_text())
    assert [len(batch) for batch in batches] == [16] * 6
    epochs = [[int(text) for batch in batches[start : start + 3] for text in batch] for start in (0, 3)]
    assert [sorted(epoch) for epoch in epochs] == [list(range(48))] * 2
    assert epochs[0] != epochs[1]
