"""Masked-language modelling of the text model on expressions, before the network is trained (supplement, section 1).

As in BERT's own training, 15 % of an expression's tokens are chosen, at least one, token by token and not by whole
words. Of these 80 % become [MASK], 10 % a random token and 10 % are unchanged; the model predicts the original.
"""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from safetensors.torch import save_file
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional as F
from transformers import BertForMaskedLM

from rvos_edge.atomic import new_directory
from rvos_edge.errors import UserError, about
from rvos_edge.trainer.config import MlmConfig
from rvos_edge.trainer.data.config import expressions_of
from rvos_edge.trainer.events import TrainingReport
from rvos_edge.trainer.model.language import (
    SentenceEncoder,
    load_text_weights,
    small_tokenizer,
    text_weights_file,
    tokenize,
)
from rvos_edge.trainer.model.presets import TextConfig
from rvos_edge.trainer.model.state_file import load_state_file
from rvos_edge.trainer.speed import autocast_dtype

_IGNORED = -100
_HEAD = "cls.predictions."


def train_text(config: MlmConfig, output: Path, *, console: Console | None = None) -> Path:
    """Fine-tune a text model on the expressions of data sets, for ``weights.text`` of a training run.

    Returns:
        Folder of the text model: model.safetensors (body and head), config.json and tokenizer.json.

    Raises:
        UserError: A data folder or weights file is missing, the output exists already, or it cannot be written.
    """
    console = console or Console(stderr=True)
    folder = output / "text"
    if folder.exists():
        raise UserError(f"{folder} already holds a text model; choose another --output, or remove it.")
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UserError("task: mlm runs in one process; start it without torchrun.")
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    text = config.model_config_of().text
    model, tokenizer, headed = masked_language_model(text, config.text)
    if not headed:
        console.print("The text model comes without its prediction head: the head starts from random weights.")
    expressions = expressions_of(config.sources)
    steps = config.epochs * math.ceil(len(expressions) / config.batch)
    output.mkdir(parents=True, exist_ok=True)
    losses = []
    with TrainingReport(config.name, output, console, start=0, total=steps, every=config.log_every) as report:
        for done, (loss, lr) in enumerate(_fit(model, tokenizer, expressions, config, text, steps), start=1):
            losses.append(loss)
            report.step(done, loss=loss, lr=lr)
    facts = {"expressions": len(expressions), "epochs": config.epochs, "loss": [losses[0], losses[-1]]}
    _save(model, tokenizer, folder, {**facts, "config": json.loads(config.model_dump_json())})
    return folder


def masked_language_model(text: TextConfig, source: str | None) -> tuple[Any, Tokenizer, bool]:
    """A BertForMaskedLM with the encoder's weights, its tokenizer, and whether the source had a prediction head.

    Without a source the weights are random and the tokenizer is the small one.

    Raises:
        UserError: The source is missing or holds another network.
    """
    if text.kind != "bert":
        raise UserError(f"task: mlm is for a BERT, not for a {text.kind}; leave the task out.")
    encoder = SentenceEncoder(config=text)
    if source is None:
        if text.vocab_size > 5000:
            raise UserError("task: mlm needs a text model to start from: set text to a folder with tokenizer.json.")
        tokenizer = small_tokenizer(text.vocab_size)
    else:
        with about("text"):
            tokenizer = load_text_weights(encoder, source)
    # The decoder shares the matrix of the word embedding.
    model = BertForMaskedLM(encoder.bert.config)
    model.bert = encoder.bert
    model.tie_weights()
    return (model, tokenizer, source is not None and _load_head(model, load_state_file(text_weights_file(source))))


