"""Threads around the segmenter of a file: one reads frames ahead of it, one writes results behind it.

At most two frames wait at either side, so that memory is bounded; the order is that of one thread.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from queue import SimpleQueue
from typing import TypeVar

from rvos_edge.streaming.signals import uninterrupted

T = TypeVar("T")
_WAITING = 2
_PATIENCE = 1.0
"""Seconds for the read in hand after an error or Ctrl-C; one that hangs, as from a pipe, ends with the process."""


@contextmanager
def read_ahead(items: Iterable[T]) -> Iterator[Iterator[T]]:
    """An iterator over the same items, which a thread takes two ahead; it lets go of them when the block ends.

    An exception of ``items`` is raised after the items before it.
    """
    room, closing = threading.Semaphore(_WAITING), threading.Event()
    read: SimpleQueue[tuple[T] | BaseException | None] = SimpleQueue()

    def work() -> None:
        try:
            room.acquire()
            for item in items:
                read.put((item,))
                room.acquire()
                if closing.is_set():
                    return
            read.put(None)
        except BaseException as error:
            read.put(error)

    def taken() -> Iterator[T]:
        while (item := read.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            room.release()
            yield item[0]

    thread = threading.Thread(target=work, name="read ahead", daemon=True)
    thread.start()
    patience: float | None = None
    try:
        yield taken()
    except BaseException:
        patience = _PATIENCE
        raise
    finally:
        closing.set()
        room.release()
        with uninterrupted():
            thread.join(patience)


@contextmanager
def write_behind() -> Iterator[Callable[[Callable[[], object]], None]]:
    """A function that has functions called in their order by a thread; the block ends when the last one has returned.

    After one that fails no more are called; its error is raised by the next call, or at the end of the block.
    """
    room, failures = threading.Semaphore(_WAITING), list[BaseException]()
    works: SimpleQueue[Callable[[], object] | None] = SimpleQueue()

    def work() -> None:
        while (call := works.get()) is not None:
            try:
                if not failures:
                    call()
            except BaseException as error:
                failures.append(error)
            room.release()

    def do(call: Callable[[], object]) -> None:
        room.acquire()
        if failures:
            raise failures[0]
        works.put(call)

    thread = threading.Thread(target=work, name="write behind", daemon=True)  # a reader of a pipe may hang
    thread.start()
    try:
        yield do
    finally:
        works.put(None)
        with uninterrupted():
            thread.join()
        if failures:
            raise failures[0]
