"""Referring video object segmentation on edge devices: a sentence, a camera, a mask on every frame.

Example:
    >>> import rvos_edge
    >>> segmenter = rvos_edge.open()  # doctest: +SKIP
    >>> segmenter.set_queries(["the dog on the left"])  # doctest: +SKIP
    >>> result = segmenter.step(frame)  # uint8 [H,W,3] BGR  # doctest: +SKIP

    >>> for frame, result in rvos_edge.stream("clip.mp4", queries=["the dog on the left"]):  # doctest: +SKIP
    ...     print(frame.index, result.masks.shape)
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rvos_edge.errors import UserError

# ONNX Runtime (since 1.29) and OpenVINO report to their makers when they are imported, and keep an identity of the
# machine in the user's home. Both are switched off here, because every import of this package passes through here
# before it loads either of them. A host program that set the variable or loaded the telemetry itself keeps its choice.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
# OpenVINO has no such variable; where its telemetry cannot be imported it uses an empty class of its own.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]

# Run from a checkout (torchrun -m rvos_edge.cli) this folder hides the installed package; what there are subpackages
# lie beside it here.
_here = Path(__file__).parent
if not (_here / "trainer").is_dir() and (_here.parent / "trainer" / "loop.py").is_file():
    __path__.append(str(_here.parent))

if TYPE_CHECKING:
    from rvos_edge.flow.policy import FlowOptions
    from rvos_edge.opening import open_segmenter as open  # the name users type: rvos_edge.open
    from rvos_edge.protocol import SegmenterProtocol
    from rvos_edge.queries import TaughtQuery
    from rvos_edge.result import Result
    from rvos_edge.segmenter import Segmenter
    from rvos_edge.server.serve import serve
    from rvos_edge.streaming.iterate import stream

__version__ = "0.1.0"
__all__ = [
    "FlowOptions",
    "Result",
    "Segmenter",
    "SegmenterProtocol",
    "TaughtQuery",
    "UserError",
    "__version__",
    "open",
    "serve",
    "stream",
]

# Loaded on first use, so that `import rvos_edge` and `rvos-edge --help` stay fast.
_LAZY = {
    "FlowOptions": ("rvos_edge.flow.policy", "FlowOptions"),
    "Result": ("rvos_edge.result", "Result"),
    "Segmenter": ("rvos_edge.segmenter", "Segmenter"),
    "TaughtQuery": ("rvos_edge.queries", "TaughtQuery"),
    "SegmenterProtocol": ("rvos_edge.protocol", "SegmenterProtocol"),
    "open": ("rvos_edge.opening", "open_segmenter"),
    "serve": ("rvos_edge.server.serve", "serve"),
    "stream": ("rvos_edge.streaming.iterate", "stream"),
}


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name not in _LAZY:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    module, attribute = _LAZY[name]
    value = getattr(import_module(module), attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})
