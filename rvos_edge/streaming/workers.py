"""The files of a batch in this process or in several, each of which opens the bundle once and takes file after file."""

from __future__ import annotations

import os
import signal
import warnings
from collections.abc import Generator, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from multiprocessing import connection, get_context, resource_tracker
from multiprocessing.process import BaseProcess
from types import FrameType

from tokenizers import Tokenizer

from rvos_edge.bundle import Bundle
from rvos_edge.catalogue import find_bundle
from rvos_edge.engines.registry import settled_backend
from rvos_edge.errors import UserError
from rvos_edge.language import QueryWarning, warn_of
from rvos_edge.queries import doubts, read_queries
from rvos_edge.streaming.batch import BatchJob, BatchRow, FileProcessor
from rvos_edge.streaming.signals import blocked_for_children

_PATIENCE = 5.0
"""Seconds for a worker to remove its unfinished outputs."""


def process_files(job: BatchJob, rows: Sequence[BatchRow], *, workers: int = 1) -> Generator[BatchRow, None, None]:
    """Process files and generate their rows in the order in which they are done.

    Closing the generator, or an exception such as Ctrl-C in the middle of it, ends all workers; they remove what they
    have not finished.

    Args:
        workers: Processes, each with the threads of the job, or its share of the cores if that is None; 1 stays in
            this process. Outputs are the same bytes for any number of workers where each has the same number of
            threads: OpenVINO rounds by it, ONNX Runtime does not.

    Raises:
        UserError: `workers` is less than 1, or the bundle, the backend or the queries cannot be used.
    """
    if workers < 1:
        raise UserError(f"{workers} workers cannot do anything; ask for at least 1")
    if not rows:
        return
    if workers == 1 or len(rows) == 1:
        yield from map(FileProcessor(job), rows)
        return
    workers = min(workers, len(rows))
    options = {"device": "auto", "backend": "auto", "threads": None, **job.options}
    bundle = Bundle.open(find_bundle(job.bundle), size=options.get("size"))
    warn_of(doubts(read_queries(job.queries), Tokenizer.from_file(str(bundle.tokenizer_path))))
    # "auto" measures, and two processes must not come to two ends.
    if options["backend"] == "auto":
        options["backend"] = settled_backend(bundle, options["device"])
    options["threads"] = options["threads"] or max(1, _usable_cores() // workers)
    pool = _Pool(replace(job, options=options), workers)
    try:
        yield from pool.process(rows)
    finally:
        pool.end()


class _Worker:
    """A worker process, the parent's end of its pipe, and the row that it is working on."""

    def __init__(self, job: BatchJob) -> None:
        context = get_context("spawn")  # a fork would inherit the threads of OpenCV and of the backends
        self.pipe, theirs = context.Pipe()
        self.process: BaseProcess = context.Process(target=_work, args=(theirs, job), daemon=True)
        self.row: BatchRow | None = None
        resource_tracker.ensure_running()  # starting it later would lift the block
        with blocked_for_children():  # a signal of the terminal reaches the whole group
            self.process.start()
        theirs.close()  # or the end of the process would not be seen on this end

    def give(self, row: BatchRow | None) -> None:
        """Send a row; None ends the worker."""
        self.row = row
        with suppress(OSError):  # it has just died: the next wait tells
            self.pipe.send(row)


class _Pool:
    def __init__(self, job: BatchJob, workers: int) -> None:
        self._job = job
        self._workers = [_Worker(job) for _ in range(workers)]
        self._home: list[_Worker] = []

    def process(self, rows: Sequence[BatchRow]) -> Iterator[BatchRow]:
        waiting = list(reversed(rows))
        open_rows = len(rows)
        while open_rows:
            pipes: dict[object, _Worker] = {worker.pipe: worker for worker in self._workers}
            for ready in connection.wait([worker.pipe for worker in self._workers]):
                worker = pipes[ready]
                done = self._next(worker, waiting)
                if done is not None:
                    open_rows -= 1
                    yield done

    def _next(self, worker: _Worker, waiting: list[BatchRow]) -> BatchRow | None:
        """Receive from a worker and give it the next row; returns a row that is done."""
        row = worker.row
        try:
            said = worker.pipe.recv()
        except (EOFError, OSError):
            self._workers.remove(worker)
            worker.process.join()
            code = worker.process.exitcode
            if row is None:
                raise UserError(
                    f"a worker ended with exit code {code} before it could begin; try fewer, memory may be short"
                ) from None
            if waiting:
                self._workers.append(_Worker(self._job))
            return {**row, "error": f"its process ended with exit code {code}", "bad_input": False}
        if isinstance(said, UserError):
            raise said
        if waiting:
            worker.give(waiting.pop())
        else:
            worker.give(None)
            self._workers.remove(worker)
            self._home.append(worker)
        done: BatchRow | None = said
        return done

    def end(self) -> None:
        """End the workers that are left, first gently."""
        for worker in self._workers:
            worker.process.terminate()
        for worker in [*self._workers, *self._home]:
            worker.process.join(_PATIENCE)
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()
        self._workers.clear()


def _work(pipe: connection.Connection, job: BatchJob) -> None:
    """Run a worker: send None when it is ready, then a row back for each row until None comes."""
    signal.signal(signal.SIGTERM, _leave)
    warnings.simplefilter("ignore", QueryWarning)  # given once, by the parent
    with suppress(EOFError, BrokenPipeError):  # the parent is gone
        try:
            process = FileProcessor(job)
        except UserError as error:
            pipe.send(error)
            return
        pipe.send(None)
        while (row := pipe.recv()) is not None:
            pipe.send(process(row))


def _leave(number: int, frame: FrameType | None) -> None:
    """Raise SystemExit, so that unfinished outputs are removed."""
    signal.signal(number, signal.SIG_IGN)
    raise SystemExit(128 + number)


def _usable_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
