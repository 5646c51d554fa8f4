"""Who may talk to the server: holders of the token, or this machine alone; pages of our own origin; not at length."""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request, cookie_parser
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_LOOPBACK = frozenset({"localhost", "127.0.0.1", "[::1]"})
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_LONGEST_TOKEN_FORM = 4096
_HEADERS = {
    "content-security-policy": "default-src 'self'; img-src 'self' blob: data:; object-src 'none'; base-uri 'none'; "
    "form-action 'self'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    # "no-referrer" would make the origin of our own form "null".
    "referrer-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
}
_ASK = """<!doctype html><html lang="en"><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1"><title>rvos-edge</title>
<link rel="icon" href="/page/icon.svg">
<link rel="stylesheet" href="/page/style.css"><body class="ask"><form method="post" action="/session">
<h1>rvos-edge</h1><label for="token">Token</label>
<input id="token" name="token" type="password" autocomplete="current-password" autofocus required>
<button class="primary">Open</button>%s</form></body></html>"""


class Guard:
    """ASGI middleware around everything.

    Args:
        app: What is guarded.
        token: Whoever shows it may do everything; None lets in whoever asks for this machine by a loopback name,
            which a page that rebinds its own name to 127.0.0.1 does not.
        limit: Bytes that a body may have, by method and path.
    """

    def __init__(self, app: ASGIApp, *, token: str | None, limit: Callable[[str, str], int]) -> None:
        self._app = app
        self._token = token
        self._limit = limit
        # The token itself stays out of the browser's store.
        self._session = secrets.token_urlsafe(32)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse, or pass on."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        send = _with_headers(send)
        answer = await self._answer(scope, headers, receive)
        if answer is not None:
            await answer(scope, receive, send)
            return
        if scope["type"] == "http":
            limit = self._limit(scope["method"], scope["path"])
            stated = headers.get("content-length", "0")
            if stated.isdigit() and int(stated) > limit:
                await _refuse(413, _too_long(limit))(scope, receive, send)
                return
            receive = _limited(receive, limit)
        await self._app(scope, receive, send)

    async def _answer(self, scope: Scope, headers: Headers, receive: Receive) -> Response | None:
        """A refusal, or what has to do with the token; None to go on."""
        host = headers.get("host", "").lower()
        if self._token is None and _name(host) not in _LOOPBACK:
            return _refuse(403, "this address is not one that is served; ask for localhost or 127.0.0.1.")
        origin = headers.get("origin")
        changes = scope["type"] == "websocket" or scope["method"] not in _SAFE
        if changes and origin is not None and origin.lower().partition("://")[2] != host:
            return _refuse(403, "requests from pages of another origin are not served.")
        if self._token is None:
            return None
        return await self._check_token(scope, headers, receive, self._token)

    async def _check_token(self, scope: Scope, headers: Headers, receive: Receive, token: str) -> Response | None:
        scheme, _, shown = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and _same(shown.strip(), token):
            return None
        cookie = f"rvos-edge-{(scope.get('server') or ('', 0))[1]}"
        if _same(cookie_parser(headers.get("cookie", "")).get(cookie, ""), self._session):
            return None
        path, shown = scope["path"], ""
        if scope["type"] == "http":
            if path in ("/page/style.css", "/page/icon.svg"):
                return None
            if path == "/session" and scope["method"] == "POST":
                shown = await _form_token(scope, receive)
            elif path == "/" and scope["method"] == "GET":
                shown = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[0]
        if shown and _same(shown, token):
            response = RedirectResponse("/", status_code=303)
            response.set_cookie(cookie, self._session, httponly=True, samesite="strict")
            return response
        if path in ("/", "/session"):
            return HTMLResponse(_ASK % ("<p role=alert>That is not the token.</p>" if shown else ""), 401)
        needed = "a token is needed; send it as 'Authorization: Bearer TOKEN'."
        return _refuse(401, needed, {"www-authenticate": "Bearer"})


async def _form_token(scope: Scope, receive: Receive) -> str:
    try:
        body = await Request(scope, _limited(receive, _LONGEST_TOKEN_FORM)).body()
    except HTTPException:
        return "?"
    return parse_qs(body.decode("latin-1")).get("token", ["?"])[0]


def _same(shown: str, secret: str) -> bool:
    return hmac.compare_digest(shown.encode("utf-8", "replace"), secret.encode())


def _name(host: str) -> str:
    """The host without its port: a forwarded port has another number."""
    return host[: host.rfind("]") + 1] if host.startswith("[") else host.partition(":")[0]


def _refuse(status: int, sentence: str, headers: dict[str, str] | None = None) -> Response:
    return JSONResponse({"error": sentence}, status, headers)


def _too_long(limit: int) -> str:
    return f"the body is too long: at most {limit:,} bytes are taken here."


def _limited(receive: Receive, limit: int) -> Receive:
    """A body may state no length, or a wrong one."""
    taken = 0

    async def counted() -> Message:
        nonlocal taken
        message = await receive()
        taken += len(message.get("body", b""))
        if taken > limit:
            raise HTTPException(413, _too_long(limit))
        return message

    return counted


def _with_headers(send: Send) -> Send:
    async def sending(message: Any) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in _HEADERS.items():
                headers.setdefault(name, value)
            # The page and its modules change together.
            headers.setdefault("cache-control", "no-cache")
        await send(message)

    return sending
