"""Parts that every route needs: the stream, the form of a refusal, and descriptions of bodies."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, TypeVar

from fastapi import Depends
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection

from rvos_edge.server.live import Live

_Found = TypeVar("_Found")


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
