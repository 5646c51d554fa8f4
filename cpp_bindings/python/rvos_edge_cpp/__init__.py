"""The C++ runtime of rvos-edge: the same bundle, the same masks.

Example:
    >>> import rvos_edge_cpp
    >>> segmenter = rvos_edge_cpp.Segmenter("my-bundle")
    >>> segmenter.set_queries(["the dog on the left"])
    >>> masks = segmenter.step(frame).masks  # frame: uint8 [H,W,3] BGR

With the package ``rvos_edge``, ``rvos_edge.open(runtime="cpp")`` uses this module.
"""

try:
    from rvos_edge_cpp._core import (
        FlowDecision,
        FlowOptions,
        Result,
        Segmenter,
        UserError,
        __version__,
        available_backends,
    )
except ImportError as error:
    raise ImportError(
        f"rvos_edge_cpp cannot be loaded ({error}); it needs the OpenVINO that it was built against: build it again, "
        "with pip install --force-reinstall --no-deps ./cpp_bindings"
    ) from error

__all__ = ["FlowDecision", "FlowOptions", "Result", "Segmenter", "UserError", "__version__", "available_backends"]
