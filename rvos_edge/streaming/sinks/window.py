"""The live window: the overlay on the screen, and its keys: q ends the stream, space pauses it, s saves a snapshot.

Queries are typed on the page of ``--serve``.
"""

from __future__ import annotations

import os
import queue
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from rvos_edge.atomic import write_output
from rvos_edge.errors import UserError
from rvos_edge.outputs import mark_png
from rvos_edge.result import Result
from rvos_edge.streaming.loop import Stepper
from rvos_edge.streaming.overlay import OverlayView, draw_view
from rvos_edge.streaming.sinks.base import Sink
from rvos_edge.streaming.sources import Frame

CLOSED = 0x100
"""The code that closing the window with the mouse stands for, which no key has."""
_NO_KEY = -1
_WAIT_MS = 5
"""Milliseconds; of several keys within one wait, OpenCV with Qt reports the last."""
_GLANCE = 0.01
_TIMEOUT = 3.0


class WindowSink(Sink):
    """Shows the overlays in a window, at the size of the first, and hands on the keys pressed in it.

    The window lives in a thread of its own: it stays alive and misses no key while the model computes, and drawing it
    does not slow the stream. Its keys are handed on in the caller's thread, by `write`, `show` and `poll`. On a Mac,
    where windows belong to the main thread, those calls serve the window themselves.

    Args:
        keys: Called with the code of each character that was typed ("q" is 113, space 32), and with `CLOSED` when the
            window was closed, from within `write`, `show` and `poll`.

    Raises:
        UserError: There is no screen, or this OpenCV cannot open windows.
    """

    wants_overlay = True

    def __init__(self, title: str = "rvos-edge", *, keys: Callable[[int], object] | None = None) -> None:
        _check_screen()
        # OpenCV's Qt misses its fonts, five times, and our windows have no text of theirs.
        os.environ.setdefault("QT_LOGGING_RULES", "default.warning=false")
        self.title = title
        self._keys = keys
        self._pressed: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._newest: NDArray[np.uint8] | None = None
        self._sized = False
        self._open = True
        self._failure: cv2.error | None = None
        self._thread: threading.Thread | None = None
        if sys.platform == "darwin":
            self._make()
        else:
            made = threading.Event()
            self._thread = threading.Thread(target=self._run, args=(made,), name=f"window {title}", daemon=True)
            self._thread.start()
            made.wait()
        if self._failure is not None:
            raise UserError(
                "this OpenCV cannot open windows; install opencv-python instead of opencv-python-headless, "
                "or leave --window out"
            ) from self._failure

    def write(self, frame: Frame, result: Result, overlay: NDArray[np.uint8] | None) -> None:
        assert overlay is not None
        self.show(overlay)

    def show(self, image: NDArray[np.uint8]) -> None:
        """Put a picture (uint8 [H,W,3], BGR) into the window and hand on the keys; does nothing after it was closed."""
        self._newest = image
        self.poll()

    def poll(self, seconds: float = 0.0) -> None:
        """Hand on the keys pressed so far and those of the next seconds."""
        deadline = time.monotonic() + seconds
        while True:
            left = deadline - time.monotonic()
            if self._thread is None and self._open:
                self._serve()
            try:
                key = self._pressed.get(timeout=max(0.0, min(left, _GLANCE if self._open else left)))
            except queue.Empty:
                if left <= 0:
                    return
            else:
                if self._keys is not None:
                    self._keys(key)

    def close(self) -> None:
        self._open = False
        if self._thread is None:
            self._destroy()
        else:
            self._thread.join(2.0)

    def _run(self, made: threading.Event) -> None:
        self._make()
        made.set()
        while self._open:
            self._serve()
        self._destroy()

    def _make(self) -> None:
        try:
            cv2.namedWindow(self.title, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO | cv2.WINDOW_GUI_NORMAL)
        except cv2.error as error:
            self._failure, self._open = error, False

    def _serve(self) -> None:
        image, self._newest = self._newest, None
        if image is not None:
            if not self._sized:
                self._sized = True
                cv2.resizeWindow(self.title, image.shape[1], image.shape[0])
            cv2.imshow(self.title, image)
        key = cv2.waitKey(_WAIT_MS)  # without the window system's modifiers, such as Num Lock
        if key != _NO_KEY:
            self._pressed.put(key)
        elif not self._visible():
            self._open = False
            self._pressed.put(CLOSED)

    def _visible(self) -> bool:
        try:
            return bool(cv2.getWindowProperty(self.title, cv2.WND_PROP_VISIBLE) >= 1)
        except cv2.error:  # Qt is gone with its last window
            return False

    def _destroy(self) -> None:
        with suppress(cv2.error):  # the user was faster, or there never was one
            cv2.destroyWindow(self.title)


