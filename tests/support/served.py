"""A served stream and ways to talk to it; `tests/server/conftest.py` starts it."""

from __future__ import annotations

import http.client
import json
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from rvos_edge.result import Result
from rvos_edge.server.app import LiveServer
from rvos_edge.server.live import Live
from rvos_edge.streaming.sources import Frame, Source

SIZE = (96, 128)


def picture(index: int) -> NDArray[np.uint8]:
    """A picture that moves with its index, uint8 [96,128,3]."""
    return np.roll(cv2.resize(_NOISE, SIZE[::-1], interpolation=cv2.INTER_CUBIC), 3 * index, 1)


_NOISE = np.random.default_rng(5).integers(0, 255, (12, 16, 3), np.uint8)


def write_clip(path: Path, frames: int = 6) -> bytes:
    """Write an mp4 of 48x64 and return its bytes."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 25.0, (64, 48))
    for index in range(frames):
        writer.write(np.ascontiguousarray(picture(index)[:48, :64]))
    writer.release()
    return path.read_bytes()


class Pictures(Source):
    """Source of `frames` pictures, or without end, some 200 a second at most: a loop that never waits would keep the
    threads of the server from Python.
    """

    def __init__(self, frames: int | None = None, *, name: str = "pictures") -> None:
        super().__init__(name=name, fps=25.0, length=frames)
        self.closed = False

    def __iter__(self) -> Iterator[Frame]:
        index = 0
        while (self.length is None or index < self.length) and not self.closed:
            yield Frame(picture(index % 40), index, 0.0, f"{index:05d}", time.perf_counter())
            time.sleep(0.004)
            index += 1

    def close(self) -> None:
        self.closed = True


class Square(Pictures):
    """Source without end of a green square, 48 pixels wide, that slides over red ground."""

    def __iter__(self) -> Iterator[Frame]:
        for frame in super().__iter__():
            image = np.full((*SIZE, 3), (0, 0, 180), np.uint8)
            left = 20 + frame.index % 40
            image[24:72, left : left + 48] = (20, 220, 20)
            yield replace(frame, image=image)


class Collector:
    """Sink that keeps the newest `keep` results."""

    wants_overlay = False

    def __init__(self, keep: int) -> None:
        self.results: list[Result] = []
        self.keep = keep
        self.count = 0

    def write(self, frame: Frame, result: Result, overlay: NDArray[np.uint8] | None) -> None:
        self.results.append(result)
        del self.results[: -self.keep]
        self.count += 1

    def close(self) -> None: ...

    def abort(self) -> None: ...


@dataclass
class Answer:
    """Answer to a request."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> str:
        """Sentence of a refusal."""
        told: str = self.json["error"]
        assert told.endswith(".")
        assert "\n" not in told
        return told


@dataclass
class Served:
    """Stream that runs and is served."""

    live: Live
    page_server: LiveServer
    collector: Collector
    errors: list[BaseException] = field(default_factory=list)

    @property
    def port(self) -> int:
        return self.page_server.address.port

    @property
    def url(self) -> str:
        return self.page_server.url

    def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        *,
        sender: str = "127.0.0.1",
    ) -> Answer:
        """Send a request from the loopback address `sender`; a body that is not bytes goes as JSON."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20, source_address=(sender, 0))
        try:
            if body is not None and not isinstance(body, bytes):
                body = json.dumps(body).encode()
            connection.request(method, path, body, dict(headers or {}))
            answer = connection.getresponse()
            return Answer(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
        finally:
            connection.close()

    def settle(self, revision: int) -> Result:
        """First result that certainly has this revision of queries and settings."""
        wait_until(lambda: self.live.controls.shown.revision >= revision)
        return self.after(1)

    def after(self, frames: int) -> Result:
        """Result `frames` frames later."""
        target = self.collector.count + frames
        wait_until(lambda: self.collector.count >= target)
        return self.collector.results[-1]


def wait_until(condition: Callable[[], Any], within: float = 20.0) -> None:
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def fetch(url: str, headers: Mapping[str, str] | None = None) -> tuple[str, bytes]:
    """Address after all redirections, and the body."""
    with urllib.request.urlopen(urllib.request.Request(url, headers=dict(headers or {})), timeout=20) as answer:
        return answer.url, answer.read()


Serve = Callable[..., Served]
"""The fixture `serve`."""
