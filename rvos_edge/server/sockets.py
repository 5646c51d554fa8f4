"""The WebSockets: pictures to viewers, status to pages, edits from them."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, ValidationError
from starlette.websockets import WebSocket, WebSocketDisconnect

from rvos_edge.errors import UserError
from rvos_edge.server.controls import explain

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from rvos_edge.server.app import Live

MOST_VIEWERS = 32
LONGEST_MESSAGE = 64 << 10
"""Bytes of what a page may send at once; the connection of one that sends more is closed."""
_IN_FLIGHT = 2
"""Pictures on their way to a viewer: one being shown while the next one travels."""
_EVERY = 0.25
"""Seconds between two looks at the status."""
_TOO_MANY = 1013  # "try again later"


class Edit(BaseModel):
    """A message of a page: queries, settings or both; ``id`` comes back with the answer."""

    model_config = ConfigDict(extra="forbid", strict=True)

    id: int | None = None
    queries: list[str] | None = None
    settings: dict[str, Any] | None = None


class Sockets:
    """The two endpoints; each has two tasks per connection, and either ends with the other."""

    def __init__(self, live: Live) -> None:
        self._live = live
        self._pages = 0

    async def frames(self, socket: WebSocket) -> None:
        """Pictures: the newest one for each message of the viewer, after a first few that need none.

        A viewer that asks for none gets none, and costs nothing.
        """
        hub = self._live.hub
        if hub.viewers >= MOST_VIEWERS:
            await socket.close(_TOO_MANY, "too many viewers")
            return
        await socket.accept()
        asked = _Credit(_IN_FLIGHT)

        async def listen() -> None:
            while True:
                message = await socket.receive()
                if message["type"] != "websocket.receive":
                    return
                asked.add()

        async def show() -> None:
            seen = 0
            while True:
                await asked.take()
                seen, picture = await hub.newer(seen)
                await socket.send_bytes(picture)

        hub.viewers += 1
        self._live.sink.show_again()
        try:
            await _first_of(listen(), show())
        finally:
            hub.viewers -= 1

    async def live(self, socket: WebSocket) -> None:
        """Status whenever it changes, and answers to edits."""
        if self._pages >= MOST_VIEWERS:
            await socket.close(_TOO_MANY, "too many pages")
            return
        await socket.accept()

        async def listen() -> None:
            while True:
                answer = self._take(await socket.receive_text())
                await socket.send_text(json.dumps(answer, ensure_ascii=False))
                if answer["type"] == "taken":
                    await tell()

        async def tell() -> None:
            await socket.send_text(json.dumps({"type": "status", **self._live.status()}, ensure_ascii=False))

        async def look() -> None:
            while True:
                await tell()
                await asyncio.sleep(_EVERY)

        self._pages += 1
        try:
            await _first_of(listen(), look())
        finally:
            self._pages -= 1

    def _take(self, message: str) -> dict[str, Any]:
        controls, edit = self._live.controls, Edit()
        try:
            edit = Edit.model_validate_json(message)
            if edit.queries is not None:
                controls.set_queries(edit.queries)
            if edit.settings is not None:
                controls.change(edit.settings)
        except ValidationError as error:
            return {"type": "refused", "id": edit.id, "error": explain(error)}
        except UserError as error:
            return {"type": "refused", "id": edit.id, "error": str(error)}
        return {"type": "taken", "id": edit.id, "revision": controls.wanted.revision}


class _Credit:
    """How many pictures a viewer may be sent."""

    def __init__(self, most: int) -> None:
        self._most = self._left = most
        self._more = asyncio.Event()

    def add(self) -> None:
        self._left = min(self._left + 1, self._most)
        self._more.set()

    async def take(self) -> None:
        while self._left == 0:
            self._more.clear()
            await self._more.wait()
        self._left -= 1


async def _first_of(*work: Awaitable[None]) -> None:
    """Until one of them ends, the others end with it; that the other side is gone is no error."""
    tasks = [asyncio.ensure_future(part) for part in work]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in done:
        with suppress(WebSocketDisconnect, RuntimeError, OSError):
            task.result()
