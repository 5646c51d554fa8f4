"""Training of the presence head of a finished network.

The network is frozen. It runs once on a number of samples with present and absent expressions; the head is fitted to
its recorded inputs in a minute. At the end the logits are scaled and shifted so that probabilities are calibrated on
held-out images (Platt, 1999).
"""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from torch import Tensor, nn
from torch.nn import functional as F

from rvos_edge.progress import follow
from rvos_edge.trainer.card import training_history
from rvos_edge.trainer.checkpoint import Checkpoint, load_checkpoint, save_checkpoint, unused_checkpoint
from rvos_edge.trainer.config import PresenceConfig
from rvos_edge.trainer.data.config import DataConfig
from rvos_edge.trainer.data.loader import batches
from rvos_edge.trainer.distributed.global_batch import SharedDropout
from rvos_edge.trainer.flow_extraction import prepare_data
from rvos_edge.trainer.losses.objective import SentenceCache
from rvos_edge.trainer.metrics import reliability
from rvos_edge.trainer.model.hinet import HINet
from rvos_edge.trainer.model.presence import Presence
from rvos_edge.trainer.speed import autocast_dtype

_LEAST_SHARE = 0.002
"""Smallest share of the frame of a present object; smaller ones count as neither present nor absent."""


@dataclass(frozen=True)
class Rows:
    """Inputs and labels of the head, one row per expression and frame.

    Attributes:
        inside: Mean of V_4 * l_4 inside the mask, float32 [N,c].
        outside: Mean of V_4 * l_4 outside of the mask, float32 [N,c].
        facts: Statistics of the mask, float32 [N,8].
    """

    inside: Tensor
    outside: Tensor
    facts: Tensor
    present: Tensor

    def __len__(self) -> int:
        return len(self.present)

    def __getitem__(self, index: Tensor) -> Rows:
        return Rows(*(getattr(self, item.name)[index] for item in fields(self)))


