"""The training loop: it learns, and a resumed run is the run that was never interrupted."""

from __future__ import annotations

import errno
import json
import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from support.layouts import write_davis17
from support.tiny_training import make_batch, make_trainer, poison, quiet, small_config
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.tensorboard import SummaryWriter
from typer.testing import CliRunner

from rvos_edge.atomic import only_writer
from rvos_edge.cli import app
from rvos_edge.errors import UserError
from rvos_edge.trainer.checkpoint import load_checkpoint, load_training_state
from rvos_edge.trainer.data.mixture import MixtureDataset
from rvos_edge.trainer.data.sample import Batch, Sample
from rvos_edge.trainer.loop import Trainer, train
from rvos_edge.trainer.model.hinet import HINet
from rvos_edge.trainer.validation import Validation


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_equal(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(_equal(a, b) for a, b in zip(one, other, strict=True))
    return bool(one == other)


def _die_at(iteration: int, monkeypatch: pytest.MonkeyPatch) -> None:
    step = Trainer.step

    def dying(self: Trainer, batch: Batch) -> float:
        if self.iteration == iteration:
            raise KeyboardInterrupt
        return step(self, batch)

    monkeypatch.setattr(Trainer, "step", dying)


_VARIANTS: dict[str, dict[str, Any]] = {
    "sgd": {},
    "average, alignment": {
        "ema": 0.9,
        "loss": {"alignment": 0.3},
        "data": {"sources": [{"kind": "synthetic", "share": 1.0}], "queries": 2, "spare_queries": 3},
    },
    "adamw, text trained": {"ema": 0.9, "optimizer": {"name": "adamw", "lr": 0.001, "text_lr": 0.1, "clip": 1.0}},
    "bf16, frozen parts": {"amp": "bf16", "freeze_early": True, "freeze_backbone_norm": True},
}


@pytest.mark.parametrize(
    "variant", ["sgd", *(pytest.param(name, marks=pytest.mark.slow) for name in _VARIANTS if name != "sgd")]
)
def test_a_resumed_run_is_bit_for_bit_the_whole_run(
    variant: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = small_config(**_VARIANTS[variant])
    whole = train(config, tmp_path / "whole", console=quiet())
    with monkeypatch.context() as patch:
        _die_at(4, patch)  # one iteration after the checkpoint: that one is lost and done again
        with pytest.raises(KeyboardInterrupt):
            train(config, tmp_path / "cut", console=quiet())
    assert load_training_state(tmp_path / "cut/checkpoint")["iteration"] == 3
    cut = train(config, tmp_path / "cut", resume=True, console=quiet())
    assert _equal(load_file(whole / "model.safetensors"), load_file(cut / "model.safetensors"))
    assert _equal(load_training_state(whole), load_training_state(cut))
    # Were nothing learnt, everything would be equal too.
    torch.manual_seed(config.seed)
    start = HINet(config=config.model_config_of()).state_dict()
    learnt = load_file(whole / "model.safetensors")
    assert not torch.equal(start["decoder.head.2.weight"], learnt["decoder.head.2.weight"])
    assert torch.equal(
        start["sentence.bert.embeddings.word_embeddings.weight"],
        learnt["sentence.bert.embeddings.word_embeddings.weight"],
    ) == ("text" not in variant)
    assert all(torch.equal(start[key], learnt[key]) for key in start if key.startswith("flow."))


@pytest.mark.slow
def test_the_scaler_of_fp16_is_resumed_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build = Trainer.__init__

    def scaled_bf16(self: Trainer, *args: Any, **kwargs: Any) -> None:
        build(self, *args, **kwargs)
        assert self.precision == torch.float16
        assert self.scaler.is_enabled()
        self.precision = torch.bfloat16  # CPUs take seconds for a step in fp16; the scaler does not mind
        self.scaler.set_growth_interval(2)

    monkeypatch.setattr(Trainer, "__init__", scaled_bf16)
    config = small_config(amp="fp16", optimizer={"lr": 0.01, "clip": 1.0})
    whole = train(config, tmp_path / "whole", console=quiet())
    with monkeypatch.context() as patch:
        _die_at(4, patch)
        with pytest.raises(KeyboardInterrupt):
            train(config, tmp_path / "cut", console=quiet())
    half = load_training_state(tmp_path / "cut/checkpoint")["scaler"]
    assert (half["scale"], half["_growth_tracker"]) == (2.0**17, 1)
    cut = train(config, tmp_path / "cut", resume=True, console=quiet())
    assert _equal(load_training_state(whole), load_training_state(cut))
    assert load_training_state(cut)["scaler"]["scale"] == 2.0**19
    assert _equal(load_file(whole / "model.safetensors"), load_file(cut / "model.safetensors"))


def test_a_run_leaves_its_configuration_and_a_card(tmp_path: Path) -> None:
    config = small_config(iterations=2, data={"sources": [{"kind": "synthetic", "share": 2.0}], "licences": ["own"]})
    console = quiet()
    path = train(config, tmp_path / "run", console=console)
    assert path == tmp_path / "run/checkpoint"
    assert json.loads((tmp_path / "run/config.json").read_text()) == json.loads(config.model_dump_json())
    card = load_checkpoint(path).card
    assert card["data"] == [{"name": "synthetic", "share": 1.0}]
    assert (card["iterations"], card["licences"], card["interrupted"]) == (2, ["own"], False)
    assert list((tmp_path / "run").glob("events.*"))
    assert "small 2/2 loss" in console.file.getvalue()  # type: ignore[attr-defined]


def test_the_loss_falls_on_a_few_fixed_samples() -> None:
    trainer = make_trainer(small_config(iterations=1000, flow_dropout=0.0, optimizer={"name": "adamw", "lr": 0.003}))
    batch = make_batch()
    losses = [trainer.step(batch) for _ in range(30)]
    assert np.mean(losses[-5:]) < 0.6 * np.mean(losses[:3])


def test_an_existing_run_is_not_overwritten_and_not_resumed_as_another(tmp_path: Path) -> None:
    config = small_config(iterations=2)
    train(config, tmp_path / "run", console=quiet())
    with pytest.raises(UserError, match="already holds a run; add --resume"):
        train(config, tmp_path / "run", console=quiet())
    # A crash between the two renames of a save has moved it aside: it is still a run.
    (tmp_path / "run/checkpoint").rename(tmp_path / "run/.checkpoint.old")
    with pytest.raises(UserError, match="already holds a run; add --resume"):
        train(config, tmp_path / "run", console=quiet())
    with pytest.raises(UserError, match=r"another seed; resume it with .*config\.json"):
        train(small_config(iterations=2, seed=5), tmp_path / "run", resume=True, console=quiet())
    with pytest.raises(UserError, match="has 2 iterations and cannot be shortened to 1; give more"):
        train(small_config(iterations=1), tmp_path / "run", resume=True, console=quiet())
    assert json.loads((tmp_path / "run/config.json").read_text())["iterations"] == 2
    before = (tmp_path / "run/checkpoint/model.safetensors").read_bytes()
    other = config.model_copy(update={"workers": 1, "threads": torch.get_num_threads(), "log_every": 1})
    train(other, tmp_path / "run", resume=True, console=quiet())  # a finished run has nothing left to do
    assert (tmp_path / "run/checkpoint/model.safetensors").read_bytes() == before
    with pytest.raises(UserError, match=r"--resume .*empty: nothing was saved yet; start the run again"):
        train(config, tmp_path / "empty", resume=True, console=quiet())


@pytest.mark.parametrize("name", ["config.json", "train.log", "best/notes.txt"])
def test_files_that_are_not_of_a_run_are_left_alone(tmp_path: Path, name: str) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("{}")
    with pytest.raises(
        UserError, match="was not written by a training and would be overwritten; choose another folder"
    ):
        train(small_config(iterations=1), tmp_path, console=quiet())
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == [Path(name).name]
    assert (tmp_path / name).read_text() == "{}"


def test_a_finished_run_can_be_lengthened(tmp_path: Path) -> None:
    train(small_config(iterations=2), tmp_path / "run", console=quiet())
    console = quiet()
    path = train(small_config(iterations=4), tmp_path / "run", resume=True, console=console)
    assert load_training_state(path)["iteration"] == 4
    assert load_checkpoint(path).card["planned"] == 4
    assert "lengthened from 2 to 4 iterations" in console.file.getvalue()  # type: ignore[attr-defined]


def test_too_many_in_a_row_end_the_run_and_save_its_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    poison({2, 3}, monkeypatch)
    with pytest.raises(
        UserError, match=r"for 2 iterations in a row, up to number 4: the state is in .*diverged; lower"
    ):
        train(small_config(skip_limit=2, checkpoint_every=1), tmp_path / "run", console=quiet())
    assert load_training_state(tmp_path / "run/diverged")["iteration"] == 4
    # A run that ends in such a row has no checkpoint of it.
    monkeypatch.undo()
    with pytest.raises(UserError, match="was not finite for 5 iterations in a row, up to number 6"):
        train(small_config(optimizer={"lr": 1e30}, checkpoint_every=100), tmp_path / "wild", console=quiet())
    assert not (tmp_path / "wild/checkpoint").exists()


@pytest.mark.slow
def test_validation_keeps_the_best_weights_beside_the_last(tmp_path: Path) -> None:
    root = write_davis17(tmp_path / "DAVIS", {"train": ["bear"], "val": ["goat"]})
    given = {"dataset": "davis17", "root": str(root), "every": 2}
    config = small_config(iterations=4, ema=0.9, log_every=1, loss={"dice": 1.0}, validation=given)
    plain = train(small_config(iterations=4, ema=0.9, loss={"dice": 1.0}), tmp_path / "plain", console=quiet())
    path = train(config, tmp_path / "run", console=quiet())
    assert _equal(load_file(path / "model.safetensors"), load_file(plain / "model.safetensors")), "it only looks"
    best = load_checkpoint(tmp_path / "run/best").card
    assert best["iterations"] in (2, 4)
    assert set(best["validation"]) == {"j", "f"}
    events = EventAccumulator(str(tmp_path / "run"))
    events.Reload()
    tags = set(events.Tags()["scalars"])
    assert {"loss", "lr", "gradient", "samples_per_second", "waiting", "loss/cross_entropy", "loss/dice"} <= tags
    scores = {event.step: event.value for event in events.Scalars("validation/j")}
    assert list(scores) == [2, 4]
    assert scores[best["iterations"]] == pytest.approx(best["validation"]["j"], abs=1e-6)
    log = (tmp_path / "run/train.log").read_text()
    assert "small 4/4 validation j 0." in log
    assert "gradient" in log
    assert "waiting" in log
    with pytest.raises(UserError, match="Unknown data set 'davis'"):
        train(small_config(validation={**given, "dataset": "davis"}), tmp_path / "bad", console=quiet())


def test_a_run_with_patience_ends_by_itself_with_its_best(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_davis17(tmp_path / "DAVIS", {"train": ["bear"], "val": ["goat"]})
    scores = iter([0.2, 0.5, 0.4, 0.5, 0.9])
    monkeypatch.setattr(Validation, "score", lambda *_: dict.fromkeys(("j", "f"), next(scores)))
    given = {"dataset": "davis17", "root": str(root), "every": 1, "patience": 2}
    config = small_config(validation=given)
    path = train(config, tmp_path / "run", console=quiet())
    assert path == tmp_path / "run/best"
    for resume, score in ((True, 0.5), (False, -math.inf)):  # a run that begins anew has no best yet
        validation = Validation.open(config.validation, tmp_path / "run", resume=resume)
        assert validation is not None
        assert validation.best == score
    assert load_checkpoint(path).card["iterations"] == 1
    assert next(scores) == 0.9, "one before training, and one after each of three iterations"
    assert "no better for 2 validations: the run ends after 3 iterations" in (tmp_path / "run/train.log").read_text()


@pytest.mark.slow
def test_a_run_of_epochs_shows_every_pair_and_resumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_davis17(tmp_path / "DAVIS", {"train": ["bear", "dog"], "val": ["goat"]}, frames=3)
    data = {
        "sources": [{"kind": "davis17", "root": str(root), "share": 1}],
        "view": "paper",
        "size": [64, 64],
        "queries": 1,
        "flow": str(tmp_path / "flow"),
    }
    config = small_config(data=data, iterations=None, epochs=1, batch=20, checkpoint_every=2)
    whole = train(config, tmp_path / "whole", console=quiet())
    # Two videos of three frames and eight sentences, twenty pairs at a time.
    assert load_training_state(whole)["iteration"] == 3
    card = load_checkpoint(whole).card
    assert (card["iterations"], card["planned"], card["interrupted"]) == (3, 3, False)
    assert card["videos"] == {"davis17": ["bear", "dog"]}
    with monkeypatch.context() as patch:
        _die_at(2, patch)
        with pytest.raises(KeyboardInterrupt):
            train(config, tmp_path / "cut", console=quiet())
    cut = train(config, tmp_path / "cut", resume=True, console=quiet())
    assert _equal(load_training_state(whole), load_training_state(cut))
    endless = small_config(iterations=None, epochs=2)
    with pytest.raises(UserError, match="a source of kind synthetic has no end"):
        train(endless, tmp_path / "endless", console=quiet())


def test_snapshots_are_kept_for_averaging(tmp_path: Path) -> None:
    path = train(small_config(keep_every=2, ema=0.9), tmp_path / "run", console=quiet())
    kept = sorted((tmp_path / "run/snapshots").iterdir())
    assert [snapshot.name for snapshot in kept] == ["000002", "000004", "000006"]
    assert [load_checkpoint(snapshot).card["iterations"] for snapshot in kept] == [2, 4, 6]
    last, final = (load_checkpoint(directory).model.state_dict() for directory in (kept[-1], path))
    assert _equal(last, final)
    assert load_training_state(path)["iteration"] == 6
    with pytest.raises(UserError):  # weights only: a snapshot is a fraction of the checkpoint's size
        load_training_state(kept[-1])


def test_bad_data_in_mid_run_is_named_and_nothing_learnt_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = small_config(workers=1, checkpoint_every=100)
    draw = MixtureDataset.__getitem__

    def damaged(self: MixtureDataset, index: int) -> Sample:
        if index == 9:
            raise UserError("cannot read the image frame.jpg: it is damaged")
        if index in (3, 6):
            warnings.warn("another sample takes the place of first.jpg", stacklevel=2)
            warnings.warn("a library's argument has another name", DeprecationWarning, stacklevel=2)
        return draw(self, index)

    with monkeypatch.context() as patch:
        patch.setattr(MixtureDataset, "__getitem__", damaged)
        with pytest.raises(UserError) as caught:
            train(config, tmp_path / "cut", console=quiet())
    assert str(caught.value) == (
        "cannot read the image frame.jpg: it is damaged; after 4 of 6 iterations, "
        f"continue with: rvos-edge train --resume {tmp_path / 'cut'}"
    )
    assert load_training_state(tmp_path / "cut/checkpoint")["iteration"] == 4
    log = (tmp_path / "cut/train.log").read_text()
    assert log.count("another sample takes the place of first.jpg") == 1, "though a loader process met it, twice"
    assert "a library's argument" not in log
    # The file was mended: the run is the one that never met it.
    cut = train(config, tmp_path / "cut", resume=True, console=quiet())
    whole = train(config, tmp_path / "whole", console=quiet())
    assert _equal(load_training_state(whole), load_training_state(cut))
    assert _equal(load_file(whole / "model.safetensors"), load_file(cut / "model.safetensors"))


def test_a_full_disk_ends_the_command_with_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "small.json"
    file.write_text(small_config().model_dump_json(), encoding="utf-8")
    save = torch.save

    def full(state: dict[str, Any], path: Path) -> None:
        if state["iteration"] > 3:
            path.write_bytes(b"half of it")
            raise OSError(errno.ENOSPC, "No space left on device")
        save(state, path)

    monkeypatch.setattr(torch, "save", full)
    result = CliRunner().invoke(app, ["train", str(file), "--output", str(tmp_path / "run")])
    assert result.exit_code == 2
    last = result.stderr.splitlines()[-1]
    assert last.startswith("Error: Cannot save the checkpoint")
    assert last.endswith("No space left on device); free some space, then --resume.")
    assert "Traceback" not in result.stderr
    assert load_training_state(tmp_path / "run/checkpoint")["iteration"] == 3
    assert not list((tmp_path / "run").glob(".*"))


def test_training_goes_on_where_events_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: SummaryWriter, *scalar: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(SummaryWriter, "add_scalar", full)
    console = quiet()
    path = train(small_config(iterations=2, log_every=1), tmp_path / "run", console=console)
    assert load_training_state(path)["iteration"] == 2
    said = console.file.getvalue()  # type: ignore[attr-defined]
    assert said.count("No more TensorBoard events: No space left on device") == 1


def test_fine_tuning_starts_from_a_checkpoint(tmp_path: Path) -> None:
    before = train(small_config(iterations=2), tmp_path / "before", console=quiet())
    tune = {"init_from": str(before), "iterations": 1, "optimizer": {"lr": 1e-12, "weight_decay": 0}}
    after = train(small_config(**tune), tmp_path / "after", console=quiet())
    one, other = (load_file(path / "model.safetensors")["decoder.head.2.weight"] for path in (before, after))
    assert torch.allclose(one, other, atol=1e-6)
    with pytest.raises(UserError, match=r"is of another network: it lacks backbone \("):
        train(small_config(**tune, model={"preset": "edge"}), tmp_path / "edge", console=quiet())
    # A variant takes what it has in common with the pre-training, and says what it does not take.
    console = quiet()
    single = train(small_config(**tune, model={"preset": "test", "flow": "none"}), tmp_path / "still", console=console)
    kept = load_file(single / "model.safetensors")["decoder.head.2.weight"]
    assert torch.allclose(one, kept, atol=1e-6)
    said = console.file.getvalue()  # type: ignore[attr-defined]
    assert "left out: flow (" in said
    assert "motion (" in said


def test_a_preset_with_a_real_text_model_needs_its_weights(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"set weights\.text"):
        train(small_config(model={"preset": "edge"}), tmp_path / "run", console=quiet())
    assert not (tmp_path / "run").exists()


def test_a_second_run_in_one_folder_is_refused(tmp_path: Path) -> None:
    with only_writer(tmp_path), pytest.raises(UserError, match="is being written by another run; wait for it"):
        train(small_config(), tmp_path, console=quiet())
    assert list(tmp_path.iterdir()) == []
