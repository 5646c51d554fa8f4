"""The network that a run starts from: new, or of a checkpoint, or of a file of weights."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from torch import Tensor

from rvos_edge.errors import UserError, about
from rvos_edge.trainer.checkpoint import Checkpoint, load_checkpoint
from rvos_edge.trainer.config import TrainConfig
from rvos_edge.trainer.model.hinet import HINet
from rvos_edge.trainer.model.state_file import load_state_file
from rvos_edge.trainer.model.weights import initialise

_LEARNT = ("vision.", "language.", "interaction.", "decoder.")
"""Parts that no public weights have: without any of them a file is of another network."""
_NAMED = 4


def starting_point(config: TrainConfig, say: Callable[[str], None]) -> Checkpoint:
    """A network with its initial weights.

    Of ``init_from`` every tensor is taken that has a name and shape of the network; all others are as ``weights`` says,
    or random. What was not taken is said.

    Raises:
        UserError: A file is missing or damaged, or nothing in it was learnt by a network like this one.
    """
    model = HINet(config=config.model_config_of())
    if config.init_from is None:
        return Checkpoint(model, initialise(model, config.initial_weights()))
    path = Path(config.init_from)
    if not path.exists():
        raise UserError(f"init_from {path} does not exist; give a checkpoint or a file of weights, or train it first.")
    with about("init_from"):
        before = None if path.is_file() else load_checkpoint(path)
        state, card = (load_state_file(path), {}) if before is None else (before.model.state_dict(), before.card)
    if before is not None and before.model.config == model.config:
        return before
    own = model.state_dict()
    taken = {key: value for key, value in state.items() if key in own and own[key].shape == value.shape}
    new, left = ([key for key in keys if key not in taken] for keys in (own, state))
    if not any(key.startswith(_LEARNT) and key.endswith("weight") for key in taken):
        raise UserError(
            f"init_from {path} is of another network: it lacks {_summary(new)}; give a checkpoint of HINet, or the "
            "weights of a backbone, text model or RAFT in the section weights."
        )
    text = [key for key in new if key.startswith("sentence.")]
    known = before.tokenizer if before is not None and not text else None
    tokenizer = initialise(model, config.initial_weights(), random_text=not text, tokenizer=known)
    model.load_state_dict({**model.state_dict(), **taken})
    say(f"init_from {path}: {len(taken)} of {len(own)} tensors are taken")
    if new:
        say(f"init_from {path}: not in it, or of another shape: {_summary(new)}")
    if left:
        say(f"init_from {path}: left out: {_summary(left)}")
    return Checkpoint(model, tokenizer, card)


def weights_hash(state: Mapping[str, Tensor]) -> str:
    """Sixteen digits that tell weights apart, for the card: runs with the same ones started together."""
    digest = hashlib.sha256()
    for name, value in sorted(state.items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def _summary(keys: Sequence[str]) -> str:
    """Tensors by part of the network, with the first names: "decoder (12), flow (30): decoder.a.weight, ..."."""
    parts = Counter(key.split(".")[0] for key in keys)
    names = ", ".join(keys[:_NAMED]) + (f" and {len(keys) - _NAMED} more" if len(keys) > _NAMED else "")
    return f"{', '.join(f'{part} ({count})' for part, count in parts.items())}: {names}"
