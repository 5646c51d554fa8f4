"""The camera of a browser as a source: a page sends its pictures."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

from rvos_edge.errors import UserError
from rvos_edge.server.player import Choice
from rvos_edge.server.single_image import decode_picture
from rvos_edge.streaming.sources import Frame, Source

_SILENCE = 10.0
"""Seconds without a picture after which the camera counts as turned off."""


class BrowserCamera(Source):
    """Hands out the newest picture that was sent; it ends when it is closed, or when none comes any more.

    Attributes:
        choice: The choice to play it.
        closed: True if no more pictures are taken.
    """

    live = True

    def __init__(self) -> None:
        super().__init__(name="Camera of a browser")
        self.choice = Choice("camera", self.name, self._open)
        self.closed = False
        self._opened = False
        self._started = time.perf_counter()
        self._news = threading.Condition()
        self._newest: Frame | None = None

    def put(self, data: bytes) -> None:
        """Take a picture; what is neither JPEG nor PNG is refused."""
        image, now = decode_picture(data), time.perf_counter()
        with self._news:
            self.dropped += self._newest is not None
            self._newest = Frame(image, 0, now - self._started, "", now)
            self._news.notify()

    def __iter__(self) -> Iterator[Frame]:
        while True:
            with self._news:
                self._news.wait_for(lambda: self._newest is not None or self.closed, _SILENCE)
                frame, self._newest = self._newest, None
            if frame is None or self.closed:
                return
            yield frame

    def close(self) -> None:
        with self._news:
            self.closed = True
            self._news.notify()

    def _open(self) -> Source:
        if self._opened or self.closed:
            raise UserError("the camera of the browser was turned off; choose another source.")
        self._opened = True
        return self
