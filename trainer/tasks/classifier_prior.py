"""Train what ``model.naming`` knows of words: a linear map from sentences to what the image encoder can tell apart.

The network is finished and stays as it is; so does the hidden layer of the encoder's classifier. C5 of a number of
samples is computed once, then the map is fitted to them, and to the classifier itself, whose thousand classes have
names. It takes half an hour on two cores, most of it to draw the samples, and is not resumed.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor, nn
from torch.nn import functional as F

from rvos_edge.errors import UserError
from rvos_edge.trainer.card import training_history
from rvos_edge.trainer.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from rvos_edge.trainer.config import NamingConfig
from rvos_edge.trainer.data.config import build_mixture
from rvos_edge.trainer.data.generate import vocabulary
from rvos_edge.trainer.data.generate.paraphrase import reword
from rvos_edge.trainer.data.loader import batches
from rvos_edge.trainer.data.mixture import MixtureDataset
from rvos_edge.trainer.events import TrainingReport
from rvos_edge.trainer.losses.alignment import balanced, ranked, rivals, shrink
from rvos_edge.trainer.model.backbone import Classifier, load_classifier
from rvos_edge.trainer.model.hinet import HINet
from rvos_edge.trainer.model.language import tokenize
from rvos_edge.trainer.model.refine.classifier_prior import ClassifierPrior

_AT_ONCE = 100
"""Sentences that are encoded together."""
_RIDGE = 1.0
"""Of the map's start: least squares from the classes' names to the classifier's weights."""
_NAMINGS = 6
"""Each class's name is said plainly and in so many other ways."""
_PLACES = 512
"""Places of a batch at which the classifier is asked."""
_PRESENT = 0.3
"""A region covers at least this share of some place of C5, or it is too small to be told by its mean."""
_BIAS = -2.0
"""Of the loss at its start: most places are not what is named."""


@dataclass(frozen=True)
class _Frame:
    """What is kept of a sample: C5 float16 [c,h,w], share and counted as of ``shrink``, and N sentences.

    Attributes:
        spoken: Their vectors as they are and in other words, float16 [2,N,c_s].
    """

    features: Tensor
    share: Tensor
    counted: Tensor
    sentences: list[str]
    spoken: Tensor


def train_naming(config: NamingConfig, output: Path, *, console: Console | None = None) -> Path:
    """Give a finished network its ``naming``.

    Args:
        config: The run.
        output: Its folder; the new checkpoint lies in ``output/checkpoint``.
        console: Where the progress bars are drawn.

    Returns:
        The checkpoint.

    Raises:
        UserError: A checkpoint, data folder or weights file is missing or does not fit, the output exists already, or
            it cannot be written.
    """
    console = console or Console(stderr=True)
    path = output / "checkpoint"
    if path.exists():
        raise UserError(f"{path} already holds a checkpoint; choose another --output, or remove it.")
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UserError("task: naming runs in one process; start it without torchrun.")
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    classifier = load_classifier(config.classifier)
    checkpoint = _with_naming(load_checkpoint(Path(config.init_from)), config)
    naming = checkpoint.model.naming
    assert naming is not None
    naming.hidden.load_state_dict(classifier.hidden)
    mixture = build_mixture(config.data, checkpoint.model, config.seed, console=console)
    checkpoint.card["data"] = [{"name": name, "share": share} for name, share in mixture.shares]
    frames = list(_frames(checkpoint, mixture, config, console))
    rng = np.random.default_rng([config.seed, 1])
    names = [vocabulary.article(name) for name in classifier.names]
    said = [names, *([reword(name, rng) for name in names] for _ in range(_NAMINGS))]
    named = [_vectors(checkpoint, sentences) for sentences in said]
    _start(naming, named[0], classifier)
    output.mkdir(parents=True, exist_ok=True)
    with TrainingReport(
        config.name, output, console, start=0, total=config.iterations, every=config.log_every
    ) as report:
        for done, (loss, lr) in enumerate(_fit(naming, frames, named, classifier, config), start=1):
            report.step(done, loss=loss, lr=lr)
    save_checkpoint(path, checkpoint)
    return path


