"""The examples in the trainer's docstrings run."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import rvos_edge.trainer

_MODULES = sorted(module.name for module in pkgutil.walk_packages(rvos_edge.trainer.__path__, "rvos_edge.trainer."))


@pytest.mark.parametrize("name", _MODULES)
def test_examples(name: str) -> None:
    failed, _ = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)
    assert failed == 0


def test_there_are_examples() -> None:
    assert "rvos_edge.trainer.model.hinet" in _MODULES
