"""The training loop: deterministic by iteration, so that a resumed run continues exactly."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ValidationError
from rich.console import Console
from tokenizers import Tokenizer

from rvos_edge.atomic import make_folders, new_file, only_writer, recover
from rvos_edge.errors import UserError
from rvos_edge.trainer.card import training_history
from rvos_edge.trainer.checkpoint import Checkpoint, load_checkpoint, load_training_state, save_checkpoint
from rvos_edge.trainer.config import TrainConfig
from rvos_edge.trainer.data.loader import batches, check_batches
from rvos_edge.trainer.data.mixture import MixtureDataset
from rvos_edge.trainer.distributed.interrupt import Interrupt, leave
from rvos_edge.trainer.distributed.ranks import first, joined, largest, rank
from rvos_edge.trainer.events import TrainingReport, find_wandb, said
from rvos_edge.trainer.flow_extraction import prepare_data
from rvos_edge.trainer.start import starting_point, weights_hash
from rvos_edge.trainer.trainer import Trainer
from rvos_edge.trainer.validation import Validation

_BAD_INPUT = 1000
"""Code by which a rank reports bad input to the others, above every signal's number."""
_DRAWN = 20
"""Fewest logged points of a curve that is drawn without a validation."""


def train(config: TrainConfig, output: Path, *, resume: bool = False, console: Console | None = None) -> Path:
    """Train a network and leave a checkpoint directory.

    Under torchrun every process calls this; they share each batch (see ``distributed``), and all must see the same
    output and flow folders. Ctrl-C and SIGTERM finish the step and save.

    Args:
        output: Directory of the checkpoint (``checkpoint``), the best one (``best``, which is returned where the run
            ends by ``validation.patience``), the configuration, the log (``train.log``), the curves (``curves.png``)
            and the TensorBoard events.
        resume: Continue from ``output/checkpoint``; all that shapes its learning must be configured the same, but the
            run may be longer than it was.

    Raises:
        UserError: A data folder or weights file is missing, a file is damaged, the disk is full, the run to resume is
            another one, or the loss is not finite for too long. What was learnt before is saved.
        KeyboardInterrupt: Ctrl-C, after saving.
        SystemExit: 143 on SIGTERM, after saving.
    """
    console = console or Console(stderr=True)
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    path = output / "checkpoint"
    with joined() as device, ExitStack() as held:
        if rank():
            console = Console(quiet=True)
        lines: list[str] = []

        def say(text: str) -> None:
            console.print(text, soft_wrap=True, highlight=False, markup=False)
            lines.append(text)

        if not rank():  # the others' warnings are Python's
            held.enter_context(said(say))
        first(lambda: _check(config, path, output, resume))
        torch.manual_seed(config.seed)
        checkpoint = load_checkpoint(path) if resume else starting_point(config, say)
        origin = _Origin.of(checkpoint, resumed=resume)
        training = load_training_state(path) if resume else None
        if training is not None:
            _check_same(config, training, output)
        validation = first(lambda: Validation.open(config.validation, output, resume=resume))
        model = checkpoint.model.eval().to(device)
        data = prepare_data(config.data, model, config.seed, console=console)
        total = config.steps(data.epoch)
        if training is not None:
            _lengthened(config, training, checkpoint.card.get("planned", total), total, output, say)
        trainer = Trainer(config, checkpoint, total=total, device=device)
        if training is not None:
            trainer.load_state(training)
        first(lambda: _hold(output, held))
        first(lambda: write_config(config, output))
        _run(trainer, data, origin, output, console, validation, lines)
    return path if config.validation is None or config.validation.patience is None else output / "best"


@dataclass(frozen=True)
class _Origin:
    """Beginning of a run: its tokenizer, the runs before it, and the hash of its first weights."""

    tokenizer: Tokenizer
    history: list[Any]
    start: str | None

    @classmethod
    def of(cls, checkpoint: Checkpoint, *, resumed: bool) -> _Origin:
        card = checkpoint.card
        if resumed:
            return cls(checkpoint.tokenizer, card.get("history", []), card.get("start"))
        return cls(checkpoint.tokenizer, training_history(card), weights_hash(checkpoint.model.state_dict()))


