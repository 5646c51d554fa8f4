"""A stream with its page: everything put together, and the thread that serves it."""

from __future__ import annotations

import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, Response
from starlette.routing import BaseRoute, Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles

from rvos_edge.errors import UserError
from rvos_edge.server.address import Address, check_token, listen
from rvos_edge.server.broadcast import Hub, PageSink
from rvos_edge.server.controls import LiveSegmenter, ServerControls
from rvos_edge.server.guard import Guard
from rvos_edge.server.openapi import Operation
from rvos_edge.server.player import Choice, Player
from rvos_edge.server.recorder import Recorder
from rvos_edge.server.routes import Api, answer_error
from rvos_edge.server.single_image import SingleImages
from rvos_edge.server.sockets import LONGEST_MESSAGE, Sockets
from rvos_edge.server.telemetry import Telemetry
from rvos_edge.server.uploads import Library
from rvos_edge.streaming.overlay import query_colours
from rvos_edge.streaming.sources import Source

if TYPE_CHECKING:
    from starlette.types import ASGIApp
    from typing_extensions import Self

    from rvos_edge.protocol import SegmenterProtocol

_PAGE = Path(__file__).with_name("page")
_MOST_CONNECTIONS = 256
_PATIENCE = 10.0
"""Seconds for the server to start, and to end."""


class Live:
    """A stream that can be watched and steered; the loop runs it as usual.

    Args:
        segmenter: Its settings are taken over; nobody else changes them.
        source: What plays first, opened; closing it stays with the caller.
        reopen: Opens that source from its start again.
        stills: Opens another segmenter, without flow, for single pictures.
        repeat: Whether a file starts again at its end.
        opacity: Of the masks, to start with.

    Attributes:
        segmenter: For the loop.
        player: For the loop: its source.
        sink: For the loop, among the other sinks.
    """

    def __init__(
        self,
        segmenter: SegmenterProtocol,
        source: Source,
        *,
        reopen: Callable[[], Source],
        stills: Callable[[], SegmenterProtocol],
        repeat: bool = True,
        opacity: float = 0.5,
    ) -> None:
        self.bundle, self.backend = segmenter.bundle.manifest.name, segmenter.backend_name
        self.controls = ServerControls(segmenter, opacity=opacity)
        self.segmenter = LiveSegmenter(segmenter, self.controls)
        first = Choice("start", source.name, reopen)
        self.library = Library(first)
        self.player = Player(first, source, self.controls, restarted=self.segmenter.reset, repeat=repeat)
        self.hub = Hub()
        self.figures = Telemetry(lambda: self.hub.viewers)
        self.recorder = Recorder(self.library.folder)
        self.stills = SingleImages(stills)
        self.sink = PageSink(self.controls, self.player, self.figures, self.recorder, self.hub)

    def close(self) -> None:
        """Stop playing, finish a recording and remove the temporary folder; may be called twice."""
        self.player.close()
        self.sink.close()
        self.library.close()

    def query_rows(self) -> list[dict[str, Any]]:
        """The wanted queries with colours, and with scores where the last frame has them."""
        known = {row["text"]: row for row in self.figures.objects}
        rows = []
        for index, text in enumerate(self.controls.wanted.queries):
            fill, line = (_css(colour) for colour in query_colours(index))
            row = known.get(text, {"text": text, "score": None, "area": None})
            rows.append({**row, "fill": fill, "line": line})
        return rows

    def source_rows(self) -> list[dict[str, Any]]:
        """What can be played."""
        return [{"id": known.id, "name": known.name, "uploaded": known.uploaded} for known in self.library.choices]

    def status(self) -> dict[str, Any]:
        """Everything that the page shows, as JSON."""
        wanted, player, recording = self.controls.wanted, self.player, self.recorder.state
        state = "waiting" if player.trouble else "paused" if wanted.settings.paused else "playing"
        if state == "playing" and not self.figures.frames:
            state = "starting"
        return {
            "state": state,
            "trouble": player.trouble or self.controls.error,
            "revision": wanted.revision,
            "shown": self.controls.shown.revision,
            "queries": self.query_rows(),
            "settings": wanted.settings.model_dump(),
            "source": player.choice.id,
            "live": player.live,
            "sources": self.source_rows(),
            "recording": {
                "running": recording.running,
                "seconds": round(recording.seconds, 1),
                "files": list(recording.files),
                "trouble": recording.trouble,
            },
            "viewers": self.hub.viewers,
            "bundle": self.bundle,
            "backend": self.backend,
            **self.figures.summary(),
        }


