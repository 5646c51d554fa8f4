"""``rvos-edge report``: the paper's figures and a table of J and F, from runs of our own, as one page."""

from __future__ import annotations

import json
import os
import shlex
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from rvos_edge.errors import UserError
from rvos_edge.trainer.data.clips import ReferringClips
from rvos_edge.trainer.evaluate_model import open_predictor
from rvos_edge.trainer.report import figures
from rvos_edge.trainer.data.davis import Davis16Clips
from rvos_edge.trainer.report.page import render_page
from rvos_edge.trainer.report.record import Recording, record
from rvos_edge.trainer.report.runs import Run, read_runs, train_command

PAGE = "index.html"
TABLE = "report.json"
"""The figures as numbers; by this file a folder is known to be a report."""


def report(
    runs: Sequence[str],
    root: Path,
    *,
    split: str = "dev",
    videos: Sequence[str] | None = None,
    expressions: Path | None = None,
    output: Path = Path("report"),
    every: int = 1,
    bundle: Path | None = None,
    console: Console | None = None,
) -> Path:
    """Run checkpoints over DAVIS-16 videos and write what they answered: a table, the figures and a page.

    A checkpoint's configuration says which variant of the ablation it is; a figure whose variants are not among the
    runs is left out, and the page says so.

    Args:
        runs: ``NAME=CHECKPOINT`` each; of two of the same variant the figures show the first, the table all.
        root: The DAVIS folder.
        split: "dev", "val", "train" or "all".
        videos: These videos instead of a split.
        expressions: The sentences; those in ``root`` when None.
        output: The folder of the report; an older report there is replaced when the new one is whole.
        every: Score every n-th frame; all are seen.
        bundle: A bundle to stand beside the checkpoints.
        console: Where the progress bars and the table are drawn.

    Returns:
        The page.

    Raises:
        UserError: An option out of range, two runs of one name, a missing or damaged file, or ``output`` is no report.

    Example:
        >>> report(["both=runs/both/checkpoint"], Path("DAVIS"), every=5)  # doctest: +SKIP
    """
    console = console or Console()
    if every < 1:
        raise UserError(f"--every {every} is out of range; 1 scores every frame, 5 every fifth.")
    if output.exists() and not (output / TABLE).is_file():
        raise UserError(f"{output} exists and is not a report; choose another --output.")
    known = read_runs(runs, bundle)
    clips = Davis16Clips(root, split=split, expressions=expressions, videos=videos)
    recordings = [_record(run, clips, every, console) for run in known]
    asked = [f"--run {shlex.quote(f'{run.name}={run.path}')}" for run in known if not run.is_bundle]
    asked += [f"--bundle {_word(bundle)}"] if bundle is not None else []
    over = _command("report", split, videos, expressions, every, root)
    command = [over[0], *asked, *over[1:], f"--output {_word(output)}"]
    table: dict[str, Any] = {
        "command": " ".join(command),
        "data": {
            "root": root.resolve().name,
            "videos": list(clips.videos),
            "every": every,
            "frames": sum(len(frames) for frames in recordings[0].videos.values()),
        },
        "runs": [
            _row(recording, " ".join(_command("eval", split, videos, expressions, every, root, recording.run)))
            for recording in recordings
        ],
    }
    _write(output, table, recordings, clips)
    _show(table, console)
    return output / PAGE


def _record(run: Run, clips: ReferringClips, every: int, console: Console) -> Recording:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    checkpoint, bundle = (None, run.path) if run.is_bundle else (run.path, None)
    hidden = not console.is_terminal or "CI" in os.environ
    with (
        open_predictor(checkpoint, bundle) as predictor,
        Progress(*columns, console=console, disable=hidden) as progress,
    ):
        task = progress.add_task(run.name, total=sum(len(clips.frames(video)) for video in clips.videos))
        return record(run, predictor, clips, every=every, on_frame=lambda: progress.advance(task))


def _command(
    name: str,
    split: str,
    videos: Sequence[str] | None,
    expressions: Path | None,
    every: int,
    root: Path,
    run: Run | None = None,
) -> list[str]:
    """The words of a command over these videos; paths as the user gave them."""
    words = [f"rvos-edge {name}"]
    if run is not None:
        words += ["--dataset davis16", f"--{'bundle' if run.is_bundle else 'checkpoint'} {_word(run.path)}"]
    words.append(f"--root {_word(root)}")
    if videos is None:
        words.append(f"--split {split}")
    else:
        words.append(f"--{'videos' if run is None else 'split'} {shlex.quote(','.join(videos))}")
    words += [f"--expressions {_word(expressions)}"] if expressions is not None else []
    return words + ([f"--every {every}"] if every != 1 else [])


def _row(recording: Recording, score: str) -> dict[str, Any]:
    run = recording.run
    return {
        "name": run.name,
        "network": run.network,
        "trained": run.trained,
        "j": recording.j(),
        "f": recording.f(),
        "videos": {video: {"j": recording.j(video), "f": recording.f(video)} for video in recording.videos},
        "train": train_command(run),
        "score": score,
    }


def _write(output: Path, table: dict[str, Any], recordings: Sequence[Recording], clips: ReferringClips) -> None:
    temporary = output.with_name(f".{output.name}.part")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir(parents=True)
        drawn = [
            figures.ablation(temporary, recordings, clips),
            figures.effect_of_flow(temporary, recordings, clips),
            figures.static_objects(temporary, recordings, clips),
            figures.strips(temporary, recordings, clips),
            figures.loss_curves(temporary, [recording.run for recording in recordings]),
        ]
        (temporary / PAGE).write_text(render_page(table, drawn), encoding="utf-8")
        (temporary / TABLE).write_text(json.dumps(table, indent=2) + "\n", encoding="utf-8")
        if output.exists():
            shutil.rmtree(output)
        os.replace(temporary, output)
    except OSError as error:
        raise UserError(f"Cannot write {output} ({error.strerror}); choose another --output.") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _show(table: dict[str, Any], console: Console) -> None:
    shown = Table(title="J (and F), %")
    shown.add_column("run", no_wrap=True)
    for video in (*table["data"]["videos"], "mean"):
        shown.add_column(video, justify="right")
    for run in table["runs"]:
        cells = [*run["videos"].values(), run]
        shown.add_row(run["name"], *(f"{100 * cell['j']:.1f} ({100 * cell['f']:.1f})" for cell in cells))
    console.print(shown)


def _word(path: Path) -> str:
    return shlex.quote(str(path))
