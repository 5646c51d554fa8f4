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

from rvos_edge.errors import UserError
from rvos_edge.streaming.sources.base import Frame, Source, Tell, bgr, quiet_opencv, tell_stderr

_FAILED_READS = 3
_FAILING_SECONDS = 1.0
"""A camera may drop a picture; after so many in a row, or so long, it is lost."""


class Capture(Protocol):
    """A device that a thread reads: `cv2.VideoCapture`, or a pipe."""

    def read(self) -> tuple[bool, NDArray[np.generic] | None]:
        """Wait for the next picture; (False, None) if there is none."""

    def release(self) -> None:
        """Give the device back."""


Reopen = Callable[[], "Capture | None"]
"""Opens a capture again; None while that fails."""


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
            yield replace(frame, index=index, name=frame.name or f"{index:05d}")
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

    Args:
        capture: Opened; released here.
        reopen: Opens it again; None: the stream ends when reading fails.
        give_up: Seconds after which a lost device is given up and the stream ends; None for never.
        backoff: Seconds before the first attempt, which double with every other up to the second number.

    Raises:
        UserError: No first frame arrives.
    """

    def __init__(
        self,
        capture: Capture,
        *,
        name: str,
        fps: float | None = None,
        reopen: Reopen | None = None,
        give_up: float | None = None,
        backoff: tuple[float, float] = (0.5, 8.0),
        tell: Tell = tell_stderr,
    ) -> None:
        with quiet_opencv():
            ok, image = capture.read()
        if not ok or image is None:
            capture.release()
            raise UserError(f"{name} opens but gives no frame; check that no other program uses it")
        super().__init__(name=name, fps=fps)
        self._capture = capture
        self._reopen = reopen
        self._give_up = give_up
        self._backoff = backoff
        self._tell = tell
        self._started = time.perf_counter()
        self._first = self._frame(image)
        self._start()

    def _frame(self, image: NDArray[np.generic]) -> Frame:
        captured = time.perf_counter()
        return Frame(bgr(image), 0, captured - self._started, "", captured)

    def _grab(self) -> Generator[Frame, None, None]:
        # Only this thread reads and releases the capture: OpenCV crashes on a release during a read.
        try:
            yield self._first
            while not self._closing.is_set():
                image = self._read()
                if image is None and not self._closing.is_set():
                    image = self._recover()
                if image is None:
                    return
                yield self._frame(image)
        finally:
            self._capture.release()

    def _read(self) -> NDArray[np.generic] | None:
        last = time.monotonic() + _FAILING_SECONDS
        for _ in range(_FAILED_READS):
            ok, image = self._capture.read()
            if ok and image is not None:
                return image
            if self._closing.is_set() or time.monotonic() > last:
                break
        return None

    def _recover(self) -> NDArray[np.generic] | None:
        """The first picture after the device is back, None if it is given up."""
        self._capture.release()
        if self._reopen is None or self._give_up == 0:
            return None
        lost, (delay, longest) = time.monotonic(), self._backoff
        self._tell(f"{self.name} is lost; trying to open it again")
        while not self._closing.wait(delay):
            capture = self._reopen()
            if capture is not None:
                ok, image = capture.read()
                if ok and image is not None:
                    self._capture = capture
                    self.reconnects += 1
                    self._tell(f"{self.name} is back after {time.monotonic() - lost:.1f} s")
                    return image
                capture.release()
            if self._give_up is not None and time.monotonic() - lost > self._give_up:
                self._tell(f"{self.name} did not come back within {self._give_up:g} s; the stream ends here")
                return None
            delay = min(2 * delay, longest)
        return None


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
