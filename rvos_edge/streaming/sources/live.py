"""Live sources: a thread reads them and keeps only the newest frame, so lag cannot build up."""

from __future__ import annotations

import threading
import time
from abc import abstractmethod
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from rvos_edge.streaming.sources.base import (
    EventKind,
    Frame,
    Source,
    SourceEvent,
    State,
    Tell,
    UnavailableError,
    bgr,
    tell_stderr,
)

_FAILED_READS = 3
_FAILING_SECONDS = 1.0
"""A camera may drop a picture; after so many in a row, or so long, it is lost."""
FROZEN_SECONDS = 10.0
"""Time of one and the same picture after which it counts as frozen; a sensor's noise makes every picture new."""
_FROZEN_PICTURES = 5
_STEP = 4
"""Every fourth row and column is compared."""


class Capture(Protocol):
    """A device or stream that a thread reads."""

    @property
    def fps(self) -> float | None:
        """Frames per second as the device states them."""

    def read(self) -> tuple[bool, NDArray[np.generic] | None]:
        """Wait for the next picture; (False, None) if there is none.

        Raises:
            UnavailableError: None will come.
        """

    def release(self) -> None:
        """Give the device back."""


Connect = Callable[[], Capture]
"""Opens a capture; raises `UnavailableError` while that fails."""


class LiveSource(Source):
    """Runs `_grab` in a thread and hands out the newest of its frames.

    An exception in `_grab` is raised to the caller that iterates, after the frames before it. Subclasses call `_start`.
    """

    live = True

    def __init__(self, *, name: str, fps: float | None = None) -> None:
        super().__init__(name=name, fps=fps)
        self._news = threading.Condition()
        self._newest: Frame | None = None
        self._closing = threading.Event()
        self._ended = False
        self._failure: Exception | None = None
        self._thread = threading.Thread(target=self._run, name=f"grab {name}", daemon=True)

    @abstractmethod
    def _grab(self) -> Generator[Frame, None, None]:
        """The frames as they come; those without a name get the index that they are handed out with.

        Looks at `_closing` whenever it waits, and gives the device back at the end.
        """

    def _start(self) -> None:
        self._thread.start()

    def _run(self) -> None:
        try:
            with closing(self._grab()) as frames:
                for frame in frames:
                    with self._news:
                        if self._closing.is_set():
                            return
                        self.dropped += self._newest is not None
                        self._newest = frame
                        self._news.notify()
        except Exception as error:
            self._failure = error
        finally:
            with self._news:
                self._ended = True
                self._news.notify()

    def __iter__(self) -> Iterator[Frame]:
        index = 0
        while True:
            with self._news:
                while self._newest is None and not self._ended:
                    self._news.wait(0.5)  # with a timeout, or Ctrl-C would have to wait too
                frame, self._newest = self._newest, None
            if frame is None:
                break
            wall = time.time() - (time.perf_counter() - frame.captured)
            yield replace(frame, index=index, name=frame.name or f"{index:05d}", time=wall)
            index += 1
        if self._failure is not None:
            raise self._failure

    def close(self) -> None:
        self._closing.set()
        with self._news:
            self._newest = None
            self._ended = True
            self._news.notify()
        if self._thread.ident is not None:
            self._thread.join(timeout=1.0)  # a read that hangs ends with the process: the thread is a daemon


