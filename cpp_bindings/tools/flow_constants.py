"""Write src/flow_constants.hpp: the constants of the flow policy, which both runtimes take from the Python modules.

python tools/flow_constants.py > src/flow_constants.hpp
"""

from __future__ import annotations

from types import ModuleType

from rvos_edge.flow import frame_budget, policy, scene_change

NAMES: tuple[tuple[ModuleType, tuple[str, ...]], ...] = (
    (policy, ("SCENE_CUT", "CALM_FRAMES", "RESTLESS", "KEEP_FRAMES")),
    (frame_budget, ("WINDOW", "FEWEST", "PATIENCE", "ROOM", "FORGET")),
    (scene_change, ("WIDTH", "HEIGHT", "RECENT", "UNUSUAL", "SIMILAR")),
)


def render() -> str:
    """The header's text."""
    lines = [
        "// Written by tools/flow_constants.py from rvos_edge/flow, where the constants are explained; do not edit.",
        "#pragma once",
        "",
        "namespace rvos_edge::flow_constants {",
        "",
    ]
    for module, names in NAMES:
        for name in names:
            value = getattr(module, name)
            kind = "int" if isinstance(value, int) else "double"
            lines.append(f"inline constexpr {kind} {name.lower()} = {value!r};")
    return "\n".join([*lines, "", "}  // namespace rvos_edge::flow_constants", ""])


if __name__ == "__main__":
    print(render(), end="")
