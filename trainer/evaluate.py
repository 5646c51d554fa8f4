"""Figures of a checkpoint or a bundle: DAVIS-16, held-out synthetic scenes and the swap test."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from rvos_edge.errors import UserError
from rvos_edge.segmenter import Segmenter, open_segmenter
from rvos_edge.trainer.card import card_facts, write_card
from rvos_edge.trainer.checkpoint import load_checkpoint
from rvos_edge.trainer.evaluate_swap import evaluate_swap
from rvos_edge.trainer.evaluate_video import Predictor, evaluate_davis, evaluate_synthetic
from rvos_edge.trainer.predictor import TorchSegmenter

__all__ = ["DATASETS", "Predictor", "evaluate", "evaluate_davis", "evaluate_swap", "evaluate_synthetic"]

DATASETS = ("davis16", "synthetic", "swap", "all")


class BundlePredictor:
    """A bundle's runtime as a ``Predictor``; nothing but the masks is used."""

    def __init__(self, segmenter: Segmenter) -> None:
        self.segmenter = segmenter

    def reset(self) -> None:
        """Forget the video."""
        self.segmenter.reset()

    def set_queries(self, queries: Sequence[str]) -> None:
        """Say what to segment."""
        self.segmenter.set_queries(queries)

    def masks(self, frame: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """uint8 [H,W,3] BGR -> bool [Q,H,W]."""
        return self.segmenter.step(frame).masks


def evaluate(
    *,
    checkpoint: Path | None,
    bundle: Path | None,
    dataset: str,
    root: Path | None,
    coco: Path | None = None,
    split: str = "val",
    expressions: Path | None = None,
    json_path: Path | None = None,
    every: int = 1,
    card: bool = False,
    console: Console | None = None,
) -> dict[str, Any]:
    """Evaluate a checkpoint or a bundle, print tables, and write the figures.

    Args:
        checkpoint: A checkpoint directory.
        bundle: A bundle directory; exactly one of the two.
        dataset: "davis16", "synthetic", "swap" or "all" (those whose data is given).
        root: The DAVIS folder; needed for davis16, used for the frames of the swap test.
        coco: The COCO excerpt, for the swap test; without it only synthetic scenes are swapped.
        split: "val" (ImageSets/480p/val.txt, or where there is none the development split), "dev", "train", "all" or
            names of videos with commas.
        expressions: The sentences' JSON; ROOT/meta_expressions.json when None.
        json_path: Where the figures go.
        every: Score every n-th frame of DAVIS; all are seen.
        card: Write the bundle's model card (README.md beside its manifest).
        console: Where tables and the progress bar are drawn.

    Returns:
        ``model``, ``command`` and, as asked for, ``davis16``, ``synthetic`` and ``swap``.

    Raises:
        UserError: Options that do not fit together, or missing files.

    Example:
        >>> run = Path("runs/edge/checkpoint")
        >>> evaluate(checkpoint=run, bundle=None, dataset="synthetic", root=None)  # doctest: +SKIP
    """
    if (checkpoint is None) == (bundle is None):
        raise UserError("Give either --checkpoint or --bundle, not both and not neither.")
    if dataset not in DATASETS:
        raise UserError(f"Unknown --dataset '{dataset}'; choose one of {', '.join(DATASETS)}.")
    if card and bundle is None:
        raise UserError("--card describes a bundle; export the checkpoint and give --bundle instead of --checkpoint.")
    if dataset in ("davis16", "all") and root is None:
        raise UserError(f"--dataset {dataset} needs --root, the DAVIS folder that holds JPEGImages and Annotations.")
    for option, folder in (("--root", root), ("--coco", coco)):
        if folder is not None and not folder.is_dir():
            raise UserError(f"{option} {folder} does not exist; give the folder you unpacked the data set to.")
    if json_path is not None and json_path.is_dir():
        raise UserError(f"--json {json_path} is a folder; give a file name.")
    console = console or Console()
    figures: dict[str, Any] = {
        "model": str((checkpoint or bundle or Path()).resolve().name),
        "command": _command(checkpoint, bundle, dataset, root, coco, split, expressions, every),
    }
    with _predictor(checkpoint, bundle) as predictor, _progress(console) as progress:
        if dataset in ("davis16", "all") and root is not None:
            figures["davis16"] = evaluate_davis(
                predictor, root, split=split, expressions=expressions, every=every, progress=progress
            )
        if dataset in ("synthetic", "all"):
            figures["synthetic"] = evaluate_synthetic(predictor, progress=progress)
        if dataset in ("swap", "all"):
            figures["swap"] = evaluate_swap(predictor, coco, root, expressions=expressions, progress=progress)
    _show(figures, console)
    if json_path is not None:
        _write(json_path, json.dumps(figures, indent=2) + "\n")
        console.print(f"figures: {json_path}")
    if card and bundle is not None:
        console.print(f"card: {write_card(bundle, figures, card_facts(bundle))}")
    return figures


@contextlib.contextmanager
def _predictor(checkpoint: Path | None, bundle: Path | None) -> Iterator[Predictor]:
    if checkpoint is not None:
        yield TorchSegmenter(load_checkpoint(checkpoint), device="cuda" if torch.cuda.is_available() else "cpu")
        return
    # Its own cache: what is judged is the bundle, not what an earlier run left behind.
    with tempfile.TemporaryDirectory() as folder:
        yield BundlePredictor(open_segmenter(bundle, cache_dir=folder))


def _command(
    checkpoint: Path | None,
    bundle: Path | None,
    dataset: str,
    root: Path | None,
    coco: Path | None,
    split: str,
    expressions: Path | None,
    every: int,
) -> str:
    """The command line that gives these figures again; folders by their names alone."""
    paths = {"--checkpoint": checkpoint, "--bundle": bundle, "--root": root, "--coco": coco}
    words = ["rvos-edge eval", f"--dataset {dataset}"]
    words += [f"{option} {path.resolve().name}" for option, path in paths.items() if path is not None]
    words += [f"--split {split}"] if split != "val" else []
    words += [f"--expressions {expressions.name}"] if expressions is not None else []
    words += [f"--every {every}"] if every != 1 else []
    return " ".join(words)


def _show(figures: dict[str, Any], console: Console) -> None:
    if "davis16" in figures:
        davis = figures["davis16"]
        table = Table(title=f"DAVIS-16, {davis['split']}, one frame in {davis['every']} scored, %")
        table.add_column("video", no_wrap=True)
        for name in ("J", "J recall", "J decay", "F", "next video's sentence: J", "its share of the image"):
            table.add_column(name, justify="right")
        keys = ("j", "j_recall", "j_decay", "f")
        for video, row in davis["videos"].items():
            other = row.get("shuffled", {"j": None, "foreground": None})
            table.add_row(video, *(_percent(row[k]) for k in keys), _percent(other["j"]), _percent(other["foreground"]))
        table.add_section()
        last = (davis["shuffled_j"], davis["shuffled_foreground"])
        table.add_row("mean", *(_percent(davis[key]) for key in keys), *(_percent(value) for value in last))
        console.print(table)
    if "synthetic" in figures:
        row = figures["synthetic"]
        table = Table("J", "absent sentences left empty", "objects", title="Synthetic scenes, held out, %")
        table.add_row(_percent(row["j"]), _percent(row["absent_empty"]), str(row["objects"]))
        console.print(table)
    if "swap" in figures:
        table = Table("frames", "pairs kept apart", "pairs", "images", title="Swap test, %")
        for source, row in figures["swap"].items():
            table.add_row(source, _percent(row["share"]), str(row["pairs"]), str(row["frames"]))
        console.print(table)


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"


def _write(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise UserError(f"Cannot write {path} ({error.strerror}); choose another place.") from error


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal or "CI" in os.environ,
    )
