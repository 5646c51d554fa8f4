"""Options of the live page, shared by the commands that serve it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.style import Style
from rich.text import Text
from typer.core import TyperCommand

from rvos_edge.cli.application import RESULTS
from rvos_edge.server.address import (
    DEFAULT_HOST,
    DEFAULT_PORT,
    check_base_path,
    check_certificate,
    check_origin,
    check_token,
    parse_address,
)

if TYPE_CHECKING:
    from rvos_edge.protocol import SegmenterProtocol
    from rvos_edge.streaming.loop import Meter, Stepper
    from rvos_edge.streaming.sinks import Sink
    from rvos_edge.streaming.sources import Source

_BARE = f"{DEFAULT_HOST}:{DEFAULT_PORT}"
_ADDRESS = re.compile(r"\d{4,5}|(?!synthetic:)[^\s/]*:[^\s/]+")
"""A port, or HOST:PORT; anything else after ``--serve`` is the source or a query."""

ServeOption = Annotated[
    str | None,
    typer.Option(
        metavar="[HOST:PORT]",
        help=f"Serve a page to watch and change the queries; {_BARE} if nothing follows.",
        rich_help_panel=RESULTS,
    ),
]
TokenOption = Annotated[
    str | None,
    typer.Option(
        envvar="RVOS_EDGE_TOKEN",
        help="With --serve: ask for this; needed beyond this machine.",
        rich_help_panel=RESULTS,
    ),
]

OriginOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="ORIGIN",
        help="With --serve: let pages of this origin, such as https://example.org, use the API; repeatable.",
        rich_help_panel=RESULTS,
    ),
]
CertificateOption = Annotated[
    Path | None,
    typer.Option(
        help="With --serve: PEM file of a certificate and its key, for https, without which no phone gives its camera.",
        rich_help_panel=RESULTS,
    ),
]


BasePathOption = Annotated[
    str | None,
    typer.Option(
        metavar="/PATH", help="With --serve: prefix below which a proxy shows the page.", rich_help_panel=RESULTS
    ),
]


class ServingCommand(TyperCommand):
    """Command whose ``--serve`` may stand alone, for which Typer has no option."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        completed: list[str] = []
        for argument, following in zip(args, [*args[1:], "--"], strict=False):
            completed.append(argument)
            if argument == "--serve" and not _ADDRESS.fullmatch(following):
                completed.append(_BARE)
        return super().parse_args(ctx, completed)


def check_serving(
    serve: str | None, token: str | None, base_path: str | None, origins: Sequence[str], certificate: Path | None
) -> None:
    """Check the options of the page before anything is loaded.

    Raises:
        UserError: ``serve`` is not an address, or needs a token; ``base_path`` is no path, an origin none, or the
            certificate cannot be read.
    """
    check_certificate(certificate)
    check_base_path(base_path)
    if serve is not None:
        check_token(parse_address(serve), token)
    for origin in origins:
        check_origin(origin)


@contextmanager
def serving(
    serve: str | None,
    token: str | None,
    origins: Sequence[str],
    certificate: Path | None,
    segmenter: SegmenterProtocol,
    source: Source,
    *,
    base_path: str | None,
    meter: Meter,
    reopen: Callable[[], Source],
    stills: Callable[[], SegmenterProtocol],
    sinks: Sequence[Sink],
    opacity: float,
    console: Console,
) -> Iterator[tuple[Stepper, Source, list[Sink]]]:
    """Segmenter, source and sinks for the loop: with ``serve`` a stream that the page steers, otherwise those given.

    Args:
        sinks: Other sinks; where there are any, the stream ends with its file instead of starting again.

    Raises:
        UserError: The address cannot be used.
    """
    if serve is None:
        yield segmenter, source, list(sinks)
        return
    from rvos_edge.server.app import LiveServer
    from rvos_edge.server.live import Live

    live = Live(segmenter, source, reopen=reopen, stills=stills, repeat=not sinks, opacity=opacity, meter=meter)
    try:
        server = LiveServer(
            live,
            parse_address(serve),
            token=token,
            base_path=check_base_path(base_path),
            origins=origins,
            certificate=certificate,
        )
    except BaseException:
        live.close()
        raise
    with server:
        print_address(server.url, token, console)
        yield live.segmenter, live.player, [live.sink, *sinks]


def print_address(url: str, token: str | None, console: Console) -> None:
    """Print the address of the page."""
    link = Text(url, style=Style(link=url))  # no markup: an IPv6 address has brackets
    asking = " and asks for the token" if token else ""
    console.print("The page is at ", link, f"{asking}; Ctrl-C ends it.", sep="", soft_wrap=True, highlight=False)
