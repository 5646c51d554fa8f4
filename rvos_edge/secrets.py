"""Passwords, tokens and stream keys, hidden in all that is said and written."""

from __future__ import annotations

import re

_URL = re.compile(r"\b(?!csi:)([a-z][a-z0-9+.-]{0,15})://(\S+)", re.IGNORECASE)
_AFTER = "'\"),;:."
"""Characters that end a clause around a URL and not the URL."""


def hide_secrets(text: str) -> str:
    """A text with the secrets of the URLs in it hidden.

    Users and passwords go (both may hold "/", "@" and "?"), the values of the query become ``***``, and so does what
    follows the application in the path of an RTMP stream, which is its key.

    Example:
        >>> hide_secrets("rtsp://me:p/s@s@camera/live?token=4711 is lost")
        'rtsp://camera/live?token=*** is lost'
        >>> hide_secrets("rtmp://live.example/app/my-key")
        'rtmp://live.example/app/***'
    """
    return _URL.sub(_hidden, text)


def _hidden(match: re.Match[str]) -> str:
    scheme, text = match.groups()
    rest = text.rstrip(_AFTER)
    address, question, query = rest.rpartition("@")[2].partition("?")
    if scheme.lower().startswith("rtmp"):
        host, *path = address.split("/")
        address = "/".join([host, *path[:1], "***"] if len(path) > 1 else [host, *("***" for part in path if part)])
    query = re.sub(r"=[^&#]*|^[^=&]+$", lambda value: "=***" if value[0].startswith("=") else "***", query)
    return f"{scheme}://{address}{question}{query}{text[len(rest) :]}"
