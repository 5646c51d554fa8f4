"""The server of a live stream: its guarded application, on a thread."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import replace

import uvicorn
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp
from typing_extensions import Self

from rvos_edge.errors import UserError
from rvos_edge.server import sockets
from rvos_edge.server.address import Address, ServerOptions, listen
from rvos_edge.server.cameras import cameras_application
from rvos_edge.server.connections import HttpProtocol, PageServer
from rvos_edge.server.guard import Guard
from rvos_edge.server.live import Live
from rvos_edge.server.streams import LIMITS, Prefixed, stream_application

_PATIENCE = 10.0
"""Seconds for the server to start, and to end."""


class LiveServer:
    """Server of a `Live`, or of several by their names, on a thread of its own; it runs between entering and leaving.

    Its end, also one before the beginning, closes the streams.

    Raises:
        UserError: The address cannot be used.

    Attributes:
        url: Address of the page, without the token.

    Example:
        >>> with LiveServer(live, ServerOptions(parse_address("8000"))):  # doctest: +SKIP
        ...     run_stream(live.segmenter, live.player, [live.sink])
    """

    def __init__(self, live: Live | Mapping[str, Live], options: ServerOptions) -> None:
        self._lives = list(live.values()) if isinstance(live, Mapping) else [live]
        try:
            self._socket = listen(options.address)
        except BaseException:
            self._close_streams()
            raise
        host, port = options.address.host, int(self._socket.getsockname()[1])
        options = replace(options, address=Address(host, port))
        self.address = Address("localhost" if host in ("0.0.0.0", "::") else host, port)
        self.url = options.url(self.address.host)
        for one in self._lives:
            one.page = options
        config = uvicorn.Config(
            application(live, options),
            ssl_certfile=options.certificate,
            loop="asyncio",
            http=HttpProtocol,
            ws="websockets-sansio",
            ws_max_size=sockets.LARGEST_FRAME,
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
        for live in self._lives:
            live.player.close()
        self._server.should_exit = True
        if self._thread.is_alive():
            self._thread.join(_PATIENCE)
        self._socket.close()
        self._close_streams()

    def _close_streams(self) -> None:
        for live in self._lives:
            live.close()


def application(live: Live | Mapping[str, Live], options: ServerOptions) -> ASGIApp:
    """ASGI application of one stream or several behind the guard."""
    if isinstance(live, Mapping):
        app: ASGIApp = cameras_application(live, token=options.token, base_path=options.base_path)
    else:
        app = stream_application(live, token=options.token, base_path=options.base_path)
    guarded: ASGIApp = Guard(app, token=options.token, limits=LIMITS, origins=options.origins)
    if options.origins:
        headers = ("authorization", "content-type")
        guarded = CORSMiddleware(guarded, allow_origins=options.origins, allow_methods=("*",), allow_headers=headers)
    return Prefixed(guarded, options.base_path)
