"""Runs of a report: network, training, and the commands that repeat them."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from rvos_edge.bundle import Bundle
from rvos_edge.errors import UserError
from rvos_edge.trainer.card import card_facts, training_history
from rvos_edge.trainer.checkpoint import read_model_config
from rvos_edge.trainer.config import TrainConfig, load_config

_MOST_CHANGES = 12
"""Largest number of changes in a command; with more, the run's own configuration file is named instead."""
_NOT_COMPARED = frozenset(
    {"name", "workers", "threads", "log_every", "checkpoint_every", "keep_every", "data.flow", "data.licences"}
    | {"model.fusion", "model.flow"}
)
"""Keys without influence on the network, and those that an ablation varies."""


@dataclass(frozen=True)
class Role:
    """A variant of the paper's ablation (supplement, fig. 1)."""

    fusion: str
    flow: str
    title: str


SINGLE = Role("single", "none", "single level, no flow")
STATIC = Role("hierarchical", "none", "hierarchical, no flow")
FULL = Role("hierarchical", "both", "flow in both")
ROLES = (
    SINGLE,
    STATIC,
    Role("hierarchical", "vision", "flow in vision"),
    Role("hierarchical", "gate", "flow in gate"),
    FULL,
)
"""In the paper's order."""


@dataclass(frozen=True)
class ReportRun:
    """A checkpoint or a bundle, with the variant of the network and its training facts."""

    name: str
    path: Path
    fusion: str
    flow: str
    card: Mapping[str, Any] = field(default_factory=dict)
    is_bundle: bool = False

    def plays(self, role: Role) -> bool:
        """True if this is a checkpoint of the variant; bundles are no columns of an ablation."""
        return not self.is_bundle and (self.fusion, self.flow) == (role.fusion, role.flow)

    @property
    def network(self) -> str:
        """Name of the variant, as in the headings of the figures."""
        for role in ROLES:
            if (self.fusion, self.flow) == (role.fusion, role.flow):
                return role.title + (" (bundle)" if self.is_bundle else "")
        return f"single level, flow in {self.flow}" + (" (bundle)" if self.is_bundle else "")

    @property
    def trained(self) -> str:
        """Training history: "300 iterations of 8 frames of 160x288, then ..."."""
        parts = []
        for card in training_history(self.card):
            if "averaged" in card:
                parts.append(f"the mean of {card['averaged']} of them")
                continue
            size = (card.get("config", {}).get("data") or {}).get("size")
            extent = f" of {size[0]}x{size[1]}" if size else ""
            parts.append(f"{card['iterations']} iterations of {card.get('batch', '?')} frames{extent}")
        return ", then ".join(parts) or "not recorded"


def read_runs(named: Sequence[str], bundle: Path | None = None) -> tuple[ReportRun, ...]:
    """Runs named on the command line, ``NAME=CHECKPOINT`` each, and a bundle, named after its folder.

    Raises:
        UserError: There is no run, a run has no name, two have the same name, or a directory is neither checkpoint nor
            bundle.
    """
    runs: list[ReportRun] = []
    for text in named:
        name, _, path = text.partition("=")
        if not name.strip() or not path:
            raise UserError(f"--run {text}: write it as NAME=CHECKPOINT, such as both=runs/both/checkpoint.")
        config = read_model_config(Path(path))
        runs.append(ReportRun(name.strip(), Path(path), config.fusion, config.flow, card_facts(Path(path))))
    if bundle is not None:
        network = Bundle.open(bundle).manifest.network
        facts = (str(network.get("fusion", "hierarchical")), str(network.get("flow", "both")), card_facts(bundle))
        runs.append(ReportRun(bundle.resolve().name, bundle, *facts, is_bundle=True))
    if not runs:
        raise UserError("There is nothing to report on; give at least one --run NAME=CHECKPOINT.")
    names = [run.name for run in runs]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"Two runs are called '{name}'; give each --run (and the bundle's folder) its own name.")
    return tuple(runs)


def train_command(run: ReportRun) -> str | None:
    """Command line that repeats a checkpoint's training; None for a bundle or where nothing was recorded.

    It names the shipped configuration with the run's changes, or the configuration file beside the checkpoint.
    """
    folder, recorded = run.path.parent, run.card.get("config")
    if run.is_bundle or not isinstance(recorded, dict):
        return None
    changes = _changes(recorded)
    if changes is not None:
        sets = [f"--set {shlex.quote(f'{key}={_yaml(value)}')}" for key, value in changes.items()]
        return " ".join([f"rvos-edge train {recorded['name']} --output {shlex.quote(str(folder))}", *sets])
    own = folder / "config.json"
    if own.is_file():
        return f"rvos-edge train {shlex.quote(str(own))} --output {shlex.quote(f'{folder}-again')}"
    return None


def differences(runs: Sequence[ReportRun]) -> list[str]:
    """Differences in the training of runs, "iterations (900, 300)", apart from the parts that an ablation compares."""
    facts = []
    for run in runs:
        earlier = max(len(training_history(run.card)) - 1, 0)
        own = {"iterations": run.card.get("iterations"), "earlier runs": earlier}
        flat = _flat(run.card.get("config") or {}) | own
        facts.append(own | {key: value for key, value in flat.items() if key not in _NOT_COMPARED})
    keys = dict.fromkeys(key for flat in facts for key in flat)
    unlike = [key for key in keys if any(flat.get(key) != facts[0].get(key) for flat in facts)]
    return [f"{key} ({', '.join(_yaml(flat[key]) if key in flat else '-' for flat in facts)})" for key in unlike]


def _changes(recorded: Mapping[str, Any]) -> dict[str, Any] | None:
    """Changes to the shipped configuration of the same name; None where that does not describe the run."""
    try:
        base = _flat(load_config(Path(str(recorded.get("name")))).model_dump(mode="json"))
        own = _flat(TrainConfig.model_validate(recorded).model_dump(mode="json"))
    except (UserError, ValidationError):
        return None
    changed = {key: value for key, value in own.items() if key not in base or base[key] != value}
    return None if set(base) - set(own) or len(changed) > _MOST_CHANGES else changed


def _flat(value: Any, key: str = "") -> dict[str, Any]:
    """Values by dotted keys as in ``--set``: into mappings and lists of mappings, but not into lists of values."""
    if isinstance(value, dict) and value:
        items = [(str(name), item) for name, item in value.items()]
    elif isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
        items = [(str(index), item) for index, item in enumerate(value)]
    else:
        return {key: value}
    return {k: v for name, item in items for k, v in _flat(item, f"{key}.{name}" if key else name).items()}


def _yaml(value: Any) -> str:
    text: str = yaml.safe_dump(value, default_flow_style=True, width=10_000)
    return text.removesuffix("...\n").strip()
