"""The server of a live stream: its guarded application, on a thread."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import uvicorn
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp
from typing_extensions import Self

from rvos_edge.errors import UserError
from rvos_edge.server import sockets
from rvos_edge.server.address import Address, PageLink, check_certificate, check_origin, check_token, listen
from rvos_edge.server.cameras import cameras_application
from rvos_edge.server.connections import HttpProtocol, PageServer
from rvos_edge.server.guard import Guard
from rvos_edge.server.live import Live
from rvos_edge.server.streams import LIMITS, Prefixed, stream_application

_PATIENCE = 10.0
"""Seconds for the server to start, and to end."""


class LiveServer:
    """Server of a `Live`, or of several by their names, on a thread of its own; it runs between entering and leaving.

    Args:
        token: Secret that every request must show; needed beyond loopback.
        base_path: Prefix of all paths, such as "/cam1", below which a proxy shows the stream.
        origins: Origins of other pages that may use the API, such as ``https://example.org``.
        certificate: PEM file with a certificate and its key, for https.

    Raises:
        UserError: The address cannot be used, or needs a token; an origin is none, or the certificate cannot be read.

    Attributes:
        url: Address of the page, without the token.

    Example:
        >>> with LiveServer(live, parse_address("8000")):  # doctest: +SKIP
        ...     run_stream(live.segmenter, live.player, [live.sink])
    """

    def __init__(
        self,
        live: Live | Mapping[str, Live],
        address: Address,
        *,
        token: str | None = None,
        base_path: str = "",
        origins: Sequence[str] = (),
        certificate: Path | None = None,
    ) -> None:
        check_token(address, token)
        check_certificate(certificate)
        origins = [check_origin(origin) for origin in origins]
        self._lives = list(live.values()) if isinstance(live, Mapping) else [live]
        self._socket = listen(address)
        port = int(self._socket.getsockname()[1])
        anywhere = address.host in ("0.0.0.0", "::")
        self.address = Address("localhost" if anywhere else address.host, port)
        secure = certificate is not None
        self.url = f"{'https' if secure else 'http'}://{self.address}{base_path}/"
        for one in self._lives:
            one.link = PageLink(Address(address.host, port), token, secure=secure, base_path=base_path)
        config = uvicorn.Config(
            application(live, token=token, base_path=base_path, origins=origins),
            ssl_certfile=certificate,
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
        for live in self._lives:
            live.close()


def application(
    live: Live | Mapping[str, Live], *, token: str | None, base_path: str = "", origins: Sequence[str] = ()
) -> ASGIApp:
    """ASGI application of one stream or several behind the guard; a token of None asks for none."""
    if isinstance(live, Mapping):
        app = cameras_application(live, token=token, base_path=base_path)
    else:
        app = stream_application(live, token=token, base_path=base_path)
    guarded: ASGIApp = Guard(app, token=token, limits=LIMITS, origins=origins)
    if origins:
        headers = ("authorization", "content-type")
        guarded = CORSMiddleware(guarded, allow_origins=origins, allow_methods=("*",), allow_headers=headers)
    return Prefixed(guarded, base_path)
