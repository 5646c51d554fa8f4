"""Routes of the stream as it plays: place in a file, newest result, pictures, address for a phone."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlencode

from fastapi import APIRouter
from pydantic import Field, model_validator
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.responses import Response, StreamingResponse

from rvos_edge.server.address import qr_code
from rvos_edge.server.live import Live
from rvos_edge.server.routes import LiveStream, Refusal, newest
from rvos_edge.server.single_image import as_coco
from rvos_edge.server.sockets import MOST_VIEWERS
from rvos_edge.strict import StrictModel

_BOUNDARY = "frame"


class Place(StrictModel, strict=True):
    """A place in the file that plays: a time, or a number of frames from here."""

    seconds: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    step: int | None = Field(default=None, ge=-1000, le=1000, description="1 for the next frame; the stream pauses.")

    @model_validator(mode="after")
    def _one(self) -> Place:
        if (self.seconds is None) == (self.step is None):
            raise ValueError("give seconds or step")
        return self


router = APIRouter(responses={"default": {"model": Refusal, "description": "An error, in one sentence."}})


@router.put("/api/position")
async def put_position(body: Place, live: LiveStream) -> dict[str, Any]:
    """Wind a file to another place."""
    if body.seconds is not None:
        live.player.seek(body.seconds)
    else:
        if live.player.seconds is not None:
            live.controls.edit(settings={"paused": True})
        live.player.step(body.step or 0)
    return {"position": live.player.position, "seconds": live.player.seconds}


@router.get("/api/result")
async def get_result(live: LiveStream) -> dict[str, Any]:
    """The newest result: boxes, and masks as COCO's compressed run lengths."""
    shown = newest(live)
    found = await run_in_threadpool(as_coco, shown.labelled)
    return {"frame": shown.frame.index, "timestamp": round(shown.frame.timestamp, 6), **found}


@router.get("/api/mjpeg", response_class=Response, responses={200: {"content": {"multipart/x-mixed-replace": {}}}})
async def get_mjpeg(live: LiveStream) -> Response:
    """The pictures with their masks as MJPEG, which browsers show in an <img> and most players play."""
    if live.hub.viewers >= MOST_VIEWERS:
        raise HTTPException(503, "there are too many viewers already; try again later.", {"retry-after": "10"})
    return StreamingResponse(_parts(live), media_type=f"multipart/x-mixed-replace; boundary={_BOUNDARY}")


@router.get("/api/phone")
async def get_phone(live: LiveStream) -> dict[str, Any]:
    """The address of the page for other devices of the network, and a QR code of it, an SVG picture that holds the
    token; null where only this machine can connect.
    """
    url = None if live.page is None else live.page.url_for_phones
    if live.page is None or url is None:
        return {"address": None, "qr": None}
    token = f"?{urlencode({'token': live.page.token})}" if live.page.token else ""
    return {"address": url, "qr": qr_code(url + token)}


async def _parts(live: Live) -> AsyncIterator[bytes]:
    seen = 0
    with live.hub.viewer():
        live.sink.show_again()
        while True:
            seen, picture = await live.hub.newer(seen)
            head = f"--{_BOUNDARY}\r\ncontent-type: image/jpeg\r\ncontent-length: {len(picture)}\r\n\r\n"
            yield head.encode() + picture + b"\r\n"