def _with_naming(loaded: Checkpoint, config: NamingConfig) -> Checkpoint:
    """The same network with room for ``naming``, and a card that says what was done to it."""
    wanted = config.model_config_of()
    model = HINet(config=wanted)
    state = loaded.model.state_dict()
    missing = [
        name for name, value in model.state_dict().items() if name not in state or state[name].shape != value.shape
    ]
    if any(not name.startswith("naming.") for name in missing) or set(state) - set(model.state_dict()):
        raise UserError(f"{config.init_from} is not of the network that `model` describes; set model to its own.")
    model.load_state_dict({name: value for name, value in state.items() if name not in missing}, strict=False)
    card = {
        "name": config.name,
        "config": json.loads(config.model_dump_json()),
        "samples": config.samples,
        "iterations": config.iterations,
        "batch": config.batch,
        "history": training_history(loaded.card),
    }
    return Checkpoint(model.eval(), loaded.tokenizer, card)


@torch.no_grad()
def _frames(
    checkpoint: Checkpoint, mixture: MixtureDataset, config: NamingConfig, console: Console
) -> Iterator[_Frame]:
    """The network's sight of the mixture's first samples, with their regions and sentences."""
    model = checkpoint.model
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model.to(device)
    rng = np.random.default_rng([config.seed, 2])
    feed = batches(mixture, config, start=0, stop=config.samples // config.batch)
    for batch in track(feed, "samples", config.samples // config.batch, console=console):
        features = model.encode_image(batch.image.to(device))[4].cpu()
        share, counted = shrink(batch.masks, (features.shape[-2], features.shape[-1]))
        for row, sentences in enumerate(batch.expressions):
            others = [reword(sentence, rng) for sentence in sentences]
            spoken = _vectors(checkpoint, [*sentences, *others]).unflatten(0, (2, -1))  # type: ignore[no-untyped-call]
            yield _Frame(features[row].half(), share[row].half(), counted[row].half(), sentences, spoken.half())
    model.cpu()


@torch.no_grad()
def _vectors(checkpoint: Checkpoint, sentences: Sequence[str]) -> Tensor:
    """Sentence vectors of length 1, float [N,c_s]."""
    model = checkpoint.model
    device = next(model.parameters()).device
    out = []
    for start in range(0, len(sentences), _AT_ONCE):
        tokens = tokenize(checkpoint.tokenizer, sentences[start : start + _AT_ONCE], model.config.text.max_tokens)
        out.append(model.sentence(*(part.to(device) for part in tokens)).cpu())
    return F.normalize(torch.cat(out).float(), dim=-1)


@torch.no_grad()
def _start(naming: ClassifierPrior, named: Tensor, classifier: Classifier) -> None:
    """Begin with the classifier's weights as a linear function of its classes' names."""
    weights = classifier.weight - classifier.weight.mean(0)
    ridge = _RIDGE * torch.eye(named.shape[1])
    naming.words.weight.copy_(torch.linalg.solve(named.t() @ named + ridge, named.t() @ weights).t())
    naming.words.bias.zero_()


def _fit(
    naming: ClassifierPrior,
    frames: Sequence[_Frame],
    named: Sequence[Tensor],
    classifier: Classifier,
    config: NamingConfig,
) -> Iterator[tuple[float, float]]:
    """Yields loss and learning rate of each iteration."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    naming.to(device).eval()  # the hidden layer's statistics are ImageNet's
    naming.hidden.requires_grad_(False)
    criterion = _Criterion(classifier).to(device)
    trained = [*naming.words.parameters(), *criterion.parameters()]
    optimizer = torch.optim.AdamW(trained, lr=config.lr, weight_decay=config.weight_decay)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, config.iterations)
    rng = np.random.default_rng([config.seed, 3])
    order: list[int] = []
    for _ in range(config.iterations):
        if len(order) < config.batch:
            order = rng.permutation(len(frames)).tolist()
        chosen = [frames[order.pop()] for _ in range(config.batch)]
        other = torch.from_numpy(rng.random((len(chosen), chosen[0].spoken.shape[1], 1)) < config.reworded)
        said = torch.stack([frame.spoken for frame in chosen])
        spoken = torch.where(other, said[:, 1], said[:, 0])
        names = named[int(rng.integers(len(named))) if rng.random() < config.reworded else 0]
        with torch.no_grad():
            whole = naming.hidden(torch.stack([frame.features for frame in chosen]).float().to(device))
            seen = F.dropout2d(whole, config.dropout)
        loss = criterion(
            seen,
            naming.words(F.dropout(spoken.float().to(device), config.dropout)),
            torch.stack([frame.share for frame in chosen]).float().to(device),
            torch.stack([frame.counted for frame in chosen]).float().to(device),
            [frame.sentences for frame in chosen],
        ) + config.distil * criterion.taught(whole, seen, naming.words(names.to(device)))
        value = float(loss.detach())
        if not math.isfinite(value):
            raise UserError(f"The loss became {value}; lower lr and start again.")
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        lr = optimizer.param_groups[0]["lr"]
        schedule.step()
        yield value, lr
    naming.cpu()


class _Criterion(nn.Module):
    """What the map shall do; its own two numbers are thrown away after training."""

    weight: Tensor
    constant: Tensor

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.tensor(_BIAS))
        self.sharpness = nn.Parameter(torch.tensor(0.0))
        self.register_buffer("weight", classifier.weight)
        self.register_buffer("constant", classifier.bias)

    def forward(
        self, seen: Tensor, words: Tensor, share: Tensor, counted: Tensor, sentences: Sequence[Sequence[str]]
    ) -> Tensor:
        """High inside the named region and low outside, and each region's sentence above those of others, both ways.

        Args:
            seen: The hidden layer, float [B,1280,h,w].
            words: l_5, float [B,N,1280].
            share: Of each place that belongs to the region, float [B,N,h,w].
            counted: Of each place that counts, float [B,N,h,w].
            sentences: B lists of N.
        """
        where = balanced(torch.einsum("bchw,bnc->bnhw", seen, words) + self.bias, share, counted)
        inside = share * counted
        pooled = torch.einsum("bnhw,bchw->bnc", inside, seen) / inside.sum((2, 3)).clamp(min=1e-3).unsqueeze(-1)
        present = (share > _PRESENT).flatten(2).any(2).flatten()
        table = pooled.flatten(0, 1) @ words.flatten(0, 1).t()
        others = rivals(share, sentences).to(table.device)
        return where + ranked(table, others, present) + ranked(table.t(), others.t() & present, present)

    def taught(self, whole: Tensor, seen: Tensor, words: Tensor) -> Tensor:
        """The classes' names shall rank as the classifier ranks the classes, where it is sure.

        Args:
            whole: The hidden layer as the classifier, who teaches, sees it, float [B,1280,h,w].
            seen: The same less what was dropped; some of its places are drawn.
            words: l_5 of the classes' names, float [K,1280].
        """
        drawn = torch.randint(whole[:, 0].numel(), (_PLACES,), device=whole.device)
        whole, seen = (one.movedim(1, -1).flatten(0, 2)[drawn] for one in (whole, seen))
        teacher = F.linear(whole, self.weight, self.constant).softmax(-1)
        sure = teacher.amax(-1)
        scores = F.linear(seen, words) * self.sharpness.exp()
        wrong = -(teacher * F.log_softmax(scores, dim=-1)).sum(-1)
        return (wrong * sure).sum() / sure.sum()
