"""``rvos-edge run`` on many files: skips what is finished, reports what fails, says how it went."""

from __future__ import annotations

import itertools
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import typer
from rich.console import Console
from rich.markup import escape

from rvos_edge.cli.options import OUTPUT_FOLDER, RunOptions
from rvos_edge.errors import UserError
from rvos_edge.progress import progress_bar
from rvos_edge.queries import labels, read_queries
from rvos_edge.streaming.batch import BatchJob
from rvos_edge.streaming.ledger import BatchLedger, plan
from rvos_edge.streaming.loop import check_frames
from rvos_edge.streaming.signals import terminate_as_interrupt, uninterrupted
from rvos_edge.streaming.sources import output_name
from rvos_edge.streaming.workers import process_files
from rvos_edge.text import check_queries

_BUG, _BAD_INPUT, _INTERRUPTED = 1, 2, 130


def run_batch(options: RunOptions, files: list[Path]) -> None:
    """Process the files that are not finished yet and print a summary.

    Raises:
        UserError: The job cannot be done at all.
        typer.Exit: With 2 if files cannot be read, with 1 if something else went wrong with one, with 130 after Ctrl-C.
    """
    job, spec = _job(options), options.source or ""
    check_queries(labels(read_queries(job.queries)))
    check_frames(job.frames)
    if not job.folders:
        job = _with_folder(job, output_name(options.source or ""), resume=options.resume)
    rows, todo, ledger = plan(job, files, resume=options.resume)
    started, frames, done, failed = time.perf_counter(), 0, 0, []
    errors, interrupted = Console(stderr=True), False
    with terminate_as_interrupt(), progress_bar(errors, hidden=options.quiet) as bar:
        task = bar.add_task(escape(spec), total=len(rows), completed=len(rows) - len(todo))
        results = process_files(job, todo, workers=1 if options.workers is None else options.workers)
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
    if not options.quiet:
        typer.echo(f"{spec}: {'; '.join(parts)}. Results are in {job.folders[0]}.")
    if interrupted:
        raise typer.Exit(_INTERRUPTED)
    if failed:
        raise typer.Exit(_BAD_INPUT if all(row["bad_input"] for row in failed) else _BUG)


def _with_folder(job: BatchJob, name: str, *, resume: bool) -> BatchJob:
    """The job with a folder of its own: that of the same work before, which goes on there, or a new one."""
    for number in itertools.count(1):
        folder = OUTPUT_FOLDER / (name if number == 1 else f"{name}-{number}")
        placed = replace(job, output=folder, json=folder)
        if not folder.exists():
            break
        if resume:
            with suppress(UserError):  # its ledger belongs to another job
                BatchLedger(placed)
                break
    return placed


def _job(options: RunOptions) -> BatchJob:
    single = {
        "--window": options.window,
        "--realtime": options.realtime,
        "--serve": options.serve is not None,
        "--raw": options.raw is not None,
        "--reconnect": options.reconnect is not None,
        "a second --output": len(options.targets) > 1,
        "--events": bool(options.events),
        "--segment": options.segment is not None,
        "--coco": options.coco is not None,
        "--dataset": options.dataset is not None,
        "--cutout": options.cutout is not None,
        "--mask-video": options.mask_video is not None,
    }
    if asked := [option for option, given in single.items() if given]:
        raise UserError(f"{options.source} names many files, which {asked[0]} is not for; leave it out, or give one.")
    return BatchJob(
        queries=options.queries,
        bundle=options.bundle,
        output=Path(options.targets[0]) if options.targets else None,
        masks=options.masks,
        json=None if options.json is None else Path(options.json),
        rle=None if options.rle is None else Path(options.rle),
        overlap=options.overlap,
        frames=options.frames,
        opacity=options.opacity,
        options=options.opening(),
    )
