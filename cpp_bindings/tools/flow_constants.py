"""Write src/flow_constants.hpp: the constants of the flow policy, from rvos_edge/flow/constants.py.

Run in cpp_bindings: python tools/flow_constants.py > src/flow_constants.hpp
"""

from __future__ import annotations

import runpy
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[2] / "rvos_edge/flow/constants.py"


def render() -> str:
    """The header's text."""
    lines = [
        "// Written by tools/flow_constants.py from rvos_edge/flow/constants.py, which explains them; do not edit.",
        "#pragma once",
        "",
        "namespace rvos_edge::flow_constants {",
        "",
    ]
    for name, value in runpy.run_path(str(SOURCE)).items():
        if name.isupper():
            lines.append(
                f"inline constexpr {type(value).__name__.replace('float', 'double')} {name.lower()} = {value!r};"
            )
    return "\n".join([*lines, "", "}  // namespace rvos_edge::flow_constants", ""])


if __name__ == "__main__":
    print(render(), end="")
