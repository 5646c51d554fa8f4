"""Cameras that give one picture for each request to a URL."""

from __future__ import annotations

import re
import socket
import threading
import time
import urllib.error
import urllib.request
from urllib.parse import unquote, urlsplit, urlunsplit

import cv2
import numpy as np
from numpy.typing import NDArray

from rvos_edge.secrets import hide_secrets
from rvos_edge.streaming.sources.base import Source, SourceOptions, UnavailableError
from rvos_edge.streaming.sources.live import LiveCapture

_SECONDS = 10.0
"""For an answer, unless --open-timeout (whether it is a picture) or --read-timeout (the picture) say another time."""
_PERIOD = 1.0
"""Seconds between two requests."""
_LARGEST = 64 << 20
_NAMED = re.compile(r"\.(jpe?g|png)$|snap|/(image|picture|still)s?\b", re.IGNORECASE)
"""Paths of pictures, such as /snapshot.cgi and /ISAPI/Streaming/channels/1/picture."""


def open_snapshots(spec: str, options: SourceOptions) -> Source | None:
    """Poll a URL (http, https) that answers with a picture, once a second; None for other names and other answers."""
    if not re.match(r"https?://", spec, re.IGNORECASE):
        return None
    camera = SnapshotCapture(spec, options)
    if not camera.answers_with_picture():
        return None
    return LiveCapture(
        lambda: SnapshotCapture(spec, options),
        name=hide_secrets(spec),
        wait=options.wait,
        give_up=options.give_up,
        tell=options.tell,
    )


class SnapshotCapture:
    """Asks a URL for a picture, with the user and password in it (basic or digest); the first picture comes at once."""

    fps = 1 / _PERIOD

    def __init__(self, url: str, options: SourceOptions) -> None:
        self._name = hide_secrets(url)
        parts = urlsplit(url)
        user, at, host = parts.netloc.rpartition("@")
        self._url = urlunsplit(parts._replace(netloc=host))
        known = urllib.request.HTTPPasswordMgrWithDefaultRealm()
        if at:
            name, _, password = user.partition(":")
            known.add_password(None, self._url, unquote(name), unquote(password))
        basic, digest = urllib.request.HTTPBasicAuthHandler(known), urllib.request.HTTPDigestAuthHandler(known)
        self._opener = urllib.request.build_opener(basic, digest)
        self._opens, self._reads = options.open_timeout or _SECONDS, options.read_timeout or _SECONDS
        self._next = 0.0
        self._released = threading.Event()

    def answers_with_picture(self) -> bool:
        """True for answers of a type such as image/jpeg; where the server does not tell it, for a name like one."""
        try:
            # A GET would take one of the connections of a camera that has few.
            with self._opener.open(urllib.request.Request(self._url, method="HEAD"), timeout=self._opens) as answer:
                return str(answer.headers.get_content_maintype()) == "image"
        except (OSError, ValueError):
            return _NAMED.search(urlsplit(self._url).path) is not None

    def read(self) -> tuple[bool, NDArray[np.generic] | None]:
        """Wait for the time of the next picture, and ask for it.

        Raises:
            UnavailableError: There is no answer, or a refusal.
        """
        self._released.wait(max(0.0, self._next - time.monotonic()))
        self._next = time.monotonic() + _PERIOD
        try:
            with self._opener.open(self._url, timeout=self._reads) as answer:
                content = answer.read(_LARGEST)
        except (OSError, ValueError) as error:
            cause = _cause(error)
            raise UnavailableError(
                cause, f"{self._name} gives no picture: {cause}; check address and password"
            ) from error
        image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR) if content else None
        return image is not None, image

    def release(self) -> None:
        self._released.set()


def _cause(error: Exception) -> str:
    if isinstance(error, urllib.error.HTTPError):
        return "wrong password" if error.code in (401, 403) else f"status {error.code}"
    reason = getattr(error, "reason", error)
    if isinstance(reason, TimeoutError):
        return "timed out"
    if isinstance(reason, ConnectionRefusedError):
        return "connection refused"
    return "unknown host" if isinstance(reason, socket.gaierror) else "no answer"