def mask_tokens(
    ids: Tensor, tokenizer: Tokenizer, vocab_size: int, share: float, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Mask a share of the tokens of each row of ids int64 [N,L], at least one; special tokens are never masked.

    Returns input ids and labels, int64 [N,L] each; labels are -100 where nothing is predicted.
    """
    special = np.array([tokenizer.token_to_id(token) for token in ("[PAD]", "[CLS]", "[SEP]", "[MASK]")])
    masked = ids.numpy().copy()
    labels = np.full_like(masked, _IGNORED)
    for row, label in zip(masked, labels, strict=True):
        places = np.flatnonzero(~np.isin(row, special))
        chosen = rng.permutation(places)[: max(1, round(share * len(places)))]
        label[chosen] = row[chosen]
        draw = rng.random(len(chosen))
        row[chosen[draw < 0.8]] = special[-1]
        other = chosen[draw >= 0.9]
        row[other] = rng.choice(_ordinary(vocab_size, special), len(other))
    return torch.from_numpy(masked), torch.from_numpy(labels)


def _fit(
    model: Any, tokenizer: Tokenizer, expressions: Sequence[str], config: MlmConfig, text: TextConfig, steps: int
) -> Iterator[tuple[float, float]]:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model.to(device).train()
    precision = autocast_dtype(config.amp, device)
    scaler = torch.amp.GradScaler(device.type, enabled=precision == torch.float16)
    optimizer = torch.optim.AdamW(model.parameters(), lr=config.lr, weight_decay=config.weight_decay)
    rng = np.random.default_rng(config.seed)
    for step, batch in enumerate(_batches(expressions, config, rng)):
        # Warm-up over a tenth of the steps, then linear decay, as BERT is usually fine-tuned (our reading).
        lr = config.lr * min((step + 1) / max(0.1 * steps, 1), (steps - step) / steps)
        for group in optimizer.param_groups:
            group["lr"] = lr
        ids, attention = tokenize(tokenizer, batch, text.max_tokens)
        masked, labels = mask_tokens(ids, tokenizer, tokenizer.get_vocab_size(), config.masked, rng)
        with torch.autocast(device.type, dtype=precision, enabled=precision is not None):
            logits = model(input_ids=masked.to(device), attention_mask=attention.to(device)).logits
        loss = F.cross_entropy(logits.float().flatten(0, 1), labels.to(device).flatten(), ignore_index=_IGNORED)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise UserError(f"The loss became {value} at iteration {step + 1}; lower lr and start again.")
        optimizer.zero_grad(set_to_none=True)
        scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        scaler.unscale_(optimizer)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        scaler.step(optimizer)
        scaler.update()
        yield value, lr


def _batches(expressions: Sequence[str], config: MlmConfig, rng: np.random.Generator) -> Iterator[list[str]]:
    for _ in range(config.epochs):
        order = rng.permutation(len(expressions))
        for start in range(0, len(order), config.batch):
            yield [expressions[index] for index in order[start : start + config.batch]]


def _ordinary(vocab_size: int, special: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.setdiff1d(np.arange(vocab_size), special)


def _load_head(model: Any, state: Mapping[str, Tensor]) -> bool:
    """Load the prediction head of an official checkpoint; returns whether it has one."""
    own = model.cls.state_dict()
    found = {}
    for key, value in state.items():
        # As for the body, the oldest checkpoints name LayerNorm's parameters gamma and beta.
        name = key.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")
        name = name.removeprefix("cls.")
        if name in own and own[name].shape == value.shape:
            found[name] = value
    # The decoder is tied to the embedding, and its bias has two names.
    needed = [key for key in own if key.startswith("predictions.transform.") or key == "predictions.bias"]
    if not all(key in found for key in needed):
        return False
    model.cls.load_state_dict({key: found[key] for key in needed}, strict=False)
    return True


def _save(model: Any, tokenizer: Tokenizer, folder: Path, facts: Mapping[str, Any]) -> None:
    try:
        with new_directory(folder) as temporary:
            # The decoder's weight and bias are aliases.
            state = {key: value for key, value in model.state_dict().items() if not key.startswith(f"{_HEAD}decoder.")}
            tensors = {key: value.detach().cpu().contiguous() for key, value in state.items()}
            save_file(tensors, temporary / "model.safetensors", metadata={"format": "pt"})
            model.config.architectures = ["BertForMaskedLM"]
            (temporary / "config.json").write_text(model.config.to_json_string(), encoding="utf-8")
            shutil.copymode(temporary / "config.json", temporary / "model.safetensors")
            tokenizer.save(str(temporary / "tokenizer.json"))
            (temporary / "card.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    except UserError:
        raise
    except Exception as error:  # a full disk is an OSError here, but safetensors and tokenizers raise their own
        reason = str(error).splitlines()[0]
        raise UserError(f"Cannot save the text model {folder} ({reason}); free some space and start again.") from error
