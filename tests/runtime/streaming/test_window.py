"""The window sink on a Tk that is played, and once on a real one where Xvfb is there."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from rvos_edge.errors import UserError
from rvos_edge.streaming.sinks.window import CLOSED, WindowSink

RED = np.full((48, 64, 3), (0, 0, 255), np.uint8)


class FakeTk:
    """The module tkinter with one window: `typed` are the keys to come with the next update, None closes the window."""

    class TclError(Exception):
        """Raised where there is no screen."""

    def __init__(self) -> None:
        self.screen = True
        self.typed: list[str | None] = []
        self.size = (1, 1)
        self.sizes: list[str] = []
        self.drawn: list[bytes] = []
        self.destroyed = 0

    def Tk(self, **_: object) -> Any:  # noqa: N802
        if not self.screen:
            raise self.TclError('couldn\'t connect to display ":4711"')
        handlers: dict[str, Callable[..., None]] = {}

        def update() -> None:
            typed, self.typed = self.typed, []
            for key in typed:
                handlers["WM_DELETE_WINDOW"]() if key is None else handlers["<Key>"](SimpleNamespace(char=key))

        return SimpleNamespace(
            title=lambda text: None,
            protocol=handlers.__setitem__,
            bind=handlers.__setitem__,
            geometry=self._resize,
            winfo_width=lambda: self.size[0],
            winfo_height=lambda: self.size[1],
            update=update,
            destroy=self._destroy,
        )

    def PhotoImage(self, **_: object) -> Any:  # noqa: N802
        return SimpleNamespace(configure=lambda data, format: self.drawn.append(data))

    def Label(self, *_: object, **__: object) -> Any:  # noqa: N802
        return SimpleNamespace(pack=lambda **_: None)

    def _resize(self, size: str) -> None:
        self.sizes.append(size)
        width, height = size.split("x")
        self.size = int(width), int(height)

    def _destroy(self) -> None:
        self.destroyed += 1


@pytest.fixture
def tk(monkeypatch: pytest.MonkeyPatch) -> FakeTk:
    tk = FakeTk()
    monkeypatch.setitem(sys.modules, "tkinter", tk)
    return tk


def test_pictures_are_shown_and_keys_handed_on(tk: FakeTk) -> None:
    pressed: list[int] = []
    sink: Any = WindowSink("live", keys=pressed.append)
    tk.typed = ["s", "", " "]  # a key without a character is one such as Shift
    sink.write(None, None, RED)
    sink.write(None, None, RED[:24])
    tk.typed = ["q"]
    sink.write(None, None, RED[:24].copy())
    sink.close()
    sink.close()
    assert pressed == [ord("s"), ord(" "), ord("q")]
    assert tk.drawn[0] == b"P6 64 48 255\n" + b"\xff\0\0" * (48 * 64)
    assert [data[:12] for data in tk.drawn[1:]] == [b"P6 64 24 255"] * 2
    assert tk.sizes == ["64x48"], "only the first picture sets the size: the user may have changed it since"
    assert tk.destroyed == 1


@pytest.mark.parametrize(("size", "head"), [((32, 480), b"P6 32 24 255"), ((640, 96), b"P6 128 96 255")])
def test_a_picture_fills_the_window_and_keeps_its_ratio(size: tuple[int, int], head: bytes, tk: FakeTk) -> None:
    sink = WindowSink()
    sink.show(RED)
    sink.show(RED)
    assert len(tk.drawn) == 1, "during a pause the same picture is not drawn again"
    tk.size = size
    sink.show(RED)
    assert tk.drawn[1].startswith(head)


def test_closed_window_is_a_key_and_shows_nothing_more(tk: FakeTk) -> None:
    pressed: list[int] = []
    sink = WindowSink(keys=pressed.append)
    sink.show(RED)
    tk.typed = [None]
    sink.show(RED)
    sink.show(RED[:24])
    sink.close()
    assert pressed == [CLOSED]
    assert len(tk.drawn) == 1
    assert tk.destroyed == 1


def test_without_a_screen_it_is_refused(tk: FakeTk) -> None:
    tk.screen = False
    with pytest.raises(UserError, match=r"no screen \(couldn't connect to display \":4711\"\); set DISPLAY.*--serve"):
        WindowSink()


def test_a_python_without_tk_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tkinter", None)
    with pytest.raises(UserError, match=r"apt install python3-tk.*--serve"):
        WindowSink()


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("Xvfb") is None or find_spec("_tkinter") is None, reason="needs Xvfb and tkinter")
def test_real_window() -> None:
    """In a process of its own: what Tk does with a screen that goes away is not for the other tests to suffer."""
    script = (
        "import numpy as np\n"
        "from rvos_edge.streaming.sinks.window import WindowSink\n"
        "sink = WindowSink('live', keys=print)\n"
        "red = np.full((48, 64, 3), (0, 0, 255), np.uint8)\n"
        "sink.show(red)\n"
        "print(sink._photo.width(), sink._photo.get(63, 47))\n"
        "sink._root.focus_force()\n"
        "sink._root.event_generate('<q>')\n"
        "sink.show(red)\n"
        "sink._root.tk.call(sink._root.protocol('WM_DELETE_WINDOW'))\n"
        "sink.show(red)\n"
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
    assert done.stdout == f"64 (255, 0, 0)\n{ord('q')}\n{CLOSED}\n", done.stderr
