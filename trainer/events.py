"""What a run tells while it goes on: TensorBoard's scalars, a progress bar on a terminal, lines elsewhere."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter


class EventFile:
    """A TensorBoard event file, written at once: torch's SummaryWriter fails on a full disk in a thread of its own.

    Args:
        folder: Where the file is made.
        start: Step from which on older files of the folder no longer hold (a resumed run does them again).

    Raises:
        OSError: It cannot be written.
    """

    def __init__(self, folder: Path, *, start: int) -> None:
        name = f"events.out.tfevents.{int(time.time())}.{socket.gethostname()}.{os.getpid()}.{start}"
        self._file: BinaryIO = (folder / name).open("wb")
        self._records = RecordWriter(self._file)
        self._write(Event(wall_time=time.time(), file_version="brain.Event:2"))
        if start:
            session = SessionLog(status=SessionLog.START)
            self._write(Event(wall_time=time.time(), step=start + 1, session_log=session))

    def add(self, step: int, **scalars: float) -> None:
        """Write scalars by name."""
        values = [Summary.Value(tag=name, simple_value=value) for name, value in scalars.items()]
        self._write(Event(wall_time=time.time(), step=step, summary=Summary(value=values)))

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _write(self, event: Event) -> None:
        self._records.write(event.SerializeToString())
        self._records.flush()


class TrainingReport:
    """Shows a run's progress, and goes on without TensorBoard when its file cannot be written: the weights matter more.

    Args:
        name: Of the run.
        folder: Of the event file; None writes none.
        console: Where the bar or the lines go.
        start: Iterations already done.
        total: Iterations of the run.
        every: Iterations between two lines or scalars.
    """

    def __init__(
        self, name: str, folder: Path | None, console: Console, *, start: int, total: int, every: int = 1
    ) -> None:
        self.name, self.console, self.total, self.every = name, console, total, every
        self._folder, self._start = folder, start
        self._events: EventFile | None = None
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("loss {task.fields[loss]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal or "CI" in os.environ,
        )
        self._task = self._bar.add_task(name, total=total, completed=start, loss="")

    def __enter__(self) -> TrainingReport:
        if self._folder is not None:
            try:
                self._events = EventFile(self._folder, start=self._start)
            except OSError as error:
                self._give_up(error)
        self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._bar.stop()
        if self._events is not None:
            self._events.close()

    def step(self, done: int, *, loss: float, lr: float) -> None:
        """Tell of an iteration that is done."""
        self._bar.update(self._task, completed=done, loss=f"{loss:.4f}")
        if done % self.every and done != self.total:
            return
        if not self.console.is_terminal:
            self.console.print(f"{self.name} {done}/{self.total} loss {loss:.4f} lr {lr:.2e}")
        if self._events is not None:
            try:
                self._events.add(done, loss=loss, lr=lr)
            except OSError as error:
                self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        self._events = None
        self.console.print(f"No more TensorBoard events: {error.strerror} in {self._folder}; the training goes on.")
