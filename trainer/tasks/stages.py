"""A sequence of trainings from one configuration; each stage starts from the result of an earlier one."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from rich.console import Console

from rvos_edge.atomic import unless_refused
from rvos_edge.errors import UserError
from rvos_edge.trainer.checkpoint import load_training_state
from rvos_edge.trainer.config import AverageConfig, PresenceConfig, StagesConfig, TrainConfig
from rvos_edge.trainer.distributed.ranks import first, first_alone, joined, rank
from rvos_edge.trainer.loop import check_free, train, write_config
from rvos_edge.trainer.tasks.average import average_checkpoints
from rvos_edge.trainer.tasks.presence import train_presence

PREFIX = "stage:"
"""Prefix of the name of an earlier stage, optionally with a snapshot: ``stage:pictures/000600``."""


def train_stages(config: StagesConfig, output: Path, *, console: Console | None = None) -> Path:
    """Run the stages that are not done yet, each in a folder of its own, and print the duration of each.

    The same call continues an interrupted run; returns the checkpoint of the last stage.

    Raises:
        UserError: As for the stages' tasks, or a stage refers to one that is not earlier.
    """
    console = console or Console(stderr=True)
    path = output
    done: list[str] = []
    with joined(), unless_refused(output, "config.json"):
        first(lambda: check_free(output, StagesConfig))
        if rank():
            console = Console(quiet=True)
        first(lambda: write_config(config, output))
        for stage in config.stages:
            folder = output / stage.name
            path = folder / "checkpoint"
            # The network is called after the whole run, not after its last stage.
            named = stage.model_copy(update={"name": config.name})
            run = _run_of(named, folder, partial(_resolved, output=output, earlier=tuple(done)), console)
            began = time.monotonic()
            if isinstance(stage, TrainConfig):
                if run:
                    run()
            else:
                first_alone(run or list)  # also where it is done: another process may have looked earlier
            took = f"{(time.monotonic() - began) / 60:.1f} minutes" if run else "done before"
            console.print(f"stage {stage.name}: {took}")
            done.append(stage.name)
    return path


def _run_of(
    stage: TrainConfig | AverageConfig | PresenceConfig,
    folder: Path,
    resolve: Callable[[str], str],
    console: Console,
) -> Callable[[], object] | None:
    """The action of a stage; None where it is done."""
    path = folder / "checkpoint"
    if isinstance(stage, AverageConfig):
        of = [Path(resolve(one)) for one in stage.of]
        return None if path.exists() else lambda: average_checkpoints(of, path)
    if isinstance(stage, PresenceConfig):
        head = stage.model_copy(update={"init_from": resolve(stage.init_from)})
        return None if path.exists() else lambda: train_presence(head, folder, console=console)
    start = None if stage.init_from is None else resolve(stage.init_from)
    network = stage.model_copy(update={"init_from": start})
    if not path.exists():
        return lambda: train(network, folder, console=console)
    if stage.iterations is not None and load_training_state(path)["iteration"] >= stage.iterations:
        return None
    return lambda: train(network, folder, resume=True, console=console)


def _resolved(text: str, output: Path, earlier: tuple[str, ...]) -> str:
    """The path of ``stage:NAME`` or ``stage:NAME/SNAPSHOT``; other texts are paths already."""
    if not text.startswith(PREFIX):
        return text
    name, _, snapshot = text.removeprefix(PREFIX).partition("/")
    if name not in earlier:
        raise UserError(f"{text}: there is no earlier stage '{name}'; the stages before are {', '.join(earlier)}.")
    return str(output / name / (f"snapshots/{snapshot}" if snapshot else "checkpoint"))