class KeyControls(Sink):
    """Controls of a stream by keys, and a sink that remembers the frame for snapshots.

    Give the object to `run_stream` twice, as `controls` and among the sinks, and its `press` to a `WindowSink`.
    """

    def __init__(self, *, view: OverlayView | None = None, snapshots: Path | None = None) -> None:
        self.paused = False
        self._quit = self._snap = False
        self._view = view or OverlayView()
        self._folder = snapshots or Path()
        self._last: tuple[Frame, Result] | None = None
        self._said = ""

    def press(self, key: int) -> None:
        """Take one key: its character's code, or `CLOSED`."""
        self._said = ""
        if key in (ord("q"), CLOSED):
            self._quit = True
        elif key == ord(" "):
            self.paused = not self.paused
        elif key == ord("s"):
            self._snap = True  # the next call of `apply` has the frame

    @property
    def view(self) -> OverlayView:
        return replace(self._view, note=self._said or ("paused, space goes on" if self.paused else ""))

    def apply(self, segmenter: Stepper) -> bool:
        if self._snap:
            self._snap, self._said = False, self._save()
        return not self._quit

    def write(self, frame: Frame, result: Result, overlay: NDArray[np.uint8] | None) -> None:
        self._last = frame, result

    def close(self) -> None:
        self._last = None

    def _save(self) -> str:
        """Write the last frame with its masks; returns a note on it."""
        if self._last is None:
            return "no frame yet"
        frame, result = self._last
        path = self._folder / f"snapshot-{time.strftime('%Y%m%d-%H%M%S')}-{frame.name}.png"
        try:
            write_output(path, mark_png(cv2.imencode(".png", draw_view(frame.image, result, self.view))[1].tobytes()))
        except UserError as error:
            return f"no snapshot: {error}"
        return f"saved {path}"


def _check_screen() -> None:
    """Refuse a screen that does not answer: the Qt inside OpenCV would end the whole process."""
    if not sys.platform.startswith("linux") or os.environ.get("QT_QPA_PLATFORM", "xcb") not in {"", "xcb"}:
        return
    display = os.environ.get("DISPLAY", "")
    if not display and os.environ.get("WAYLAND_DISPLAY"):
        raise UserError("OpenCV's windows need an X display and only Wayland is there; start Xwayland and set DISPLAY")
    if not display:
        raise UserError("there is no screen for a window: DISPLAY is not set; leave --window out, or use ssh -X")
    if not _x_server_answers(display):
        raise UserError(f"the X display {display!r} does not answer; check DISPLAY, or leave --window out")


def _x_server_answers(display: str) -> bool:
    host, _, number = display.rpartition(":")
    number = number.partition(".")[0]
    if not number.isdigit():
        return False
    if host not in {"", "unix"}:
        return _connects(lambda: socket.create_connection((host, 6000 + int(number)), timeout=_TIMEOUT))
    # Linux has the socket under an abstract name, as a file, or both.
    return any(_connects(partial(_local, f"{start}/tmp/.X11-unix/X{number}")) for start in ("\0", ""))


def _local(address: str) -> socket.socket:
    probe = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        probe.settimeout(_TIMEOUT)
        probe.connect(address)
    except OSError:
        probe.close()
        raise
    return probe


def _connects(connect: Callable[[], socket.socket]) -> bool:
    try:
        connect().close()
    except OSError:
        return False
    return True
