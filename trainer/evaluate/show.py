"""Terminal tables of an evaluation."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from rvos_edge.trainer.evaluate.attributes import NAMES
from rvos_edge.trainer.evaluate.scorers import DAVIS_METRICS, SETTINGS
from rvos_edge.trainer.evaluate.video import MEASURES
from rvos_edge.trainer.metrics import PRECISION_THRESHOLDS

_HEADS = ("J", "recall", "decay", "F", "recall", "decay")
_SHUFFLED = ("other: J", "area")
_MAX_VIDEOS = 60
"""Longer lists of videos are left to the JSON file."""


def show(results: Mapping[str, Any], console: Console) -> None:
    """Print a table per evaluated data set; all numbers in percent."""
    for name, measure in MEASURES.items():
        if name in results:
            {"region": _regions, "objects": _objects, "overlap": _overlaps}[measure](name, results[name], console)
    if "attributes" in results.get("davis16", {}):
        _attributes(results["davis16"]["attributes"], console)
    if "synthetic" in results:
        row = results["synthetic"]
        table = Table("J", "absent sentences left empty", "objects", title="Synthetic scenes, held out, %")
        table.add_row(percent(row["j"]), percent(row["absent_empty"]), str(row["objects"]))
        console.print(table)
    if "swap" in results:
        heads = ("frames", "both correct", "each correct", "pairs", "images", "absent: of the image")
        table = Table(*heads, title="Swap test, %")
        for source, row in results["swap"].items():
            shares = (percent(row["share"]), percent(row["named_wins"]))
            counts = (str(row["pairs"]), str(row["frames"]))
            table.add_row(source, *shares, *counts, percent(row["absent_foreground"]))
        console.print(table)
    if "words" in results:
        _words(results["words"], console)


def _words(figures: Mapping[str, Any], console: Console) -> None:
    heads = ("J", "words", "absent: of the image", "presence: AUC", "calibration error", "found", "false")
    table = _table("Single words on held-out pictures, %", "words", heads)
    for name in ("seen", "held_out"):
        row = figures[name]
        said = row.get("presence", {})
        presence = [percent(said.get(key)) for key in ("auc", "ece", "found", "false")]
        table.add_row(name, percent(row["j"]), str(row["words"]), percent(row["absent_foreground"]), *presence)
    pairs = figures["pairs"]
    shares = (percent(pairs.get("share")), percent(pairs.get("named_wins")))
    table.caption = (
        f"{pairs['pairs']} pairs in one picture: both keep to their own {shares[0]}, the named one wins {shares[1]}"
    )
    console.print(table)


def progress_bar(console: Console) -> Progress:
    """A progress bar with the remaining time, hidden where the console is not a terminal."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal or "CI" in os.environ,
    )


def percent(value: float | None) -> str:
    """A share as a percentage with one decimal; a dash for None."""
    return "-" if value is None else f"{100 * value:.1f}"


def _title(name: str, results: Mapping[str, Any], content: str) -> str:
    scored = f", one frame in {results['every']} scored" if results["every"] != 1 else ""
    protocol = f", {results['protocol']} protocol" if results["protocol"] != "unsupervised" else ""
    return f"{name}, {results['split']}: {content}{scored}{protocol}, %"


def _table(title: str, first: str, heads: tuple[str, ...]) -> Table:
    table = Table(title=title)
    table.add_column(first, no_wrap=True)
    for head in heads:
        table.add_column(head, justify="right")
    return table


def _regions(name: str, results: Mapping[str, Any], console: Console) -> None:
    shuffled = "shuffled_j" in results
    table = _table(_title(name, results, "J and F"), "video", (*_HEADS, *_SHUFFLED) if shuffled else _HEADS)
    for video, row in _listed(results["videos"]).items():
        other = row.get("shuffled", {"j": None, "foreground": None})
        cells = [row[key] for key in DAVIS_METRICS] + ([other["j"], other["foreground"]] if shuffled else [])
        table.add_row(video, *map(percent, cells))
    table.add_section()
    if shuffled:
        table.caption = "other: with an expression of the next video, J against this video's object, share of the image"
    last = [results["shuffled_j"], results["shuffled_foreground"]] if shuffled else []
    table.add_row("mean", *map(percent, [*(results[key] for key in DAVIS_METRICS), *last]))
    console.print(table)


def _objects(name: str, results: Mapping[str, Any], console: Console) -> None:
    content = f"{results['objects']} objects, {len(results['sets'])} sets of expressions"
    table = _table(_title(name, results, content), "setting", ("J&F", *_HEADS))
    for setting in SETTINGS:
        row = results[setting]
        table.add_row(setting, *map(percent, [row["j_and_f"], *(row[key] for key in DAVIS_METRICS)]))
    table.add_section()
    for runs, settings in results["sets"].items():
        row = settings["standard"]
        table.add_row(f"set {runs}", *map(percent, [row["j_and_f"], *(row[key] for key in DAVIS_METRICS)]))
    table.add_section()
    for video, entry in _listed(results["videos"]).items():
        row = entry["standard"]
        table.add_row(video, "", *map(percent, [row[key] for key in DAVIS_METRICS]))
    console.print(table)


def _overlaps(name: str, results: Mapping[str, Any], console: Console) -> None:
    heads = ("overall IoU", "mean IoU", *(f"P@{threshold}" for threshold in PRECISION_THRESHOLDS))
    table = _table(_title(name, results, "expressions on annotated frames"), "pairs", heads)
    keys = ("overall_iou", "mean_iou", *(f"precision@{threshold}" for threshold in PRECISION_THRESHOLDS))
    table.add_row(str(results["pairs"]), *(percent(results[key]) for key in keys))
    console.print(table)


def _attributes(results: Mapping[str, Any], console: Console) -> None:
    rows = results["rows"]
    table = _table("DAVIS-16 by attribute: mean J, %", "attribute", ("J", "videos", "the paper's J"))
    for name, row in rows.items():
        table.add_row(f"{name} {NAMES[name]}", percent(row["j"]), str(row["videos"]), percent(row["paper"]))
    if not results["official"]:
        table.caption = (
            "The paper's column is for the 20 official validation videos; these are others: the two do not compare."
        )
    console.print(table)


def _listed(videos: Mapping[str, Any]) -> Mapping[str, Any]:
    return videos if len(videos) <= _MAX_VIDEOS else {}
