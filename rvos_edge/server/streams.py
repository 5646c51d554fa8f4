"""The ASGI application of a stream, and the prefix below which a proxy shows it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastapi import Depends, FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.security import HTTPBearer
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import FileResponse, RedirectResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rvos_edge import __version__
from rvos_edge.errors import UserError
from rvos_edge.server import playback_routes, routes, sockets, taught_routes
from rvos_edge.server.live import Live
from rvos_edge.server.single_image import BusyError

PAGE = Path(__file__).with_name("page")
LIMITS = {**routes.LIMITS, **taught_routes.LIMITS}
"""Largest bodies, in bytes, by method and path."""
_SILENT: Any = {"tracing": False, "metrics": False, "logs": False, "operation_spans": False, "auto_configure": False}
"""FastAPI's own telemetry, switched off: nothing leaves the machine."""
_DESCRIPTION = (
    "A stream that is being segmented, and single pictures. Two WebSockets go with it: /api/frames sends JPEG "
    "pictures, one for each message it gets and two to begin with; /api/live sends the status as JSON and takes "
    "{'queries': [...]} and {'settings': {...}}."
)


def new_application(description: str, *, base_path: str) -> FastAPI:
    """Application with the page's files and errors of one sentence."""
    handled = (HTTPException, RequestValidationError, UserError, BusyError, ClientDisconnect, Exception)
    app = FastAPI(
        title="rvos-edge",
        version=__version__,
        description=description,
        servers=[{"url": base_path or "/"}],
        openapi_url="/api/openapi.json",
        docs_url=None,  # its page loads scripts from elsewhere
        redoc_url=None,
        exception_handlers=dict.fromkeys(handled, routes.answer_error),
        telemetry=_SILENT,
    )
    app.mount("/page", StaticFiles(directory=PAGE))
    return app


def stream_application(live: Live, *, token: str | None, base_path: str = "") -> ASGIApp:
    """Page, API and WebSockets of one stream, without a guard."""
    app = new_application(_DESCRIPTION, base_path=base_path)
    app.state.live = live
    for router in (routes.router, playback_routes.router, taught_routes.router):
        app.include_router(router, dependencies=[Depends(HTTPBearer(auto_error=False))] if token else [])
    app.include_router(sockets.router)

    @app.get("/", include_in_schema=False)
    async def index() -> Response:
        return FileResponse(PAGE / "index.html")

    return _Counted(app, live)


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


class Prefixed:
    """Middleware that takes a prefix off the paths of requests; a proxy may have done so before."""

    def __init__(self, app: ASGIApp, base_path: str) -> None:
        self._app = app
        self._base_path = base_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope.get("path", "")
        if self._base_path and path == self._base_path and scope["type"] == "http":
            await RedirectResponse(f"{path}/")(scope, receive, send)
            return
        if self._base_path and path.startswith(f"{self._base_path}/"):
            scope = {**scope, "path": path.removeprefix(self._base_path)}
        await self._app(scope, receive, send)
