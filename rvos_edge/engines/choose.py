"""Which backends there are, and how one is opened by its name."""

from __future__ import annotations

from importlib.util import find_spec

from rvos_edge.engines.base import Backend
from rvos_edge.engines.onnxruntime import OnnxRuntimeBackend
from rvos_edge.errors import UserError

_MODULES = {"onnxruntime": "onnxruntime", "openvino": "openvino"}
_INSTALL = {"openvino": 'pip install "rvos-edge[openvino]"'}
BACKENDS = tuple(_MODULES)
"""Names of the backends that run graphs."""


def available_backends() -> tuple[str, ...]:
    """The backends that are installed here."""
    return tuple(name for name, module in _MODULES.items() if find_spec(module) is not None)


def open_backend(name: str, *, device: str = "auto", threads: int | None = None) -> Backend:
    """Start a backend.

    Args:
        name: One of ``BACKENDS``.
        device: "auto", "cpu" or "cuda"; OpenVINO runs on the CPU.
        threads: CPU threads; None for one per physical core.

    Raises:
        UserError: The backend is unknown or not installed, or cannot use the device.
    """
    if name not in _MODULES:
        raise UserError(f"backend '{name}' is unknown; use {' or '.join(BACKENDS)}.")
    if find_spec(_MODULES[name]) is None:
        raise UserError(f"backend '{name}' is not installed; run: {_INSTALL[name]}")
    if name == "openvino":
        if device == "cuda":
            raise UserError("backend 'openvino' cannot use device 'cuda'; use device 'cpu', or another backend.")
        # Imported here: it is an extra, and takes a while.
        from rvos_edge.engines.openvino import OpenVinoBackend

        return OpenVinoBackend(threads=threads)
    return OnnxRuntimeBackend(device=device, threads=threads)
