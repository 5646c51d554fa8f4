"""The progress of everything that takes long: a bar on a terminal, a line every few seconds elsewhere."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import TimeRemainingColumn as Remaining

T = TypeVar("T")

LINE_SECONDS = 5.0
"""Between two lines."""


def progress_bar(console: Console, *further: ProgressColumn, hidden: bool = False, lines: bool = True) -> Progress:
    """A bar with the remaining time and further columns.

    Args:
        hidden: Show nothing at all.
        lines: Print a line every few seconds where the console is no terminal, such as a log file.
    """
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), *further)
    kind = _Lines if lines and not hidden and not _has_bar(console) else Progress
    return kind(
        *columns,
        TimeElapsedColumn(),
        TextColumn("left"),
        Remaining(),
        console=console,
        disable=hidden or not _has_bar(console),
        redirect_stdout=False,  # stdout is for results: rich would take what is written there over to the terminal
    )


def follow(items: Iterable[T], what: str, console: Console, *, total: int | None = None) -> Iterator[T]:
    """The items, with their progress shown; ``total`` is for those without a length."""
    with progress_bar(console) as bar:
        yield from bar.track(items, total, description=what)


def _has_bar(console: Console) -> bool:
    return console.is_terminal and "CI" not in os.environ


class _Lines(Progress):
    """Prints its tasks instead of drawing them."""

    def __init__(self, *columns: Any, **options: Any) -> None:
        super().__init__(*columns, **options)
        self._printed = time.monotonic()

    def stop(self) -> None:
        """Nothing was drawn that would need an end of line."""

    def advance(self, task_id: TaskID, advance: float = 1) -> None:
        super().advance(task_id, advance)
        self._tell(task_id)

    def update(self, task_id: TaskID, **changes: Any) -> None:
        super().update(task_id, **changes)
        self._tell(task_id)

    def _tell(self, task_id: TaskID) -> None:
        now = time.monotonic()
        if now - self._printed < LINE_SECONDS:
            return
        self._printed = now
        task = self._tasks[task_id]
        total = "" if task.total is None else f" of {task.total:.0f}"
        left = "" if task.time_remaining is None else f", {task.time_remaining:.0f} s left"
        line = f"{task.description}: {int(task.completed)}{total}, {task.elapsed or 0:.0f} s{left}"
        self.console.print(line, soft_wrap=True, highlight=False)
