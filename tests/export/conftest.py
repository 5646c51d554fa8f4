"""A small checkpoint and its bundle, exported once for all tests of this folder."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.tiny_checkpoint import write_checkpoint

from rvos_edge.export.package import export_bundle


@pytest.fixture(scope="session", autouse=True)
def _cheap_exports(equal_graphs_are_traced_once: None) -> None: ...


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("checkpoint") / "checkpoint")


@pytest.fixture(scope="session")
def bundle(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_bundle(checkpoint, tmp_path_factory.mktemp("bundle") / "bundle")