def _run(
    trainer: Trainer,
    data: MixtureDataset,
    origin: _Origin,
    output: Path,
    console: Console,
    validation: Validation | None,
    lines: list[str],
) -> None:
    config, total, saved = trainer.config, trainer.total, trainer.iteration

    def write(name: str, training: dict[str, Any] | None = None, **facts: Any) -> None:
        checkpoint = Checkpoint(trainer.model, origin.tokenizer, _card(trainer, data, origin) | facts)
        save_checkpoint(output / name, checkpoint, weights=trainer.averaged, training=training)

    feed = batches(data, config, start=trainer.iteration, stop=total)
    report = TrainingReport(
        config.name,
        None if rank() else output,
        console,
        start=saved,
        total=total,
        every=config.log_every,
        batch=config.batch,
        before=lines,
        wandb=config.wandb,
        facts=config.model_dump(mode="json"),
    )
    stop, fault = 0, None
    with Interrupt() as interrupt, report, nullcontext() if rank() else said(report.say):
        patience = None if config.validation is None else config.validation.patience
        if patience is not None and not trainer.iteration:
            first(lambda: _validate(trainer, origin, validation, report, write))
        while trainer.iteration < total:
            batch, began = None, time.monotonic()
            try:
                batch = next(feed)
            except UserError as error:
                fault = error
            report.waited(time.monotonic() - began)
            stop = largest(interrupt.received if fault is None else _BAD_INPUT)
            if stop or batch is None:
                break
            loss = trainer.step(batch)
            done = trainer.iteration
            report.step(done, loss=loss, lr=trainer.lr, terms=trainer.terms, gradient=trainer.gradient)
            if trainer.skipped:
                report.say(_skipped(trainer, loss))
            if trainer.skipped >= config.skip_limit or (done == total and trainer.skipped > 1):
                first(lambda: _give_up(trainer, output, write))
            if config.keep_every and done % config.keep_every == 0:
                first(lambda: write(f"snapshots/{trainer.iteration:06d}"))
            if trainer.skipped < 2 and (done % config.checkpoint_every == 0 or done == total):  # not what may be lost
                first(lambda: write("checkpoint", trainer.state()))
                saved = done
            if config.validation is not None and (done % config.validation.every == 0 or done == total):
                first(lambda: _validate(trainer, origin, validation, report, write))
                if patience is not None and largest(0 if validation is None else validation.waited) >= patience:
                    report.say(f"no better for {patience} validations: the run ends after {done} iterations")
                    break
        if stop and trainer.iteration > saved and trainer.skipped < 2:
            first(lambda: write("checkpoint", trainer.state()))
    if stop:
        _stop(stop, fault, trainer, output, console)
    if not rank() and (config.validation is not None or total >= _DRAWN * config.log_every):
        from rvos_edge.trainer.report.curves import draw_curves, read_curves  # matplotlib, for this alone

        draw_curves(output / "curves.png", {config.name: read_curves(output)})


def _validate(
    trainer: Trainer,
    origin: _Origin,
    validation: Validation | None,
    report: TrainingReport,
    write: Callable[..., None],
) -> None:
    assert validation is not None
    weights = trainer.averaged if trainer.averaged is not None else trainer.model.state_dict()
    scores = validation.score(trainer.model.config, weights, origin.tokenizer, trainer.device)
    report.scores(trainer.iteration, scores)
    if validation.is_best(scores):
        write("best", validation=scores)
        validation.best_at = trainer.iteration
    validation.waited = (trainer.iteration - validation.best_at) // validation.config.every


def _skipped(trainer: Trainer, loss: float) -> str:
    what = "gradient" if math.isfinite(loss) else "loss"
    value = trainer.gradient if math.isfinite(loss) else loss
    return (
        f"iteration {trainer.iteration}: the {what} is {value}; it is skipped ({trainer.skipped} in a row, the run "
        f"ends after {trainer.config.skip_limit})"
    )


def _give_up(trainer: Trainer, output: Path, write: Callable[..., None]) -> None:
    write("diverged", trainer.state())
    raise UserError(
        f"The loss or its gradient was not finite for {trainer.skipped} iterations in a row, up to number "
        f"{trainer.iteration}: the state is in {output / 'diverged'}; lower optimizer.lr and start again, with "
        "init_from set to a checkpoint of before to keep what was learnt."
    )


