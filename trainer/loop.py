"""The training loop: deterministic by iteration, so that a resumed run continues exactly."""

from __future__ import annotations

import json
import math
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ValidationError
from rich.console import Console
from torch.nn.parallel import DistributedDataParallel

from rvos_edge.atomic import make_folders, new_file, only_writer, recover
from rvos_edge.errors import UserError
from rvos_edge.trainer.card import training_history
from rvos_edge.trainer.checkpoint import Checkpoint, load_checkpoint, load_training_state, save_checkpoint
from rvos_edge.trainer.config import TrainConfig
from rvos_edge.trainer.data.loader import batches
from rvos_edge.trainer.data.mixture import MixtureDataset
from rvos_edge.trainer.data.sample import Batch
from rvos_edge.trainer.distributed.global_batch import span_ranks
from rvos_edge.trainer.distributed.interrupt import Interrupt, leave
from rvos_edge.trainer.distributed.ranks import average, first, joined, largest, rank, world
from rvos_edge.trainer.events import TrainingReport
from rvos_edge.trainer.flow_extraction import prepare_data
from rvos_edge.trainer.losses.objective import Objective
from rvos_edge.trainer.model.hinet import HINet
from rvos_edge.trainer.model.weights import initialise
from rvos_edge.trainer.schedule import build_optimizer, learning_rate, set_learning_rate

_BAD_INPUT = 1000
"""Code by which a rank reports bad input to the others, above every signal's number."""


