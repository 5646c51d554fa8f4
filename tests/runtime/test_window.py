"""The window sink on a window system that is played, and once on a real one where Xvfb is there."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from typing import Any

import cv2
import numpy as np
import pytest

from rvos_edge.errors import UserError
from rvos_edge.stream.window import CLOSED, WindowSink

RED = np.full((48, 64, 3), (0, 0, 255), np.uint8)


class FakeScreen:
    """OpenCV's window functions: `typed` are the keys to come, `visible` turns 0 when the user closes the window."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.typed: list[int] = []
        self.visible: float | None = 1.0
        self.shown: list[np.ndarray] = []
        self.sizes: list[tuple[int, int]] = []
        self.destroyed = 0
        monkeypatch.setattr("rvos_edge.stream.window._check_screen", lambda: None)
        monkeypatch.setattr(cv2, "namedWindow", lambda title, flags: None)
        monkeypatch.setattr(cv2, "resizeWindow", lambda title, width, height: self.sizes.append((width, height)))
        monkeypatch.setattr(cv2, "imshow", lambda title, image: self.shown.append(image))
        monkeypatch.setattr(cv2, "waitKey", lambda wait: self.typed.pop(0) if self.typed else -1)
        monkeypatch.setattr(cv2, "getWindowProperty", self._visible)
        monkeypatch.setattr(cv2, "destroyWindow", self._destroy)

    def _visible(self, title: str, name: int) -> float:
        if self.visible is None:
            raise cv2.error("NULL guiReceiver")
        return self.visible

    def _destroy(self, title: str) -> None:
        self.destroyed += 1


def test_pictures_are_shown_and_keys_handed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    screen, pressed = FakeScreen(monkeypatch), list[int]()
    sink: Any = WindowSink("live", keys=pressed.append)
    screen.typed = [ord("s"), ord("/") | 0x100000]  # some window systems put modifiers above the character
    sink.write(None, None, RED)
    sink.poll()
    sink.write(None, None, RED[:24])
    sink.close()
    sink.close()
    assert pressed == [ord("s"), ord("/")]
    assert [image.shape for image in screen.shown] == [(48, 64, 3), (24, 64, 3)]
    assert screen.sizes == [(64, 48)], "only the first picture sets the size: the user may have changed it since"
    assert screen.destroyed == 1


def test_poll_serves_a_paused_window_for_as_long_as_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    screen, pressed = FakeScreen(monkeypatch), list[int]()
    sink = WindowSink(keys=pressed.append)
    screen.typed = [-1, -1, ord(" ")]
    sink.poll(0.02)
    assert pressed == [ord(" ")]


@pytest.mark.parametrize("visible", [0.0, None])
def test_closed_window_is_a_key_and_shows_nothing_more(visible: float | None, monkeypatch: pytest.MonkeyPatch) -> None:
    screen, pressed = FakeScreen(monkeypatch), list[int]()
    sink = WindowSink(keys=pressed.append)
    screen.visible = visible
    sink.show(RED)
    sink.show(RED)
    sink.poll(0.01)
    assert pressed == [CLOSED]
    assert len(screen.shown) == 1


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


def test_opencv_without_windows_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    FakeScreen(monkeypatch)

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
        "from rvos_edge.stream.window import WindowSink\n"
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
