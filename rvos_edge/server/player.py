"""A source that plays the sources chosen on the page: at their own speed, paused, and again from the start."""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace

from rvos_edge.errors import UserError
from rvos_edge.server.controls import ServerControls
from rvos_edge.streaming.pipeline import read_ahead
from rvos_edge.streaming.sources import Frame, Source

_LOG = logging.getLogger(__name__)
ASSUMED_FPS = 25.0
_GLANCE = 0.2
"""Seconds between two looks of a waiting stream, so that Ctrl-C reaches it everywhere."""


@dataclass(frozen=True)
class Choice:
    """A source that can be played; ``open`` opens it from its start, and the page can remove it if it was uploaded
    there. ``examples`` are sentences that the page offers.
    """

    id: str
    name: str
    open: Callable[[], Source]
    uploaded: bool = False
    examples: tuple[str, ...] = ("a person", "a dog", "the car on the left", "a white cup")


class Player(Source):
    """Plays one choice after another for as long as the stream runs.

    Files and the synthetic camera are played no faster than their own speed. While a pause holds a frame, every edit
    yields it once more, so that the edit is seen; a single picture is held for ever.

    Args:
        source: Its source, opened already; the caller closes it.
        restarted: Called before the first frame of every choice.
        repeat: Start a file again at its end, and after an error wait for another choice; otherwise the stream ends.

    Attributes:
        trouble: Reason why nothing is playing; empty otherwise.
        camera_trouble: The same, or the trouble of the camera that is played.
        position: Seconds of the newest frame in its source.
        still: True for a single picture.
    """

    def __init__(
        self, choice: Choice, source: Source, controls: ServerControls, *, restarted: Callable[[], None], repeat: bool
    ) -> None:
        super().__init__(name=source.name, fps=source.fps, length=None if repeat else source.length)
        self.live = source.live
        self.choice = choice
        self.trouble = ""
        self.position = 0.0
        self.still = False
        self._sought: float | None = None
        self._steps = 0
        self._jumped = False
        self._controls = controls
        self._restarted = restarted
        self._repeat = repeat
        self._lock = threading.Lock()
        self._next: tuple[Choice, Source] | None = (choice, source)
        self._mine: Source | None = None
        self._closed = False
        self._running = False

    @property
    def camera_trouble(self) -> str:
        playing = self._mine
        return self.trouble or (playing.trouble if playing is not None else "")

    def play(self, choice: Choice) -> None:
        """Play another choice from the next frame on; where it cannot be opened the current one goes on."""
        source = choice.open()
        with self._lock:
            overtaken, self._next = self._next, (choice, source)
            playing = self._mine
        if playing is not None and playing.live:  # a camera that is away would keep the stream waiting
            playing.close()
        if overtaken is not None:
            overtaken[1].close()
        # A stream that is paused or waits looks up.
        self._controls.wake()

    def seek(self, seconds: float) -> None:
        """Go on with the frame at that time of the source, also from another thread; a source without times refuses."""
        if self.seconds is None:
            raise UserError(f"{self.name} cannot be wound; choose a video file.")
        self._steps, self._sought = 0, max(0.0, seconds)
        self._controls.wake()

    def step(self, frames: int) -> None:
        """Go forward or back by a number of frames, as `seek` does; the caller pauses the stream."""
        if frames == 1 and self.seconds is not None:
            self._steps = 1  # the next frame needs no search, so that the state of the flow stays valid
            self._controls.wake()
        else:
            start = self.position if self._sought is None else self._sought
            self.seek(start + frames / (self.fps or ASSUMED_FPS))

    def __iter__(self) -> Iterator[Frame]:
        self._running = True
        try:
            yield from self._all()
        finally:
            self._running = False
            if self._mine is not None:
                self._mine.close()

    def close(self) -> None:
        """Stop, from any thread; sources that the page chose are closed."""
        with self._lock:
            self._closed = True
            waiting, self._next = self._next, None
            playing = self._mine
        if waiting is not None:
            waiting[1].close()
        # A file is closed by the thread that reads it: OpenCV crashes on a release during a read. A camera would keep
        # that thread waiting.
        if playing is not None and (playing.live or not self._running):
            playing.close()
        self._controls.wake()

    def _all(self) -> Iterator[Frame]:
        index = itertools.count()
        offset = latest = 0.0
        while (source := self._await_source()) is not None:
            before, lost, played = self.dropped, self.reconnects, 0
            self.trouble = ""
            self._restarted()
            try:
                for frame in self._play(source):
                    self.dropped, self.reconnects = before + source.dropped, lost + source.reconnects
                    number, played = next(index), played + 1
                    if self._jumped:
                        offset = latest + 1 / (source.fps or ASSUMED_FPS) - frame.timestamp
                    self._jumped, self.position = False, frame.timestamp
                    name = frame.name if frame.index == number else f"{number:05d}"
                    # Sinks write one video, whatever is played and held in it.
                    latest = max(latest, offset + frame.timestamp)
                    yield replace(frame, index=number, name=name, timestamp=latest)
            except UserError as error:
                if not self._repeat:
                    raise
                self.trouble = str(error)
                _LOG.warning("%s", error)
            if not played and not self._over and not self.trouble:
                self.trouble = f"{self.name} gives no frames; choose another source."
            offset = latest + 1 / (source.fps or ASSUMED_FPS)
            if self._next is None and not self._start_again():
                return

    def _await_source(self) -> Source | None:
        """The next source to play; waits while there is none, None when closed."""
        while not self._closed:
            seen = self._controls.wanted.revision
            with self._lock:
                chosen, self._next = self._next, None
            if chosen is not None:
                if self._mine is not None:
                    self._mine.close()
                self.choice, self._mine = chosen
                self.name, self.fps, self.live = self._mine.name, self._mine.fps, self._mine.live
                self._mine.on_event = lambda event: self.on_event is not None and self.on_event(event)
                self.still = self._repeat and not self.live and self._mine.length == 1
                self.seconds = None if self.still else self._mine.seconds
                self.position, self._sought, self._steps = 0.0, None, 0
                return self._mine
            self._controls.wait_for_edit(seen, _GLANCE)
        return None

    def _start_again(self) -> bool:
        """Open the source that ended once more; False ends the stream."""
        if not self._repeat or self._closed:
            return False
        if not self.trouble:
            try:
                again = self.choice.open()
            except UserError as error:
                self.trouble = str(error)
                return True
            with self._lock:
                unused = again if self._next else None
                self._next = self._next or (self.choice, again)
            if unused is not None:
                unused.close()
        return True

    def _play(self, source: Source) -> Iterator[Frame]:
        start: float | None = None
        while True:
            with nullcontext(iter(source)) if source.seconds is None else read_ahead(source) as frames:
                for frame in frames:
                    now = time.perf_counter()
                    start = now - frame.timestamp if start is None else start
                    if not source.live and frame.timestamp + start > now:
                        time.sleep(min(1.0, frame.timestamp + start - now))
                    if self._over:
                        return
                    yield replace(frame, captured=time.perf_counter()) if not source.live else frame
                    yield from self._hold(frame)
                    if self._over:
                        return
                    if self._sought is not None:
                        break
                    # The time of a pause or of a slow machine is not caught up.
                    start = max(start, time.perf_counter() - frame.timestamp)
            if (sought := self._sought) is None:
                return
            self._sought, self._jumped, start = None, True, None
            source.seek(sought)
            self._restarted()

    def _hold(self, frame: Frame) -> Iterator[Frame]:
        seen = self._controls.shown.revision
        while (self.still or self._controls.wanted.settings.paused) and not self._over and self._sought is None:
            if self._steps:
                self._steps = 0
                return
            if self._controls.wait_for_edit(seen, _GLANCE):
                seen = self._controls.wanted.revision
                if not self._over:
                    yield replace(frame, captured=time.perf_counter())

    @property
    def _over(self) -> bool:
        return self._closed or self._next is not None
