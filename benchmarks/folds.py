"""Five-fold cross-validation on the DAVIS training videos.

Every fold begins with the weights that the configuration names; these must not have been trained on the videos. A run
that was interrupted continues when started again::

    python -m rvos_edge.benchmarks.folds edge-ablation --root $DATA_ROOT/data/davis2016-train --output runs/folds

With ``--teach`` and ``--adapt`` the folds that are finished are judged by queries that learn; nothing is trained but a
presence head for each fold::

    python -m rvos_edge.benchmarks.folds edge-ablation --root $DATA_ROOT/data/davis2016-train --output runs/folds \
        --teach 1,3,5 --adapt once
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
from rvos_edge.export.package import ExportOptions, export_bundle
from rvos_edge.trainer.config import PresenceConfig, TrainConfig, load_config
from rvos_edge.trainer.data.config import CocoSource, ComposedSource, VideoSource
from rvos_edge.trainer.data.readers.davis16 import Davis16Clips
from rvos_edge.trainer.evaluate import EvalOptions, evaluate
from rvos_edge.trainer.evaluate.tables import folds_table, learning_table, show_table
from rvos_edge.trainer.loop import train
from rvos_edge.trainer.tasks.presence import train_presence

FOLDS = 5
_PRESENCE_SAMPLES = 320


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
        if isinstance(source, VideoSource) and source.is_davis16:
            sources.append(source.model_copy(update={"root": str(root), "videos": kept}))
        elif isinstance(source, ComposedSource):
            sources.append(source.model_copy(update={"davis": None}))
        else:
            sources.append(source)
    if not any(isinstance(source, VideoSource) and source.is_davis16 for source in sources):
        raise UserError(f"{config.name} trains on no DAVIS videos; folds need a source of kind davis.")
    return config.model_copy(update={"data": config.data.model_copy(update={"sources": sources, "flow": flow})})


def run_folds(config: TrainConfig, root: Path, output: Path, *, every: int = 4, console: Console) -> dict[str, Any]:
    """Train and evaluate every fold that is not finished, with a presence head where it is trained on COCO pictures.

    Returns:
        Means ``j``, ``f`` and ``shuffled_j`` (with another video's expression), and the same of each of ``videos``;
        ``folds.json`` in ``output`` holds it too, which a bundle's card shows.
    """
    rows: dict[str, Mapping[str, Any]] = {}
    for number, held in enumerate(folds_of(Davis16Clips(root, split="all").videos), start=1):
        folder = output / f"fold-{number}"
        figures = folder / "figures.json"
        if not figures.is_file():
            run = without(config, held, root, config.data.flow)
            done = (folder / "checkpoint").exists()
            checkpoint = train(run, folder, resume=done, console=console)
            if any(isinstance(source, CocoSource) for source in run.data.sources):
                checkpoint = _with_presence(run, folder, console)
            options = EvalOptions(
                checkpoint=checkpoint, dataset="davis16", root=root, split=",".join(held), every=every, json=figures
            )
            evaluate(options, console=console)
        rows |= json.loads(figures.read_text(encoding="utf-8"))["davis16"]["videos"]
    videos = {
        name: {"j": row["j"], "f": row["f"], "shuffled_j": row.get("shuffled", {}).get("j")}
        for name, row in sorted(rows.items())
    }
    means = {key: _mean([row[key] for row in videos.values()]) for key in ("j", "f", "shuffled_j")}
    result = {**means, "videos": videos, "iterations": config.iterations}
    with new_file(output / "folds.json") as temporary:
        temporary.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return result


def compare_learning(
    config: TrainConfig,
    root: Path,
    output: Path,
    *,
    teach: Sequence[int] = (),
    adapt: Sequence[str] = (),
    every: int = 4,
    console: Console,
) -> dict[str, dict[str, Any]]:
    """Judge the folds that ``run_folds`` has finished by the sentence, by taught queries and by queries that settle.

    All are scored on the same frames, by a bundle with a presence head that was fitted to the fold's own training data.

    Args:
        teach: Numbers of shown frames.
        adapt: Modes of ``Segmenter.set_adapt``.

    Returns:
        For each way: ``j``, ``f``, ``drift`` (J in the last sixth of a video less J in its first), ``shuffled_j``,
        ``worst`` (the most that a video loses to the sentence, with its name) and ``videos`` with J by name.

    Raises:
        UserError: No fold is finished.
    """
    ways: dict[str, dict[str, Any]] = {"sentence": {}}
    ways |= {f"{count} shown": {"teach": count} for count in teach} | {
        f"adapt {mode}": {"adapt": mode} for mode in adapt
    }
    found: dict[str, dict[str, Any]] = {way: {} for way in ways}
    for number, held in enumerate(folds_of(Davis16Clips(root, split="all").videos), start=1):
        folder = output / f"fold-{number}"
        if not (folder / "figures.json").is_file():
            continue
        bundle = _bundle_of(without(config, held, root, config.data.flow), folder, console)
        for way, options in ways.items():
            figures = folder / f"{way.replace(' ', '-')}.json"
            if not figures.is_file():
                asked = EvalOptions(
                    bundle=bundle,
                    dataset="davis16",
                    root=root,
                    split=",".join(held),
                    every=every,
                    json=figures,
                    **options,
                )
                evaluate(asked, console=console)
            found[way] |= json.loads(figures.read_text(encoding="utf-8"))["davis16"]["videos"]
    if not found["sentence"]:
        raise UserError(f"{output} holds no finished fold; train them first, without --teach and --adapt.")
    result = {way: _summary(videos, found["sentence"]) for way, videos in found.items()}
    with new_file(output / "learning.json") as temporary:
        temporary.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return result


def _bundle_of(run: TrainConfig, folder: Path, console: Console) -> Path:
    """The bundle of a fold's checkpoint, made once, with a presence head."""
    bundle = folder / "bundle"
    if bundle.exists():
        return bundle
    return export_bundle(_with_presence(run, folder, console), bundle, ExportOptions(teach=True), console=console)


def _with_presence(run: TrainConfig, folder: Path, console: Console) -> Path:
    """The fold's checkpoint with a presence head, made once."""
    checkpoint = folder / "presence" / "checkpoint"
    if checkpoint.exists():
        return checkpoint
    held_out = [
        source.model_copy(update={"split": "held_out"}) for source in run.data.sources if isinstance(source, CocoSource)
    ]
    if not held_out:
        raise UserError(f"{run.name} trains on no COCO pictures, whose held-out ones calibrate presence; add a source.")
    asked = {"queries": 20, "absent_share": 0.5}
    presence = PresenceConfig(
        name=run.name,
        task="presence",
        init_from=str(folder / "checkpoint"),
        data=run.data.model_copy(update=asked),
        held_out=run.data.model_copy(update={**asked, "sources": held_out}),
        samples=_PRESENCE_SAMPLES,
        amp=run.amp,
        seed=run.seed,
        threads=run.threads,
    )
    train_presence(presence, checkpoint.parent, console=console)
    return checkpoint


def _summary(videos: Mapping[str, Any], sentence: Mapping[str, Any]) -> dict[str, Any]:
    change = {name: row["j"] - sentence[name]["j"] for name, row in videos.items()}
    worst = min(change, key=lambda name: change[name])
    return {
        **{key: _mean([row.get(key) for row in videos.values()]) for key in ("j", "f", "drift")},
        "shuffled_j": _mean([row.get("shuffled", {}).get("j") for row in videos.values()]),
        "worst": [worst, change[worst]],
        "videos": {name: row["j"] for name, row in sorted(videos.items())},
    }


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in text.split(","))


