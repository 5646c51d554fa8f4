"""Progress of a training run: a log file, TensorBoard scalars, a progress bar on a terminal, lines elsewhere."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from rich.console import Console
from rich.progress import TextColumn
from torch.utils.tensorboard import SummaryWriter

from rvos_edge.errors import UserError
from rvos_edge.progress import progress_bar

LOG_FILE = "train.log"


class TrainingReport:
    """Progress bar, log and TensorBoard events of a run; a context manager.

    Training goes on where log and events cannot be written: the weights matter more. The scalars are ``loss``, ``lr``,
    ``loss/TERM``, ``gradient``, ``samples_per_second``, ``waiting`` (share of the time spent waiting for data) and
    ``validation/SCORE``.

    Args:
        folder: Folder of the TensorBoard events and of ``train.log``; None writes neither.
        console: Console of the bar; not a terminal, it gets a line every ``every`` iterations.
        start: Iterations already done. Older events from there on are void, as a resumed run repeats them.
        batch: Samples of an iteration.
        before: Lines that were said before, for the log.
        wandb: Project at Weights & Biases, which then gets the scalars; ``facts`` are the configuration shown there.

    Raises:
        UserError: ``wandb`` is given and the package is missing.
    """

    def __init__(
        self,
        name: str,
        folder: Path | None,
        console: Console,
        *,
        start: int,
        total: int,
        every: int = 1,
        batch: int = 1,
        before: Sequence[str] = (),
        wandb: str | None = None,
        facts: Mapping[str, Any] | None = None,
    ) -> None:
        self.name, self.console, self.total, self.every = name, console, total, every
        self._folder, self._start, self._batch, self._before = folder, start, batch, before
        self._events: Any = None
        self._log: TextIO | None = None
        self._wandb = None
        if wandb is not None and folder is not None:
            # Not sync_tensorboard, which repeats values where its folder lies inside that of the events.
            self._wandb = find_wandb().init(project=wandb, name=name, dir=str(folder), config=dict(facts or {}))
        self._bar = progress_bar(console, TextColumn("loss {task.fields[loss]}"), lines=False)
        self._task = self._bar.add_task(name, total=total, completed=start, loss="")
        self._waited, self._began, self._counted = 0.0, time.monotonic(), start

    def __enter__(self) -> TrainingReport:
        if self._folder is not None:
            try:
                purge = self._start + 1 if self._start else None
                self._log = (self._folder / LOG_FILE).open("a", encoding="utf-8")
                self._events = SummaryWriter(str(self._folder), purge_step=purge)
            except OSError as error:
                self._give_up(error)
        for line in self._before:
            self._write(line)
        self._bar.start()
        self._began = time.monotonic()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._bar.stop()
        if error is not None:
            self._write(f"ended by {type(error).__name__}: {error}")
        for sink in (self._events, self._log):
            if sink is not None:
                try:
                    sink.close()
                except OSError as fault:
                    self._give_up(fault)
        if self._wandb is not None:
            self._wandb.finish()

    def say(self, text: str) -> None:
        """Print a line and write it to the log."""
        self.console.print(text, soft_wrap=True, highlight=False, markup=False)
        self._write(text)

    def waited(self, seconds: float) -> None:
        """Count time spent waiting for data."""
        self._waited += seconds

    def step(
        self,
        done: int,
        *,
        loss: float,
        lr: float,
        terms: Mapping[str, float] | None = None,
        gradient: float | None = None,
    ) -> None:
        """Report that iteration number ``done`` is finished."""
        self._bar.update(self._task, completed=done, loss=f"{loss:.4f}")
        if done % self.every and done != self.total:
            return
        now = time.monotonic()
        seconds = max(now - self._began, 1e-9)
        rate, waiting = (done - self._counted) * self._batch / seconds, min(self._waited / seconds, 1.0)
        self._waited, self._began, self._counted = 0.0, now, done
        line = f"{self.name} {done}/{self.total} loss {loss:.4f} lr {lr:.2e}"
        scalars = {"loss": loss, "lr": lr, "samples_per_second": rate, "waiting": waiting}
        if gradient is not None:
            scalars["gradient"] = gradient
            line += f" gradient {gradient:.3g}"
        for name, term in (terms or {}).items():
            scalars[f"loss/{name}"] = term
            line += f" {name} {term:.4f}" if len(terms or {}) > 1 else ""
        line += f" {rate:.1f} samples/s {waiting:.0%} waiting"
        if not self.console.is_terminal:
            self.console.print(line, soft_wrap=True, highlight=False)
        self._write(line)
        self._scalars(scalars, done)

    def scores(self, done: int, scores: Mapping[str, float]) -> None:
        """Report the scores of a validation."""
        self.say(f"{self.name} {done}/{self.total} validation " + " ".join(f"{k} {v:.4f}" for k, v in scores.items()))
        self._scalars({f"validation/{name}": value for name, value in scores.items()}, done)
        self._began, self._waited, self._counted = time.monotonic(), 0.0, done

    def _scalars(self, scalars: Mapping[str, float], done: int) -> None:
        if self._wandb is not None:
            self._wandb.log(dict(scalars), step=done)
        if self._events is None:
            return
        try:
            for name, value in scalars.items():
                self._events.add_scalar(name, value, done)
            self._events.flush()  # errors of the writer's own thread come up here
        except OSError as error:
            self._give_up(error)

    def _write(self, text: str) -> None:
        if self._log is None:
            return
        try:
            self._log.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n")
            self._log.flush()
        except OSError:
            self._log = None

    def _give_up(self, error: OSError) -> None:
        self._events = None
        self.console.print(f"No more TensorBoard events: {error.strerror} in {self._folder}; the training goes on.")


@contextmanager
def said(say: Callable[[str], None]) -> Iterator[None]:
    """Say warnings as lines, without their place in the code."""

    def show(message: Warning | str, *_: object, **__: object) -> None:
        say(str(message))

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield


def find_wandb() -> Any:
    """The package of Weights & Biases.

    Raises:
        UserError: It is missing.
    """
    try:
        import wandb
    except ImportError as error:
        raise UserError("wandb needs the package of that name; pip install wandb, or leave the key out.") from error
    return wandb
