"""The live window: the overlay on the screen, and the keys that are pressed there."""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from rvos_edge.errors import UserError

if TYPE_CHECKING:
    from rvos_edge.segmenter import Result
    from rvos_edge.stream.sources import Frame

KEY_ESCAPE = 27
CLOSED = ord("q")
"""The key that closing the window with the mouse stands for."""
_NO_KEY = -1
_TIMEOUT = 3.0


class WindowSink:
    """Shows the overlays in a window, at the size of the first, and hands on the keys pressed in it.

    Keys only arrive while the window is served: `write` does that once per frame, and who stops writing (a pause, a
    slow source) calls `poll` instead. Both belong to the main thread, which the window systems insist on.

    Args:
        title: Of the window.
        keys: Called with the code of each key that was pressed, from within `write` and `poll`: `ord` of its
            character ("q" is 113, space is 32, "/" is 47, "1" is 49), `KEY_ESCAPE`, and `CLOSED` when the window was
            closed. What it raises goes through to the caller of `write` or `poll`.

    Raises:
        UserError: There is no screen, or this OpenCV cannot open windows.

    Example:
        >>> pressed = queue.SimpleQueue()
        >>> with_window = [WindowSink("camera 0", keys=pressed.put)]
    """

    wants_overlay = True

    def __init__(self, title: str = "rvos-edge", *, keys: Callable[[int], object] | None = None) -> None:
        _check_screen()
        # OpenCV's Qt misses its fonts, five times, and our windows have no text of theirs.
        os.environ.setdefault("QT_LOGGING_RULES", "default.warning=false")
        self.title = title
        self._keys = keys
        self._open = True
        self._sized = False
        try:
            cv2.namedWindow(title, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO)
        except cv2.error as error:
            raise UserError(
                "this OpenCV cannot open windows; install opencv-python instead of opencv-python-headless, "
                "or leave --window out"
            ) from error

    def write(self, frame: Frame, result: Result, overlay: NDArray[np.uint8] | None) -> None:
        if overlay is None:
            raise ValueError("a WindowSink needs the overlay")
        self.show(overlay)

    def show(self, image: NDArray[np.uint8]) -> None:
        """Put a picture (uint8 [H,W,3], BGR) into the window and hand on the keys; does nothing after it was closed."""
        if not self._open:
            return
        if not self._sized:
            self._sized = True
            cv2.resizeWindow(self.title, image.shape[1], image.shape[0])
        cv2.imshow(self.title, image)
        self.poll()

    def poll(self, seconds: float = 0.0) -> None:
        """Serve the window for so long, at least once, so that it answers and its keys are handed on."""
        deadline = time.monotonic() + seconds
        while self._open:
            left = deadline - time.monotonic()
            key = cv2.waitKey(max(1, round(min(left, 0.05) * 1000)))
            if key != _NO_KEY:
                self._tell(key & 0xFF)
            elif not self._visible():
                self.close()
                self._tell(CLOSED)
            if left <= 0:
                return

    def _visible(self) -> bool:
        try:
            return bool(cv2.getWindowProperty(self.title, cv2.WND_PROP_VISIBLE) >= 1)
        except cv2.error:  # Qt is gone with its last window
            return False

    def _tell(self, key: int) -> None:
        if self._keys is not None:
            self._keys(key)

    def close(self) -> None:
        if not self._open:
            return
        self._open = False
        with suppress(cv2.error):  # the user was faster
            cv2.destroyWindow(self.title)

    def abort(self) -> None:
        self.close()


def _check_screen() -> None:
    """Refuse where no screen answers: the Qt inside OpenCV ends the whole process then."""
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