def _stop(reason: int, fault: UserError | None, trainer: Trainer, output: Path, console: Console) -> None:
    done = trainer.iteration
    how = f"continue with: rvos-edge train --resume {output}" if done else "nothing was learnt yet"
    if fault is not None:
        raise UserError(f"{str(fault).rstrip('.')}; after {done} of {trainer.total} iterations, {how}") from fault
    if reason == _BAD_INPUT:
        raise SystemExit(2)  # the rank that met it says why
    console.print(f"Stopped after {done} of {trainer.total} iterations; {how}", soft_wrap=True)
    leave(reason)


def _check(config: TrainConfig, path: Path, output: Path, resume: bool) -> None:
    """Refuse, before any work, a folder that holds a run, and settings that cannot be."""
    recover(path)
    if resume and not path.exists():
        raise UserError(f"--resume {output}: nothing was saved yet; start the run again without --resume.")
    if not resume and path.exists():
        raise UserError(f"{path} already holds a run; add --resume {output} to continue it, or choose another folder.")
    if not resume:
        check_free(output, TrainConfig)
    check_batches(config)
    if config.wandb is not None:
        find_wandb()


def check_free(output: Path, kind: type[BaseModel]) -> None:
    """Refuse a folder with other files under the names that a run writes; a run that broke off may begin again.

    Args:
        kind: Class of the run's own ``config.json``.
    """
    names = ("config.json", "train.log", "curves.png", "curves.pdf", "best", "snapshots")
    taken = [output / name for name in names if (output / name).exists()]
    if not taken:
        return
    try:
        kind.model_validate_json((output / "config.json").read_bytes())
    except (OSError, ValidationError) as error:
        raise UserError(
            f"{taken[0]} was not written by a training and would be overwritten; choose another folder."
        ) from error


def _check_same(config: TrainConfig, training: dict[str, Any], output: Path) -> None:
    """Raise `UserError` where the configuration differs from that of the run to resume."""
    try:
        different = config.differences(TrainConfig.model_validate_json(training["config"]))
    except ValidationError:
        different = ["configuration"]
    if different:
        keys = ", ".join(different)
        raise UserError(f"{output} was made with another {keys}; resume it with {output / 'config.json'}.")


def _lengthened(
    config: TrainConfig, training: dict[str, Any], planned: int, total: int, output: Path, say: Callable[[str], None]
) -> None:
    """Say of a run that it is now longer than it was; raise `UserError` where it cannot be."""
    before = TrainConfig.model_validate_json(training["config"])
    if total != planned and (config.iterations, config.epochs) == (before.iterations, before.epochs):
        raise UserError(
            f"{output} was begun when its {config.epochs} epochs had {planned} iterations, now they have {total} (an "
            f"epoch counts pairs of expression and frame); add --set epochs=null --set iterations={planned}."
        )
    if total < planned:
        raise UserError(f"{output} has {planned} iterations and cannot be shortened to {total}; give more, or as many.")
    if total > planned:
        say(f"lengthened from {planned} to {total} iterations; the learning rate goes on as that of the longer run")


def _hold(output: Path, held: ExitStack) -> None:
    """Keep a second run out of the folder until ``held`` is closed."""
    make_folders(output)
    held.enter_context(only_writer(output))


def write_config(config: BaseModel, output: Path) -> None:
    """Write a configuration to ``config.json`` in the folder of its run."""
    try:
        with new_file(output / "config.json") as temporary:
            temporary.write_text(config.model_dump_json(indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise UserError(
            f"Cannot write into {output} ({error.strerror}); free some space or choose another folder."
        ) from error


def _card(trainer: Trainer, data: MixtureDataset, origin: _Origin) -> dict[str, Any]:
    """Training facts of the run, with the history of the checkpoint it started from."""
    config = trainer.config
    return {
        "name": config.name,
        "iterations": trainer.iteration,
        "planned": trainer.total,
        "batch": config.batch,
        "data": [{"name": name, "share": share} for name, share in data.shares],
        "videos": data.videos,
        "licences": config.data.licences,
        "config": json.loads(config.model_dump_json()),
        "torch": torch.__version__,
        "interrupted": trainer.iteration < trainer.total,
        "start": origin.start,
        "history": origin.history,
    }