class LiveCapture(LiveSource):
    """A camera or a network stream; when it is lost, it is opened again and again until it is back.

    A loss, each cause of it, a return, a picture that no longer changes and pictures of another size are told once, and
    passed to `on_event`.

    Args:
        connect: Opens it.
        wait: True for one that need not be there yet: it is opened when the first frame is asked for.
        give_up: Seconds after which one that is away is given up and the stream ends; None for never, 0 for a stream
            that ends when it is lost.
        backoff: Seconds before the first attempt, which double with every other up to the second number; they go on
            from there for a device that is lost again sooner than they last.

    Raises:
        UserError: No first picture comes; with `wait` while iterating, when it is given up.
    """

    def __init__(
        self,
        connect: Connect,
        *,
        name: str,
        wait: bool = False,
        give_up: float | None = None,
        backoff: tuple[float, float] = (0.5, 30.0),
        tell: Tell = tell_stderr,
    ) -> None:
        super().__init__(name=name)
        self._connect = connect
        self._give_up = give_up
        self._backoff = backoff
        self._tell = tell
        self._pause, self._back_at = 0.0, 0.0
        self._watch = Watch()
        self._capture: Capture | None = None
        self._started = time.perf_counter()
        self._first = None if wait else self._frame(self._open())
        self.state = "waiting" if wait else "playing"
        if not wait:
            self._start()

    def __iter__(self) -> Iterator[Frame]:
        if self._thread.ident is None:
            self._start()
        yield from super().__iter__()

    def _open(self) -> NDArray[np.generic]:
        """Open the device and read its first picture."""
        capture = self._connect()
        try:
            image = self._read(capture)
        except BaseException:
            capture.release()
            raise
        self._capture, self.fps, self._back_at = capture, capture.fps, time.monotonic()
        self._watch.frozen = False
        return image

    def _frame(self, image: NDArray[np.generic]) -> Frame:
        captured = time.perf_counter()
        picture = bgr(image)
        for kind, what in self._watch.look(picture):
            self._report(kind, f"{self.name} {what}")
        return Frame(picture, 0, captured - self._started, "", captured)

    def _report(self, kind: EventKind, message: str, *, cause: str = "", state: State = "playing") -> None:
        self.state = "frozen" if kind == "frozen" else state
        self.trouble = "" if self.state == "playing" else message
        self._tell(message)
        if self.on_event is not None:
            self.on_event(SourceEvent(kind, message, cause))

    def _grab(self) -> Generator[Frame, None, None]:
        # Only this thread reads and releases the capture: OpenCV crashes on a release during a read.
        frame, lost = self._first, ""
        try:
            while not self._closing.is_set():
                if frame is None:
                    image = self._await(lost)
                    if image is None:
                        return
                    frame = self._frame(image)
                yield frame
                frame = None
                assert self._capture is not None
                try:
                    frame = self._frame(self._read(self._capture))
                except UnavailableError as error:
                    self._release()
                    if self._give_up == 0:
                        return
                    lost = error.cause
        finally:
            self._release()

    def _release(self) -> None:
        capture, self._capture = self._capture, None
        if capture is not None:
            capture.release()

    def _read(self, capture: Capture) -> NDArray[np.generic]:
        last = time.monotonic() + _FAILING_SECONDS
        for _ in range(_FAILED_READS):
            ok, image = capture.read()
            if ok and image is not None:
                return image
            if self._closing.is_set() or time.monotonic() > last:
                break
        raise UnavailableError(
            "no picture", f"{self.name} opens but gives no frame; check that no other program uses it"
        )

    def _await(self, lost: str) -> NDArray[np.generic] | None:
        """The first picture of the device, None if it is given up.

        Args:
            lost: Cause of its loss; empty for one that was not there yet.
        """
        if self._closing.is_set():
            return None
        since, (shortest, longest) = time.monotonic(), self._backoff
        if since - self._back_at > self._pause:
            self._pause = 0.0
        causes: list[str] = []
        if lost:
            causes.append(lost)
            self._pause = min(max(shortest, 2 * self._pause), longest)
            self._report("lost", f"{self.name} is lost ({lost}); trying to open it again", cause=lost, state="lost")
        while not self._closing.wait(self._pause):
            try:
                image = self._open()
            except UnavailableError as error:
                failure = error
            else:
                self.reconnects += bool(lost)
                if causes:
                    there = "back" if lost else "there"
                    self._report("back", f"{self.name} is {there} after {time.monotonic() - since:.1f} s")
                self.state = "playing"
                return image
            if failure.cause not in causes:
                causes.append(failure.cause)
                what = "is still away" if lost else "is not there"
                self._report(
                    "lost",
                    f"{self.name} {what} ({failure.cause}); trying again",
                    cause=failure.cause,
                    state="lost" if lost else "waiting",
                )
            if self._give_up is not None and time.monotonic() - since > self._give_up:
                back = " back" if lost else ""
                message = f"{self.name} did not come{back} within {self._give_up:g} s; the stream ends here"
                self._report("ended", message, cause=failure.cause, state="lost")
                if not lost:
                    raise failure
                return None
            self._pause = min(max(shortest, 2 * self._pause), longest)
        return None


class Watch:
    """Looks at the pictures of a source, one after the other.

    Attributes:
        frozen: True while the picture stays the same.

    Example:
        >>> watch = Watch()
        >>> for height in (480, 480, 720):
        ...     print(list(watch.look(np.zeros((height, 640, 3), np.uint8))))
        []
        []
        [('size', 'gives pictures of 640x720 now, 640x480 before')]
    """

    def __init__(self) -> None:
        self.frozen = False
        self._size = (0, 0)
        self._sample = b""
        self._since = 0.0
        self._same = 0

    def look(self, picture: NDArray[np.uint8]) -> Iterator[tuple[EventKind, str]]:
        """Events of the next picture, uint8 [H,W,3]: the kind of a `SourceEvent` and the rest of a sentence."""
        now, size, sample = time.monotonic(), picture.shape[:2], picture[::_STEP, ::_STEP].tobytes()
        if self._size not in ((0, 0), size):
            (before, wide), (height, width) = self._size, size
            yield "size", f"gives pictures of {width}x{height} now, {wide}x{before} before"
        self._size = (size[0], size[1])
        if sample != self._sample:
            if self.frozen:
                self.frozen = False
                yield "moving", f"moves again after {now - self._since:.0f} s"
            self._sample, self._since, self._same = sample, now, 1
            return
        self._same += 1
        if not self.frozen and self._same >= _FROZEN_PICTURES and now - self._since >= FROZEN_SECONDS:
            self.frozen = True
            yield "frozen", f"has shown the same picture for {now - self._since:.0f} s; is it frozen?"


class Realtime(LiveSource):
    """Another source played at its own speed: frames that are not taken in time are dropped, as if it were a camera.

    Frames keep the name they have in the source.

    Args:
        paced: True to wait for each frame's time; False for a pipe, which has its own pace.
    """

    def __init__(self, source: Source, *, paced: bool = True) -> None:
        super().__init__(name=source.name, fps=source.fps)
        self.sound = source.sound
        self._source = source
        self._paced = paced

    def __iter__(self) -> Iterator[Frame]:
        self._start()  # now and not before: a model that loads for seconds shall not miss the beginning
        yield from super().__iter__()

    def _grab(self) -> Generator[Frame, None, None]:
        started: float | None = None
        try:
            for frame in self._source:
                now = time.perf_counter()
                started = now - frame.timestamp if started is None else started
                if self._paced and self._closing.wait(max(0.0, started + frame.timestamp - now)):
                    return
                yield replace(frame, captured=time.perf_counter())
        finally:
            self._source.close()

    def close(self) -> None:
        super().close()
        if self._thread.ident is None:
            self._source.close()
