"""The HTTP API of a live stream."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import cv2
from fastapi import APIRouter, Depends, Query
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, HTTPConnection, Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response

from rvos_edge.errors import UserError
from rvos_edge.server.broadcast import Shown
from rvos_edge.server.controls import Settings, explain
from rvos_edge.server.health import health
from rvos_edge.server.live import Live
from rvos_edge.server.player import ASSUMED_FPS
from rvos_edge.server.single_image import BusyError, as_coco, as_png
from rvos_edge.server.uploads import LARGEST_CLIP
from rvos_edge.strict import StrictModel

LARGEST_FRAME = 16 << 20
"""Largest picture to segment, in bytes."""
LIMITS = {("POST", "/api/frame"): LARGEST_FRAME, ("POST", "/api/clips"): LARGEST_CLIP}
"""Largest bodies, in bytes, by method and path; all others are short JSON."""
_Found = TypeVar("_Found")
_NO_JSON = "the body is not JSON; see /api/openapi.json for what belongs here."


class Refusal(BaseModel):
    """The reason of a refusal, in one sentence."""

    error: str


def live_of(connection: HTTPConnection) -> Live:
    """The stream that a request or WebSocket belongs to."""
    live: Live = connection.app.state.live
    return live


LiveStream = Annotated[Live, Depends(live_of)]


def binary(*kinds: str) -> dict[str, Any]:
    """Description of a body that is no JSON, by its media types."""
    content = {kind: {"schema": {"type": "string", "format": "binary"}} for kind in kinds}
    return {"requestBody": {"required": True, "content": content}}


def find(look_up: Callable[[str], _Found], name: str, what: str) -> _Found:
    """Look something up by its name; an unknown one is answered with 404."""
    try:
        return look_up(name)
    except KeyError as error:
        raise HTTPException(404, f"there is no {what} of that name; ask for the list.") from error


def newest(live: Live) -> Shown:
    """The newest picture; before the first one the answer is 404."""
    if live.sink.shown is None:
        raise HTTPException(404, "there is no picture yet; wait for the first frame.")
    return live.sink.shown


class Queries(StrictModel, strict=True):
    """All queries, in the order of their colours; an empty list shows the bare picture."""

    queries: list[str]


class SourceChoice(StrictModel, strict=True):
    """The source to play."""

    source: str = Field(description="An id of /api/sources.")


router = APIRouter(responses={"default": {"model": Refusal, "description": "An error, in one sentence."}})


@router.get("/api/health", responses={503: {"description": "No frame comes, or something else is wrong."}})
async def get_health(live: LiveStream) -> Response:
    """Tell the state of camera, model, recorder and disk; 503 if one of them is in trouble."""
    told = await run_in_threadpool(health, live)
    return JSONResponse(told, 200 if told["status"] == "ok" else 503)


@router.get("/api/status")
async def status(live: LiveStream) -> dict[str, Any]:
    """Everything that the page shows."""
    return live.status()


@router.get("/metrics", response_class=PlainTextResponse)
async def metrics(live: LiveStream) -> Response:
    """Metrics in Prometheus' text format."""
    return Response(live.telemetry.exposition(), media_type="text/plain; version=0.0.4")


@router.get("/api/queries")
async def get_queries(live: LiveStream) -> dict[str, Any]:
    """The queries that are segmented, with colours and scores."""
    return {"queries": live.query_rows(), "revision": live.controls.wanted.revision}


@router.put("/api/queries")
async def put_queries(body: Queries, live: LiveStream) -> dict[str, Any]:
    """Replace all queries from the next frame on."""
    revision = live.controls.edit(body.queries)
    return {"queries": live.query_rows(), "revision": revision}


@router.get("/api/settings")
async def get_settings(live: LiveStream) -> dict[str, Any]:
    """The settings."""
    wanted = live.controls.wanted
    return {**wanted.settings.model_dump(), "revision": wanted.revision}


@router.put("/api/settings")
async def put_settings(body: Settings, live: LiveStream) -> dict[str, Any]:
    """Change some settings; those left out stay."""
    live.controls.edit(settings=body.model_dump(exclude_unset=True))
    return await get_settings(live)


@router.post(
    "/api/frame",
    response_class=Response,
    responses={200: {"content": {"image/png": {}, "application/json": {}}}},
    openapi_extra=binary("image/jpeg", "image/png"),
)
async def post_frame(
    request: Request,
    live: LiveStream,
    query: Annotated[list[str] | None, Query(description="What to segment; the stream's queries if left out.")] = None,
    threshold: Annotated[float, Query(gt=0, lt=1, description="Least probability of a pixel in a mask.")] = 0.5,
    format: Annotated[Literal["png", "coco"], Query(description="png: indexed; coco: run lengths.")] = "png",
) -> Response:
    """Segment one picture, apart from the stream."""
    queries = live.controls.resolve(query) if query else live.controls.wanted.asked
    async with live.single_images.receive(request.stream()) as data:
        if format == "png":
            png = await run_in_threadpool(live.single_images.segment, data, queries, threshold, as_png)
            return Response(png, media_type="image/png")
        found = await run_in_threadpool(live.single_images.segment, data, queries, threshold, as_coco)
        return JSONResponse({**found, "doubts": live.controls.doubts(queries)})


