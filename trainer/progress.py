"""The progress bar of everything that takes long."""

from __future__ import annotations

import os

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn, TimeElapsedColumn
from rich.progress import TimeRemainingColumn as Remaining


def progress_bar(console: Console, *further: ProgressColumn) -> Progress:
    """A bar with the remaining time and further columns, hidden where the console is not a terminal."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), *further)
    hidden = not console.is_terminal or "CI" in os.environ
    return Progress(*columns, TimeElapsedColumn(), Remaining(), console=console, disable=hidden)
