"""The C++ header of the flow policy's constants is that of the Python modules."""

from __future__ import annotations

import runpy
from pathlib import Path

CPP = Path(__file__).resolve().parents[2] / "cpp_bindings"


def test_the_header_is_fresh() -> None:
    written = runpy.run_path(str(CPP / "tools/flow_constants.py"))["render"]()
    assert (CPP / "src/flow_constants.hpp").read_text() == written, "run cpp_bindings/tools/flow_constants.py again"
