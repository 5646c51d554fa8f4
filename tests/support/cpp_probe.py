"""The C++ library's probe: one executable that answers for its parts."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

VARIABLE = "RVOS_EDGE_CPP_PROBE"
"""Path of the executable, if it is not in the build folder of the preset ``release``."""


@dataclass(frozen=True)
class Probe:
    """Calls ``rvos_edge_probe``."""

    path: Path

    def __call__(self, *words: str, data: bytes | str = b"") -> bytes:
        """Output for a command and standard input."""
        given = data.encode() if isinstance(data, str) else data
        result = subprocess.run([str(self.path), *words], input=given, capture_output=True, check=False)
        assert result.returncode == 0, result.stderr.decode()
        return result.stdout

    def lines(self, *words: str, data: bytes | str = b"") -> list[str]:
        """The same as lines of text."""
        return self(*words, data=data).decode().splitlines()


def find_probe() -> Probe | None:
    """The executable, or None where the C++ library has not been built."""
    built = Path(__file__).resolve().parents[2] / "cpp_bindings/build/release/tests/rvos_edge_probe"
    path = Path(os.environ.get(VARIABLE, built))
    return Probe(path) if path.is_file() else None


def hexadecimal(texts: Sequence[str]) -> str:
    """One line per text, as the probe reads them; lone surrogates included."""
    return "".join(text.encode("utf-8", "surrogatepass").hex() + "\n" for text in texts)
