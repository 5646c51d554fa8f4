"""Runs of a report: network, training, and the commands that repeat them."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from rvos_edge.bundle import Bundle
from rvos_edge.errors import UserError, about
from rvos_edge.trainer.card import card_facts, training_history
from rvos_edge.trainer.checkpoint import read_model_config
from rvos_edge.trainer.config import HARMLESS, TrainConfig, load_config
from rvos_edge.trainer.data.datasets import DATASETS, dataset_of, open_clips
from rvos_edge.trainer.data.readers.base import AnnotatedClips

_MOST_CHANGES = 12
"""Largest number of changes in a command; with more, the run's own configuration file is named instead."""
_MOST_PARTS = 3
_NOT_COMPARED = frozenset({"name", "data.flow", "data.flow_batch", "data.licences"})
"""Further keys without influence on the network."""


@dataclass(frozen=True)
class ReportRun:
    """A checkpoint or a bundle, with the configuration of its network and its training facts.

    Attributes:
        network: The network's configuration, by the keys of ``ModelConfig``; of a bundle, preset, fusion and flow.
    """

    name: str
    path: Path
    network: Mapping[str, Any]
    card: Mapping[str, Any] = field(default_factory=dict)
    is_bundle: bool = False

    @property
    def fusion(self) -> str:
        """Fusion of vision and language: single or hierarchical (supplement, fig. 1)."""
        return str(self.network["fusion"])

    @property
    def flow(self) -> str:
        """Place of the flow: none, vision, gate or both (supplement, fig. 1)."""
        return str(self.network["flow"])

    @property
    def trained(self) -> str:
        """Training history: "300 iterations of 8 frames of 160x288, then ..."; of a long one the end."""
        parts = []
        for card in training_history(self.card):
            size = (card.get("config", {}).get("data") or {}).get("size")
            extent = f" of {size[0]}x{size[1]}" if size else ""
            if "averaged" in card:
                parts.append(f"the mean of {card['averaged']} of them")
            elif "iterations" in card:
                parts.append(f"{card['iterations']} iterations of {card.get('batch', '?')} frames{extent}")
            else:
                parts.append(f"{card['samples']} frames")
        more = len(parts) - _MOST_PARTS
        if more > 0:
            parts = [f"{more} earlier stages", *parts[more:]]
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
        with about(f"--run {text}"):
            network = read_model_config(Path(path)).model_dump(mode="json")
            runs.append(ReportRun(name.strip(), Path(path), network, card_facts(Path(path))))
    if bundle is not None:
        manifest = Bundle.open(bundle).manifest
        network = {"preset": manifest.preset, "fusion": "hierarchical", "flow": "both"}
        network |= {key: manifest.network[key] for key in ("fusion", "flow") if key in manifest.network}
        runs.append(ReportRun(bundle.resolve().name, bundle, network, card_facts(bundle), is_bundle=True))
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


def trained_videos(run: ReportRun, dataset: str, clips: AnnotatedClips) -> list[str]:
    """Videos of a data set that a run, or one before it, was trained on, as its card tells.

    A card without their names has splits. A split is looked up in the folder that the card names or, where that is gone
    and it is the same data set, in the one of ``clips``. DAVIS-16 and -17 share their videos.
    """
    seen: set[str] = set()
    sources: list[Mapping[str, Any]] = []
    for part in training_history(run.card):
        named = part.get("videos", {})
        seen = seen.union(*(names for kind, names in named.items() if _shares_videos(kind, dataset)))
        listed = (part.get("config", {}).get("data") or {}).get("sources", ())
        sources += [source for source in listed if _kind(source) not in named]
    for source in sources:
        kind = dataset_of(_kind(source))
        if kind not in DATASETS or not _shares_videos(kind, dataset):
            continue
        split = source.get("videos") or source.get("split") or "train"
        folders = [Path(source.get("davis") or source["root"]), *([clips.root] if kind == dataset else [])]
        seen |= set(split) if isinstance(split, list) else _videos_of(kind, split, folders, source.get("expressions"))
    return [video for video in clips.videos if video in seen]


def _kind(source: Mapping[str, Any]) -> str:
    return "davis" if source.get("davis") else str(source["kind"])


def _shares_videos(kind: str, dataset: str) -> bool:
    return dataset_of(kind).rstrip("67") == dataset.rstrip("67")


def _videos_of(dataset: str, split: str, folders: Sequence[Path], expressions: str | None) -> set[str]:
    for folder in folders:
        with contextlib.suppress(UserError):
            return set(open_clips(dataset, folder, split, Path(expressions) if expressions else None).videos)
    return set()


def differences(runs: Sequence[ReportRun]) -> list[dict[str, str]]:
    """Settings of network and training in which runs differ, for each run: its values by key, "-" without one.

    A run whose training is not recorded, such as a bundle's without a card, is compared in what is known of it.
    """
    facts = [_facts(run) for run in runs]
    told: list[dict[str, str]] = [{} for _ in runs]
    for key in dict.fromkeys(key for flat in facts for key in flat):
        values = [_yaml(flat[key]) if key in flat else "-" if run.card and not run.is_bundle else None
                  for run, flat in zip(runs, facts, strict=True)]  # fmt: skip
        if len(set(values) - {None}) > 1:
            for own, value in zip(told, values, strict=True):
                own |= {} if value is None else {key: value}
    return told


def seed_groups(runs: Sequence[ReportRun]) -> list[list[int]]:
    """Numbers of the runs, two or more together, that differ in nothing but their seed."""
    groups: list[list[int]] = []
    for number, run in enumerate(runs):
        if run.card.get("config") and not run.is_bundle:
            mine = next((group for group in groups if set(differences([runs[group[0]], run])[1]) <= {"seed"}), None)
            if mine is None:
                groups.append([number])
            else:
                mine.append(number)
    return [group for group in groups if len(group) > 1]


def _facts(run: ReportRun) -> dict[str, Any]:
    """All settings by dotted key that may change what a run answers."""
    flat = _flat({"model": dict(run.network)})
    config = {key: value for key, value in (run.card.get("config") or {}).items() if key != "model"}
    if run.card:
        earlier = max(len(training_history(run.card)) - 1, 0)
        flat |= _flat(config) | {"iterations": run.card.get("iterations"), "earlier runs": earlier}
    told = {key for key in flat if key not in _NOT_COMPARED and key.split(".")[0] not in HARMLESS}
    return {key: value for key, value in flat.items() if key in told and value is not None}


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
