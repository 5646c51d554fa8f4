"""SIGINT and SIGTERM, so that outputs are finished whichever comes, and whenever."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_ENDING = (signal.SIGINT, signal.SIGTERM)
_PATIENCE = 2.0


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Put SIGINT and SIGTERM off until the block ends: a frame is written everywhere or nowhere, an output is finished.

    One that comes more than two seconds after the first is a KeyboardInterrupt at once: something hangs, such as the
    reader of a pipe. Other threads than the main one are never interrupted; there this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    pending: dict[int, float] = {}

    def remember(number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if pending and now - min(pending.values()) > _PATIENCE:
            raise KeyboardInterrupt
        pending.setdefault(number, now)

    # A handler that does not come from Python (None) could not be put back.
    before = [(number, handler) for number in _ENDING if (handler := signal.getsignal(number)) is not None]
    for number, _ in before:
        signal.signal(number, remember)
    try:
        yield
    finally:
        for number, handler in before:
            signal.signal(number, handler)
        for missed in pending:
            signal.raise_signal(missed)


@contextmanager
def terminate_as_interrupt() -> Iterator[None]:
    """Make SIGTERM a KeyboardInterrupt within the block, as SIGINT is; only in the main thread."""
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGTERM) is None:
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
