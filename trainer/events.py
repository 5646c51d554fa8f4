"""Progress of a training run: TensorBoard scalars, a progress bar on a terminal, lines elsewhere."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import TextColumn
from torch.utils.tensorboard import SummaryWriter

from rvos_edge.progress import progress_bar


class TrainingReport:
    """Progress bar and TensorBoard events of a run; a context manager.

    Training goes on where the events cannot be written: the weights matter more.

    Args:
        folder: Folder of the TensorBoard events; None writes none.
        console: Console of the bar; not a terminal, it gets a line every ``every`` iterations.
        start: Iterations already done. Older events from there on are void, as a resumed run repeats them.
    """

    def __init__(
        self, name: str, folder: Path | None, console: Console, *, start: int, total: int, every: int = 1
    ) -> None:
        self.name, self.console, self.total, self.every = name, console, total, every
        self._folder, self._start = folder, start
        self._events: Any = None
        self._bar = progress_bar(console, TextColumn("loss {task.fields[loss]}"), lines=False)
        self._task = self._bar.add_task(name, total=total, completed=start, loss="")

    def __enter__(self) -> TrainingReport:
        if self._folder is not None:
            try:
                purge = self._start + 1 if self._start else None
                self._events = SummaryWriter(str(self._folder), purge_step=purge)
            except OSError as error:
                self._give_up(error)
        self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._bar.stop()
        if self._events is not None:
            try:
                self._events.close()
            except OSError as fault:
                self._give_up(fault)

    def step(self, done: int, *, loss: float, lr: float) -> None:
        """Report that iteration number ``done`` is finished."""
        self._bar.update(self._task, completed=done, loss=f"{loss:.4f}")
        if done % self.every and done != self.total:
            return
        if not self.console.is_terminal:
            self.console.print(f"{self.name} {done}/{self.total} loss {loss:.4f} lr {lr:.2e}")
        if self._events is not None:
            try:
                self._events.add_scalar("loss", loss, done)
                self._events.add_scalar("lr", lr, done)
                self._events.flush()  # errors of the writer's own thread come up here
            except OSError as error:
                self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        self._events = None
        self.console.print(f"No more TensorBoard events: {error.strerror} in {self._folder}; the training goes on.")
