"""Ctrl-C and SIGTERM while a stream runs: the frame in hand is finished, so that all outputs hold the same frames."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any


class Interrupts:
    """Turns SIGINT and SIGTERM into KeyboardInterrupt, and holds the first one back inside `held`.

    Handlers that somebody else has set, or other threads than the main one, are left alone.

    Example:
        >>> with Interrupts() as interrupts:
        ...     for frame in source:  # a signal ends this wait at once
        ...         with interrupts.held():  # and is raised at the end of this
        ...             write(frame)
    """

    def __init__(self) -> None:
        self._before: dict[int, Any] = {}
        self._holding = False
        self._pending = False

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            for number, untouched in ((signal.SIGINT, signal.default_int_handler), (signal.SIGTERM, signal.SIG_DFL)):
                if signal.getsignal(number) == untouched:
                    self._before[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Raise a signal that comes meanwhile at the end; a second one is raised at once.

        Raises:
            KeyboardInterrupt: There was a signal.
        """
        self._holding = True
        try:
            yield
        finally:
            self._holding = False
        if self._pending:
            self._pending = False
            raise KeyboardInterrupt

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self._holding and not self._pending:
            self._pending = True
            return
        self._pending = False
        raise KeyboardInterrupt
