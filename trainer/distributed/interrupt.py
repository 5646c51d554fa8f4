"""Ctrl-C and SIGTERM during training: finish the step, save, then exit."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

from rvos_edge.trainer.distributed.ranks import world

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupt:
    """Context manager that records SIGINT and SIGTERM; a second Ctrl-C ends a single process at once.

    Attributes:
        received: Number of the signal; 0 before any.
    """

    def __init__(self) -> None:
        self.received = 0
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Interrupt:
        # Only the main thread may set signal handlers.
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._remember) for number in _SIGNALS}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _remember(self, number: int, frame: FrameType | None) -> None:
        # torchrun forwards the terminal's Ctrl-C: every process receives it twice.
        if self.received and number == signal.SIGINT and world() == 1:
            raise KeyboardInterrupt
        self.received = number


def ignore_signals() -> None:
    """Ignore SIGINT and SIGTERM in a loader's worker; the training process ends it after its step."""
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def leave(number: int) -> None:
    """Exit as the signal would: raise KeyboardInterrupt, or SystemExit with code 143 for SIGTERM."""
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    raise SystemExit(128 + number)
