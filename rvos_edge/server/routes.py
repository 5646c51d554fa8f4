"""The HTTP API of a running stream."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import cv2
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response

from rvos_edge import __version__
from rvos_edge.errors import UserError
from rvos_edge.server.controls import Settings, explain
from rvos_edge.server.openapi import Operation, describe
from rvos_edge.server.player import ASSUMED_FPS
from rvos_edge.server.single_image import BusyError, as_coco, as_png, decode_picture
from rvos_edge.server.uploads import LARGEST_CLIP

if TYPE_CHECKING:
    from rvos_edge.server.app import Live

LARGEST_FRAME = 16 << 20
"""Bytes of a picture to segment."""
_FORMATS = ("png", "coco")
_Model = TypeVar("_Model", bound=BaseModel)


class Queries(BaseModel):
    """All queries, in the order of their colours; none shows the bare picture."""

    model_config = ConfigDict(extra="forbid", strict=True)

    queries: list[str]


class SourceChoice(BaseModel):
    """What to play."""

    model_config = ConfigDict(extra="forbid", strict=True)

    source: str = Field(description="An id of /api/sources.")


class Api:
    """Handlers of one running stream.

    Args:
        live: The stream and all that belongs to it.
        token: Whether a token is needed, for the description.

    Attributes:
        operations: Every route with its description.
    """

    def __init__(self, live: Live, *, token: bool) -> None:
        self._live = live
        self.operations = self._operations()
        self._document = describe(self.operations, token=token)

    def limit(self, method: str, path: str) -> int:
        """Bytes that a body may have."""
        found = (known.limit for known in self.operations if (known.method, known.path) == (method, path))
        return next(found, min(known.limit for known in self.operations))

    def _operations(self) -> list[Operation]:
        picture = ("image/jpeg", "image/png")
        video = ("video/mp4", "video/webm", "video/x-matroska", "video/x-msvideo", "application/octet-stream")
        asked: dict[str, dict[str, Any]] = {
            "query": {"type": "array", "items": {"type": "string"}, "description": "The stream's if left out."},
            "threshold": {"type": "number", "default": 0, "description": "In logits."},
            "format": {"enum": list(_FORMATS), "default": "png", "description": "png: indexed; coco: run lengths."},
        }
        named = {"name": {"type": "string", "description": "What to call it."}}
        missing = {404: "There is no such thing."}
        return [
            Operation("GET", "/api/health", "Whether the stream runs.", self.health),
            Operation("GET", "/api/status", "Everything that the page shows.", self.status),
            Operation("GET", "/api/queries", "What is being segmented, with colours and scores.", self.get_queries),
            Operation("PUT", "/api/queries", "Replace all queries from the next frame on.", self.put_queries, Queries),
            Operation("GET", "/api/settings", "The settings.", self.get_settings),
            Operation(
                "PUT", "/api/settings", "Change some settings; those left out stay.", self.put_settings, Settings
            ),
            Operation(
                "POST",
                "/api/frame",
                "Segment one picture, apart from the stream.",
                self.post_frame,
                picture,
                ("image/png", "application/json"),
                asked,
                LARGEST_FRAME,
                {503: "Others are waiting already; try again soon."},
            ),
            Operation(
                "GET",
                "/api/snapshot",
                "The newest picture with its masks.",
                self.snapshot,
                returns=("image/png",),
                errors={404: "There is no picture yet."},
            ),
            Operation("GET", "/api/sources", "What can be played.", self.sources),
            Operation("PUT", "/api/source", "Play something else.", self.put_source, SourceChoice, errors=missing),
            Operation("POST", "/api/clips", "Upload a video.", self.post_clip, video, query=named, limit=LARGEST_CLIP),
            Operation("DELETE", "/api/clips/{clip}", "Remove an uploaded video.", self.delete_clip, errors=missing),
            Operation("POST", "/api/recording", "Start to record.", self.start_recording, errors={409: "It runs."}),
            Operation("DELETE", "/api/recording", "Stop recording.", self.stop_recording, errors={409: "None runs."}),
            Operation(
                "GET",
                "/api/recordings/{name}",
                "A finished recording.",
                self.get_recording,
                returns=("video/mp4",),
                errors=missing,
            ),
            Operation("GET", "/metrics", "Metrics in Prometheus' text format.", self.metrics, returns=("text/plain",)),
            Operation("GET", "/api/openapi.json", "This description.", self.document),
        ]

    async def document(self, request: Request) -> Response:
        return JSONResponse(self._document)

    async def health(self, request: Request) -> Response:
        status = self._live.status()
        names = ("state", "frames", "fps", "bundle", "backend")
        return JSONResponse({"status": "ok", "version": __version__, **{name: status[name] for name in names}})

    async def status(self, request: Request) -> Response:
        return JSONResponse(self._live.status())

    async def metrics(self, request: Request) -> Response:
        return PlainTextResponse(self._live.figures.exposition(), media_type="text/plain; version=0.0.4")

    async def get_queries(self, request: Request) -> Response:
        return JSONResponse({"queries": self._live.query_rows(), "revision": self._live.controls.wanted.revision})

    async def put_queries(self, request: Request) -> Response:
        body = await _read(request, Queries)
        revision = self._live.controls.set_queries(body.queries)
        return JSONResponse({"queries": self._live.query_rows(), "revision": revision})

    async def get_settings(self, request: Request) -> Response:
        wanted = self._live.controls.wanted
        return JSONResponse({**wanted.settings.model_dump(), "revision": wanted.revision})

    async def put_settings(self, request: Request) -> Response:
        body = await _read(request, Settings)
        revision = self._live.controls.change(body.model_dump(exclude_unset=True))
        return JSONResponse({**self._live.controls.wanted.settings.model_dump(), "revision": revision})

    async def post_frame(self, request: Request) -> Response:
        asked = request.query_params
        queries = asked.getlist("query") or list(self._live.controls.wanted.queries)
        form = asked.get("format", "png")
        if form not in _FORMATS:
            raise UserError(f"format: {form[:40]!r} is not made; ask for {' or '.join(_FORMATS)}.")
        try:
            threshold = float(asked.get("threshold", 0))
        except ValueError as error:
            raise UserError("threshold: it is not a number; give one such as 0.5.") from error
        data = await request.body()

        def segment() -> Response:
            result = self._live.stills.segment(decode_picture(data), queries, threshold)
            return JSONResponse(as_coco(result)) if form == "coco" else Response(as_png(result), media_type="image/png")

        try:
            return await run_in_threadpool(segment)
        except BusyError as error:
            raise HTTPException(
                503, "other pictures are waiting already; try again soon.", {"retry-after": "1"}
            ) from error

    async def snapshot(self, request: Request) -> Response:
        shown = self._live.sink.shown
        if shown is None:
            raise HTTPException(404, "there is no picture yet; wait for the first frame.")

        def draw() -> bytes:
            return cv2.imencode(".png", shown.draw(legend=True))[1].tobytes()

        headers = {"content-disposition": f'attachment; filename="rvos-edge-{shown.frame.index:06d}.png"'}
        return Response(await run_in_threadpool(draw), media_type="image/png", headers=headers)

    async def sources(self, request: Request) -> Response:
        return JSONResponse({"sources": self._live.source_rows(), "playing": self._live.player.choice.id})

    async def put_source(self, request: Request) -> Response:
        body = await _read(request, SourceChoice)
        choice = _found(self._live.library.find, body.source, "source")
        await run_in_threadpool(self._live.player.play, choice)
        return JSONResponse({"source": choice.id, "name": choice.name})

    async def post_clip(self, request: Request) -> Response:
        library = self._live.library
        upload = await run_in_threadpool(library.start)
        try:
            async for chunk in request.stream():
                await run_in_threadpool(upload.write, chunk)
        except BaseException:
            upload.discard()
            raise
        choice = await run_in_threadpool(library.add, upload, request.query_params.get("name", "clip"))
        return JSONResponse({"source": choice.id, "name": choice.name})

    async def delete_clip(self, request: Request) -> Response:
        choice = _found(self._live.library.find, request.path_params["clip"], "clip")
        await run_in_threadpool(self._live.library.remove, choice)
        return JSONResponse({"removed": choice.id})

    async def start_recording(self, request: Request) -> Response:
        player, measured = self._live.player, self._live.figures.fps
        # A file at its own speed, a camera as fast as its pictures come.
        fps = measured if player.live else player.fps
        name = await _or_conflict(self._live.recorder.start, fps or ASSUMED_FPS)
        return JSONResponse({"recording": name})

    async def stop_recording(self, request: Request) -> Response:
        return JSONResponse({"recording": await _or_conflict(self._live.recorder.stop)})

    async def get_recording(self, request: Request) -> Response:
        path: Path = _found(self._live.recorder.path, request.path_params["name"], "recording")
        return FileResponse(path, media_type="video/mp4", filename=f"rvos-edge-{path.name}")


async def answer_error(request: Request, error: Exception) -> Response:
    """Every error as one sentence."""
    if isinstance(error, HTTPException):
        sentence = {
            404: "there is nothing here; see /api for what there is.",
            405: f"{request.method} is not possible here; see /api for what is.",
        }.get(error.status_code, "")
        told = error.detail if error.detail not in ("Not Found", "Method Not Allowed") else sentence
        return JSONResponse({"error": told}, error.status_code, error.headers)
    if isinstance(error, UserError):
        return JSONResponse({"error": str(error)}, 422)
    if isinstance(error, ClientDisconnect):
        return JSONResponse({"error": "the request broke off."}, 400)
    return JSONResponse({"error": "the server failed on this request; see its log."}, 500)


async def _read(request: Request, model: type[_Model]) -> _Model:
    body = await request.body()
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        if error.errors()[0]["type"] == "json_invalid":
            raise HTTPException(400, "the body is not JSON; see /api for what belongs here.") from error
        raise UserError(explain(error)) from error


def _found(find: Any, name: str, what: str) -> Any:
    try:
        return find(name)
    except KeyError as error:
        raise HTTPException(404, f"there is no {what} of that name; ask for the list.") from error


async def _or_conflict(action: Any, *arguments: Any) -> str:
    try:
        return str(await run_in_threadpool(action, *arguments))
    except UserError as error:
        raise HTTPException(409, str(error)) from error
