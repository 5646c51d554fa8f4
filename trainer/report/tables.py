"""Tables of a report: its runs, the measures of the data set, each video, and the paper's Table 1; as CSV and LaTeX."""

from __future__ import annotations

import csv
import io
import re
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from rvos_edge.errors import UserError
from rvos_edge.trainer.data.datasets import DATASETS
from rvos_edge.trainer.evaluate.attributes import PAPER, attribute_table, find_attributes
from rvos_edge.trainer.evaluate.scorers import SETTINGS
from rvos_edge.trainer.evaluate.tables import ResultTable, percent
from rvos_edge.trainer.metrics import PRECISION_THRESHOLDS
from rvos_edge.trainer.report.record import Recording
from rvos_edge.trainer.report.runs import differences, seed_groups

_REGION = {
    "J": "j",
    "J recall": "j_recall",
    "J decay": "j_decay",
    "F": "f",
    "F recall": "f_recall",
    "F decay": "f_decay",
}
_OVERLAP = {"overall IoU": "overall_iou", "mean IoU": "mean_iou"} | {
    f"P@{threshold}": f"precision@{threshold}" for threshold in PRECISION_THRESHOLDS
}
_PUBLISHED = Path(__file__).with_name("published.yaml")

Published = Mapping[str, Mapping[str, Any]]
"""Published results by method: per cent by column, and their ``source``."""
_MOST_DIFFERENCES = 8
_LATEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$"} | {
    letter: f"\\{letter}" for letter in "&%$#_{}"
}


def read_published(dataset: str, own: Path | None = None) -> Published:
    """Published results on a data set: those of published.yaml, and of a file of the user's in the same form.

    Raises:
        UserError: The file is not of that form.
    """
    found: dict[str, Mapping[str, Any]] = {}
    for file in (_PUBLISHED, *([] if own is None else [own])):
        try:
            methods = (yaml.safe_load(file.read_text(encoding="utf-8")) or {}).get(dataset, {})
            cells = [(key, value) for values in methods.values() for key, value in values.items() if key != "source"]
        except (OSError, UnicodeDecodeError, yaml.YAMLError, AttributeError) as error:
            raise UserError(f"--baselines {file} cannot be read; write it as {_PUBLISHED} is.") from error
        columns = _columns(dataset)
        for key, value in cells:
            if key not in columns or not isinstance(value, int | float):
                raise UserError(
                    f"--baselines {file}: '{key}: {value}' of {dataset} is not a number of a column; the columns are "
                    f"{'; '.join(columns)}."
                )
        found |= methods
    return found


def report_tables(
    recordings: Sequence[Recording], dataset: str, root: Path, published: Published
) -> tuple[dict[str, ResultTable], list[str]]:
    """The tables by the names of their files, and notes about what is missing.

    Raises:
        UserError: db_info.yml is damaged.
    """
    tables = {"runs": _runs(recordings), "results": _results(recordings, dataset, published)}
    for name, of_video in _by_video(dataset).items():
        file = f"videos-{name.lower().replace(' ', '-')}"
        tables[file] = _videos(recordings, name, of_video)
    if dataset != "davis16":
        return tables, []
    path = find_attributes(root)
    if path is None:
        return tables, [
            f"Table 1 (J by attribute) is left out: {root} has no db_info.yml; it comes with the official DAVIS-2016 "
            "and belongs into this folder or into Annotations."
        ]
    tables["table-1"] = _attributes(recordings, path)
    return tables, []