class LiveServer:
    """Serves a ``Live`` from a thread of its own, from entering to leaving.

    Args:
        live: What is served; closed at the end.
        address: Where; its port is bound at once.
        token: Needed beyond loopback.

    Raises:
        UserError: The address cannot be used, or needs a token.

    Attributes:
        url: Of the page, with the token.

    Example:
        >>> with LiveServer(live, parse_address("8000")):
        ...     run_stream(live.segmenter, live.player, [live.sink])
    """

    def __init__(self, live: Live, address: Address, *, token: str | None = None) -> None:
        check_token(address, token)
        self._live = live
        self._socket = listen(address)
        port = int(self._socket.getsockname()[1])
        anywhere = address.host in ("0.0.0.0", "::")
        self.address = Address("localhost" if anywhere else address.host, port)
        self.url = f"http://{self.address}/" + (f"?token={quote(token)}" if token else "")
        config = uvicorn.Config(
            application(live, token=token),
            loop="asyncio",
            http="h11",
            ws="websockets-sansio",
            ws_max_size=LONGEST_MESSAGE,
            ws_per_message_deflate=False,
            log_config=None,
            log_level="error",
            access_log=False,
            server_header=False,
            limit_concurrency=_MOST_CONNECTIONS,
            timeout_graceful_shutdown=2,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [self._socket]}, name="page server", daemon=True
        )

    def __enter__(self) -> Self:
        self._thread.start()
        deadline = time.monotonic() + _PATIENCE
        while not self._server.started:
            if not self._thread.is_alive() or time.monotonic() > deadline:
                self.close()
                raise UserError(f"the page cannot be served on {self.address}; see the messages above.")
            time.sleep(0.01)
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the server, its connections and the stream."""
        self._live.player.close()
        self._server.should_exit = True
        if self._thread.is_alive():
            self._thread.join(_PATIENCE)
        self._socket.close()
        self._live.close()


def application(live: Live, *, token: str | None) -> ASGIApp:
    """The ASGI application: page, API and sockets behind the guard."""
    api, sockets = Api(live, token=token is not None), Sockets(live)

    async def index(request: Request) -> Response:
        return FileResponse(_PAGE / "index.html")

    async def reference(request: Request) -> Response:
        return FileResponse(_PAGE / "api.html")

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        live.hub.attach()
        yield

    routes: list[BaseRoute] = [
        Route("/", index),
        Route("/api", reference),
        *(Route(known.path, _counted(known, live.figures), methods=[known.method]) for known in api.operations),
        WebSocketRoute("/api/frames", sockets.frames),
        WebSocketRoute("/api/live", sockets.live),
        Mount("/page", StaticFiles(directory=_PAGE)),
    ]
    handlers: Any = {HTTPException: answer_error, Exception: answer_error}
    app = Starlette(routes=routes, exception_handlers=handlers, lifespan=lifespan)
    return Guard(app, token=token, limit=api.limit)


def _counted(operation: Operation, figures: Telemetry) -> Callable[[Request], Awaitable[Response]]:
    async def answer(request: Request) -> Response:
        try:
            response = await operation.handler(request)
        except (HTTPException, UserError, ClientDisconnect) as error:
            response = await answer_error(request, error)
        figures.requests.labels(operation.method, operation.path, str(response.status_code)).inc()
        return response

    return answer


def _css(bgr: tuple[int, int, int]) -> str:
    return f"#{bgr[2]:02x}{bgr[1]:02x}{bgr[0]:02x}"
