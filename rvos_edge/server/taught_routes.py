"""Routes that teach queries: a frame is kept, something is shown on it, and what is learned is a small file."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import quote

import cv2
import numpy as np
from fastapi import APIRouter, Query
from numpy.typing import NDArray
from pydantic import Field, model_validator
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from rvos_edge.queries import LARGEST_FILE
from rvos_edge.server.rendering import encode_jpeg
from rvos_edge.server.routes import LiveStream, Refusal, binary, find, newest
from rvos_edge.server.single_image import decode_picture
from rvos_edge.server.taught import KeptFrame
from rvos_edge.showing import mask_of_box, mask_of_points
from rvos_edge.strict import StrictModel

LARGEST_MASK = 1 << 20
"""Largest mask, in bytes."""
LIMITS = {("POST", "/api/learn"): LARGEST_MASK, ("POST", "/api/taught"): LARGEST_FILE}
"""Largest bodies, in bytes, by method and path."""
_QUALITY = 88
"""JPEG quality of the pictures to draw on."""


class Outline(StrictModel, strict=True):
    """Place of the object in pixels of the kept frame: a box, a point, or a query, from which a box may begin too."""

    box: list[int] | None = Field(default=None, min_length=4, max_length=4, description="x, y, width and height.")
    point: list[int] | None = Field(default=None, min_length=2, max_length=2, description="x and y.")
    query: str | None = Field(default=None, description="A query of the stream, for its mask.")

    @model_validator(mode="after")
    def _one(self) -> Outline:
        ways = [self.box, self.point] if self.box or self.point else [self.query]
        if sum(way is not None for way in ways) != 1:
            raise ValueError("give a box, a point or a query")
        return self


class Name(StrictModel, strict=True):
    """A taught query's name."""

    name: str


router = APIRouter(responses={"default": {"model": Refusal, "description": "An error, in one sentence."}})


@router.post("/api/shown")
async def keep_frame(live: LiveStream) -> dict[str, Any]:
    """Keep the newest frame, to show an object on it."""
    name, kept = await run_in_threadpool(live.taught.keep, newest(live), live.sink.before)
    return {"frame": name, "size": list(kept.image.shape[:2]), "queries": list(kept.queries)}


@router.get("/api/shown/{frame}", response_class=Response, responses={200: {"content": {"image/jpeg": {}}}})
async def get_frame(frame: str, live: LiveStream) -> Response:
    """A kept frame, without masks."""
    kept = find(live.taught.frame, frame, "kept frame")
    return Response(await run_in_threadpool(encode_jpeg, kept.image, _QUALITY), media_type="image/jpeg")


@router.post("/api/shown/{frame}/mask", response_class=Response, responses={200: {"content": {"image/png": {}}}})
async def find_mask(frame: str, body: Outline, live: LiveStream) -> Response:
    """The mask of what is in a box or at a point, or of a query: a PNG, white where the object is."""
    kept = find(live.taught.frame, frame, "kept frame")
    async with live.drawing:
        return Response(await run_in_threadpool(_mask, kept, body), media_type="image/png")


@router.post("/api/learn", status_code=202, openapi_extra=binary("image/png"))
async def learn(
    request: Request,
    live: LiveStream,
    frame: Annotated[str, Query(description="A kept frame.")],
    name: Annotated[str, Query(description="The query's name; one that is known learns this too.")],
    like: Annotated[str, Query(description="A sentence to start from, whose place the query takes.")] = "",
) -> dict[str, Any]:
    """Learn what a mask, white on black, shows on a kept frame; the status tells when it is learned."""
    if live.taught.learning:
        raise HTTPException(409, f"'{live.taught.learning}' is being learned; wait a moment.")
    picture = await run_in_threadpool(decode_picture, await request.body())
    mask = np.asarray(picture.max(axis=-1) > 127)
    return {"learning": find(lambda kept: live.taught.learn(kept, mask, name, like=like), frame, "kept frame")}


@router.get("/api/taught")
async def get_taught(live: LiveStream) -> dict[str, Any]:
    """The taught queries; the query "@NAME" asks for one of them."""
    return {"taught": live.taught.rows(), "learning": live.taught.learning, "trouble": live.taught.trouble}


@router.post("/api/taught", openapi_extra=binary("application/json"))
async def add_taught(
    request: Request,
    live: LiveStream,
    name: Annotated[str, Query(description="Its name; the file's if left out.")] = "",
) -> dict[str, Any]:
    """Upload the file of a taught query, and ask it."""
    return {"name": live.taught.add(await request.body(), name)}


@router.get("/api/taught/{name}", response_class=Response, responses={200: {"content": {"application/json": {}}}})
async def get_file(name: str, live: LiveStream) -> Response:
    """The file of a taught query."""
    text = find(live.taught.file, name, "taught query")
    headers = {"content-disposition": f"attachment; filename*=utf-8''{quote(name, safe='')}.query"}
    return Response(text, media_type="application/json", headers=headers)


@router.put("/api/taught/{name}")
async def rename(name: str, body: Name, live: LiveStream) -> dict[str, Any]:
    """Rename a taught query."""
    return {"name": find(lambda old: live.taught.rename(old, body.name), name, "taught query")}


@router.post("/api/taught/{name}/undo")
async def undo(name: str, live: LiveStream) -> dict[str, Any]:
    """Take back the last thing that a query learned; at the beginning it is its sentence again."""
    find(live.taught.undo, name, "taught query")
    return await get_taught(live)


def _mask(kept: KeptFrame, body: Outline) -> bytes:
    mask: NDArray[np.bool_]
    known, label = dict(zip(kept.queries, kept.masks, strict=True)), (body.query or "").removeprefix("@")
    if body.box is not None:
        x, y, width, height = body.box
        mask = mask_of_box(kept.image, (x, y, width, height), known.get(label))
    elif body.point is not None:
        x, y = body.point
        mask = mask_of_points(kept.image, [(x, y)])
    else:
        mask = find(known.__getitem__, label, "query")
    return cv2.imencode(".png", 255 * mask.view(np.uint8))[1].tobytes()
