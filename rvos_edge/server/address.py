"""Addresses to listen on: loopback for anyone on the machine, all others for holders of a token."""

from __future__ import annotations

import ipaddress
import re
import socket
import ssl
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from rvos_edge.errors import UserError

DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 8000
_SHORTEST_TOKEN = 8
_BASE = re.compile(r"(?:/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)*")
_ORIGIN = re.compile(r"https?://[A-Za-z0-9.\-\[\]:]+", re.IGNORECASE)
_WRITTEN = re.compile(r"(?:(?P<host>[A-Za-z0-9._-]+)|\[(?P<six>[0-9A-Fa-f:.]+)\])?(?::(?P<port>[0-9]{1,5}))?")


@dataclass(frozen=True)
class Address:
    """Host and TCP port; port 0 is any that is free."""

    host: str = DEFAULT_HOST
    port: int = DEFAULT_PORT

    @property
    def loopback(self) -> bool:
        """True if only this machine can connect."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True)
class ServerOptions:
    """Options of a server: the address of its page, and the clients that may use it.

    Attributes:
        token: Secret that every request must show; needed beyond loopback.
        base_path: Prefix of all paths, such as "/cam1", below which a proxy shows the page.
        origins: Origins of other pages that may use the API, such as ``https://example.org``.
        certificate: PEM file with a certificate and its key, for https.

    Raises:
        UserError: The address needs a token, the token is no secret, the prefix is no path, an origin is none, or the
            certificate cannot be read.
    """

    address: Address = field(default_factory=Address)
    token: str | None = None
    base_path: str = ""
    origins: Sequence[str] = ()
    certificate: Path | None = None

    def __post_init__(self) -> None:
        check_token(self.address, self.token)
        check_certificate(self.certificate)
        object.__setattr__(self, "base_path", check_base_path(self.base_path))
        object.__setattr__(self, "origins", tuple(map(check_origin, self.origins)))

    def url(self, host: str) -> str:
        """URL of the page at a host."""
        scheme = "http" if self.certificate is None else "https"
        return f"{scheme}://{Address(host, self.address.port)}{self.base_path}/"

    @property
    def url_for_phones(self) -> str | None:
        """URL of the page for other devices of the network; None where only this machine can connect."""
        if self.address.loopback:
            return None
        host = self.address.host
        if host in ("0.0.0.0", "::"):
            # Connecting a UDP socket sends nothing; it chooses the network card that leads out.
            with suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
                probe.connect(("192.0.2.1", 9))
                host = str(probe.getsockname()[0])
        return self.url(host)


def parse_address(written: str) -> Address:
    """Address written as ``HOST:PORT``, ``HOST`` or ``PORT``; an IPv6 address stands in brackets.

    Raises:
        UserError: The text is none of these; the message does not repeat it, because it may hold a password.

    Example:
        >>> parse_address("8080"), parse_address("[::1]:9000")
        (Address(host='127.0.0.1', port=8080), Address(host='::1', port=9000))
    """
    written = written.strip()
    match = _WRITTEN.fullmatch(f":{written}" if written.isdecimal() else written)
    port = int(match["port"] or DEFAULT_PORT) if match else 0
    if match is None or not written or port > 65535:
        raise UserError(f"--serve is not an address; write it as HOST:PORT, for example 127.0.0.1:{DEFAULT_PORT}.")
    return Address(match["six"] or match["host"] or DEFAULT_HOST, port)


def check_token(address: Address, token: str | None) -> None:
    """Refuse an address beyond loopback without a token, and a token that is too short to be a secret."""
    if token is None and not address.loopback:
        raise UserError(
            f"--serve {address} can be reached from other machines; add --token with a secret word, or serve on "
            f"{DEFAULT_HOST}."
        )
    if token is not None and (len(token) < _SHORTEST_TOKEN or not token.isascii() or not token.isprintable()):
        raise UserError(f"the token is too easily guessed; give at least {_SHORTEST_TOKEN} printable ASCII characters.")


def check_base_path(path: str) -> str:
    """The prefix of all paths behind a proxy, without a slash at its end; empty for none.

    Raises:
        UserError: It is no such prefix.

    Example:
        >>> check_base_path("/cam1/"), check_base_path("")
        ('/cam1', '')
    """
    base = path.rstrip("/")
    if not _BASE.fullmatch(base):
        raise UserError(f"--base-path {path} is no path; write it as /cam1, in letters, digits, '-', '_', '.' and '~'.")
    return base


def listen(address: Address) -> socket.socket:
    """Listening socket, bound already, so that a taken port is refused before any work."""
    try:
        found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, where = found[0]
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(where)
            listener.listen(128)
        except BaseException:
            listener.close()
            raise
    except OSError as error:
        raise UserError(
            f"--serve {address} cannot be used: {error.strerror or error}; choose another address or port."
        ) from error
    return listener


def qr_code(text: str) -> str:
    """QR code of a text as an SVG picture, dark on light."""
    import cv2

    modules = cv2.QRCodeEncoder.create().encode(text)
    dark = "".join(f"M{x} {y}h1v1h-1z" for y, row in enumerate(modules) for x, value in enumerate(row) if not value)
    height, width = modules.shape
    box = f"-2 -2 {width + 4} {height + 4}"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{box}" shape-rendering="crispEdges">'
        f'<path fill="#fff" d="M-2 -2h{width + 4}v{height + 4}h-{width + 4}z"/><path d="{dark}"/></svg>'
    )


def check_origin(origin: str) -> str:
    """An origin as browsers write it, ``https://host:port``; anything else is refused."""
    if not _ORIGIN.fullmatch(origin):
        raise UserError(f"--allow-origin {origin} is no origin; write it as https://example.org, without a path.")
    return origin.lower()


def network_of(client: tuple[str, int] | None) -> str:
    """Network that limits count as one client: an IPv4 address, or the /64 of an IPv6 address.

    Example:
        >>> network_of(("203.0.113.7", 5000)), network_of(("2001:db8::7", 5000))
        ('203.0.113.7', '2001:db8::')
    """
    if client is None or ":" not in client[0]:
        return client[0] if client else ""
    address = ipaddress.IPv6Address(client[0].partition("%")[0])
    if address.ipv4_mapped:
        return str(address.ipv4_mapped)
    return str(ipaddress.IPv6Address(int(address) >> 64 << 64))


def check_certificate(path: Path | None) -> None:
    """Refuse a file that is not a certificate and the key that belongs to it."""
    if path is None:
        return
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(path, password="")
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        raise UserError(f"--certificate {path} is no PEM file of a certificate and its key; join the two.") from error
