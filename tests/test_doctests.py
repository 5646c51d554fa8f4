"""The examples in the docstrings of the whole package run."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
from importlib.util import find_spec
from pathlib import Path

import pytest

import rvos_edge


def _modules_with_examples() -> list[str]:
    names = ["rvos_edge", *(module.name for module in pkgutil.walk_packages(rvos_edge.__path__, "rvos_edge."))]
    origins = {name: spec.origin for name in names if (spec := find_spec(name)) is not None and spec.origin}
    return sorted(name for name, origin in origins.items() if ">>>" in Path(origin).read_text(encoding="utf-8"))


_MODULES = _modules_with_examples()


@pytest.mark.parametrize("name", _MODULES)
def test_examples(name: str) -> None:
    failed, _ = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)
    assert failed == 0


@pytest.mark.parametrize("package", ["trainer", "benchmarks", "flow", "server", "streaming"])
def test_every_package_has_examples(package: str) -> None:
    assert any(name.startswith(f"rvos_edge.{package}.") for name in _MODULES)
