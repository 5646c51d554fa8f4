"""Differences between TensorRT 10.3 to 11 and TensorRT-RTX.

Both have the same Python interface. Features that a version lacks are detected with ``hasattr``, never by its number.
"""

from __future__ import annotations

import contextlib
import importlib
from collections import deque
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, get_args

from rvos_edge.atomic import new_file
from rvos_edge.errors import UserError

Flavour = Literal["tensorrt", "tensorrt-rtx"]
FLAVOURS: tuple[Flavour, ...] = get_args(Flavour)

_MODULES: dict[Flavour, str] = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}
_INSTALL: dict[Flavour, str] = {
    "tensorrt": "it comes with JetPack on a Jetson, and from NVIDIA's package index on a desktop",
    "tensorrt-rtx": 'pip install "rvos-edge[tensorrt]"',
}


def is_installed(flavour: Flavour) -> bool:
    """True if the Python module of a flavour is installed."""
    return find_spec(_MODULES[flavour]) is not None


def how_to_get(flavour: Flavour) -> str:
    """Return a hint on how to install a flavour."""
    return _INSTALL[flavour]


def load(flavour: Flavour) -> ModuleType:
    """Import a flavour.

    Raises:
        UserError: The flavour is not installed, or its libraries cannot be loaded.
    """
    if not is_installed(flavour):
        raise UserError(f"target '{flavour}' needs {_MODULES[flavour]}, which is not installed: {_INSTALL[flavour]}.")
    try:
        return importlib.import_module(_MODULES[flavour])
    except (ImportError, OSError) as error:
        raise UserError(
            f"{_MODULES[flavour]} cannot be loaded ({error}); install it again: {_INSTALL[flavour]}."
        ) from error


def version(trt: ModuleType) -> str:
    """Return the version, such as ``10.3.0``."""
    return str(trt.__version__)


class Log:
    """Messages of the builder and the parser by severity; ``logger`` is passed to TensorRT."""

    def __init__(self, trt: ModuleType) -> None:
        # Bounded, because an engine may warn on every frame.
        self.errors: deque[str] = deque(maxlen=1000)
        self.warnings: deque[str] = deque(maxlen=1000)
        log = self

        class _Logger(trt.ILogger):  # type: ignore[misc, name-defined]
            def __init__(self) -> None:
                super().__init__()  # TensorRT crashes without it

            def log(self, severity: Any, message: str) -> None:
                if severity in (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR):
                    log.errors.append(message)
                elif severity == trt.ILogger.Severity.WARNING:
                    log.warnings.append(message)

        self.logger = _Logger()


def network_flags(trt: ModuleType) -> int:
    """Return the flag of strongly typed networks, which compute in the types of the file; the bit differs."""
    known = trt.NetworkDefinitionCreationFlag
    return 1 << int(known.STRONGLY_TYPED) if hasattr(known, "STRONGLY_TYPED") else 0


def progress_monitor(trt: ModuleType, report: Any) -> Any | None:
    """Create a monitor that calls ``report(share)`` with 0..1 of the outermost phase; None if the version has none."""
    if not hasattr(trt, "IProgressMonitor"):
        return None

    class _Monitor(trt.IProgressMonitor):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self._steps: dict[str, int] = {}
            self._outer: str | None = None

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            self._steps[phase_name] = max(num_steps, 1)
            if parent_phase is None:
                self._outer = phase_name

        def step_complete(self, phase_name: str, step: int) -> bool:
            if phase_name == self._outer:
                report(min((step + 1) / self._steps[phase_name], 1.0))
            return True  # False would cancel the build

        def phase_finish(self, phase_name: str) -> None:
            if phase_name == self._outer:
                report(1.0)

    return _Monitor()


def aim_at(trt: ModuleType, config: Any, capabilities: Sequence[str]) -> None:
    """Set the compute capabilities to build for; full TensorRT always builds for the GPU of this machine.

    TensorRT-RTX without an aim builds for several generations, which need not include the GPU of this machine.
    """
    if not known_capabilities(trt):
        return
    config.num_compute_capabilities = len(capabilities)
    for index, capability in enumerate(capabilities):
        config.set_compute_capability(getattr(trt.ComputeCapability, f"SM{capability}"), index)