@router.get("/api/snapshot", response_class=Response, responses={200: {"content": {"image/png": {}}}})
async def snapshot(live: LiveStream) -> Response:
    """The newest picture with its masks."""
    shown = newest(live)

    def draw() -> bytes:
        return cv2.imencode(".png", shown.draw(legend=True))[1].tobytes()

    headers = {"content-disposition": f'attachment; filename="rvos-edge-{shown.frame.index:06d}.png"'}
    async with live.drawing:
        return Response(await run_in_threadpool(draw), media_type="image/png", headers=headers)


@router.get("/api/sources")
async def sources(live: LiveStream) -> dict[str, Any]:
    """The sources that can be played."""
    return {"sources": live.source_rows(), "playing": live.player.choice.id}


@router.put("/api/source")
async def put_source(body: SourceChoice, live: LiveStream) -> dict[str, Any]:
    """Play another source."""
    choice = find(live.library.find, body.source, "source")
    await run_in_threadpool(live.player.play, choice)
    return {"source": choice.id, "name": choice.name}


@router.post(
    "/api/clips",
    openapi_extra=binary("video/mp4", "video/webm", "video/x-matroska", "video/x-msvideo", "application/octet-stream"),
)
async def post_clip(
    request: Request, live: LiveStream, name: Annotated[str, Query(description="Name to show.")] = "clip"
) -> dict[str, Any]:
    """Upload a video."""
    upload = await run_in_threadpool(live.library.start)
    try:
        async for chunk in request.stream():
            await run_in_threadpool(upload.write, chunk)
        choice = await run_in_threadpool(live.library.add, upload, name)
    except BaseException:
        upload.discard()
        raise
    return {"source": choice.id, "name": choice.name}


@router.delete("/api/clips/{clip}")
async def delete_clip(clip: str, live: LiveStream) -> dict[str, Any]:
    """Remove an uploaded video."""
    choice = find(live.library.find, clip, "clip")
    await run_in_threadpool(live.library.remove, choice)
    return {"removed": choice.id}


@router.post("/api/recording")
async def start_recording(
    live: LiveStream,
    dataset: Annotated[bool, Query(description="A data set too: bare pictures, masks as COCO and YOLO.")] = False,
) -> dict[str, Any]:
    """Start to record."""
    # A file is recorded at its own speed, a camera as fast as its pictures come.
    fps = live.telemetry.fps if live.player.live else live.player.fps
    return {"recording": await _or_conflict(live.recorder.start, fps or ASSUMED_FPS, dataset)}


@router.delete("/api/recording")
async def stop_recording(live: LiveStream) -> dict[str, Any]:
    """Stop recording."""
    return {"recording": await _or_conflict(live.recorder.stop)}


@router.get(
    "/api/recordings/{name}",
    response_class=FileResponse,
    responses={200: {"content": {"video/mp4": {}, "application/zip": {}}}},
)
async def get_recording(name: str, live: LiveStream) -> Response:
    """A finished recording: a video, or a data set in a zip file."""
    path: Path = await run_in_threadpool(find, live.recorder.path, name, "recording")
    kind = "application/zip" if path.suffix == ".zip" else "video/mp4"
    return FileResponse(path, media_type=kind, filename=f"rvos-edge-{path.name}")


async def answer_error(request: Request, error: Exception) -> Response:
    """Answer every error with one sentence."""
    status, sentence, headers = 500, "the server failed on this request; see its log.", None
    if isinstance(error, HTTPException):
        status, headers = error.status_code, error.headers
        sentence = {
            "Not Found": "there is nothing here; see /api/openapi.json for what there is.",
            "Method Not Allowed": f"{request.method} is not possible here; see /api/openapi.json for what is.",
            "There was an error parsing the body": _NO_JSON,
        }.get(error.detail, error.detail)
    elif isinstance(error, RequestValidationError):
        first = error.errors()[0]
        known = first["type"] != "json_invalid"
        status, sentence = (422, explain({**first, "loc": first["loc"][1:]})) if known else (400, _NO_JSON)
    elif isinstance(error, UserError):
        status, sentence = 422, str(error)
    elif isinstance(error, BusyError):
        status, sentence, headers = 503, "other pictures are waiting already; try again soon.", {"retry-after": "1"}
    elif isinstance(error, ClientDisconnect):
        status, sentence = 400, "the request broke off."
    return JSONResponse({"error": sentence}, status, headers)


async def _or_conflict(action: Callable[..., str], *arguments: Any) -> str:
    try:
        return await run_in_threadpool(action, *arguments)
    except UserError as error:
        raise HTTPException(409, str(error)) from error
