"""Served streams on the tiny bundle, ended after each test."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support.browser import Browser, find_chromium
from support.served import Collector, Pictures, Serve, Served, wait_until
from support.tiny_bundle import write_tiny_bundle

import rvos_edge
from rvos_edge.flow.policy import FlowOptions
from rvos_edge.segmenter import Segmenter
from rvos_edge.server.address import Address, ServerOptions
from rvos_edge.server.app import LiveServer
from rvos_edge.server.live import Live
from rvos_edge.streaming.loop import run_stream
from rvos_edge.streaming.sources import Source


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_bundle(tmp_path_factory.mktemp("tiny"), teach=True)


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    chromium = find_chromium()
    if chromium is None:
        pytest.skip("needs Chromium: apt-get install chromium")
    with Browser(chromium, tmp_path_factory.mktemp("browser")) as browser:
        yield browser


@pytest.fixture(scope="session")
def open_tiny(tiny: Path) -> Callable[..., Segmenter]:
    """A function that opens the tiny bundle; its keywords are options of the flow."""

    def opener(**flow: Any) -> Segmenter:
        return rvos_edge.open(tiny, backend="onnxruntime", threads=1, flow=FlowOptions(**flow))

    return opener


@contextmanager
def starting(open_tiny: Callable[..., Segmenter]) -> Iterator[Serve]:
    """A function that starts and serves streams; all end with the context."""
    started: list[tuple[LiveServer, threading.Thread, Served]] = []

    def start(
        *queries: str,
        source: Callable[[], Source] = Pictures,
        token: str | None = None,
        repeat: bool = True,
        keep: int = 1,
        address: Address | None = None,
        base_path: str = "",
        origins: tuple[str, ...] = (),
        **flow: Any,
    ) -> Served:
        segmenter = open_tiny(**flow)
        segmenter.set_queries(queries or ["the dog"])
        live = Live(segmenter, source(), reopen=source, stills=lambda: open_tiny(enabled=False), repeat=repeat)
        server = LiveServer(live, ServerOptions(address or Address(port=0), token, base_path, origins)).__enter__()
        collector = Collector(keep)
        served = Served(live, server, collector)

        def loop() -> None:
            try:
                run_stream(live.segmenter, live.player, [live.sink, collector])
            except BaseException as error:
                served.errors.append(error)

        thread = threading.Thread(target=loop, daemon=True)
        thread.start()
        started.append((server, thread, served))
        return served

    try:
        yield start
    finally:
        for server, thread, _ in started:
            server.close()
            thread.join(10)
    for _, thread, served in started:
        assert not thread.is_alive()
        assert not served.live.library.folder.exists()
        assert served.errors == []


@pytest.fixture
def serve(open_tiny: Callable[..., Segmenter]) -> Iterator[Serve]:
    """A function that starts and serves streams; all end after the test."""
    with starting(open_tiny) as start:
        yield start


@pytest.fixture(scope="module")
def dog(open_tiny: Callable[..., Segmenter]) -> Iterator[Served]:
    """One stream with the query "the dog" and a frame on show, for all tests that leave it unchanged."""
    with starting(open_tiny) as start:
        served = start("the dog")
        wait_until(lambda: served.live.sink.shown is not None)
        yield served
