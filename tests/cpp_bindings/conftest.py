"""The probe of the C++ library, or a skip."""

from __future__ import annotations

import pytest
from support.cpp_probe import VARIABLE, Probe, find_probe


@pytest.fixture(scope="session")
def probe() -> Probe:
    found = find_probe()
    if found is None:
        pytest.skip(f"needs the C++ library: build it (cpp_bindings/README.md), or set {VARIABLE}")
    return found
