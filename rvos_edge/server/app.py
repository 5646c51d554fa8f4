"""The ASGI application of a live stream, and the thread that serves it."""

from __future__ import annotations

import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import uvicorn
from fastapi import Depends, FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.security import HTTPBearer
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import FileResponse, Response
from starlette.staticfiles import StaticFiles

from rvos_edge import __version__
from rvos_edge.errors import UserError
from rvos_edge.server import routes, sockets, taught_routes
from rvos_edge.server.address import Address, check_token, listen
from rvos_edge.server.connections import HttpProtocol, PageServer
from rvos_edge.server.guard import Guard
from rvos_edge.server.live import Live
from rvos_edge.server.single_image import BusyError

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send
    from typing_extensions import Self

_PAGE = Path(__file__).with_name("page")
_PATIENCE = 10.0
"""Seconds for the server to start, and to end."""
_SILENT: Any = {"tracing": False, "metrics": False, "logs": False, "operation_spans": False, "auto_configure": False}
"""FastAPI's own telemetry, switched off: nothing leaves the machine."""
_DESCRIPTION = (
    "A stream that is being segmented, and single pictures. Two WebSockets go with it: /api/frames sends JPEG "
    "pictures, one for each message it gets and two to begin with; /api/live sends the status as JSON and takes "
    "{'queries': [...]} and {'settings': {...}}."
)


class LiveServer:
    """Server of a `Live` on a thread of its own; it runs between entering and leaving.

    Args:
        token: Secret that every request must show; needed beyond loopback.

    Raises:
        UserError: The address cannot be used, or needs a token.

    Attributes:
        url: Address of the page, without the token.

    Example:
        >>> with LiveServer(live, parse_address("8000")):  # doctest: +SKIP
        ...     run_stream(live.segmenter, live.player, [live.sink])
    """

    def __init__(self, live: Live, address: Address, *, token: str | None = None) -> None:
        check_token(address, token)
        self._live = live
        self._socket = listen(address)
        port = int(self._socket.getsockname()[1])
        anywhere = address.host in ("0.0.0.0", "::")
        self.address = Address("localhost" if anywhere else address.host, port)
        self.url = f"http://{self.address}/"
        config = uvicorn.Config(
            application(live, token=token),
            loop="asyncio",
            http=HttpProtocol,
            ws="websockets-sansio",
            ws_max_size=sockets.LONGEST_MESSAGE,
            ws_per_message_deflate=False,
            log_config=None,
            log_level="error",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=2,
        )
        self._server = PageServer(config)
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
    """ASGI application: page, API and WebSockets behind the guard; a token of None asks for none."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        live.hub.attach()
        yield

    handled = (HTTPException, RequestValidationError, UserError, BusyError, ClientDisconnect, Exception)
    app = FastAPI(
        title="rvos-edge",
        version=__version__,
        description=_DESCRIPTION,
        openapi_url="/api/openapi.json",
        docs_url=None,  # its page loads scripts from elsewhere
        redoc_url=None,
        lifespan=lifespan,
        exception_handlers=dict.fromkeys(handled, routes.answer_error),
        telemetry=_SILENT,
    )
    app.state.live = live
    for router in (routes.router, taught_routes.router):
        app.include_router(router, dependencies=[Depends(HTTPBearer(auto_error=False))] if token else [])
    app.include_router(sockets.router)

    @app.get("/", include_in_schema=False)
    async def index() -> Response:
        return FileResponse(_PAGE / "index.html")

    app.mount("/page", StaticFiles(directory=_PAGE))
    return Guard(_Counted(app, live), token=token, limits={**routes.LIMITS, **taught_routes.LIMITS})


class _Counted:
    """Middleware that counts answers by route and status."""

    def __init__(self, app: ASGIApp, live: Live) -> None:
        self._app = app
        self._requests = live.telemetry.requests

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def sending(message: Message) -> None:
            path: Any = getattr(scope.get("route"), "path", "")
            if message["type"] == "http.response.start" and path.startswith(("/api", "/metrics")):
                self._requests.labels(scope["method"], path, str(message["status"])).inc()
            await send(message)

        await self._app(scope, receive, sending)
