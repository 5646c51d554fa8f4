"""Figures as tables on the terminal."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from rvos_edge.trainer.evaluate.attributes import NAMES
from rvos_edge.trainer.evaluate.scorers import FIGURES, SETTINGS
from rvos_edge.trainer.evaluate.video import MEASURES
from rvos_edge.trainer.metrics import PRECISION_THRESHOLDS

_HEADS = ("J", "recall", "decay", "F", "recall", "decay")
_FOREIGN = ("other: J", "area")
_MOST = 60
"""A longer list of videos is left to the JSON file."""


def show(figures: Mapping[str, Any], console: Console) -> None:
    """Print a table for everything that was evaluated; all numbers in percent."""
    for name, measure in MEASURES.items():
        if name in figures:
            {"region": _regions, "objects": _objects, "overlap": _overlaps}[measure](name, figures[name], console)
    if "attributes" in figures.get("davis16", {}):
        _attributes(figures["davis16"]["attributes"], console)
    if "synthetic" in figures:
        row = figures["synthetic"]
        table = Table("J", "absent sentences left empty", "objects", title="Synthetic scenes, held out, %")
        table.add_row(percent(row["j"]), percent(row["absent_empty"]), str(row["objects"]))
        console.print(table)
    if "swap" in figures:
        heads = ("frames", "both keep to their own", "the named one wins", "pairs", "images", "absent: of the image")
        table = Table(*heads, title="Swap test, %")
        for source, row in figures["swap"].items():
            shares = (percent(row["share"]), percent(row["named_wins"]))
            counts = (str(row["pairs"]), str(row["frames"]))
            table.add_row(source, *shares, *counts, percent(row["absent_foreground"]))
        console.print(table)


def progress_bar(console: Console) -> Progress:
    """A bar with the time that is left; hidden where nobody looks."""
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


def _title(name: str, figures: Mapping[str, Any], what: str) -> str:
    scored = f", one frame in {figures['every']} scored" if figures["every"] != 1 else ""
    protocol = f", {figures['protocol']} protocol" if figures["protocol"] != "unsupervised" else ""
    return f"{name}, {figures['split']}: {what}{scored}{protocol}, %"


def _table(title: str, first: str, heads: tuple[str, ...]) -> Table:
    table = Table(title=title)
    table.add_column(first, no_wrap=True)
    for head in heads:
        table.add_column(head, justify="right")
    return table


def _regions(name: str, figures: Mapping[str, Any], console: Console) -> None:
    shuffled = "shuffled_j" in figures
    table = _table(_title(name, figures, "J and F"), "video", (*_HEADS, *_FOREIGN) if shuffled else _HEADS)
    for video, row in _listed(figures["videos"]).items():
        other = row.get("shuffled", {"j": None, "foreground": None})
        cells = [row[key] for key in FIGURES] + ([other["j"], other["foreground"]] if shuffled else [])
        table.add_row(video, *map(percent, cells))
    table.add_section()
    if shuffled:
        table.caption = "other: asked with the next video's sentence, J against this video's object, share of the image"
    last = [figures["shuffled_j"], figures["shuffled_foreground"]] if shuffled else []
    table.add_row("mean", *map(percent, [*(figures[key] for key in FIGURES), *last]))
    console.print(table)


def _objects(name: str, figures: Mapping[str, Any], console: Console) -> None:
    what = f"{figures['objects']} objects, {len(figures['sets'])} sets of expressions"
    table = _table(_title(name, figures, what), "setting", ("J&F", *_HEADS))
    for setting in SETTINGS:
        row = figures[setting]
        table.add_row(setting, *map(percent, [row["j_and_f"], *(row[key] for key in FIGURES)]))
    table.add_section()
    for runs, settings in figures["sets"].items():
        row = settings["standard"]
        table.add_row(f"set {runs}", *map(percent, [row["j_and_f"], *(row[key] for key in FIGURES)]))
    table.add_section()
    for video, entry in _listed(figures["videos"]).items():
        row = entry["standard"]
        table.add_row(video, "", *map(percent, [row[key] for key in FIGURES]))
    console.print(table)


def _overlaps(name: str, figures: Mapping[str, Any], console: Console) -> None:
    heads = ("overall IoU", "mean IoU", *(f"P@{threshold}" for threshold in PRECISION_THRESHOLDS))
    table = _table(_title(name, figures, "expressions on annotated frames"), "pairs", heads)
    keys = ("overall_iou", "mean_iou", *(f"precision@{threshold}" for threshold in PRECISION_THRESHOLDS))
    table.add_row(str(figures["pairs"]), *(percent(figures[key]) for key in keys))
    console.print(table)


def _attributes(figures: Mapping[str, Any], console: Console) -> None:
    rows = figures["rows"]
    table = _table("DAVIS-16 by attribute: mean J, %", "attribute", ("J", "videos", "the paper's J"))
    for name, row in rows.items():
        table.add_row(f"{name} {NAMES[name]}", percent(row["j"]), str(row["videos"]), percent(row["paper"]))
    if not figures["official"]:
        table.caption = (
            "The paper's column is for the 20 official validation videos; these are others: the two do not compare."
        )
    console.print(table)


def _listed(videos: Mapping[str, Any]) -> Mapping[str, Any]:
    return videos if len(videos) <= _MOST else {}
