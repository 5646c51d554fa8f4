"""``rvos-edge report``: a page with the paper's figures and tables, from the user's own runs."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from rvos_edge.atomic import new_directory
from rvos_edge.errors import UserError
from rvos_edge.outputs import check_outputs
from rvos_edge.trainer.data.datasets import DATASETS, open_clips
from rvos_edge.trainer.data.readers.base import AnnotatedClips, few
from rvos_edge.trainer.data.readers.davis16 import VALIDATION_VIDEOS
from rvos_edge.trainer.evaluate.tables import ResultTable, show_table
from rvos_edge.trainer.report import plots
from rvos_edge.trainer.report.choose import Frames
from rvos_edge.trainer.report.page import render_page
from rvos_edge.trainer.report.record import Recording, record_run
from rvos_edge.trainer.report.runs import ReportRun, differences, read_runs, train_command, trained_videos
from rvos_edge.trainer.report.tables import as_csv, as_latex, read_published, report_tables

PAGE = "index.html"
TABLE = "report.json"
"""Results as numbers; a folder with this file is a report."""


@dataclass(frozen=True)
class ReportOptions:
    """Options of a report.

    Attributes:
        runs: ``NAME=CHECKPOINT`` each; each is a row of the tables and a column of the figures.
        split: A split, or names of videos separated by commas; the one that is usually judged by default.
        frames: Number of frames per video that figures show, or VIDEO:FRAME or VIDEO:FRAME:QUERY with commas.
        cache: Folder of the recordings: masks and scores by run, video and split, so that another report of them does
            not run the networks again.
        baselines: A file of published results, whose rows are shown below those of the runs.
    """

    runs: Sequence[str]
    root: Path
    dataset: str = "davis16"
    split: str | None = None
    expressions: Path | None = None
    output: Path = Path("report")
    every: int = 1
    bundle: Path | None = None
    frames: str = "5"
    cache: Path = Path("runs/recordings")
    baselines: Path | None = None

    def command(self, name: str, models: Sequence[str]) -> str:
        """A command line on the same frames, with paths as given by the user."""
        words = [f"rvos-edge {name}", *models, f"--dataset {self.dataset}", f"--root {_word(self.root)}"]
        words += [f"--split {_word(self.split)}"] if self.split is not None else []
        words += [f"--expressions {_word(self.expressions)}"] if self.expressions is not None else []
        words += [f"--every {self.every}"] if self.every != 1 else []
        return " ".join(words)


def report(options: ReportOptions, console: Console | None = None) -> Path:
    """Run checkpoints over the videos of a data set, and write tables, figures and a page.

    Every run has a column with its name in the figures. A figure for which runs are missing is left out, with a note on
    the page.

    Raises:
        UserError: An option is out of range, two runs have one name, a file is missing or damaged, or ``output`` holds
            something else.
    """
    console = console or Console()
    if options.every < 1:
        raise UserError(f"--every {options.every} is out of range; 1 scores every frame, 5 every fifth.")
    if not options.root.is_dir():
        raise UserError(f"--root {options.root} does not exist; give the folder you unpacked the data set to.")
    frames = Frames.parse(options.frames)
    runs = read_runs(options.runs, options.bundle)
    check_outputs([options.output], [options.root, options.expressions, options.cache, *(run.path for run in runs)])
    clips = open_clips(options.dataset, options.root, options.split, options.expressions)
    published = read_published(options.dataset, options.baselines)
    recordings = [
        record_run(run, clips, options.dataset, every=options.every, cache=options.cache, console=console)
        for run in runs
    ]
    frames.examples(recordings[0], clips)  # refused before anything is drawn
    tables, notes = report_tables(recordings, options.dataset, options.root, published)
    content = _content(options, recordings, clips)
    _write(options.output, recordings, clips, frames, content, tables, notes)
    for warning in [*content["warnings"], *notes]:
        console.print(warning, style="yellow", markup=False, highlight=False, soft_wrap=True)
    show_table(tables["results"], console)
    return options.output / PAGE


def _content(options: ReportOptions, recordings: Sequence[Recording], clips: AnnotatedClips) -> dict[str, Any]:
    runs = [recording.run for recording in recordings]
    shown = [] if options.frames == ReportOptions.frames else [f"--frames {_word(options.frames)}"]
    shown += [] if options.baselines is None else [f"--baselines {_word(options.baselines)}"]
    words = [options.command("report", [_model(run, "run") for run in runs]), *shown]
    seen = {run.name: trained_videos(run, options.dataset, clips) for run in runs}
    return {
        "command": " ".join([*words, f"--output {_word(options.output)}"]),
        "data": {
            "root": options.root.resolve().name,
            "dataset": options.dataset,
            "split": options.split or DATASETS[options.dataset].split,
            "videos": list(recordings[0].videos),
            "every": options.every,
            "frames": sum(len(video.frames) for video in recordings[0].videos.values()),
        },
        "warnings": [
            *_unofficial(options, clips),
            *(
                f"Warning: {name} was trained on {len(videos)} of the {len(clips.videos)} videos of this report "
                f"({few(videos)}): its results on them say nothing about new videos."
                for name, videos in seen.items()
                if videos
            ),
        ],
        "runs": [
            {
                "name": run.name,
                "network": dict(run.network),
                "differs": unlike,
                "trained": run.trained,
                "trained_on": seen[run.name],
                "results": recording.results,
                "train": train_command(run),
                "score": options.command("eval", [_model(run, "checkpoint")]),
            }
            for run, recording, unlike in zip(runs, recordings, differences(runs), strict=True)
        ],
    }


def _unofficial(options: ReportOptions, clips: AnnotatedClips) -> list[str]:
    """A warning where the development split stands for the official validation videos."""
    if (
        options.dataset != "davis16"
        or options.split not in (None, "val")
        or not set(clips.videos) <= set(VALIDATION_VIDEOS)
    ):
        return []
    return [
        f"Warning: {options.root} has no ImageSets/480p/val.txt: these are videos of the official training split that "
        "our development split keeps from training, not the official validation videos."
    ]


def _model(run: ReportRun, option: str) -> str:
    if run.is_bundle:
        return f"--bundle {_word(run.path)}"
    return f"--{option} {_word(f'{run.name}={run.path}' if option == 'run' else run.path)}"


def _write(
    output: Path,
    recordings: Sequence[Recording],
    clips: AnnotatedClips,
    frames: Frames,
    content: Mapping[str, Any],
    tables: Mapping[str, ResultTable],
    notes: Sequence[str],
) -> None:
    try:
        with new_directory(output) as temporary:
            figures = [
                plots.ablation(temporary, recordings, clips, frames),
                plots.effect_of_flow(temporary, recordings, clips),
                plots.static_objects(temporary, recordings, clips, frames),
                plots.sheets(temporary, recordings, clips, frames),
                plots.loss_curves(temporary, [recording.run for recording in recordings]),
            ]
            for name, table in tables.items():
                (temporary / f"{name}.csv").write_text(as_csv(table), encoding="utf-8")
                (temporary / f"{name}.tex").write_text(as_latex(table), encoding="utf-8")
            (temporary / PAGE).write_text(render_page(content, tables, notes, figures), encoding="utf-8")
            (temporary / TABLE).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise UserError(f"Cannot write {output} ({error.strerror}); choose another --output.") from error


def _word(text: str | Path) -> str:
    return shlex.quote(str(text))
