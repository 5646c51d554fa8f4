"""The routes of the API, and the OpenAPI document that is made of them: what is served is what is described."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from rvos_edge import __version__

LONGEST_JSON = 64 << 10
"""Bytes of a JSON body."""
_PARAMETER = {"in": "query"}


@dataclass(frozen=True)
class Operation:
    """A route with one method.

    Attributes:
        method: Such as "GET".
        path: With parameters in braces.
        summary: One line.
        handler: Answers.
        body: The model of a JSON body, or the media types of another one.
        returns: Media types of the answer.
        query: Names of query parameters and their JSON schemas.
        limit: Bytes of a body.
        errors: What other statuses than 200 mean here.
    """

    method: str
    path: str
    summary: str
    handler: Callable[[Request], Awaitable[Response]]
    body: type[BaseModel] | tuple[str, ...] | None = None
    returns: tuple[str, ...] = ("application/json",)
    query: dict[str, dict[str, Any]] = field(default_factory=dict)
    limit: int = LONGEST_JSON
    errors: dict[int, str] = field(default_factory=dict)


def describe(operations: Sequence[Operation], *, token: bool) -> dict[str, Any]:
    """The OpenAPI 3.1 document.

    Args:
        operations: All of them.
        token: Whether a token is needed.
    """
    schemas: dict[str, Any] = {
        "Error": {
            "type": "object",
            "required": ["error"],
            "properties": {"error": {"type": "string", "description": "One sentence."}},
        }
    }
    paths: dict[str, Any] = {}
    for operation in operations:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _describe(operation, schemas)
    document: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {
            "title": "rvos-edge",
            "version": __version__,
            "description": "A stream that is being segmented, and single pictures. Two WebSockets go with it: "
            "/api/frames sends JPEG pictures, one for each message it gets and two to begin with; /api/live sends "
            "the status as JSON and takes {'queries': [...]} and {'settings': {...}}.",
        },
        "paths": paths,
        "components": {"schemas": schemas},
    }
    if token:
        document["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        document["security"] = [{"token": []}]
    return document


def _describe(operation: Operation, schemas: dict[str, Any]) -> dict[str, Any]:
    refused = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    errors = dict(operation.errors)
    if operation.body is not None:
        errors |= {413: f"The body has more than {operation.limit:,} bytes.", 422: "Something in it is wrong."}
    described: dict[str, Any] = {
        "summary": operation.summary,
        "responses": {
            "200": {"description": "Done.", "content": {kind: _schema_of(kind) for kind in operation.returns}},
            **{str(status): {"description": what, "content": refused} for status, what in sorted(errors.items())},
        },
    }
    names = [part[1:-1] for part in operation.path.split("/") if part.startswith("{")]
    parameters = [{"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names]
    parameters += [{"name": name, **_PARAMETER, "schema": schema} for name, schema in operation.query.items()]
    if parameters:
        described["parameters"] = parameters
    if isinstance(operation.body, tuple):
        described["requestBody"] = {"required": True, "content": {kind: _schema_of(kind) for kind in operation.body}}
    elif operation.body is not None:
        schema = operation.body.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas |= schema.pop("$defs", {})
        schemas[operation.body.__name__] = schema
        content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{operation.body.__name__}"}}}
        described["requestBody"] = {"required": True, "content": content}
    return described


def _schema_of(kind: str) -> dict[str, Any]:
    if kind == "application/json":
        return {"schema": {"type": "object"}}
    return {"schema": {"type": "string"} if kind.startswith("text/") else {"type": "string", "format": "binary"}}
