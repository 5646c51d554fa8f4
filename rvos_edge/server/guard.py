"""The guard before the application: tokens, hosts, origins, and the length and duration of bodies."""

from __future__ import annotations

import asyncio
import hmac
import secrets
import time
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import parse_qs

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request, cookie_parser
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rvos_edge.server.address import network_of

LONGEST_JSON = 64 << 10
"""Largest body, in bytes, where the route has no limit of its own."""
BODY_SECONDS = 15.0
"""Longest wait for the next part of a body, and for the whole body, in seconds."""
SLOWEST_BODY = 16 << 10
"""Bytes per second: a body that comes faster may take longer as a whole."""
GUESS_SECONDS = 1.0
"""Seconds between two tokens that are compared for one address, after a wrong one."""
_LONGEST_WAIT = 10.0
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
<link rel="icon" href="page/icon.svg">
<link rel="stylesheet" href="page/style.css"><body class="ask"><form method="post" action="session">
<h1>rvos-edge</h1><label for="token">Token</label>
<input id="token" name="token" type="password" autocomplete="current-password" autofocus required>
<button class="primary">Open</button>%s</form></body></html>"""


class Guard:
    """ASGI middleware around the application.

    Args:
        token: Secret that opens everything; None lets in every request that names this machine by a loopback name,
            which a page that rebinds its own name to 127.0.0.1 does not.
        limits: Bytes of a body, by method and path.
        origins: Other origins whose pages may change things, in lower case.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        token: str | None,
        limits: Mapping[tuple[str, str], int],
        origins: Sequence[str] = (),
    ) -> None:
        self._app = app
        self._origins = frozenset(origins)
        self._token = token
        self._limits = limits
        # The token itself stays out of the browser's store.
        self._session = secrets.token_urlsafe(32)
        self._next_guess: dict[str, float] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse the request, or pass it on."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        send = _with_headers(send)
        answer = await self._answer(scope, headers, receive)
        if answer is None and scope["type"] == "http":
            route = "/api/" + scope["path"].partition("/api/")[2]  # the same for each of several cameras
            limit = self._limits.get((scope["method"], route), LONGEST_JSON)
            stated = headers.get("content-length", "0")
            if stated.isdigit() and int(stated[:20]) > limit:
                answer = _refuse(413, _too_long(limit))
            receive = _bounded(receive, limit)
            if scope["method"] == "PUT":
                # The API takes nothing but JSON here; curl -d calls it a form.
                MutableHeaders(scope=scope)["content-type"] = "application/json"
        await (answer or self._app)(scope, receive, send)

    async def _answer(self, scope: Scope, headers: Headers, receive: Receive) -> Response | None:
        """The refusal, or the answer that belongs to the token; None to go on."""
        host = headers.get("host", "").lower()
        if self._token is None and _name(host) not in _LOOPBACK:
            return _refuse(403, "this address is not one that is served; ask for localhost or 127.0.0.1.")
        origin = headers.get("origin")
        changes = scope["type"] == "websocket" or scope["method"] not in _SAFE
        known = origin is None or origin.lower().partition("://")[2] == host or origin.lower() in self._origins
        if changes and not known:
            return _refuse(403, "requests from pages of another origin are not served.")
        if self._token is None:
            return None
        return await self._check_token(scope, headers, receive, self._token)

    async def _check_token(self, scope: Scope, headers: Headers, receive: Receive, token: str) -> Response | None:
        cookie = f"rvos-edge-{(scope.get('server') or ('', 0))[1]}"
        if _same(cookie_parser(headers.get("cookie", "")).get(cookie, ""), self._session):
            return None
        path, shown = scope["path"], ""  # each of several cameras has a page and these files below its name
        scheme, _, bearer = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            shown = bearer.strip()
        elif scope["type"] == "http":
            if path.endswith(("/page/style.css", "/page/icon.svg")):
                return None
            if path.endswith("/session") and scope["method"] == "POST":
                shown = await _form_token(scope, receive)
            elif path.endswith("/") and scope["method"] == "GET":
                shown = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[0]
        if shown:
            if not await self._may_guess(network_of(scope.get("client"))):
                wait = {"retry-after": str(int(_LONGEST_WAIT))}
                return _refuse(429, "too many wrong tokens came from this address; wait a while.", wait)
            if _same(shown, token):
                if scheme.lower() == "bearer":
                    return None
                response = RedirectResponse("./", status_code=303)  # from "/" and "/session", below any prefix
                response.set_cookie(cookie, self._session, httponly=True, samesite="strict")
                return response
            self._note_wrong(network_of(scope.get("client")))
        if path.endswith(("/", "/session")):
            return HTMLResponse(_ASK % ("<p role=alert>That is not the token.</p>" if shown else ""), 401)
        needed = "a token is needed; send it as 'Authorization: Bearer TOKEN'."
        return _refuse(401, needed, {"www-authenticate": "Bearer"})

    async def _may_guess(self, network: str) -> bool:
        """Wait for this network's turn; False where too many of it are waiting already."""
        turn = self._next_guess.get(network, 0.0)
        wait = turn - time.monotonic()
        if wait > _LONGEST_WAIT:
            return False
        if wait > 0:
            self._next_guess[network] = turn + GUESS_SECONDS
            await asyncio.sleep(wait)
        return True

    def _note_wrong(self, network: str) -> None:
        now = time.monotonic()
        if len(self._next_guess) > 1000:
            self._next_guess = {known: turn for known, turn in self._next_guess.items() if turn > now}
        self._next_guess[network] = max(self._next_guess.get(network, 0.0), now + GUESS_SECONDS)


async def _form_token(scope: Scope, receive: Receive) -> str:
    try:
        body = await Request(scope, _bounded(receive, _LONGEST_TOKEN_FORM)).body()
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


def _bounded(receive: Receive, limit: int) -> Receive:
    """A receive function that ends bodies that are too long, whatever length they state, or too slow."""
    taken, ended = 0, False
    start = time.monotonic()

    async def bounded() -> Message:
        nonlocal taken, ended
        if ended:
            return await receive()
        left = start + BODY_SECONDS + taken / SLOWEST_BODY - time.monotonic()
        try:
            message = await asyncio.wait_for(receive(), min(left, BODY_SECONDS))
        except asyncio.TimeoutError as error:
            raise HTTPException(408, "the body came too slowly; send it again.") from error
        taken += len(message.get("body", b""))
        ended = not message.get("more_body", False)
        if taken > limit:
            raise HTTPException(413, _too_long(limit))
        return message

    return bounded


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