def train(config: TrainConfig, output: Path, *, resume: bool = False, console: Console | None = None) -> Path:
    """Train a network and leave a checkpoint directory.

    Under torchrun every process calls this; they share each batch (see ``distributed``), and all must see the same
    output and flow folders. Ctrl-C and SIGTERM finish the step and save.

    Args:
        output: Directory of the checkpoint (``output/checkpoint``), the configuration and the TensorBoard events.
        resume: Continue from ``output/checkpoint``; all that shapes its learning must be configured the same.

    Raises:
        UserError: A data folder or weights file is missing, a file is damaged, the disk is full, or the run to resume
            is another one. What was learnt before a damaged file was met is saved.
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
        first(lambda: _claim(path, output, resume))
        torch.manual_seed(config.seed)
        checkpoint = load_checkpoint(path) if resume else _start(config)
        training = load_training_state(path) if resume else None
        if training is not None:
            _check_same(config, training, output)
        model = checkpoint.model.eval().to(device)

        def build() -> MixtureDataset:
            return prepare_data(config.data, model, config.seed, console=console)

        # Rank 0 extracts the missing flow; the others find it.
        data = first(build) or build()
        trainer = Trainer(config, checkpoint, total=config.steps(data.epoch), device=device)
        if training is not None:
            trainer.load_state(training)
        first(lambda: _hold(output, held))
        first(lambda: write_config(config, output))
        _run(trainer, data, checkpoint, output, console, resumed=resume)
    return path


def _run(
    trainer: Trainer, data: MixtureDataset, start: Checkpoint, output: Path, console: Console, *, resumed: bool
) -> None:
    config, total, saved = trainer.config, trainer.total, trainer.iteration

    def write(path: Path, training: dict[str, Any] | None = None) -> None:
        checkpoint = Checkpoint(trainer.model, start.tokenizer, _card(trainer, data, start, resumed=resumed))
        save_checkpoint(path, checkpoint, weights=trainer.averaged, training=training)

    def write_checkpoint() -> None:
        write(output / "checkpoint", trainer.state())

    feed = batches(data, config, start=trainer.iteration, stop=total)
    report = TrainingReport(
        config.name, None if rank() else output, console, start=saved, total=total, every=config.log_every
    )
    stop, fault = 0, None
    with Interrupt() as interrupt, report:
        while trainer.iteration < total:
            batch = None
            try:
                batch = next(feed)
            except UserError as error:
                fault = error
            stop = largest(interrupt.received if fault is None else _BAD_INPUT)
            if stop or batch is None:
                break
            loss = trainer.step(batch)
            done = trainer.iteration
            report.step(done, loss=loss, lr=trainer.lr)
            if config.keep_every and done % config.keep_every == 0:
                first(lambda: write(output / f"snapshots/{trainer.iteration:06d}"))
            if done % config.checkpoint_every == 0 or done == total:
                first(write_checkpoint)
                saved = done
        if stop and trainer.iteration > saved:
            first(write_checkpoint)
    if stop:
        _stop(stop, fault, trainer, output, console)


def _stop(reason: int, fault: UserError | None, trainer: Trainer, output: Path, console: Console) -> None:
    done = trainer.iteration
    how = f"continue with: rvos-edge train --resume {output}" if done else "nothing was learnt yet"
    if fault is not None:
        raise UserError(f"{str(fault).rstrip('.')}; after {done} of {trainer.total} iterations, {how}") from fault
    if reason == _BAD_INPUT:
        raise SystemExit(2)  # the rank that met it says why
    console.print(f"Stopped after {done} of {trainer.total} iterations; {how}", soft_wrap=True)
    leave(reason)


class Trainer:
    """One network, its optimiser and its progress."""

    def __init__(
        self, config: TrainConfig, checkpoint: Checkpoint, *, total: int, device: torch.device | str = "cpu"
    ) -> None:
        self.config, self.total = config, total
        self.device = torch.device(device)
        self.model = checkpoint.model.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._freeze()
        if world() > 1:
            span_ranks(self.model, self.device)
        self.objective = Objective(
            self.model,
            checkpoint.tokenizer,
            loss=config.loss,
            queries=config.data.queries,
            frozen_text=config.optimizer.text_lr == 0,
            sentence_dropout=config.sentence_dropout,
        ).to(self.device)
        self.loss = self._replicated()
        self.optimizer = build_optimizer(self.model, config.optimizer, extra=self.objective.extra())
        self.precision = autocast_dtype(config.amp, self.device)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.precision == torch.float16)
        self.iteration = 0
        self.lr = 0.0
        self.averaged = (
            {key: value.detach().clone() for key, value in self.model.state_dict().items()} if config.ema else None
        )

    def step(self, batch: Batch) -> float:
        """One update with this rank's part of a batch; returns the loss of the whole batch.

        Raises:
            UserError: The loss is not finite; the weights are still those of before.
        """
        config = self.config
        # Dropout is a function of the iteration alone: a resumed run draws the same.
        torch.manual_seed(config.seed * 1_000_003 + self.iteration)
        self.lr = learning_rate(config.optimizer, self.iteration, self.total)
        set_learning_rate(self.optimizer, self.lr)
        image = batch.image.to(self.device, non_blocking=True).float().contiguous(memory_format=torch.channels_last)
        flow = batch.flow.to(self.device, non_blocking=True)
        masks = batch.masks.to(self.device, non_blocking=True)
        if config.flow_dropout:
            kept = torch.rand(len(flow) * world(), 1, 1, 1, device=self.device) >= config.flow_dropout
            flow = flow * kept[rank() :: world()]
        with torch.autocast(self.device.type, dtype=self.precision, enabled=self.precision is not None):
            loss = self.loss(image, flow, masks, batch.expressions)
        value = float(average(loss))
        if not math.isfinite(value):
            raise UserError(
                f"The loss became {value} at iteration {self.iteration + 1}; lower optimizer.lr and start again, "
                "with init_from set to the last checkpoint to keep what was learnt."
            )
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()
        if config.optimizer.clip is not None:
            self.scaler.unscale_(self.optimizer)
            torch.nn.utils.clip_grad_norm_(self.objective.parameters(), config.optimizer.clip)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self._average()
        self.iteration += 1
        return value

    def state(self) -> dict[str, Any]:
        """State of a run besides its saved weights; plain values and tensors."""
        return {
            "config": self.config.model_dump_json(),
            "iteration": self.iteration,
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            # With a moving average the checkpoint's weights are the average: the live ones go here.
            "model": self.model.state_dict() if self.averaged is not None else None,
            "sentences": self.objective.sentences.state(),
            "alignment": self.objective.alignment.state_dict() if self.objective.alignment is not None else None,
            "distillation": self.objective.distillation.state() if self.objective.distillation is not None else None,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue from ``state()``; the network must already hold the saved weights."""
        self.iteration = state["iteration"]
        if state["model"] is not None:
            self.averaged = {key: value.detach().clone() for key, value in self.model.state_dict().items()}
            self.model.load_state_dict(state["model"])
        self.objective.sentences.load_state(state["sentences"])
        if self.objective.alignment is not None:
            self.objective.alignment.load_state_dict(state["alignment"])
        if self.objective.distillation is not None:
            self.objective.distillation.load_state(state["distillation"])
        self.optimizer.load_state_dict(state["optimizer"])
        if state["scaler"]:  # empty where the run began without fp16
            self.scaler.load_state_dict(state["scaler"])

    def _replicated(self) -> torch.nn.Module:
        if world() == 1:
            return self.objective
        return DistributedDataParallel(
            self.objective,
            device_ids=[self.device] if self.device.type == "cuda" else None,
            # A single level of fusion leaves the language projections of the others without a gradient.
            find_unused_parameters=self.model.config.fusion == "single",
        )

    def _freeze(self) -> None:
        model, config = self.model, self.config
        model.train()
        if config.optimizer.text_lr == 0:
            model.sentence.requires_grad_(False).eval()
        if model.flow is not None:
            model.flow.eval()
        if model.presence is not None:
            model.presence.requires_grad_(False)  # it has a task of its own
        if config.freeze_early:
            for module in model.backbone.early():
                module.requires_grad_(False).eval()
        if config.optimizer.backbone_lr == 0:
            model.backbone.requires_grad_(False)
        if config.freeze_norm or config.freeze_backbone_norm:
            for module in (model if config.freeze_norm else model.backbone).modules():
                if isinstance(module, torch.nn.BatchNorm2d):
                    module.eval()

    @torch.no_grad()
    def _average(self) -> None:
        if self.averaged is None:
            return
        # Early on the average would be mostly the random start: its memory grows with the iterations.
        decay = min(self.config.ema, (1 + self.iteration) / (10 + self.iteration))
        for key, value in self.model.state_dict().items():
            average = self.averaged[key]
            if average.dtype.is_floating_point:
                average.lerp_(value, 1 - decay)
            else:
                average.copy_(value)


