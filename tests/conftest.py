"""Fixtures shared by all tests."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import pytest

_SIGNALS = {
    signal.SIGINT: signal.default_int_handler,
    signal.SIGTERM: signal.SIG_DFL,
    signal.SIGHUP: signal.SIG_DFL,
}


def pytest_configure() -> None:
    """Make this process and its children as those of a user at a terminal, wherever the tests run.

    ``pytest &`` and ``nohup pytest`` leave signals ignored; with the variable CI set, progress has no bar.
    """
    os.environ.pop("CI", None)
    for number, handler in _SIGNALS.items():
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, handler)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data and weights that lies beside the checkout, or a skip."""
    path = Path(__file__).resolve().parents[2] / "shared"
    if not path.is_dir():
        pytest.skip("needs the real data and weights in ../shared, which are not here")
    return path


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with random weights, of the module's own."""
    from support.tiny_bundle import write_tiny_bundle

    return write_tiny_bundle(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def equal_graphs_are_traced_once() -> Iterator[None]:
    """Exports take the file of an earlier graph that computes the same with the same weights (``support.tracing``)."""
    from support.tracing import equal_graphs_traced_once

    with equal_graphs_traced_once():
        yield


@pytest.fixture(scope="session", autouse=True)
def _commands_are_built_once() -> Iterator[None]:
    """``CliRunner`` builds every command again for each call, which takes longer than most calls."""
    import typer.testing

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(typer.testing, "_get_command", cache(typer.main.get_command))
        yield


@pytest.fixture(scope="session", autouse=True)
def _what_is_remembered_is_these_tests_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Compiled graphs are kept for the next process, but not in the cache of whoever runs the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("remembered")))
        yield


@pytest.fixture(scope="session", autouse=True)
def _the_same_on_every_cpu() -> Iterator[None]:
    """Without a wish the backend is ONNX Runtime here, which also starts faster, and OpenVINO computes in float32.

    A test of the choice undoes this (``tests/runtime/engines/test_registry.py``); one of real bfloat16 has a process of
    its own.
    """
    if find_spec("openvino") is None:
        yield
        return
    from rvos_edge.engines import openvino, registry

    with pytest.MonkeyPatch.context() as patch:
        for precision in ("bfloat16", "int8"):
            patch.setitem(openvino._HINTS, precision, "f32")
        patch.setattr(registry, "_openvinos", lambda *_: [])
        yield
