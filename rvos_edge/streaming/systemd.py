"""Messages to systemd, for a unit of ``Type=notify`` with a watchdog (docs/services.md)."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from rvos_edge.streaming.loop import Meter


@contextmanager
def notifying(meters: Sequence[Meter]) -> Iterator[None]:
    """Tell systemd that the streams run, and until the block ends that they live; elsewhere this does nothing.

    They live while no frame takes longer than the unit's ``WatchdogSec``. A camera that is lost is waited for: to
    start again would not bring it back.
    """
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        yield
        return
    limit, ended = int(os.environ.get("WATCHDOG_USEC", "0")) / 1e6, threading.Event()

    def feed() -> None:
        while not ended.wait(limit / 3):
            if all(meter.busy_seconds < limit for meter in meters):
                fps = ", ".join(f"{meter.fps:.1f}" for meter in meters)
                _send(address, f"WATCHDOG=1\nSTATUS={sum(meter.frames for meter in meters)} frames, now {fps} fps")

    _send(address, "READY=1")
    if limit:
        threading.Thread(target=feed, name="watchdog", daemon=True).start()
    try:
        yield
    finally:
        ended.set()
        _send(address, "STOPPING=1")


def _send(address: str, message: str) -> None:
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.sendto(message.encode(), f"\0{address[1:]}" if address.startswith("@") else address)
