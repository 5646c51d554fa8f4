"""Training facts of a checkpoint: its card.json."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rvos_edge.errors import UserError

CARD_FILE = "card.json"
"""File of a checkpoint's training facts; the export copies it beside the manifest."""


def card_facts(path: Path) -> dict[str, Any]:
    """Training facts in a checkpoint's or bundle's directory; empty where there are none.

    Raises:
        UserError: The file is damaged.
    """
    file = path / CARD_FILE
    if not file.is_file():
        return {}
    try:
        facts = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise UserError(f"{file} is not readable JSON; copy card.json from the checkpoint again.") from error
    if not isinstance(facts, dict):
        raise UserError(f"{file} does not hold the facts of a training run; copy it from the checkpoint again.")
    return facts


def training_history(*cards: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The runs and averages that led to checkpoints, in order, each once.

    Of several snapshots of a run only the latest is kept; cards of untrained networks are left out.
    """
    parts: list[Mapping[str, Any]] = []
    for card in cards:
        own = {key: value for key, value in card.items() if key != "history"}
        told = {"iterations", "averaged", "samples"}
        trained = [part for part in (*card.get("history", ()), own) if told & set(part)]
        parts += [part for part in trained if part not in parts]
    return [part for part in parts if not any(_is_later(other, part) for other in parts)]


def _is_later(card: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """True if a card is that of a later iteration of the same run."""
    one, two = ({k: v for k, v in part.items() if k not in ("iterations", "interrupted")} for part in (card, other))
    return one == two and card.get("iterations", 0) > other.get("iterations", 0)
