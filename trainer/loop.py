"""The training loop: deterministic by iteration, so that a resumed run continues exactly."""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch.utils.data import DataLoader
from torch.utils.tensorboard import SummaryWriter

from rvos_edge.errors import UserError
from rvos_edge.trainer.checkpoint import Checkpoint, load_checkpoint, load_training_state, recover, save_checkpoint
from rvos_edge.trainer.config import TrainConfig
from rvos_edge.trainer.data.config import NamedMixture, build_mixture
from rvos_edge.trainer.data.mixture import quiet_worker
from rvos_edge.trainer.data.sample import Batch, collate
from rvos_edge.trainer.model.hinet import HINet
from rvos_edge.trainer.model.weights import initialise
from rvos_edge.trainer.objective import Objective
from rvos_edge.trainer.schedule import build_optimizer, learning_rate, set_learning_rate


def train(config: TrainConfig, output: Path, *, resume: bool = False, console: Console | None = None) -> Path:
    """Train a network and leave a checkpoint directory.

    Args:
        config: The run.
        output: Directory of the checkpoint (``output/checkpoint``), the configuration and the TensorBoard events.
        resume: Continue from ``output/checkpoint``; its configuration must be the same.
        console: Where the progress bar is drawn.

    Returns:
        The checkpoint's directory.

    Raises:
        UserError: A data folder or weights file is missing, or the run to resume is another one.
    """
    console = console or Console(stderr=True)
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    path = output / "checkpoint"
    recover(path)
    if not resume and path.exists():
        raise UserError(f"{path} already holds a run; add --resume {output} to continue it, or choose another folder.")
    torch.manual_seed(config.seed)
    checkpoint = load_checkpoint(path) if resume else _start(config)
    training = load_training_state(path) if resume else None
    trainer = Trainer(config, checkpoint)
    if training is not None:
        if training["config"] != config.model_dump_json():
            raise UserError(f"{path} was made with another configuration; resume it with {output / 'config.json'}.")
        trainer.load_state(training)
    data = build_mixture(config.data, checkpoint.model, config.seed, console=console)
    output.mkdir(parents=True, exist_ok=True)
    (output / "config.json").write_text(config.model_dump_json(indent=2) + "\n", encoding="utf-8")

    def save() -> None:
        card = _card(config, trainer.iteration, data, checkpoint, resumed=resume)
        save_checkpoint(
            path,
            Checkpoint(trainer.model, checkpoint.tokenizer, card),
            weights=trainer.averaged,
            training=trainer.state(),
        )

    with contextlib.closing(SummaryWriter(str(output))) as board, _progress(console) as progress:
        bar = progress.add_task(config.name, total=config.iterations, completed=trainer.iteration, loss="")
        batches = _batches(data, config, start=trainer.iteration)
        first = trainer.iteration
        while trainer.iteration < config.iterations:
            try:
                loss = trainer.step(next(batches))
            except UserError:
                # Whatever is wrong with the data can be mended; hours of training cannot.
                if trainer.iteration > first:
                    save()
                raise
            done = trainer.iteration
            if done % config.log_every == 0 or done == config.iterations:
                board.add_scalar("loss", loss, done)
                board.add_scalar("lr", trainer.lr, done)
                if not console.is_terminal:
                    console.print(f"{config.name} {done}/{config.iterations} loss {loss:.4f} lr {trainer.lr:.2e}")
            progress.update(bar, completed=done, loss=f"{loss:.4f}")
            if done % config.checkpoint_every == 0 or done == config.iterations:
                save()
    return path


