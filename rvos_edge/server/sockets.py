"""The WebSockets: pictures to viewers, the status to pages, edits from pages."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable
from contextlib import suppress
from typing import Any

from fastapi import APIRouter
from pydantic import ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.websockets import WebSocket, WebSocketDisconnect

from rvos_edge.errors import UserError
from rvos_edge.server.camera import BrowserCamera
from rvos_edge.server.controls import explain
from rvos_edge.server.live import Live
from rvos_edge.server.routes import LiveStream
from rvos_edge.strict import StrictModel

MOST_VIEWERS = 32
LARGEST_FRAME = 1 << 20
"""Bytes of one picture of a browser's camera; a longer message closes its connection."""
LONGEST_MESSAGE = 64 << 10
"""Characters of one message of a page or viewer."""
_IN_FLIGHT = 2
"""Pictures on their way to a viewer: one being shown while the next one travels."""
_EVERY = 0.25
"""Seconds between two messages with the status."""
_TOO_MANY = 1013  # "try again later"
_NO_TEXT = 1003  # "unsupported data"
_TOO_LONG = 1009

router = APIRouter()


class Edit(StrictModel, strict=True):
    """A message of a page: queries, settings or both; ``id`` comes back with the answer."""

    id: int | None = None
    queries: list[str] | None = None
    settings: dict[str, Any] | None = None


@router.websocket("/api/frames")
async def send_frames(socket: WebSocket, live: LiveStream) -> None:
    """Send pictures: always the newest, one for each message of the viewer, after two that need none.

    A viewer that asks for none gets none, and costs nothing.
    """
    hub = live.hub
    if hub.viewers >= MOST_VIEWERS:
        await socket.close(_TOO_MANY, "too many viewers")
        return
    await socket.accept()
    asked = _Credit(_IN_FLIGHT)

    async def listen() -> None:
        while await _text(socket) is not None:
            asked.add()

    async def show() -> None:
        seen = 0
        while True:
            await asked.take()
            seen, picture = await hub.newer(seen)
            await socket.send_bytes(picture)

    with hub.viewer():
        live.sink.show_again()
        await _first_of(listen(), show())


@router.websocket("/api/live")
async def exchange_edits(socket: WebSocket, live: LiveStream) -> None:
    """Send the status four times a second, and answers to edits."""
    if live.pages >= MOST_VIEWERS:
        await socket.close(_TOO_MANY, "too many pages")
        return
    await socket.accept()

    async def listen() -> None:
        while (message := await _text(socket)) is not None:
            answer = _take(live, message)
            await socket.send_text(json.dumps(answer, ensure_ascii=False))
            if answer["type"] == "taken":
                await tell()

    async def tell() -> None:
        await socket.send_text(json.dumps({"type": "status", **live.status()}, ensure_ascii=False))

    async def look() -> None:
        while True:
            await tell()
            await asyncio.sleep(_EVERY)

    live.pages += 1
    try:
        await _first_of(listen(), look())
    finally:
        live.pages -= 1


@router.websocket("/api/camera")
async def take_frames(socket: WebSocket, live: LiveStream) -> None:
    """Play the JPEG pictures that a browser's camera sends, one for each message that it gets."""
    await socket.accept()
    camera = BrowserCamera()
    live.player.play(camera.choice)
    try:
        while not camera.closed:
            await socket.send_text("next")
            message = await socket.receive()
            data = message.get("bytes")
            if message["type"] != "websocket.receive":
                return
            if data is None:
                await socket.close(_NO_TEXT, "send pictures")
                return
            await run_in_threadpool(camera.put, data)
        await socket.close(reason="another source plays")
    except UserError as error:
        await socket.close(_NO_TEXT, str(error)[:100])
    except (WebSocketDisconnect, RuntimeError, OSError):
        return
    finally:
        camera.close()


def _take(live: Live, message: str) -> dict[str, Any]:
    edit = Edit()
    try:
        edit = Edit.model_validate_json(message)
        revision = live.controls.edit(edit.queries, edit.settings)
    except ValidationError as error:
        return {"type": "refused", "id": edit.id, "error": explain(error.errors()[0])}
    except UserError as error:
        return {"type": "refused", "id": edit.id, "error": str(error)}
    return {"type": "taken", "id": edit.id, "revision": revision}


async def _text(socket: WebSocket) -> str | None:
    """The next message; None at the end, which a message that is no text brings about."""
    message = await socket.receive()
    text: str | None = message.get("text")
    if message["type"] == "websocket.receive" and text is None:
        await socket.close(_NO_TEXT, "send text")
    if text is not None and len(text) > LONGEST_MESSAGE:
        await socket.close(_TOO_LONG, "the message is too long")
        return None
    return text


class _Credit:
    """The number of pictures that a viewer may be sent."""

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
    """Wait until one of them ends, then end the others; a client that is gone is no error."""
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