def _start(config: TrainConfig) -> Checkpoint:
    model_config = config.model_config_of()
    if config.init_from is None:
        model = HINet(config=model_config)
        return Checkpoint(model, initialise(model, config.weights))
    before = load_checkpoint(Path(config.init_from), preset=model_config.preset)
    if before.model.config == model_config:
        return before
    model = HINet(config=model_config)
    try:
        model.load_state_dict(before.model.state_dict())
    except RuntimeError as error:
        raise UserError(f"init_from {config.init_from} is of another network; use the same model section.") from error
    return Checkpoint(model, before.tokenizer, before.card)


def _claim(path: Path, output: Path, resume: bool) -> None:
    recover(path)
    if not resume and path.exists():
        raise UserError(f"{path} already holds a run; add --resume {output} to continue it, or choose another folder.")


def _check_same(config: TrainConfig, training: dict[str, Any], output: Path) -> None:
    """Raise `UserError` where the configuration differs from that of the run to resume."""
    try:
        different = config.differences(TrainConfig.model_validate_json(training["config"]))
    except ValidationError:
        different = ["configuration"]
    if different:
        keys = ", ".join(different)
        raise UserError(f"{output} was made with another {keys}; resume it with {output / 'config.json'}.")


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


def autocast_dtype(amp: str, device: torch.device) -> torch.dtype | None:
    if amp == "auto":
        return torch.float16 if device.type == "cuda" else None
    return {"off": None, "bf16": torch.bfloat16, "fp16": torch.float16}[amp]


def _card(trainer: Trainer, data: MixtureDataset, start: Checkpoint, *, resumed: bool) -> dict[str, Any]:
    """Training facts of the run, with the history of the checkpoint it started from."""
    config = trainer.config
    return {
        "name": config.name,
        "iterations": trainer.iteration,
        "planned": trainer.total,
        "batch": config.batch,
        "data": [{"name": name, "share": share} for name, share in data.shares],
        "licences": config.data.licences,
        "config": json.loads(config.model_dump_json()),
        "torch": torch.__version__,
        "interrupted": trainer.iteration < trainer.total,
        "history": start.card.get("history", []) if resumed else training_history(start.card),
    }