def main(arguments: Sequence[str] | None = None) -> None:
    """Make the table of folds."""
    parser = argparse.ArgumentParser(description="Five folds over the DAVIS training videos.")
    parser.add_argument("config", type=Path, help="a training configuration with a DAVIS source")
    parser.add_argument("--root", type=Path, required=True, help="the DAVIS-2016 folder")
    parser.add_argument("--output", type=Path, required=True, help="where the folds are kept")
    parser.add_argument("--every", type=int, default=4, help="score every n-th frame")
    parser.add_argument("--set", action="append", default=[], help="KEY=VALUE of the configuration; repeatable")
    parser.add_argument("--teach", type=_numbers, default=(), help="numbers of shown frames with commas, such as 1,3,5")
    parser.add_argument("--adapt", action="append", default=[], choices=["once", "on"], help="judge settling queries")
    options = parser.parse_args(arguments)
    config = load_config(options.config, options.set)
    if not isinstance(config, TrainConfig):
        raise UserError(f"{options.config} is no single training; give one, such as edge-ablation.")
    console = Console()
    if options.teach or options.adapt:
        folder, teach, adapt = options.output, options.teach, options.adapt
        learning = compare_learning(
            config, options.root, folder, teach=teach, adapt=adapt, every=options.every, console=console
        )
        show_table(learning_table(learning), console)
        return
    result = run_folds(config, options.root, options.output, every=options.every, console=console)
    show_table(folds_table(result), console)


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        raise SystemExit(f"error: {error}") from error
