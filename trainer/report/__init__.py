"""``rvos-edge report``: a page with the paper's figures and a table of J and F, from the user's own runs."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from rvos_edge.atomic import new_directory
from rvos_edge.errors import UserError
from rvos_edge.outputs import check_outputs
from rvos_edge.progress import progress_bar
from rvos_edge.trainer.data.readers.base import ReferringClips
from rvos_edge.trainer.evaluate.data import open_clips
from rvos_edge.trainer.evaluate.model import open_predictor
from rvos_edge.trainer.report import plots
from rvos_edge.trainer.report.page import MOST_COLUMNS, render_page
from rvos_edge.trainer.report.record import Recording, record
from rvos_edge.trainer.report.runs import ReportRun, read_runs, train_command

PAGE = "index.html"
TABLE = "report.json"
"""Results as numbers; a folder with this file is a report."""


@dataclass(frozen=True)
class ReportOptions:
    """Options of a report.

    Attributes:
        runs: ``NAME=CHECKPOINT`` each; of several runs of one variant figures show the first, the table all.
        split: A split, or names of videos separated by commas; the one that is usually judged by default.
    """

    runs: Sequence[str]
    root: Path
    dataset: str = "davis16"
    split: str | None = None
    expressions: Path | None = None
    output: Path = Path("report")
    every: int = 1
    bundle: Path | None = None

    def command(self, name: str, models: Sequence[str]) -> str:
        """A command line on the same frames, with paths as given by the user."""
        words = [f"rvos-edge {name}", *models, f"--dataset {self.dataset}", f"--root {_word(self.root)}"]
        words += [f"--split {_word(self.split)}"] if self.split is not None else []
        words += [f"--expressions {_word(self.expressions)}"] if self.expressions is not None else []
        words += [f"--every {self.every}"] if self.every != 1 else []
        return " ".join(words)


def report(options: ReportOptions, console: Console | None = None) -> Path:
    """Run checkpoints over videos and write a table, figures and a page.

    The variant of the ablation follows from a checkpoint's configuration. A figure whose variants are not among the
    runs is left out, with a note on the page. J and F are those of every query on its own.

    Raises:
        UserError: An option is out of range, two runs have one name, a file is missing or damaged, or ``output`` holds
            something else.
    """
    console = console or Console()
    output = options.output
    if options.every < 1:
        raise UserError(f"--every {options.every} is out of range; 1 scores every frame, 5 every fifth.")
    runs = read_runs(options.runs, options.bundle)
    check_outputs([output], [options.root, options.expressions, *(run.path for run in runs)])
    clips = open_clips(options.dataset, options.root, options.split, options.expressions)
    recordings = [_record(run, clips, options.every, console) for run in runs]
    table: dict[str, Any] = {
        "command": f"{options.command('report', [_model(run, 'run') for run in runs])} --output {_word(output)}",
        "data": {
            "root": options.root.resolve().name,
            "videos": list(clips.videos),
            "every": options.every,
            "frames": sum(len(frames) for frames in recordings[0].videos.values()),
        },
        "runs": [_row(recording, options) for recording in recordings],
    }
    _write(output, table, recordings, clips)
    _show(table, console)
    return output / PAGE


def _record(run: ReportRun, clips: ReferringClips, every: int, console: Console) -> Recording:
    checkpoint, bundle = (None, run.path) if run.is_bundle else (run.path, None)
    with (
        open_predictor(checkpoint, bundle, backend="onnxruntime") as predictor,
        progress_bar(console) as progress,
    ):
        task = progress.add_task(run.name, total=sum(len(clips.frames(video)) for video in clips.videos))
        return record(run, predictor, clips, every=every, on_frame=lambda: progress.advance(task))


def _row(recording: Recording, options: ReportOptions) -> dict[str, Any]:
    run = recording.run
    return {
        "name": run.name,
        "network": run.network,
        "trained": run.trained,
        "j": recording.j(),
        "f": recording.f(),
        "videos": {video: {"j": recording.j(video), "f": recording.f(video)} for video in recording.videos},
        "train": train_command(run),
        "score": options.command("eval", [_model(run, "checkpoint")]),
    }


def _model(run: ReportRun, option: str) -> str:
    if run.is_bundle:
        return f"--bundle {_word(run.path)}"
    return f"--{option} {_word(f'{run.name}={run.path}' if option == 'run' else run.path)}"


def _write(output: Path, table: dict[str, Any], recordings: Sequence[Recording], clips: ReferringClips) -> None:
    try:
        with new_directory(output) as temporary:
            drawn = [
                plots.ablation(temporary, recordings, clips),
                plots.effect_of_flow(temporary, recordings, clips),
                plots.static_objects(temporary, recordings, clips),
                plots.strips(temporary, recordings, clips),
                plots.loss_curves(temporary, [recording.run for recording in recordings]),
            ]
            (temporary / PAGE).write_text(render_page(table, drawn), encoding="utf-8")
            (temporary / TABLE).write_text(json.dumps(table, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise UserError(f"Cannot write {output} ({error.strerror}); choose another --output.") from error


def _show(table: dict[str, Any], console: Console) -> None:
    shown = Table(title="J (and F), %")
    shown.add_column("run", no_wrap=True)
    videos = table["data"]["videos"] if len(table["data"]["videos"]) <= MOST_COLUMNS else []
    for video in (*videos, "mean"):
        shown.add_column(video, justify="right")
    for run in table["runs"]:
        cells = [*(run["videos"][video] for video in videos), run]
        shown.add_row(run["name"], *(f"{100 * cell['j']:.1f} ({100 * cell['f']:.1f})" for cell in cells))
    console.print(shown)


def _word(text: str | Path) -> str:
    return shlex.quote(str(text))
