"""Tables of an evaluation's results, for the terminal and for the model card; shares are in percent."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from rvos_edge.trainer.data.datasets import DATASETS
from rvos_edge.trainer.evaluate.attributes import NAMES
from rvos_edge.trainer.evaluate.scorers import DAVIS_METRICS, SETTINGS
from rvos_edge.trainer.metrics import PRECISION_THRESHOLDS

_HEADS = ("J", "recall", "decay", "F", "recall", "decay")
_MAX_VIDEOS = 60
"""Longer lists of videos are left to the JSON file."""
_SOURCES = {
    "synthetic": "held-out synthetic scenes",
    "composed": "COCO objects pasted into other frames, held-out pictures",
    "coco": "held-out COCO images",
    "rows": "two to five people or animals of one kind in a row, held-out pictures",
    "overall": "all",
}
_SHAPES = {"tall": "taller than wide", "square": "about square", "wide": "wider than tall"}
_WORDS = {"seen": "that training says", "held_out": "that the last training never says"}


@dataclass(frozen=True)
class ResultTable:
    """Rows of cells, the first of which is a label, below headings; ``note`` says how to read them."""

    title: str
    heads: tuple[str, ...]
    rows: list[tuple[str, ...]]
    note: str = ""


def result_tables(results: Mapping[str, Any]) -> Iterator[ResultTable]:
    """A table for each data set that was evaluated."""
    for name, dataset in DATASETS.items():
        if name in results:
            yield {"region": _regions, "objects": _objects, "overlap": _overlaps}[dataset.measure](name, results[name])
    if "attributes" in results.get("davis16", {}):
        yield _attributes(results["davis16"]["attributes"])
    if "synthetic" in results:
        row = results["synthetic"]
        label = f"{row['scenes']} scenes, {row['frames']} frames each"
        heads = ("synthetic", "J", "absent sentences left empty", "objects")
        cells = _row(label, row["j"], row["absent_empty"], row["objects"])
        note = "Left empty: masks below 0.5 % of the image."
        yield ResultTable("Synthetic scenes that are never trained on, %", heads, [cells], note)
    if "swap" in results:
        yield _swap(results["swap"])
    if "words" in results:
        if "taught" in results["words"]:
            yield _taught_words(results["words"])
        else:
            yield from _words(results["words"])


def folds_table(result: Mapping[str, Any]) -> ResultTable:
    """The table of ``benchmarks.folds.run_folds``; a ``note`` in it says more of the recipe."""
    rows = [("mean", result), *result["videos"].items()]
    heads = ("video", "J", "F", "another's sentence: J")
    cells = [_row(name, row["j"], row["f"], row["shuffled_j"]) for name, row in rows]
    title = f"{len(rows) - 1} videos, each answered by a network of the same recipe that was not trained on it, %"
    usual = "The recipe was chosen on these videos; weights that ship were trained on all of them."
    return ResultTable(title, heads, cells, result.get("note", usual))


def learning_table(ways: Mapping[str, Mapping[str, Any]]) -> ResultTable:
    """The table of ``benchmarks.folds.compare_learning``."""
    rows = []
    for way, row in ways.items():
        name, change = row["worst"]
        figures = (row[key] for key in ("j", "f", "drift", "shuffled_j"))
        rows.append((*_row(way, *figures), f"{name} {100 * change:+.1f}" if change else "-"))
    count = len(next(iter(ways.values()))["videos"])
    heads = ("queries", "J", "F", "drift", "another's sentence: J", "worst video")
    note = "Drift: J in the last sixth of a video less J in its first. Worst: the most that a video loses."
    title = f"Queries that learn, on {count} videos, each answered by a network that was not trained on it, %"
    return ResultTable(title, heads, rows, note)


def show(results: Mapping[str, Any], console: Console) -> None:
    """Print the tables."""
    for table in result_tables(results):
        show_table(table, console)


def show_table(table: ResultTable, console: Console) -> None:
    """Print a table."""
    shown = Table(title=table.title, caption=table.note or None)
    for number, head in enumerate(table.heads):
        shown.add_column(head, justify="right" if number else "left", no_wrap=not number)
    for row in table.rows:
        shown.add_row(*row)
    console.print(shown)


def as_markdown(table: ResultTable) -> str:
    """A table as Markdown, its title and note above it."""
    rules = ["---", *["---:"] * (len(table.heads) - 1)]
    lines = [f"| {' | '.join(cells)} |" for cells in (table.heads, rules, *table.rows)]
    return "\n".join([f"{table.title}. {table.note}".strip(), "", *lines, ""])


def percent(value: float | None) -> str:
    """A share as a percentage with one decimal; a dash for None."""
    return "-" if value is None else f"{100 * value:.1f}".replace("-0.0", "0.0")


def _row(label: str, *cells: float | None) -> tuple[str, ...]:
    """Shares as percentages, whole numbers as they are."""
    return (label, *(str(cell) if isinstance(cell, int) else percent(cell) for cell in cells))


def _davis(label: str, row: Mapping[str, Any], *further: float | None) -> tuple[str, ...]:
    return _row(label, *(row[key] for key in DAVIS_METRICS), *further)


def _title(name: str, results: Mapping[str, Any], content: str) -> str:
    scored = f", one frame in {results['every']} scored" if results["every"] != 1 else ""
    protocol = f", {results['protocol']} protocol" if results["protocol"] != "every-frame" else ""
    return f"{name}, {results['split']}: {content}{scored}{protocol}, %"


def _regions(name: str, results: Mapping[str, Any]) -> ResultTable:
    title, videos = _title(name, results, "J and F"), _listed(results["videos"])
    if "shuffled_j" not in results:
        rows = [_davis(video, row) for video, row in videos]
        return ResultTable(title, ("video", *_HEADS), [*rows, _davis("mean", results)])
    rows = []
    for video, row in videos:
        other = row.get("shuffled", {"j": None, "foreground": None})
        rows.append(_davis(video, row, other["j"], other["foreground"]))
    rows.append(_davis("mean", results, results["shuffled_j"], results["shuffled_foreground"]))
    note = (
        "Other: with an expression of the next video, J against this video's object, and share of the image; "
        f"expressions that surely name nothing in a video cover {percent(results['absent_foreground'])} % of it"
    )
    return ResultTable(title, ("video", *_HEADS, "other: J", "other: area"), rows, f"{note}.")


def _objects(name: str, results: Mapping[str, Any]) -> ResultTable:
    sets = {f"set {name}": settings["standard"] for name, settings in results["sets"].items()}
    means = {**{setting: results[setting] for setting in SETTINGS}, **sets}
    rows = [_row(label, row["j_and_f"], *(row[key] for key in DAVIS_METRICS)) for label, row in means.items()]
    for video, entry in _listed(results["videos"]):
        label, *cells = _davis(video, entry["standard"])
        rows.append((label, "", *cells))
    content = f"{results['objects']} objects, {len(sets)} sets of expressions"
    return ResultTable(_title(name, results, content), ("setting, set, video", "J&F", *_HEADS), rows)


def _overlaps(name: str, results: Mapping[str, Any]) -> ResultTable:
    heads = ("pairs", "overall IoU", "mean IoU", *(f"P@{threshold}" for threshold in PRECISION_THRESHOLDS))
    keys = ("overall_iou", "mean_iou", *(f"precision@{threshold}" for threshold in PRECISION_THRESHOLDS))
    row = _row(str(results["pairs"]), *(results[key] for key in keys))
    return ResultTable(_title(name, results, "expressions on annotated frames"), heads, [row])


def _attributes(results: Mapping[str, Any]) -> ResultTable:
    note = "The paper's column is for the 20 official validation videos; these are others: the two do not compare."
    return ResultTable(
        "DAVIS-16 by attribute: mean J, %",
        ("attribute", "J", "videos", "the paper's J"),
        [_row(f"{name} {NAMES[name]}", *row.values()) for name, row in results["rows"].items()],
        "" if results["official"] else note,
    )


def _swap(results: Mapping[str, Any]) -> ResultTable:
    return ResultTable(
        "Swap test, pairs of expressions about two objects of one frame, %",
        ("frames", "both", "each", "absent"),
        [
            _row(
                f"{_SOURCES[source]}: {row['pairs']} pairs",
                *(row[k] for k in ("share", "named_wins", "absent_foreground")),
            )
            for source, row in results.items()
        ],
        "Both: pairs in which both masks select their own object. Each: single expressions that do. Absent: share of "
        "the image covered by masks of expressions about nothing in it.",
    )


def _words(results: Mapping[str, Any]) -> Iterator[ResultTable]:
    rows = []
    for name, what in _WORDS.items():
        row, said = results[name], results[name].get("presence", {})
        label = f"{what}: {row['words']} there, {row['absent']} not"
        rows.append(_row(label, row["j"], row["absent_foreground"], *map(said.get, ("auc", "ece", "found", "false"))))
    pairs = results["pairs"]
    note = (
        "J of the mask of everything that is called so; absent: share of the image. Presence against what is there and "
        "what surely is not: area under the ROC curve, expected calibration error, and shares of true and of absent "
        f"words that are called present. Of {pairs['pairs']} pairs in one picture both keep to their own in "
        f"{percent(pairs.get('share'))} %, the named one wins in {percent(pairs.get('named_wins'))} %."
    )
    heads = ("words", "J", "absent", "presence: AUC", "calibration error", "true ones found", "absent ones found")
    yield ResultTable("Single nouns on pictures that training leaves out, %", heads, rows, note)
    curve = results["seen"].get("presence", {}).get("curve")
    if curve:
        yield _presence_curve(curve)
    if "by_shape" in results:
        shapes = [_row(_SHAPES[shape], row["words"], row["j"]) for shape, row in results["by_shape"].items()]
        yield ResultTable("The same pictures by shape, %", ("pictures", "words", "J"), shapes)


def _presence_curve(curve: Sequence[Mapping[str, Any]]) -> ResultTable:
    rows = []
    for index, row in enumerate(curve):
        label = f"{10 * index} to {10 * (index + 1)}"
        rows.append(_row(label, row["said"], row["observed"], row["true"], row["absent"]))
    note = "Bins of ten points, words that training says. Observed: share that is there, both kinds weighing the same."
    return ResultTable("Presence: said and observed, %", ("said", "mean", "observed", "there", "not there"), rows, note)


def _listed(videos: Mapping[str, Any]) -> Iterable[tuple[str, Any]]:
    return videos.items() if len(videos) <= _MAX_VIDEOS else ()


def _taught_words(results: Mapping[str, Any]) -> ResultTable:
    noun, taught, shots = results["noun"], results["taught"], results["shots"]
    rows = [_row(word, row["pictures"], row["noun"], row["taught"]) for word, row in results["by_word"].items()]
    rows.append(_row("all pictures", noun["words"], noun["j"], taught["j"]))
    rows.append(_row("absent: share drawn", noun["absent"], noun["absent_foreground"], taught["absent_foreground"]))
    title = "Words that training never says, on held-out pictures: J, %"
    return ResultTable(title, ("word", "pictures", "its noun", f"{shots} shown"), rows)
