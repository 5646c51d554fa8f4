"""The keys of the live window: quit, pause, snapshot, typing queries, hiding them.

q       ends the stream
space   pauses and goes on
s       saves a snapshot
/       edits the queries, several are separated by semicolons: Enter applies, Esc leaves them; the picture waits
1 .. 9  hide a query's mask and show it again
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from rvos_edge.errors import UserError
from rvos_edge.streaming.overlay import OverlayView, draw_view
from rvos_edge.streaming.sinks import PendingFile
from rvos_edge.streaming.sinks.window import CLOSED
from rvos_edge.streaming.sources import Frame

if TYPE_CHECKING:
    from rvos_edge.result import Result
    from rvos_edge.streaming.loop import Stepper

_ENTER = frozenset({10, 13, 0xFF0D, 0xFF8D})
_ESCAPE = frozenset({27, 0xFF1B})
_BACKSPACE = frozenset({8, 127, 0xFF08})
_CLEAR = 21  # Ctrl-U, as in a shell
_UNICODE = 0x01000000
"""X11 gives characters beyond Latin-1 as this plus their code point."""
_SEPARATOR = ";"
_DIGITS = frozenset("123456789")
_LONGEST = 1000
_HELP = "Enter applies, Esc cancels, ; between several"


@dataclass
class KeyState:
    """What the keys pressed so far ask for: `press` changes it, who acts on it resets what it has done.

    Attributes:
        queries: What is being segmented, kept up to date from outside; where an edit starts.
        quit: The stream is to end.
        paused: The stream is to stand still.
        hidden: Indices of queries whose masks are not to be drawn.
        snapshot: A snapshot is to be saved.
        edited: New queries to be set, None if there are none.
        typed: The line being typed, None outside of an edit.

    Example:
        >>> state = KeyState(queries=("a dog",))
        >>> for code in b"/a red ball\\r":
        ...     state.press(code)
        >>> state.edited
        ('a red ball',)
    """

    queries: tuple[str, ...] = ()
    quit: bool = False
    paused: bool = False
    hidden: frozenset[int] = frozenset()
    snapshot: bool = False
    edited: tuple[str, ...] | None = None
    typed: str | None = None
    _untouched: bool = field(default=False, repr=False)

    def press(self, code: int) -> None:
        """Take one key.

        Args:
            code: As `cv2.waitKeyEx` gives it, or `CLOSED`.
        """
        if code < 0:
            return
        if code == CLOSED:
            self.quit = True
        elif self.typed is None:
            self._command(_letter(code))
        else:
            self._edit(self.typed, code)

    def _command(self, key: str) -> None:
        if key == "q":
            self.quit = True
        elif key == " ":
            self.paused = not self.paused
        elif key == "s":
            self.snapshot = True
        elif key == "/":
            self.typed, self._untouched = f"{_SEPARATOR} ".join(self.queries), True
        elif key in _DIGITS and int(key) <= len(self.queries):
            self.hidden ^= {int(key) - 1}

    def _edit(self, typed: str, code: int) -> None:
        if code in _ENTER:
            queries = tuple(part for part in map(str.strip, typed.split(_SEPARATOR)) if part)
            # Nothing typed is no wish to segment nothing.
            self.edited = queries or None
            self.typed = None
        elif code in _ESCAPE:
            self.typed = None
        elif code in _BACKSPACE:
            self.typed, self._untouched = typed[:-1], False
        elif code == _CLEAR:
            self.typed, self._untouched = "", False
        elif (letter := _letter(code)) and len(typed) < _LONGEST:
            # As in a browser's address line: the first letter takes the place of what stood there.
            self.typed, self._untouched = letter if self._untouched else typed + letter, False


class KeyControls:
    """`KeyState` at work on a stream: the loop's `controls`, and a sink that remembers the frame for snapshots.

    Give the object to `run_stream` twice, as `controls` and among the sinks, and its `press` to a `WindowSink`.

    Args:
        view: How overlays are drawn to begin with.
        snapshots: Folder for snapshots.

    Example:
        >>> controls = KeyControls()
        >>> window = WindowSink("camera", keys=controls.press)
        >>> run_stream(segmenter, source, [window, controls], controls=controls)
    """

    wants_overlay = False

    def __init__(self, *, view: OverlayView | None = None, snapshots: Path | None = None) -> None:
        self.state = KeyState()
        self._view = view or OverlayView()
        self._folder = snapshots or Path()
        self._last: tuple[Frame, Result] | None = None
        self._said = ""

    def press(self, code: int) -> None:
        """Take one key; it is acted on at the next `apply`."""
        self._said = ""
        self.state.press(code)

    @property
    def paused(self) -> bool:
        # Windows hand on one key per look at them: at a few frames per second nobody could type.
        return self.state.paused or self.state.typed is not None

    @property
    def view(self) -> OverlayView:
        state = self.state
        if state.typed is not None:
            note = f"{_HELP}:  /{state.typed}_"
        else:
            note = self._said or ("paused, space goes on" if state.paused else "")
        return replace(self._view, hidden=state.hidden, note=note)

    def apply(self, segmenter: Stepper) -> bool:
        state = self.state
        if state.edited is not None:
            queries, state.edited = state.edited, None
            try:
                segmenter.set_queries(queries)
                state.hidden = frozenset()
            except UserError as error:
                self._said = str(error)
        if state.snapshot:
            state.snapshot = False
            self._said = self._save()
        state.queries = segmenter.queries
        return not state.quit

    def write(self, frame: Frame, result: Result, overlay: NDArray[np.uint8] | None) -> None:
        self._last = frame, result

    def close(self) -> None:
        self._last = None

    def abort(self) -> None:
        self.close()

    def _save(self) -> str:
        """Write the last frame with its masks; returns what there is to say."""
        if self._last is None:
            return "no frame yet"
        frame, result = self._last
        stem = f"snapshot-{time.strftime('%Y%m%d-%H%M%S')}-{frame.name}"
        path = self._folder / f"{stem}.png"
        try:
            file = PendingFile(path)
            try:
                _, content = cv2.imencode(".png", draw_view(frame.image, result, self.view))
                file.partial.write_bytes(content.tobytes())
                file.commit()
            except BaseException:
                file.discard()
                raise
        except (UserError, OSError) as error:
            return f"no snapshot: {error}"
        return f"saved {path}"


def _letter(code: int) -> str:
    """The printable character of a key, else empty."""
    if code >= _UNICODE:
        code -= _UNICODE
    else:
        code &= 0xFFFF  # the bits above are modifiers, such as Num Lock
        if code >= 0x100:
            return ""  # the arrows and so on, and X11's old codes of other alphabets, which are not Unicode
    letter = chr(code) if code < 0x110000 else ""
    return letter if letter.isprintable() else ""
