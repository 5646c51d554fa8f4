"""The live window: the overlay on the screen, and its keys: q ends the stream, space pauses it, s saves a snapshot.

Queries are typed on the page of ``--serve``. Drawn with Tk, which comes with Python: OpenCV's windows are missing from
opencv-python-headless.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from dataclasses import replace
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
from rvos_edge.streaming.signals import uninterrupted
from rvos_edge.streaming.sinks.base import Sink
from rvos_edge.streaming.sources import Frame

CLOSED = -1
"""The code that closing the window with the mouse stands for, which no character has."""


class WindowSink(Sink):
    """Shows the overlays in a window, first at the size of the first, and hands on the keys pressed in it.

    Make, show and close it in one thread, which must be the main one on a Mac: Tk belongs to the thread that starts it.

    Args:
        keys: Called with the code of each character that was typed ("q" is 113, space 32), and with `CLOSED` when the
            window was closed, from within `write` and `show`.

    Raises:
        UserError: There is no screen, or this Python has no tkinter.
    """

    wants_overlay = True

    def __init__(self, title: str = "rvos-edge", *, keys: Callable[[int], object] | None = None) -> None:
        try:
            import tkinter
        except ImportError as error:
            raise UserError(
                "--window needs tkinter, which this Python lacks; on Debian and Ubuntu apt install python3-tk, "
                "or use the live page, --serve"
            ) from error
        try:
            root = tkinter.Tk(className="rvos-edge")
        except tkinter.TclError as error:
            raise UserError(
                f"--window finds no screen ({error}); set DISPLAY, log in by ssh -X, or use the live page, --serve"
            ) from error
        self._keys = keys or (lambda key: None)
        self._pressed: list[int] = []
        self._shown: tuple[NDArray[np.uint8], tuple[int, int]] | None = None
        self._photo: tkinter.PhotoImage | None = tkinter.PhotoImage(master=root)
        self._root: tkinter.Tk | None = root
        root.title(title)
        root.protocol("WM_DELETE_WINDOW", lambda: self._pressed.append(CLOSED))
        root.bind("<Key>", lambda event: self._pressed.extend(map(ord, event.char)))
        label = tkinter.Label(root, image=self._photo, background="black", borderwidth=0)
        label.pack(expand=True, fill="both")

    def write(self, frame: Frame, result: Result, overlay: NDArray[np.uint8] | None) -> None:
        assert overlay is not None
        self.show(overlay)

    def show(self, image: NDArray[np.uint8]) -> None:
        """Put a picture (uint8 [H,W,3], BGR) into the window and hand on the keys; does nothing after it was closed."""
        if self._root is None:
            return
        with uninterrupted():  # Tk prints what is raised in its callbacks
            self._draw(image)
        pressed, self._pressed = self._pressed, []
        if CLOSED in pressed:
            self.close()
        for key in pressed:
            self._keys(key)

    def close(self) -> None:
        if self._root is None:
            return
        self._root.destroy()
        self._root = self._photo = None
        gc.collect()  # what is left of Tk ends the process when another thread's garbage collection meets it

    def _draw(self, image: NDArray[np.uint8]) -> None:
        assert self._root is not None
        assert self._photo is not None
        height, width = image.shape[:2]
        if self._shown is None:
            self._root.geometry(f"{width}x{height}")
            self._root.update()
        # Drawing 1280 x 720 pixels takes 6 ms of a server's core; during a pause the same picture comes again.
        inside = self._root.winfo_width(), self._root.winfo_height()
        if self._shown is None or self._shown[0] is not image or self._shown[1] != inside:
            self._shown = image, inside
            scale = min(inside[0] / width, inside[1] / height)
            size = max(1, round(width * scale)), max(1, round(height * scale))
            scaled = cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
            pixels = cv2.cvtColor(scaled, cv2.COLOR_BGR2RGB).tobytes()
            self._photo.configure(data=b"P6 %d %d 255\n" % size + pixels, format="PPM")
        self._root.update()


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
