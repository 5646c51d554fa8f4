"""Files of weights: plain state dicts under the names that other programs give them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from rvos_edge.errors import UserError

_WRAPPERS = ("state_dict", "model", "model_state_dict")
"""Keys under which training programs (Lightning first) store the weights beside their own state."""
_PREFIXES = ("module.", "model.")
"""Prefixes of names that DataParallel and modules around the network add."""


def load_state_file(path: Path) -> dict[str, Tensor]:
    """Tensors of a ``.safetensors``, ``.pth`` or Lightning file under plain names; pickled code is not executed.

    Raises:
        UserError: The file is missing or not a state dict.
    """
    if not path.is_file():
        raise UserError(f"Weights file {path} does not exist; give the path of an official checkpoint.")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            state: object = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises a different class for every kind of damage
        raise UserError(
            f"{path} is not a readable state dict ({type(error).__name__}); download it again, or save "
            "its tensors alone."
        ) from error
    for key in _WRAPPERS:
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
            break
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise UserError(f"{path} does not hold a plain state dict of tensors; save one with model.state_dict().")
    return plain_names(state)


def plain_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Names without the prefixes of wrappers.

    Example:
        >>> list(plain_names({"module._orig_mod.stem.weight": torch.ones(1)}))
        ['stem.weight']
    """
    plain = {}
    for key, value in state.items():
        name = key.replace("_orig_mod.", "")  # of torch.compile, at any depth
        while name.startswith(_PREFIXES):
            name = name.split(".", 1)[1]
        plain[name] = value
    return plain
