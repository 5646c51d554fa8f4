"""The registry of backends: which are installed, which is fastest, and how to open one by name."""

from __future__ import annotations

import platform
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from typing import Any, TypeVar, cast

from rvos_edge.bundle import Bundle
from rvos_edge.engines.base import Backend
from rvos_edge.engines.device_names import Kind, device_kind, gpu_index
from rvos_edge.engines.tensorrt import api
from rvos_edge.engines.tensorrt.gpu import Gpu, find_gpu
from rvos_edge.errors import UserError

T = TypeVar("T")

_MODULES = {"onnxruntime": "onnxruntime", "openvino": "openvino", "openvino-bf16": "openvino"}
_LABELS = {"openvino": "OpenVINO", "onnxruntime": "ONNX Runtime", "tensorrt.backend": "TensorRT"}
_INSTALL = 'pip install "rvos-edge[openvino]"'
_DEVICES: dict[str, Kind] = {"openvino": "cpu", "openvino-bf16": "cpu", "tensorrt": "cuda", "tensorrt-rtx": "cuda"}
"""Device of the backends that run on one kind only."""
BACKENDS = (*_MODULES, *api.FLAVOURS)
"""Names of the backends that run graphs; ``openvino-bf16`` computes in bfloat16 where the bundle allows it."""


def available_backends(bundle: Bundle, device: str = "cpu") -> tuple[str, ...]:
    """List the installed backends that can run a bundle on a device ("cpu", "cuda", "cuda:1", or "auto" for those of
    this machine).
    """
    kind = device_kind(device)
    if kind == "auto":
        return available_backends(bundle, "cpu") + tuple(
            name for name in available_backends(bundle, "cuda") if name in api.FLAVOURS and find_gpu() is not None
        )
    installed = [name for name, module in _MODULES.items() if find_spec(module) is not None]
    installed += [flavour for flavour in api.FLAVOURS if api.is_installed(flavour)]
    if not bundle.manifest.allows_bfloat16 and "openvino-bf16" in installed:
        installed.remove("openvino-bf16")
    return tuple(name for name in installed if _DEVICES.get(name, kind) == kind)


def open_backend(
    name: str,
    *,
    device: str = "auto",
    threads: int | None = None,
    bundle: Bundle | None = None,
    build: bool = True,
    record: bool = True,
    reason: str = "",
) -> Backend:
    """Start a backend.

    Args:
        build: False to refuse if TensorRT has no engine instead of building it.
        record: Let TensorRT replay whole frames as CUDA graphs; False to have every stage timed.

    Raises:
        UserError: The backend is unknown or not installed, or cannot use the device.
    """
    if name not in BACKENDS:
        raise UserError(f"backend '{name}' is unknown; use {' or '.join(BACKENDS)}.")
    kind = device_kind(device)
    only = _DEVICES.get(name, kind)
    if kind not in ("auto", only):
        raise UserError(f"backend '{name}' cannot use device '{device}'; use device '{only}', or another backend.")
    if name in api.FLAVOURS:
        if bundle is None:
            raise ValueError(f"backend '{name}' needs the bundle whose engines it runs")
        flavour = api.parse_flavour(name)
        make = _load("tensorrt.backend").TensorRtBackend
        return cast(
            Backend,
            make(
                bundle=bundle,
                flavour=flavour,
                gpu=gpu_index(device),
                build=build,
                record=record,
                threads=threads,
                reason=reason,
            ),
        )
    if find_spec(_MODULES[name]) is None:
        raise UserError(f"backend '{name}' is not installed; run: {_INSTALL}")
    if name in ("openvino", "openvino-bf16"):
        bfloat16 = name == "openvino-bf16"
        return cast(Backend, _load("openvino").OpenVinoBackend(threads=threads, bfloat16=bfloat16, reason=reason))
    return cast(Backend, _load("onnxruntime").OnnxRuntimeBackend(device=device, threads=threads, reason=reason))


def _load(name: str) -> Any:
    """Import the module of a runtime; one that is installed and broken is refused."""
    try:
        return import_module(f"rvos_edge.engines.{name}")
    except Exception as error:  # broken installations raise many kinds
        raise UserError(
            f"{_LABELS[name]} is installed and cannot be loaded ({error}); run: rvos-edge doctor"
        ) from error


