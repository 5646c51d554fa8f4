"""Messages to systemd."""

from __future__ import annotations

import os
import socket
import time
from contextlib import suppress

import pytest
from support.fake_results import make_frame, make_result
from support.live_fakes import wait_until

from rvos_edge.streaming.loop import Meter
from rvos_edge.streaming.systemd import notifying


def test_the_watchdog_is_fed_unless_a_frame_takes_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    meter, told = Meter(), []
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(f"\0rvos-edge-{os.getpid()}")
        systemd.settimeout(10)

        def hear() -> str:
            told.append(systemd.recv(4096).decode())
            return told[-1]

        monkeypatch.setenv("NOTIFY_SOCKET", f"@rvos-edge-{os.getpid()}")
        monkeypatch.setenv("WATCHDOG_USEC", "30000")
        with notifying([meter]):
            assert hear() == "READY=1"
            meter.taken()
            meter.segmented(make_frame(), make_result(), time.perf_counter())
            meter.written()
            assert hear().startswith("WATCHDOG=1\nSTATUS=")
            meter.taken()
            wait_until(lambda: meter.busy_seconds > 0.1)
            systemd.setblocking(False)
            with suppress(BlockingIOError):  # what was sent before the frame took too long
                while hear():
                    pass
            with pytest.raises(BlockingIOError):
                hear()
            systemd.settimeout(10)
        assert hear() == "STOPPING=1"


def test_elsewhere_nothing_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    monkeypatch.setattr(socket, "socket", None)
    with notifying([Meter()]):
        pass