def known_capabilities(trt: ModuleType) -> tuple[str, ...]:
    """Return the compute capabilities that engines can be built for, such as ``86``; empty for full TensorRT."""
    names = [name for name in dir(getattr(trt, "ComputeCapability", None)) if name.startswith("SM")]
    return tuple(sorted((name.removeprefix("SM") for name in names), key=int))


def supports(trt: ModuleType, capability: str) -> bool:
    """True if engines can be built for a compute capability: by full TensorRT for every GPU that it runs on."""
    known = known_capabilities(trt)
    return not known or capability in known


def limit_workspace(trt: ModuleType, config: Any, mebibytes: int | None) -> None:
    """Limit the scratch memory of tactics, in MiB; None for no limit."""
    if mebibytes is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, mebibytes << 20)


def require_user_allocation(trt: ModuleType, config: Any) -> None:
    """Forbid allocations at run time, if the flavour has the flag: engines that allocate cannot be captured."""
    flag = getattr(getattr(trt, "BuilderFlag", None), "REQUIRE_USER_ALLOCATION", None)
    if flag is not None:
        config.set_flag(flag)


def use_timing_cache(config: Any, path: Path | None) -> Any | None:
    """Load the timings of earlier builds on this GPU; returns the cache to be saved, or None."""
    if path is None or not hasattr(config, "create_timing_cache"):
        return None
    cache = config.create_timing_cache(path.read_bytes() if path.is_file() else b"")
    if cache is None or not config.set_timing_cache(cache, ignore_mismatch=False):
        # The file is of another version or GPU: start an empty cache.
        cache = config.create_timing_cache(b"")
        config.set_timing_cache(cache, ignore_mismatch=False)
    return cache


class ContextMaker:
    """Creates execution contexts of an engine, whose scratch memory is set by the caller.

    TensorRT-RTX compiles kernels for the GPU when a context is created; a runtime cache stores them.
    """

    def __init__(self, trt: ModuleType, engine: Any, cache: Path) -> None:
        """Read the runtime cache at ``cache`` if it exists; one of another GPU or driver is ignored."""
        self._engine = engine
        self._path = cache
        self._cache: Any | None = None
        self._unsaved = False
        self._how: Any = trt.ExecutionContextAllocationStrategy.USER_MANAGED
        if not hasattr(trt, "IRuntimeCache"):
            return
        config = engine.create_runtime_config()
        config.set_execution_context_allocation_strategy(self._how)
        # Otherwise a captured frame would keep the fallback kernels that run until the specialised ones are compiled.
        config.dynamic_shapes_kernel_specialization_strategy = trt.DynamicShapesKernelSpecializationStrategy.EAGER
        self._cache = config.create_runtime_cache()
        with contextlib.suppress(OSError):
            self._cache.deserialize(cache.read_bytes())
        config.set_runtime_cache(self._cache)
        self._how = config

    def make(self) -> Any:
        """Create a context; None if TensorRT fails."""
        self._unsaved = True
        return self._engine.create_execution_context(self._how)

    def save(self) -> None:
        """Write the runtime cache if contexts were created since; errors are ignored, as they cost only time."""
        if self._cache is None or not self._unsaved:
            return
        self._unsaved = False
        with contextlib.suppress(OSError), new_file(self._path) as temporary:
            temporary.write_bytes(bytes(self._cache.serialize()))


def parser_errors(parser: Any) -> list[str]:
    """Return the errors of the parser, each with its node."""
    out = []
    for index in range(parser.num_errors):
        error = parser.get_error(index)
        name = error.node_name() if hasattr(error, "node_name") else ""
        kind = error.node_operator() if hasattr(error, "node_operator") else ""
        where = f"node '{name}' ({kind}): " if name else ""
        out.append(f"{where}{' '.join(error.desc().split())}")
    return out


def parse_flavour(name: str) -> Flavour:
    """The flavour of a name; one that builds no engines is refused."""
    for flavour in FLAVOURS:
        if flavour == name:
            return flavour
    raise UserError(f"target '{name}' builds no engines; use {' or '.join(FLAVOURS)}.")