def train_presence(config: PresenceConfig, output: Path, *, console: Console | None = None) -> Path:
    """Train a presence head for a finished network; returns the checkpoint, ``output/checkpoint``.

    Raises:
        UserError: A checkpoint, data folder or weights file is missing or does not fit, or the output exists already.
    """
    console = console or Console(stderr=True)
    path = unused_checkpoint(output)
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    checkpoint = _with_head(load_checkpoint(Path(config.init_from)), config)
    head = checkpoint.model.presence
    assert head is not None
    seen = collect(checkpoint, config.data, config, samples=config.samples, console=console)
    kept = collect(checkpoint, config.held_out, config, samples=config.samples // 4, console=console)
    fit(head, seen, config)
    calibrate(head, kept)
    metrics = presence_metrics(head, kept)
    console.print(f"presence on held-out images: {json.dumps(metrics)}", soft_wrap=True)
    checkpoint.card["presence"] = metrics
    checkpoint.card["data"] = [{"name": source.kind, "share": source.share} for source in config.data.sources]
    save_checkpoint(path, checkpoint)
    return path


@torch.no_grad()
def collect(
    checkpoint: Checkpoint, data: DataConfig, config: PresenceConfig, *, samples: int, console: Console
) -> Rows:
    """Inputs and labels of the head on the first samples of a mixture."""
    model = checkpoint.model.eval()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    mixture = prepare_data(data, model, config.seed, console=console)
    feed = batches(mixture, _Feed(data, config.batch, config.workers), start=0, stop=samples // config.batch)
    sentences = SentenceCache(model, checkpoint.tokenizer, frozen=True, dropout=SharedDropout(0.0))
    precision = autocast_dtype(config.amp, device)
    parts: list[Rows] = []
    for batch in follow(feed, "presence samples", console, total=samples // config.batch):
        language = sentences(batch.expressions)
        moved = torch.rand(len(batch.flow), 1, 1, 1) >= config.flow_dropout
        flow = (batch.flow * moved).to(device)
        camera = None if batch.camera is None else (batch.camera * moved[:, :, 0, 0]).to(device)
        with torch.autocast(device.type, dtype=precision, enabled=precision is not None):
            image = batch.image.to(device).float().contiguous(memory_format=torch.channels_last)
            features = model.features(image)
            levels = (*features[:3], model.aspp(features[3]))
            visions, motions = model.condition(levels, flow, camera)
            logits = model.answer(visions, motions, language)
        assert model.presence is not None
        margin = logits[:, :, 1].float() - logits[:, :, 0].float()
        read = model.presence.pool(margin, visions[-1].float(), language[-1], flow, camera)
        share = (batch.masks == 1).float().mean((2, 3))
        known = (share == 0) | (share >= _LEAST_SHARE)
        row = Rows(*read, (share > 0).float().to(device))
        parts.append(row[known.to(device)])
    model.cpu()
    return Rows(*(torch.cat([getattr(part, item.name) for part in parts]).cpu() for item in fields(Rows)))


def fit(head: Presence, rows: Rows, config: PresenceConfig) -> None:
    """Fit the head by binary cross-entropy with equal weights of both classes."""
    head.inside.set(rows.inside)
    head.outside.set(rows.outside)
    head.facts.set(rows.facts)
    head.train()
    optimizer = torch.optim.AdamW(head.parameters(), lr=config.lr, weight_decay=config.weight_decay)
    total = max(1, config.epochs * (len(rows) // config.rows))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, total)
    weight = _balance(rows.present)
    for _ in range(total):
        chosen = torch.randint(len(rows), (config.rows,))
        part = rows[chosen]
        logit = _logits(head, part)
        loss = (F.binary_cross_entropy_with_logits(logit, part.present, reduction="none") * weight[chosen]).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
    head.eval()


def calibrate(head: Presence, rows: Rows) -> None:
    """Scale and shift the head's logits, so that probabilities are calibrated for equally frequent classes."""
    with torch.no_grad():
        logit = _logits(head, rows)
    scale, shift = nn.Parameter(torch.ones(())), nn.Parameter(torch.zeros(()))
    optimizer = torch.optim.LBFGS([scale, shift], max_iter=100)
    weight = _balance(rows.present)

    def closure() -> Tensor:
        optimizer.zero_grad()
        each = F.binary_cross_entropy_with_logits(scale * logit + shift, rows.present, reduction="none")
        loss = (each * weight).mean()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    last = head.decide[-1]
    assert isinstance(last, nn.Linear)
    with torch.no_grad():
        last.weight.mul_(scale)
        last.bias.mul_(scale).add_(shift)


@torch.no_grad()
def presence_metrics(head: Presence, rows: Rows) -> dict[str, float]:
    """``metrics.reliability`` of the head on rows."""
    probability = torch.sigmoid(_logits(head, rows))
    return reliability(probability.numpy().astype(np.float64), rows.present.numpy() > 0)


@dataclass(frozen=True)
class _Feed:
    data: DataConfig
    batch: int
    workers: int


def _logits(head: Presence, rows: Rows) -> Tensor:
    return head.classify(rows.inside, rows.outside, rows.facts)


def _balance(present: Tensor) -> Tensor:
    """Weights of mean 1 that give both classes the same total weight, float32 [N]."""
    share = present.mean().clamp(0.02, 0.98)
    return torch.where(present > 0, 0.5 / share, 0.5 / (1 - share))


def _with_head(loaded: Checkpoint, config: PresenceConfig) -> Checkpoint:
    """The network with a new presence head, and the card of the run."""
    model = HINet(config=loaded.model.config.model_copy(update={"presence": True}))
    state = {key: value for key, value in loaded.model.state_dict().items() if not key.startswith("presence.")}
    model.load_state_dict(state, strict=False)
    card = {
        "name": config.name,
        "config": json.loads(config.model_dump_json()),
        "samples": config.samples,
        "batch": config.batch,
        "history": training_history(loaded.card),
    }
    return Checkpoint(model.eval(), loaded.tokenizer, card)
