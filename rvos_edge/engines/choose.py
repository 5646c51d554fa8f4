"""Which backends there are, which is tried first, and how one is opened by its name."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import TypeVar

from rvos_edge.engines.base import Backend
from rvos_edge.engines.onnxruntime import OnnxRuntimeBackend, choose_device
from rvos_edge.errors import UserError

T = TypeVar("T")

_MODULES = {"onnxruntime": "onnxruntime", "openvino": "openvino", "openvino-bf16": "openvino"}
_INSTALL = 'pip install "rvos-edge[openvino]"'
BACKENDS = tuple(_MODULES)
"""Names of the backends that run graphs."""


def available_backends() -> tuple[str, ...]:
    """The backends that are installed here."""
    return tuple(name for name, module in _MODULES.items() if find_spec(module) is not None)


def open_backend(name: str, *, device: str = "auto", threads: int | None = None, reason: str = "") -> Backend:
    """Start a backend.

    Args:
        name: One of ``BACKENDS``.
        device: "auto", "cpu" or "cuda"; OpenVINO runs on the CPU. ``openvino-bf16`` is in bfloat16 where the bundle
            allows it.
        threads: CPU threads; None for one per physical core.
        reason: Why this one; that it was asked for, or what device it found, when empty.

    Raises:
        UserError: The backend is unknown or not installed, or cannot use the device.
    """
    if name not in _MODULES:
        raise UserError(f"backend '{name}' is unknown; use {' or '.join(BACKENDS)}.")
    if find_spec(_MODULES[name]) is None:
        raise UserError(f"backend '{name}' is not installed; run: {_INSTALL}")
    if name.startswith("openvino"):
        if device == "cuda":
            raise UserError(f"backend '{name}' cannot use device 'cuda'; use device 'cpu', or another backend.")
        # Imported here: it is an extra, and takes a while.
        from rvos_edge.engines.openvino import OpenVinoBackend

        return OpenVinoBackend(threads=threads, bfloat16=name == "openvino-bf16", reason=reason)
    return OnnxRuntimeBackend(device=device, threads=threads, reason=reason)


def open_best(
    load: Callable[[Backend], T], *, backend: str = "auto", device: str = "auto", threads: int | None = None
) -> T:
    """Load something with the fastest backend that works.

    Args:
        load: Loads graphs with a backend; a ``UserError`` of it means that the backend does not work here.
        backend: "auto", or one of ``BACKENDS`` to have that one or none.
        device: "auto", "cpu" or "cuda".
        threads: CPU threads; None for one per physical core.

    Raises:
        UserError: As ``open_backend``, or ``load`` fails with the last backend that is left.
    """
    if backend != "auto":
        return load(open_backend(backend, device=device, threads=threads))
    *candidates, (last, why_last) = _ranked(device)
    failures = ""
    for name, reason in candidates:
        try:
            return load(open_backend(name, device=device, threads=threads, reason=reason))
        except UserError as error:
            failures += f"{name} failed ({error}) and "
    # Nothing is left to fall back to: what it says is for the user.
    return load(open_backend(last, device=device, threads=threads, reason=f"{failures}{why_last}"))


def _ranked(device: str) -> Iterator[tuple[str, str]]:
    """Backends to try, fastest first, each with the reason that is told."""
    kind, why = choose_device(device)
    if kind == "cpu":
        if find_spec("openvino") is None:
            why += "; OpenVINO, which is often faster, is not installed"
        elif platform.machine().lower() in ("x86_64", "amd64"):
            yield "openvino", f"{why}, where OpenVINO is the fastest"
        else:
            why += "; OpenVINO was not measured on this kind of CPU"
    yield "onnxruntime", why
