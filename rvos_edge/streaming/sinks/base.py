"""The protocol of sinks, and several sinks as one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from enum import Enum
from typing import Protocol, runtime_checkable

import cv2
import numpy as np
from numpy.typing import NDArray

from rvos_edge.errors import UserError
from rvos_edge.result import Result
from rvos_edge.streaming.signals import uninterrupted
from rvos_edge.streaming.sources import Frame, Tell, tell_stderr


class Look(Enum):
    """The pictures that a sink writes."""

    OVERLAY = "overlay"
    MASK = "mask"
    """White where a query is, else black."""
    CUTOUT = "cutout"
    """The frame, transparent where no query is."""


class Sink(Protocol):
    """Takes every result of a stream; those here derive from it, others need only look like it.

    Raises:
        UserError: A sink is made for a place that cannot be written, or that holds what this program did not write.
    """

    wants_overlay: bool = False

    def write(self, frame: Frame, result: Result, overlay: NDArray[np.uint8] | None) -> None:
        """Take one frame; `overlay` is there if this sink wants it.

        Raises:
            UserError: The output cannot go on; what it has so far can still be closed.
        """

    def close(self) -> None:
        """Finish the output and give it its name."""
        return

    def abort(self) -> None:
        """Remove the output; does nothing after `close`."""
        self.close()


@runtime_checkable
class Screen(Protocol):
    """A sink that people watch: it shows notes, and is drawn anew while the stream is paused."""

    def show(self, image: NDArray[np.uint8]) -> None:
        """Show a picture, uint8 [H,W,3] BGR, in place of the last one."""


@contextmanager
def open_sinks(makers: Iterable[Callable[[], Sink]]) -> Iterator[list[Sink]]:
    """Make several sinks, or none; all are aborted if the block ends with an error, also with Ctrl-C.

    Example:
        >>> with open_sinks([lambda: VideoSink("out.mp4", 25.0)]) as sinks:  # doctest: +SKIP
        ...     run_stream(segmenter, source, sinks)
    """
    sinks: list[Sink] = []
    try:
        with uninterrupted():  # a sink is in the list as soon as its file is there
            for make in makers:
                sinks.append(make())
        yield sinks
    except BaseException:
        for sink in reversed(sinks):  # those that are closed stay
            sink.abort()
        raise


class Outputs:
    """The sinks of a stream as one: when one of them fails, the others go on.

    Args:
        sinks: Closed or aborted here.
        together: The failure of one sink is the failure of all.
        tell: Takes a sentence when a sink had to end before the stream.
        failures: Takes the reason too.
    """

    def __init__(
        self,
        sinks: Sequence[Sink],
        *,
        together: bool = False,
        tell: Tell = tell_stderr,
        failures: list[str] | None = None,
    ) -> None:
        self._sinks = list(sinks)
        self._together = together
        self._tell = tell
        self._begun = False
        self.failures: list[str] = [] if failures is None else failures
        self.wants_overlay = any(sink.wants_overlay for sink in sinks)

    @property
    def screens(self) -> list[Screen]:
        """The sinks that people watch."""
        return [sink for sink in self._sinks if isinstance(sink, Screen)]

    def write(
        self, frame: Frame, result: Result, overlay: NDArray[np.uint8] | None, *, noted: NDArray[np.uint8] | None = None
    ) -> None:
        """Give one frame to every sink; one that fails is closed with what it has, and left out from then on.

        Args:
            frame: See ``Sink.write``.
            result: See ``Sink.write``.
            overlay: See ``Sink.write``.
            noted: The picture that screens show instead of the overlay, None for the same.

        Raises:
            UserError: A sink failed on the first frame, the last sink that was left did, or all go `together`.
        """
        for sink in tuple(self._sinks):
            try:
                sink.write(frame, result, overlay if noted is None or not isinstance(sink, Screen) else noted)
            except UserError as error:
                if self._together or not self._begun or len(self._sinks) == 1:
                    raise
                self._sinks.remove(sink)
                with suppress(UserError):  # the first error is the one to tell
                    _close(sink)
                self.failures.append(str(error))
                self._tell(f"{error} (the stream goes on without it)")
        self._begun = True

    def close(self) -> None:
        """Close every sink, also when one fails; the first failure is raised at the end."""
        failure: Exception | None = None
        for sink in self._sinks:
            try:
                _close(sink)
            except Exception as error:
                failure = failure or error
        if failure is not None:
            raise failure

    def abort(self) -> None:
        """Remove the outputs of all sinks."""
        for sink in reversed(self._sinks):  # the first one made the folders that the others are in
            sink.abort()


def _close(sink: Sink) -> None:
    try:
        sink.close()
    except BaseException:
        sink.abort()
        raise


def draw_look(look: Look, frame: Frame, result: Result, overlay: NDArray[np.uint8] | None) -> NDArray[np.uint8]:
    """A picture, uint8 [H,W,3] BGR, or [H,W,4] for a cut-out."""
    if look is Look.OVERLAY:
        assert overlay is not None
        return overlay
    mask = np.where(result.masks.any(axis=0), np.uint8(255), np.uint8(0))
    if look is Look.MASK:
        return np.repeat(mask[..., None], 3, axis=2)
    return np.dstack([frame.image, mask])


def fit(image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Bring a picture [H,W,C] to `size` (height, width); where the shapes differ, with black borders."""
    if image.shape[:2] == size:
        return image
    scale = min(size[0] / image.shape[0], size[1] / image.shape[1])
    height, width = (max(1, round(extent * scale)) for extent in image.shape[:2])
    out = np.zeros((*size, image.shape[2]), np.uint8)
    top, left = (size[0] - height) // 2, (size[1] - width) // 2
    out[top : top + height, left : left + width] = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    return out
