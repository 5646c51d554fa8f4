"""Ctrl-C and SIGTERM while training: finish the step, save, then leave."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

from rvos_edge.trainer.distributed.ranks import world

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupt:
    """Remembers a signal instead of dying of it; a second Ctrl-C ends a single process at once.

    Attributes:
        received: The signal's number, 0 while there was none.
    """

    def __init__(self) -> None:
        self.received = 0
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Interrupt:
        # Only the main thread may set handlers; elsewhere signals are not ours.
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._remember) for number in _SIGNALS}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _remember(self, number: int, frame: FrameType | None) -> None:
        # torchrun passes a terminal's Ctrl-C on: there the second one is no second wish.
        if self.received and number == signal.SIGINT and world() == 1:
            raise KeyboardInterrupt
        self.received = number


def ignore_signals() -> None:
    """For a loader's worker: the process that started it finishes its step first, and then ends it."""
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def leave(number: int) -> None:
    """End as a signal would: KeyboardInterrupt, or exit code 143 for SIGTERM."""
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    raise SystemExit(128 + number)