def open_best(
    bundle: Bundle,
    load: Callable[[Backend], T],
    *,
    backend: str = "auto",
    device: str = "auto",
    threads: int | None = None,
    record: bool = True,
) -> T:
    """Call ``load`` with the fastest backend that works.

    Args:
        load: Loads graphs with a backend; a ``UserError`` means that the backend does not work here.
        backend: "auto", or one of ``BACKENDS`` to try only that one. "auto" builds no engines, which takes minutes.

    Raises:
        UserError: The errors of ``open_backend``, or ``load`` fails with the last backend.
    """
    start = partial(open_backend, threads=threads, bundle=bundle, record=record)
    if backend != "auto":
        return load(start(backend, device=device))
    *candidates, last = _ranked(bundle, device)
    failures = ""
    for name, where, reason in candidates:
        try:
            return load(start(name, device=where, build=False, reason=failures + reason))
        except (UserError, MemoryError) as error:
            why = str(error).rstrip(".") if isinstance(error, UserError) else "memory ran out"
            failures += f"{name} cannot be used ({why}) and "
    # The last backend: its error is the answer.
    name, where, reason = last
    return load(start(name, device=where, build=False, reason=failures + reason))


def settled_backend(bundle: Bundle, device: str) -> str:
    """Resolve "auto" to one backend for several processes that must compute the same.

    On a CPU the choice of "auto" rests on a measurement, so this returns the name of the backend; elsewhere "auto".

    Raises:
        UserError: The device cannot be used.
    """
    *candidates, (last, _, _) = _ranked(bundle, device)
    for name, where, _ in candidates:
        if where != "cpu":
            return "auto"
        with suppress(UserError):
            open_backend(name, device=where)
            return name
    return last if last in _MODULES else "auto"


def _ranked(bundle: Bundle, device: str) -> list[tuple[str, str, str]]:
    """Rank the backends to try, fastest first, each with its device and the reason that is shown."""
    ranked: list[tuple[str, str, str]] = []
    gpu = find_gpu(gpu_index(device)) if device_kind(device) != "cpu" else None
    if gpu is not None:
        for flavour in filter(api.is_installed, api.FLAVOURS):
            if _may_serve(flavour, gpu):
                ranked.append((flavour, device, "it is the fastest on a GPU"))
    try:
        kind, why = _load("onnxruntime").choose_device(device)
    except UserError as error:
        if device_kind(device) == "cuda" or error.__cause__ is None:  # no broken installation
            if ranked:
                return ranked
            raise
        kind, why = "cpu", str(error)
    if kind == "cuda":
        ranked.append(("onnxruntime", device, why))
        if device != "auto":
            return ranked
        # A CUDA that is half there shows when a session is opened.
        why = "the CPU is what is left"
    if find_spec("openvino") is None:
        why += "; OpenVINO, which is often faster, is not installed"
    elif platform.machine().lower() not in ("x86_64", "amd64"):
        why += "; OpenVINO was not measured on this kind of CPU"
    else:
        ranked += _openvinos(bundle, why)
    return [*ranked, ("onnxruntime", "cpu", why)]


def _may_serve(flavour: api.Flavour, gpu: Gpu) -> bool:
    try:
        return api.supports(api.load(flavour), gpu.capability)
    except Exception:  # broken installations raise many kinds; told when it is opened
        return True


def _openvinos(bundle: Bundle, why: str) -> list[tuple[str, str, str]]:
    """OpenVINO, before it in bfloat16 where that pays; it is measured, which an environment variable can break."""
    why, doubt, ranked = f"{why}; on a CPU of this kind OpenVINO is the fastest", "", list[tuple[str, str, str]]()
    if bundle.manifest.allows_bfloat16:
        try:
            if _load("openvino").bfloat16_pays():
                ranked.append(("openvino-bf16", "cpu", f"{why} in bfloat16"))
        except UserError:  # told when OpenVINO is opened
            pass
        except Exception as error:  # the kinds differ by version
            doubt = f"; bfloat16 could not be tried ({_last_line(error)})"
    return [*ranked, ("openvino", "cpu", why + doubt)]


def _last_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[-1]
