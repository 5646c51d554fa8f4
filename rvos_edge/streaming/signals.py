"""SIGINT, SIGTERM and SIGHUP: outputs are finished whichever comes, and whenever."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_ENDING = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
_PATIENCE = 2.0


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Put the three signals off until the block ends: a frame is written everywhere or nowhere, an output is finished.

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

    # A handler that does not come from Python (None) could not be put back; nohup ignores SIGHUP.
    handlers = [(number, signal.getsignal(number)) for number in _ENDING]
    before = [(number, handler) for number, handler in handlers if handler not in (None, signal.SIG_IGN)]
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
    """Make SIGTERM and SIGHUP a KeyboardInterrupt within the block, as SIGINT is; only in the main thread.

    A handler of the caller stays, and so does nohup's wish that SIGHUP be ignored.
    """
    main = threading.current_thread() is threading.main_thread()
    taken = [number for number in _ENDING if main and signal.getsignal(number) is signal.SIG_DFL]
    for number in taken:
        signal.signal(number, signal.default_int_handler)
    try:
        yield
    finally:
        for number in taken:
            signal.signal(number, signal.SIG_DFL)


@contextmanager
def blocked_for_children() -> Iterator[None]:
    """Block SIGINT and SIGHUP for the processes that are started within the block, which their parent ends."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT, signal.SIGHUP])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
