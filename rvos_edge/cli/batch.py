"""``rvos-edge run`` on many files: skips what is finished, reports what fails, says how it went."""

from __future__ import annotations

import time
from pathlib import Path

import typer
from rich.console import Console
from rich.markup import escape

from rvos_edge.errors import UserError
from rvos_edge.streaming.batch import BatchJob, check_folders, make_rows
from rvos_edge.streaming.ledger import BatchLedger
from rvos_edge.streaming.signals import terminate_as_interrupt, uninterrupted
from rvos_edge.streaming.status import progress_bar
from rvos_edge.streaming.workers import process_files
from rvos_edge.text import check_queries

_BUG, _BAD_INPUT, _INTERRUPTED = 1, 2, 130


def run_batch(spec: str, files: list[Path], job: BatchJob, *, workers: int, resume: bool) -> None:
    """Process the files that are not finished yet and print a summary.

    Raises:
        UserError: The job cannot be done at all.
        typer.Exit: With 2 if files cannot be read, with 1 if something else went wrong with one, with 130 after Ctrl-C.
    """
    check_folders(job)
    check_queries(job.queries)
    if job.frames is not None and job.frames < 1:
        raise UserError(f"--frames {job.frames}: ask for at least 1 frame of each file, or leave it out for all.")
    rows = make_rows(files)
    ledger = BatchLedger(job, resume=resume)
    todo = [row for row in rows if not ledger.finished(row)]
    started, frames, done, failed = time.perf_counter(), 0, 0, []
    errors, interrupted = Console(stderr=True), False
    with terminate_as_interrupt(), progress_bar(errors, disable=not errors.is_terminal) as bar:
        task = bar.add_task(escape(spec), total=len(rows), completed=len(rows) - len(todo))
        results = process_files(job, todo, workers=workers)
        try:
            for row in results:
                bar.advance(task)
                if row["error"]:
                    failed.append(row)
                    bar.console.print(f"[red]{escape(row['source'])}: {escape(row['error'])}[/]", soft_wrap=True)
                    continue
                with uninterrupted():
                    ledger.add(row)
                    done += 1
                    frames += row["frames"]
        except KeyboardInterrupt:
            interrupted = True
        finally:
            results.close()
    seconds = time.perf_counter() - started
    parts = [f"{done} of {len(rows)} files done, {frames} frames at {frames / seconds:.1f} frames per second"]
    if len(rows) > len(todo):
        parts.append(f"{len(rows) - len(todo)} were finished before")
    if failed:
        parts.append(f"{len(failed)} failed")
    if interrupted:
        parts.append("interrupted: the same command goes on from here")
    typer.echo(f"{spec}: {'; '.join(parts)}.")
    if interrupted:
        raise typer.Exit(_INTERRUPTED)
    if failed:
        raise typer.Exit(_BAD_INPUT if all(row["bad_input"] for row in failed) else _BUG)
