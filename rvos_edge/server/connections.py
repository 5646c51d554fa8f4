"""Connections of the server: a limit for each address, and an end for those that only wait."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable
from typing import Any

import h11
import uvicorn
from starlette.responses import JSONResponse
from uvicorn.protocols.http.h11_impl import H11Protocol

from rvos_edge.server.address import network_of

MOST_CONNECTIONS = 256
MOST_PER_ADDRESS = 96
"""Enough for 32 pages, each with two WebSockets and a request."""
HEAD_SECONDS = 10.0
"""Seconds for the head of a request, from the connection or from the last answer on."""
STALL_SECONDS = 30.0
"""Seconds in which a client must read some of its answer."""


class HttpProtocol(H11Protocol):
    """HTTP connection. Where too many are open, the newest takes the place of those that have waited longest."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.since = time.monotonic()
        every: set[Any] = self.connections
        near = [other for other in every if network_of(other.client) == network_of(self.client)]
        if not (self._fits(near, MOST_PER_ADDRESS) and self._fits(every, MOST_CONNECTIONS)):
            self.app = _refuse

    def on_response_complete(self) -> None:
        self.since = time.monotonic()
        super().on_response_complete()

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        if self.app is _refuse:
            self.transport.close()
        else:
            super().handle_websocket_upgrade(event)

    @property
    def waiting(self) -> bool:
        """The connection has no request that is being answered, and nothing left to send."""
        answered = self.cycle is None or self.cycle.response_complete
        return answered and not self.transport.get_write_buffer_size()

    def _fits(self, connections: Iterable[Any], most: int) -> bool:
        others = [other for other in connections if other is not self]
        excess = max(0, len(others) + 1 - most)
        waiting = [other for other in others if isinstance(other, HttpProtocol) and other.waiting]
        for oldest in sorted(waiting, key=lambda other: other.since)[:excess]:
            oldest.transport.abort()
            self.connections.discard(oldest)
        return len(waiting) >= excess


def _not_about_text(record: logging.LogRecord) -> bool:
    return not str(record.msg).startswith("Invalid UTF-8 sequence")


async def _refuse(scope: Any, receive: Any, send: Any) -> None:
    sentence = "too many connections are open; close some, or try again soon."
    await JSONResponse({"error": sentence}, 503, {"connection": "close"})(scope, receive, send)


class PageServer(uvicorn.Server):
    """Server that ends connections whose clients neither ask nor read."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._unsent: dict[Any, tuple[int, float]] = {}
        # A client's text that is not UTF-8 closes its WebSocket; uvicorn logs a traceback for each.
        logging.getLogger("uvicorn.error").addFilter(_not_about_text)

    async def on_tick(self, counter: int) -> bool:
        """End what is overdue, once a second."""
        if counter % 10 == 0:
            self._end_overdue(time.monotonic())
        return await super().on_tick(counter)

    def _end_overdue(self, now: float) -> None:
        before, self._unsent = self._unsent, {}
        connections: tuple[Any, ...] = tuple(self.server_state.connections)
        for connection in connections:
            transport = connection.transport
            overdue = isinstance(connection, HttpProtocol) and connection.waiting
            overdue = overdue and now - connection.since > HEAD_SECONDS
            if size := transport.get_write_buffer_size():
                earlier, since = before.get(connection, (size, now))
                self._unsent[connection] = size, since if size >= earlier else now
                overdue = now - self._unsent[connection][1] > STALL_SECONDS
            if overdue:
                transport.abort()
