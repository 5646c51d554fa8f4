"""One step of training: loss, gradients, update and moving average."""

from __future__ import annotations

import contextlib
import math
from typing import Any

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from rvos_edge.trainer.checkpoint import Checkpoint
from rvos_edge.trainer.config import TrainConfig
from rvos_edge.trainer.data.sample import Batch
from rvos_edge.trainer.depthwise import speed_up_depthwise
from rvos_edge.trainer.distributed.global_batch import span_ranks
from rvos_edge.trainer.distributed.ranks import accumulating, average, part, parts, world
from rvos_edge.trainer.losses.objective import Objective
from rvos_edge.trainer.schedule import build_optimizer, learning_rate, set_learning_rate
from rvos_edge.trainer.speed import autocast_dtype, recompute_activations, use_hardware


class Trainer:
    """One network, its optimiser and its progress.

    Attributes:
        iteration: Number of iterations done, skipped ones included.
        skipped: Number of iterations in a row, the last one included, whose loss or gradient was not finite: they left
            the weights as they were.
        terms: Terms of the last loss by name, over the whole batch.
        gradient: Norm of the last gradient before clipping.
    """

    def __init__(
        self, config: TrainConfig, checkpoint: Checkpoint, *, total: int, device: torch.device | str = "cpu"
    ) -> None:
        self.config, self.total = config, total
        self.device = torch.device(device)
        self.model = checkpoint.model.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._freeze()
        if world() > 1 or config.accumulate > 1:
            span_ranks(self.model, self.device)
        self.objective = Objective(
            self.model,
            checkpoint.tokenizer,
            loss=config.loss,
            queries=config.data.queries,
            frozen_text=config.optimizer.text_lr == 0,
            sentence_dropout=config.sentence_dropout,
        ).to(self.device)
        # After the losses, which may copy the network.
        use_hardware(self.model, config.speed)
        if self.device.type == "cpu" and config.speed.compile is None:
            speed_up_depthwise(self.model)
        if config.speed.checkpointing:
            recompute_activations(self.model)
        self.loss = self._replicated()
        self.optimizer = build_optimizer(self.model, config.optimizer, extra=self.objective.extra())
        self.precision = autocast_dtype(config.amp, self.device)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.precision == torch.float16)
        self.iteration = self.skipped = 0
        self.lr = self.gradient = 0.0
        self.terms: dict[str, float] = {}
        self.averaged = (
            {key: value.detach().clone() for key, value in self.model.state_dict().items()} if config.ema else None
        )

    def step(self, batch: Batch) -> float:
        """One update with this rank's part of a batch; returns the loss of the whole batch.

        Where the loss or the gradient is not finite, the weights stay as they are (``skipped``).
        """
        config = self.config
        self.lr = learning_rate(config.optimizer, self.iteration, self.total)
        set_learning_rate(self.optimizer, self.lr)
        self.optimizer.zero_grad(set_to_none=True)
        sums: dict[str, float] = {}
        for index in range(config.accumulate):
            last = index == config.accumulate - 1
            with accumulating(index, config.accumulate), contextlib.ExitStack() as waiting:
                if not last and isinstance(self.loss, DistributedDataParallel):
                    waiting.enter_context(self.loss.no_sync())
                loss = self._loss(batch.every(config.accumulate, index))
                terms = average(torch.stack([loss.detach().float(), *self.objective.terms.values()])).tolist()
                for name, value in zip(("loss", *self.objective.terms), terms, strict=True):
                    sums[name] = sums.get(name, 0.0) + value / config.accumulate
                if not math.isfinite(sums["loss"]):
                    break
                self.scaler.scale(loss / config.accumulate).backward()  # type: ignore[no-untyped-call]
        finite = math.isfinite(sums["loss"]) and self._update()
        self.skipped = 0 if finite else self.skipped + 1
        self.iteration += 1
        loss_value, self.terms = sums.pop("loss"), sums
        return loss_value

    def _loss(self, batch: Batch) -> Tensor:
        config = self.config
        # Dropout is a function of the iteration alone: a resumed run draws the same. Each part of a batch draws for the
        # whole batch and takes its own.
        torch.manual_seed(config.seed * 1_000_003 + self.iteration)
        image = batch.image.to(self.device, non_blocking=True).float().contiguous(memory_format=torch.channels_last)
        flow = batch.flow.to(self.device, non_blocking=True)
        masks = batch.masks.to(self.device, non_blocking=True)
        camera = None if batch.camera is None else batch.camera.to(self.device, non_blocking=True)
        if config.flow_dropout:
            kept = (torch.rand(len(flow) * parts(), 1, 1, 1, device=self.device) >= config.flow_dropout)[part()]
            flow = flow * kept
            camera = None if camera is None else camera * kept[:, :, 0, 0]
        with torch.autocast(self.device.type, dtype=self.precision, enabled=self.precision is not None):
            loss: Tensor = self.loss(image, flow, masks, batch.expressions, camera)
        return loss

    def _update(self) -> bool:
        """Apply the gradients; False if they are not finite. With fp16 that is how the scaler finds its scale, so there
        it is False only at the smallest.
        """
        clip = self.config.optimizer.clip
        self.scaler.unscale_(self.optimizer)
        gradients = [p.grad for p in self.objective.parameters() if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        self.gradient = float(norm)
        if not math.isfinite(self.gradient) and not self.scaler.is_enabled():
            return False
        if clip is not None:
            torch.nn.utils.clip_grads_with_norm_(self.objective.parameters(), clip, norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self._average()
        return math.isfinite(self.gradient) or self.scaler.get_scale() > 1

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