def as_csv(table: ResultTable) -> str:
    """A table as CSV."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([table.heads, *table.rows])
    return text.getvalue()


def as_latex(table: ResultTable) -> str:
    """A table as a LaTeX ``tabular`` with the rules of the package booktabs."""
    lines = [" & ".join(map(_escape, cells)) + r" \\" for cells in (table.heads, *table.rows)]
    columns = "l" + "r" * (len(table.heads) - 1)
    comment = "% " + " ".join(f"{table.title}. {table.note}".split())
    begin = [comment, rf"\begin{{tabular}}{{{columns}}}", r"\toprule", lines[0], r"\midrule"]
    return "\n".join([*begin, *lines[1:], r"\bottomrule", r"\end{tabular}", ""])


def _runs(recordings: Sequence[Recording]) -> ResultTable:
    runs = [recording.run for recording in recordings]
    rows: list[tuple[str, ...]] = []
    for run, unlike in zip(runs, differences(runs), strict=True):
        listed = [f"{key}={value}" for key, value in unlike.items()]
        more = len(listed) - _MOST_DIFFERENCES
        told = ", ".join(listed[:_MOST_DIFFERENCES]) + (f" and {more} more" if more > 0 else "")
        network = f"{run.network['preset']}, {run.fusion}, flow {run.flow}" + (" (bundle)" if run.is_bundle else "")
        rows.append((run.name, network, told or ("nothing" if len(runs) > 1 else "-"), run.trained))
    return ResultTable("Runs", ("run", "network", "what differs", "trained"), rows)


def _results(recordings: Sequence[Recording], dataset: str, published: Published) -> ResultTable:
    measured = [_measures(recording.results, dataset) for recording in recordings]
    names = [recording.run.name for recording in recordings]
    rows = [(name, *map(percent, values.values())) for name, values in zip(names, measured, strict=True)]
    for group in seed_groups([recording.run for recording in recordings]):
        spread = [_spread([measured[number][key] for number in group]) for key in measured[0]]
        rows.append((f"mean of {', '.join(names[number] for number in group)}", *spread))
    notes = ["± is the standard deviation over runs that differ in their seed alone."] if len(rows) > len(names) else []
    for name, values in published.items():
        rows.append((name, *(f"{values[key]:.1f}" if key in values else "-" for key in measured[0])))
        notes += [f"{name}: {values['source']}."] if "source" in values else []
    return ResultTable(f"Results on {dataset}, %", ("run", *measured[0]), rows, " ".join(notes))


def _videos(recordings: Sequence[Recording], measure: str, of_video: Callable[[Mapping[str, Any]], Any]) -> ResultTable:
    """Values of every run by video, and paired differences of the later runs to the first."""
    videos = list(recordings[0].results["videos"])
    values = [[of_video(recording.results["videos"][video]) for video in videos] for recording in recordings]
    gaps = [
        [None if None in pair else pair[1] - pair[0] for pair in zip(values[0], row, strict=True)] for row in values[1:]
    ]
    columns = [*values, *gaps]
    rows = [(video, *(percent(column[number]) for column in columns)) for number, video in enumerate(videos)]
    rows.append(("mean over videos", *(_spread(column, only_mean=True) for column in columns)))
    blank = ("",) * len(values)
    if gaps:
        rows.append(("deviation over videos", *blank, *(_deviation(gap) for gap in gaps)))
        better = [f"{sum(value > 0 for value in gap if value is not None)} of {len(gap)}" for gap in gaps]
        rows.append(("better in", *blank, *better))
    names = [recording.run.name for recording in recordings]
    heads = ("video", *names, *(f"{name} - {names[0]}" for name in names[1:]))
    note = "Differences are paired: the same frames and expressions." if gaps else ""
    return ResultTable(f"{measure} by video, %", heads, rows, note)


def _attributes(recordings: Sequence[Recording], path: Path) -> ResultTable:
    rows: list[tuple[str, ...]] = []
    for recording in recordings:
        found = attribute_table(path, {video: row["j"] for video, row in recording.results["videos"].items()})
        rows.append((recording.run.name, *(percent(row["j"]) for row in found["rows"].values())))
    rows.append(("HINet (paper)", *map(percent, PAPER.values())))
    rows.append(("videos here", *(str(row["videos"]) for row in found["rows"].values())))
    note = "" if found["official"] else "The paper's row is for the 20 validation videos, which these are not."
    if found["unlisted"]:
        note += f" {path.name} does not list {', '.join(found['unlisted'])}."
    return ResultTable("Table 1. J by attribute, %", ("run", *PAPER), rows, note.strip())


def _measures(results: Mapping[str, Any], dataset: str) -> dict[str, float | None]:
    columns = _columns(dataset).items()
    return {name: results[setting][key] if setting else results[key] for name, (setting, key) in columns}


def _columns(dataset: str) -> dict[str, tuple[str, str]]:
    """Setting, or "", and key of a data set's measures by their columns."""
    if DATASETS[dataset].measure == "objects":
        keys = {"J&F": "j_and_f", "J": "j", "F": "f"}
        return {f"{name}, {setting}": (setting, key) for setting in SETTINGS for name, key in keys.items()}
    return {name: ("", key) for name, key in (_REGION if DATASETS[dataset].measure == "region" else _OVERLAP).items()}


def _by_video(dataset: str) -> dict[str, Callable[[Mapping[str, Any]], Any]]:
    if DATASETS[dataset].measure == "overlap":
        return {"mean IoU": lambda row: row["mean_iou"]}
    if DATASETS[dataset].measure == "objects":
        return {"J": lambda row: row["standard"]["j"], "F": lambda row: row["standard"]["f"]}
    return {"J": lambda row: row["j"], "F": lambda row: row["f"]}


def _spread(values: Sequence[float | None], *, only_mean: bool = False) -> str:
    """Mean and standard deviation in percent."""
    numbers = [value for value in values if value is not None]
    middle = percent(statistics.mean(numbers)) if numbers else "-"
    return middle if only_mean or len(numbers) < 2 else f"{middle} ± {_deviation(values)}"


def _deviation(values: Sequence[float | None]) -> str:
    numbers = [value for value in values if value is not None]
    return percent(statistics.stdev(numbers)) if len(numbers) > 1 else "-"


def _escape(text: str) -> str:
    return re.sub(r"[\\~^±&%$#_{}]", lambda match: _LATEX[match[0]], text)
