"""The window sink on a window system that is played, and once on a real one where Xvfb is there."""

from __future__ import annotations

import os
import queue
import shutil
import subprocess
import sys
import threading
import time
from typing import Any

import cv2
import numpy as np
import pytest
from support.live_fakes import wait_until

from rvos_edge.errors import UserError
from rvos_edge.streaming.sinks.window import CLOSED, WindowSink

RED = np.full((48, 64, 3), (0, 0, 255), np.uint8)


class FakeScreen:
    """OpenCV's window functions, by one thread only.

    `typed` are the keys to come; `visible` turns 0 when the user closes the window, and None where Qt then fails.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.typed: queue.SimpleQueue[int] = queue.SimpleQueue()
        self.visible: float | None = 1.0
        self.shown: list[np.ndarray] = []
        self.sizes: list[tuple[int, int]] = []
        self.destroyed = 0
        self.threads: set[threading.Thread] = set()
        monkeypatch.setattr("rvos_edge.streaming.sinks.window._check_screen", lambda: None)
        monkeypatch.setattr(cv2, "namedWindow", lambda title, flags: self._called())
        monkeypatch.setattr(cv2, "resizeWindow", lambda title, width, height: self.sizes.append((width, height)))
        monkeypatch.setattr(cv2, "imshow", lambda title, image: self.shown.append(image))
        monkeypatch.setattr(cv2, "waitKey", self._wait)
        monkeypatch.setattr(cv2, "getWindowProperty", self._property)
        monkeypatch.setattr(cv2, "destroyWindow", self._destroy)

    def type(self, *keys: int) -> None:
        for key in keys:
            self.typed.put(key)

    def _called(self) -> None:
        self.threads.add(threading.current_thread())

    def _wait(self, wait: int) -> int:
        self._called()
        try:
            return self.typed.get(timeout=wait / 1000)
        except queue.Empty:
            return -1

    def _property(self, title: str, name: int) -> float:
        if self.visible is None:
            raise cv2.error("NULL guiReceiver")
        return self.visible

    def _destroy(self, title: str) -> None:
        self._called()
        self.destroyed += 1


@pytest.fixture(params=["linux", "darwin"])
def screen(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> FakeScreen:
    monkeypatch.setattr("rvos_edge.streaming.sinks.window.sys.platform", request.param)
    return FakeScreen(monkeypatch)


def test_pictures_are_shown_and_keys_handed_on(screen: FakeScreen) -> None:
    pressed: list[tuple[int, threading.Thread]] = []
    sink: Any = WindowSink("live", keys=lambda key: pressed.append((key, threading.current_thread())))
    screen.type(ord("s"), ord(" "), ord("q"))
    sink.write(None, None, RED)
    deadline = time.monotonic() + 10
    while (len(pressed) < 3 or not screen.shown) and time.monotonic() < deadline:
        sink.poll(0.005)
    sink.write(None, None, RED[:24])
    while len(screen.shown) < 2 and time.monotonic() < deadline:
        sink.poll(0.005)
    sink.close()
    sink.close()
    here = threading.current_thread()
    assert pressed == [(ord("s"), here), (ord(" "), here), (ord("q"), here)]
    assert [image.shape for image in screen.shown] == [(48, 64, 3), (24, 64, 3)]
    assert screen.sizes == [(64, 48)], "only the first picture sets the size: the user may have changed it since"
    assert screen.destroyed >= 1
    assert len(screen.threads) == 1
    assert (here in screen.threads) == (sys.platform == "darwin"), "a Mac's windows belong to the main thread"


def test_keys_pressed_while_the_model_computes_are_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    screen, pressed = FakeScreen(monkeypatch), list[int]()
    sink = WindowSink(keys=pressed.append)
    screen.type(*map(ord, "the red ball"))
    wait_until(lambda: sink._pressed.qsize() == 12)
    assert pressed == []
    sink.show(RED)
    sink.close()
    assert "".join(map(chr, pressed)) == "the red ball"


@pytest.mark.parametrize("visible", [0.0, None])
def test_closed_window_is_a_key_and_shows_nothing_more(visible: float | None, screen: FakeScreen) -> None:
    pressed: list[int] = []
    sink = WindowSink(keys=pressed.append)
    screen.visible = visible
    deadline = time.monotonic() + 10
    while not pressed and time.monotonic() < deadline:
        sink.poll(0.005)
    sink.show(RED)
    sink.poll(0.02)
    sink.close()
    assert pressed == [CLOSED]
    assert screen.shown == []


@pytest.mark.parametrize(
    ("display", "wayland", "message"),
    [("", "", "DISPLAY is not set"), (":4711", "", "':4711' does not answer"), ("", "wayland-0", "only Wayland")],
)
def test_without_a_screen_it_is_refused(
    monkeypatch: pytest.MonkeyPatch, display: str, wayland: str, message: str
) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.delenv("QT_QPA_PLATFORM", raising=False)
    monkeypatch.setenv("DISPLAY", display)
    monkeypatch.setenv("WAYLAND_DISPLAY", wayland)
    with pytest.raises(UserError, match=message):
        WindowSink()


def test_opencv_without_windows_is_named(monkeypatch: pytest.MonkeyPatch, screen: FakeScreen) -> None:
    def refuse(title: str, flags: int) -> None:
        raise cv2.error("The function is not implemented")

    monkeypatch.setattr(cv2, "namedWindow", refuse)
    with pytest.raises(UserError, match="opencv-python-headless"):
        WindowSink()


@pytest.mark.skipif(shutil.which("Xvfb") is None, reason="needs Xvfb")
def test_real_window(tmp_path: Any) -> None:
    """In a process of its own: what Qt does with a screen that goes away is not for the other tests to suffer."""
    script = (
        "import numpy as np\n"
        "from rvos_edge.streaming.sinks.window import WindowSink\n"
        "sink = WindowSink('live', keys=print)\n"
        "sink.show(np.full((48, 64, 3), (0, 0, 255), np.uint8))\n"
        "sink.poll(0.2)\n"
        "sink.close()\n"
        "print('closed')\n"
    )
    read, write = os.pipe()
    with subprocess.Popen(["Xvfb", "-displayfd", str(write), "-screen", "0", "320x240x24"], pass_fds=[write]) as server:
        try:
            os.close(write)
            with os.fdopen(read) as number:
                display = f":{number.readline().strip()}"
            environment = {**os.environ, "DISPLAY": display}
            done = subprocess.run(
                [sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=60
            )
        finally:
            server.terminate()
    assert done.stdout == "closed\n", done.stderr
