"""Averaging the weights of runs with a common start (Wortsman et al., "Model soups", ICML 2022)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from rvos_edge.bundle import sha256_of
from rvos_edge.errors import UserError
from rvos_edge.outputs import check_outputs
from rvos_edge.trainer.card import training_history
from rvos_edge.trainer.checkpoint import Checkpoint, load_checkpoint, save_checkpoint


def average_checkpoints(paths: Sequence[Path], output: Path, *, console: Console | None = None) -> Path:
    """Write the mean of several checkpoints as one checkpoint.

    Runs that start from the same checkpoint stay in one basin of the loss, and their mean is often better than each of
    them. The mean of runs with different starts is useless: a line on the console warns of it.

    Raises:
        UserError: There are no checkpoints, their networks or vocabularies differ, or ``output`` holds something else.
    """
    if not paths:
        raise UserError("there is nothing to average; give checkpoint directories.")
    check_outputs([output], paths)
    first, *others = [load_checkpoint(path) for path in paths]
    for path, other in zip(paths[1:], others, strict=True):
        if other.model.config != first.model.config or other.tokenizer.get_vocab() != first.tokenizer.get_vocab():
            raise UserError(f"{path} is another network than {paths[0]}: only checkpoints of one network have a mean.")
    states = [checkpoint.model.state_dict() for checkpoint in (first, *others)]
    with torch.no_grad():
        for name, tensor in states[0].items():
            if tensor.is_floating_point():  # not the counters of batch norm
                tensor.copy_(torch.stack([state[name].double() for state in states]).mean(0))
    cards = [checkpoint.card for checkpoint in (first, *others)]
    strangers = [str(path) for path, own in zip(paths, cards, strict=True) if not _related(own, cards[0])]
    if strangers:
        (console or Console(stderr=True)).print(
            f"Warning: {', '.join(strangers)} did not start from the same weights as {paths[0]}; the mean of runs with "
            "different starts is hardly ever of use.",
            soft_wrap=True,
            highlight=False,
        )
    card: dict[str, Any] = {key: cards[0][key] for key in ("name", "config") if key in cards[0]}
    hashes = [sha256_of(path / "model.safetensors")[:16] for path in paths]
    card |= {"averaged": len(cards), "of": hashes, "history": training_history(*cards)}
    save_checkpoint(output, Checkpoint(first.model, first.tokenizer, card))
    return output


def _related(card: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """True unless the cards say that two checkpoints come from different first weights."""
    one, two = ((training_history(facts) or [facts])[0] for facts in (card, other))
    if one.get("start") and two.get("start"):
        return bool(one["start"] == two["start"])
    done = ("iterations", "interrupted")
    return {k: v for k, v in one.items() if k not in done} == {k: v for k, v in two.items() if k not in done}
