"""The live page from Python: ``rvos_edge.serve``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from rvos_edge.flow.policy import FlowOptions
from rvos_edge.opening import open_segmenter
from rvos_edge.queries import Query
from rvos_edge.server.address import ServerOptions, parse_address
from rvos_edge.server.app import LiveServer
from rvos_edge.server.live import Live
from rvos_edge.streaming.loop import Summary, run_stream
from rvos_edge.streaming.sources import open_source


def serve(
    source: str | Path | int = 0,
    queries: Query | Sequence[Query] = (),
    *,
    bundle: str | Path | None = None,
    address: str = "127.0.0.1:8000",
    token: str | None = None,
    base_path: str = "",
    origins: Sequence[str] = (),
    certificate: Path | None = None,
    ready: Callable[[str], object] = print,
    **options: Any,
) -> Summary:
    """Serve the page and the API of a stream until Ctrl-C; exported as ``rvos_edge.serve``.

    Args:
        source: A camera's number, or a name that ``open_source`` takes; a file starts again at its end.
        queries: Expressions and taught queries to begin with, or a single one; the page changes them.
        bundle: The bundle's directory or name, None for the one that comes with the package.
        address: ``HOST:PORT``, ``HOST`` or ``PORT``.
        token: Secret that every request must show; needed beyond this machine.
        base_path: Prefix such as "/cam1", below which a proxy shows the page.
        origins: Origins of other pages that may use the API.
        certificate: PEM file with a certificate and its key, for https.
        ready: Takes the page's URL once it is served.
        options: Keyword arguments of ``rvos_edge.open``, such as `device` or `threads`.

    Returns:
        What was segmented.

    Raises:
        UserError: The address, the bundle or the source cannot be used, or the extra ``serve`` is not installed.

    Example:
        >>> rvos_edge.serve(0, "a person", address="0.0.0.0:8000", token="correct horse")  # doctest: +SKIP
        The page is at http://localhost:8000/
    """
    page = ServerOptions(parse_address(address), token, base_path, origins, certificate)
    segmenter = open_segmenter(bundle, **options)
    stills = partial(open_segmenter, bundle, **{**options, "flow": FlowOptions(enabled=False)})
    if queries:
        segmenter.set_queries(queries)
    reopen = partial(open_source, str(source))
    with reopen() as opened:
        live = Live(segmenter, opened, reopen=reopen, stills=stills)
        with LiveServer(live, page) as server:
            ready(server.url)
            return run_stream(live.segmenter, live.player, [live.sink])
