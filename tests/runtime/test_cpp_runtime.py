"""Messages of ``runtime="cpp"`` if the C++ module is not installed or does not fit."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import pytest
from support.tiny_bundle import write_tiny_bundle

import rvos_edge
from rvos_edge import cpp


def test_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rvos_edge_cpp", None)
    with pytest.raises(rvos_edge.UserError, match=r"needs rvos_edge_cpp, which is not installed; .*pip install"):
        rvos_edge.open(write_tiny_bundle(tmp_path / "tiny"), runtime="cpp")


def test_libraries_of_another_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> ModuleType:
        raise ImportError("libopenvino.so.1: cannot open shared object file")

    monkeypatch.setattr(cpp, "import_module", broken)
    with pytest.raises(rvos_edge.UserError, match=r"runtime 'cpp' cannot be used: libopenvino"):
        rvos_edge.open(write_tiny_bundle(tmp_path / "tiny"), runtime="cpp")


def test_unknown(tmp_path: Path) -> None:
    with pytest.raises(rvos_edge.UserError, match=r"runtime 'rust' is unknown; use python or cpp\."):
        rvos_edge.open(tmp_path, runtime="rust")