class Trainer:
    """One network, its optimiser and its progress.

    Args:
        config: The run.
        checkpoint: Network and tokenizer to start from.
    """

    def __init__(self, config: TrainConfig, checkpoint: Checkpoint) -> None:
        self.config = config
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.model = checkpoint.model.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._freeze()
        self.objective = Objective(
            self.model, checkpoint.tokenizer, loss=config.loss, frozen_text=config.optimizer.text_lr == 0
        ).to(self.device)
        self.optimizer = build_optimizer(self.model, config.optimizer, extra=self.objective.extra())
        self.precision = _autocast_dtype(config.amp, self.device)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.precision == torch.float16)
        self.iteration = 0
        self.lr = 0.0
        self.averaged = (
            {key: value.detach().clone() for key, value in self.model.state_dict().items()} if config.ema else None
        )

    def step(self, batch: Batch) -> float:
        """One update; returns the loss.

        Raises:
            UserError: The loss is not finite; the weights are still those of before.
        """
        config = self.config
        # Dropout is a function of the iteration alone: a resumed run draws the same.
        torch.manual_seed(config.seed * 1_000_003 + self.iteration)
        self.lr = learning_rate(config.optimizer, self.iteration, config.iterations)
        set_learning_rate(self.optimizer, self.lr)
        image = batch.image.to(self.device, non_blocking=True).float().contiguous(memory_format=torch.channels_last)
        flow = batch.flow.to(self.device, non_blocking=True)
        masks = batch.masks.to(self.device, non_blocking=True)
        if config.flow_dropout:
            kept = torch.rand(len(flow), 1, 1, 1, device=self.device) >= config.flow_dropout
            flow = flow * kept
        with torch.autocast(self.device.type, dtype=self.precision, enabled=self.precision is not None):
            loss = self.objective(image, flow, masks, batch.expressions)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise UserError(
                f"The loss became {value} at iteration {self.iteration + 1}; lower optimizer.lr and start again, "
                "with init_from set to the last checkpoint to keep what was learnt."
            )
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        if config.optimizer.clip is not None:
            self.scaler.unscale_(self.optimizer)
            torch.nn.utils.clip_grad_norm_(self.objective.parameters(), config.optimizer.clip)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self._average()
        self.iteration += 1
        return value

    def state(self) -> dict[str, Any]:
        """What a resumed run needs besides the saved weights; plain values and tensors."""
        return {
            "config": self.config.model_dump_json(),
            "iteration": self.iteration,
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            # With a moving average the checkpoint's weights are the average: the live ones go here.
            "model": self.model.state_dict() if self.averaged is not None else None,
            "alignment": self.objective.alignment.state_dict() if self.objective.alignment is not None else None,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue from ``state()``; the network must already hold the saved weights."""
        self.iteration = state["iteration"]
        if state["model"] is not None:
            self.averaged = {key: value.detach().clone() for key, value in self.model.state_dict().items()}
            self.model.load_state_dict(state["model"])
        if self.objective.alignment is not None:
            self.objective.alignment.load_state_dict(state["alignment"])
        self.optimizer.load_state_dict(state["optimizer"])
        if state["scaler"]:  # empty where the run began without fp16
            self.scaler.load_state_dict(state["scaler"])

    def _freeze(self) -> None:
        model, config = self.model, self.config
        model.train()
        if config.optimizer.text_lr == 0:
            model.sentence.requires_grad_(False).eval()
        if model.flow is not None:
            model.flow.eval()
        if config.freeze_early:
            for module in model.backbone.early():
                module.requires_grad_(False).eval()
        if config.optimizer.backbone_lr == 0:
            model.backbone.requires_grad_(False)
        if config.freeze_backbone_norm:
            for module in model.backbone.modules():
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


def _batches(data: NamedMixture, config: TrainConfig, *, start: int) -> Iterator[Batch]:
    """Batch ``i`` holds samples ``i*B .. i*B+B-1`` whatever happened before: resuming is starting further on."""
    indices = range(start * config.batch, config.iterations * config.batch)
    loader: DataLoader[Any] = DataLoader(
        data,
        batch_size=config.batch,
        sampler=indices,
        num_workers=config.workers,
        collate_fn=_Collate(config.data.queries),
        pin_memory=torch.cuda.is_available(),
        worker_init_fn=quiet_worker,
    )
    try:
        yield from loader
    except UserError as error:
        # A worker's error arrives with the worker's traceback around it.
        raise UserError(str(error).strip().rpartition("UserError: ")[2]) from error


class _Collate:
    def __init__(self, queries: int) -> None:
        self.queries = queries

    def __call__(self, samples: Sequence[Any]) -> Batch:
        return collate(samples, self.queries)


def _autocast_dtype(amp: str, device: torch.device) -> torch.dtype | None:
    if amp == "auto":
        return torch.float16 if device.type == "cuda" else None
    return {"off": None, "bf16": torch.bfloat16, "fp16": torch.float16}[amp]


def _card(
    config: TrainConfig, iterations: int, data: NamedMixture, start: Checkpoint, *, resumed: bool
) -> dict[str, Any]:
    """What the network saw, with the card of the run it started from."""
    before = start.card.get("before") if resumed else start.card or None
    return {
        "name": config.name,
        "iterations": iterations,
        "batch": config.batch,
        "data": [{"name": name, "share": share} for name, share in data.shares],
        "licences": config.data.licences,
        "config": json.loads(config.model_dump_json()),
        "torch": torch.__version__,
        "interrupted": iterations < config.iterations,
        "before": before,
    }


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal or "CI" in os.environ,
    )
