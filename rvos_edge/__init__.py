"""Referring video object segmentation on edge devices: a sentence, a camera, a mask on every frame.

Example:
    >>> import rvos_edge
    >>> segmenter = rvos_edge.open()
    >>> segmenter.set_queries(["the dog on the left"])
    >>> result = segmenter.step(frame)  # uint8 [H,W,3] BGR

    >>> for frame, result in rvos_edge.stream("clip.mp4", queries=["the dog on the left"]):
    ...     print(frame.index, result.masks.shape)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rvos_edge.errors import UserError

if TYPE_CHECKING:
    from rvos_edge.flow.policy import FlowOptions
    from rvos_edge.opening import open_segmenter as open  # the name users type: rvos_edge.open
    from rvos_edge.protocol import SegmenterProtocol
    from rvos_edge.result import Result
    from rvos_edge.segmenter import Segmenter
    from rvos_edge.streaming.iterate import stream

__version__ = "0.1.0"
__all__ = ["FlowOptions", "Result", "Segmenter", "SegmenterProtocol", "UserError", "__version__", "open", "stream"]

# Loaded on first use, so that `import rvos_edge` and `rvos-edge --help` stay fast.
_LAZY = {
    "FlowOptions": ("rvos_edge.flow.policy", "FlowOptions"),
    "Result": ("rvos_edge.result", "Result"),
    "Segmenter": ("rvos_edge.segmenter", "Segmenter"),
    "SegmenterProtocol": ("rvos_edge.protocol", "SegmenterProtocol"),
    "open": ("rvos_edge.opening", "open_segmenter"),
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
