"""The newest picture, drawn and encoded once for all viewers."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from rvos_edge.result import Result
from rvos_edge.server.controls import ServerControls, Wanted
from rvos_edge.server.recorder import Recorder
from rvos_edge.server.rendering import draw_picture, encode_jpeg, fit
from rvos_edge.server.telemetry import Telemetry
from rvos_edge.streaming.sinks import Sink
from rvos_edge.streaming.sources import Frame, Source

_LOG = logging.getLogger(__name__)
_QUALITY = 82
_WIDEST = 1280
"""Longest side of a picture, in pixels: enough for a page, and small enough for a phone's network."""


@dataclass(frozen=True)
class Shown:
    """A frame with its result, and the queries and settings to draw it."""

    frame: Frame
    result: Result
    asked: Wanted

    @property
    def labelled(self) -> Result:
        """The result with the names that are shown for its queries."""
        labels, pairs = self.asked.settings.labels, zip(self.asked.queries, self.result.queries, strict=True)
        return replace(self.result, queries=tuple(labels.get(asked, text) for asked, text in pairs))

    def draw(self, *, legend: bool = False) -> NDArray[np.uint8]:
        """Draw the picture, uint8 [H,W,3] BGR."""
        settings, asked = self.asked.settings, self.asked.queries
        hidden = frozenset(index for index, text in enumerate(asked) if text in settings.hidden)
        return draw_picture(self.frame.image, self.labelled, settings, hidden=hidden, legend=legend)


class Hub:
    """Holds the newest picture for any number of viewers; a viewer takes it when ready and misses those in between.

    All methods but ``publish`` must be called from one event loop.
    """

    def __init__(self) -> None:
        self.viewers = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._newest: tuple[int, bytes] = (0, b"")
        self._waiting: set[asyncio.Future[None]] = set()

    @contextmanager
    def viewer(self) -> Iterator[None]:
        """Count a viewer, whose event loop is the one of all."""
        self._loop = asyncio.get_running_loop()
        self.viewers += 1
        try:
            yield
        finally:
            self.viewers -= 1

    def publish(self, picture: bytes) -> None:
        """Replace the newest picture; may be called from any thread."""
        loop = self._loop
        if loop is not None and not loop.is_closed():
            loop.call_soon_threadsafe(self._set, picture)

    async def newer(self, seen: int) -> tuple[int, bytes]:
        """Wait for a picture newer than number ``seen``; returns its number and its JPEG bytes."""
        while self._newest[0] <= seen:
            future = asyncio.get_running_loop().create_future()
            self._waiting.add(future)
            try:
                await future
            finally:
                self._waiting.discard(future)
        return self._newest

    def _set(self, picture: bytes) -> None:
        self._newest = (self._newest[0] + 1, picture)
        for future in self._waiting:
            if not future.done():
                future.set_result(None)


class PageSink(Sink):
    """Sink of the live page. The loop only hands over a frame; a thread draws and encodes it if there are viewers.

    Args:
        source: Source that is played; its dropped frames and losses are counted.

    Attributes:
        before: The frame before the newest one; None where a video began.
    """

    def __init__(
        self, controls: ServerControls, source: Source, telemetry: Telemetry, recorder: Recorder, hub: Hub
    ) -> None:
        self._controls = controls
        self._source = source
        self._telemetry = telemetry
        self._recorder = recorder
        self._hub = hub
        self._news = threading.Condition()
        self._shown: Shown | None = None
        self.before: Shown | None = None
        self._fresh = False
        self._closed = False
        self._thread = threading.Thread(target=self._draw, name="page", daemon=True)
        self._thread.start()

    @property
    def shown(self) -> Shown | None:
        """The newest frame; None before the first."""
        return self._shown

    def write(self, frame: Frame, result: Result, overlay: NDArray[np.uint8] | None) -> None:
        asked = self._controls.shown
        shown = Shown(frame, result, asked)
        setup = (asked.queries, asked.settings.iterations, asked.settings.flow, self._source.name, frame.image.shape)
        self._telemetry.add(frame, result, self._source, setup=setup)
        if self._recorder.running:
            self._recorder.write(frame, shown.labelled, shown.draw(legend=True))
        with self._news:
            if self._shown is not None and self._shown.frame.image is not frame.image:  # not a held one
                self.before = self._shown if result.index else None
            self._shown, self._fresh = shown, True
            self._news.notify()

    def show_again(self) -> None:
        """Draw the newest frame again, for a new viewer."""
        with self._news:
            self._fresh = self._shown is not None
            self._news.notify()

    def close(self) -> None:
        with self._news:
            self._closed = True
            self._news.notify()
        self._thread.join(timeout=2.0)
        self._recorder.close()

    def _draw(self) -> None:
        while True:
            with self._news:
                self._news.wait_for(lambda: self._fresh or self._closed)
                if self._closed:
                    return
                shown, self._fresh = self._shown, False
            if shown is None or not self._hub.viewers:
                continue
            try:
                self._hub.publish(encode_jpeg(fit(shown.draw(), _WIDEST), _QUALITY))
            except Exception:  # the next picture may succeed
                _LOG.exception("a picture could not be drawn")
