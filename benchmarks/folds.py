"""Five-fold cross-validation on the DAVIS training videos.

Every fold begins with the weights that the configuration names; these must not have been trained on the videos. A run
that was interrupted continues when started again::

    python -m rvos_edge.benchmarks.folds edge-ablation --root $DATA_ROOT/data/davis2016-train --output runs/folds
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from rvos_edge.atomic import new_file
from rvos_edge.errors import UserError
from rvos_edge.trainer.config import TrainConfig, load_config
from rvos_edge.trainer.data.config import ComposedSource, DavisSource
from rvos_edge.trainer.data.readers.davis16 import Davis16Clips
from rvos_edge.trainer.evaluate import EvalOptions, evaluate
from rvos_edge.trainer.loop import train

FOLDS = 5


def folds_of(videos: Sequence[str], count: int = FOLDS) -> list[list[str]]:
    """The videos dealt out by name, one list for each fold.

    Example:
        >>> folds_of(["d", "a", "c", "b", "e"], 2)
        [['a', 'c', 'e'], ['b', 'd']]
    """
    ordered = sorted(videos)
    return [ordered[fold::count] for fold in range(count)]


def without(config: TrainConfig, videos: Sequence[str], root: Path, flow: str) -> TrainConfig:
    """The same run without some DAVIS videos: its own source reads the others, compositions read none.

    Raises:
        UserError: The run has no DAVIS source.
    """
    kept = [video for video in Davis16Clips(root, split="all").videos if video not in set(videos)]
    sources: list[Any] = []
    for source in config.data.sources:
        if isinstance(source, DavisSource):
            sources.append(source.model_copy(update={"root": str(root), "videos": kept}))
        elif isinstance(source, ComposedSource):
            sources.append(source.model_copy(update={"davis": None}))
        else:
            sources.append(source)
    if not any(isinstance(source, DavisSource) for source in sources):
        raise UserError(f"{config.name} trains on no DAVIS videos; folds need a source of kind davis.")
    return config.model_copy(update={"data": config.data.model_copy(update={"sources": sources, "flow": flow})})


def run_folds(config: TrainConfig, root: Path, output: Path, *, every: int = 4, console: Console) -> dict[str, Any]:
    """Train and evaluate every fold that is not finished."""
    videos: dict[str, Mapping[str, Any]] = {}
    for number, held in enumerate(folds_of(Davis16Clips(root, split="all").videos), start=1):
        folder = output / f"fold-{number}"
        figures = folder / "figures.json"
        if not figures.is_file():
            run = without(config, held, root, config.data.flow)
            done = (folder / "checkpoint").exists()
            checkpoint = train(run, folder, resume=done, console=console)
            options = EvalOptions(
                checkpoint=checkpoint, dataset="davis16", root=root, split=",".join(held), every=every, json=figures
            )
            evaluate(options, console=console)
        videos |= json.loads(figures.read_text(encoding="utf-8"))["davis16"]["videos"]
    wrong = [row["shuffled"]["j"] for row in videos.values() if "shuffled" in row]
    result = {
        "j": sum(row["j"] for row in videos.values()) / len(videos),
        "shuffled_j": sum(wrong) / len(wrong) if wrong else None,
        "videos": {name: row["j"] for name, row in sorted(videos.items())},
        "iterations": config.iterations,
    }
    with new_file(output / "folds.json") as temporary:
        temporary.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return result


def main(arguments: Sequence[str] | None = None) -> None:
    """Make the table of folds."""
    parser = argparse.ArgumentParser(description="Five folds over the DAVIS training videos.")
    parser.add_argument("config", type=Path, help="a training configuration with a DAVIS source")
    parser.add_argument("--root", type=Path, required=True, help="the DAVIS-2016 folder")
    parser.add_argument("--output", type=Path, required=True, help="where the folds are kept")
    parser.add_argument("--every", type=int, default=4, help="score every n-th frame")
    parser.add_argument("--set", action="append", default=[], help="KEY=VALUE of the configuration; repeatable")
    options = parser.parse_args(arguments)
    config = load_config(options.config, options.set)
    if not isinstance(config, TrainConfig):
        raise UserError(f"{options.config} is no single training; give one, such as edge-ablation.")
    console = Console()
    result = run_folds(config, options.root, options.output, every=options.every, console=console)
    for name, region in result["videos"].items():
        console.print(f"{name:24} {100 * region:5.1f}")
    wrong = result["shuffled_j"]
    console.print(f"mean J {100 * result['j']:.1f}, with another video's sentence {100 * (wrong or 0):.1f}")


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        raise SystemExit(f"error: {error}") from error
