"""Compiled graphs of OpenVINO, kept in the user's cache: reading one takes a third of the time of compiling it.

A file holds what ``export_model`` gave, and then its sha256. Its name is a hash of what it depends on: the graph, the
options, the CPU and the version of OpenVINO. The C++ runtime reads and writes the same files.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from rvos_edge.atomic import new_file
from rvos_edge.errors import UserError

_MOST = 40
"""Number of kept files, enough for four bundles."""
_DIGEST = 2 * hashlib.sha256().digest_size
"""Hexadecimal digits at the end of a file."""
_THREADS = ("INFERENCE_NUM_THREADS", "ENABLE_CPU_PINNING")
"""Options that are no property of what is kept, and are given again when it is read."""


def memory_folder() -> Path:
    """Folder of what is found out once per machine: ``rvos-edge`` in the user's cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")) / "rvos-edge"


def compile_once(core: Any, path: Path, sha256: str, options: Mapping[str, Any]) -> Any:
    """Compile a graph for the CPU, or read what an earlier process compiled.

    Args:
        core: An ``openvino.Core``.
        path: The ONNX file.
        sha256: Its hash.
        options: Options of the compilation.

    Raises:
        RuntimeError: OpenVINO cannot compile the graph.
    """
    file = memory_folder() / "openvino" / _name(core, sha256, options)
    kept = _read(file)
    if kept is not None:
        with suppress(RuntimeError):  # written by a build of OpenVINO that calls itself the same
            return core.import_model(io.BytesIO(kept), "CPU", dict(options))
    compiled = core.compile_model(str(path), "CPU", dict(options))
    _keep(file, compiled)
    return compiled


def _name(core: Any, sha256: str, options: Mapping[str, Any]) -> str:
    facts = [f"{key}={value}" for key, value in sorted(options.items()) if key not in _THREADS]
    system = core.get_property("CPU", "FULL_DEVICE_NAME"), core.get_versions("CPU")["CPU"].build_number
    return hashlib.sha256("\n".join([sha256, *facts, *system]).encode()).hexdigest()


def _read(file: Path) -> bytes | None:
    """The compiled graph of a file; None where there is no whole one."""
    with suppress(OSError):
        content = file.read_bytes()
        blob, digest = content[:-_DIGEST], content[-_DIGEST:]
        if hashlib.sha256(blob).hexdigest().encode() == digest:
            os.utime(file)
            return blob
    return None


def _keep(file: Path, compiled: Any) -> None:
    """Keep a compiled graph where that is possible, and remove what was not used for longest."""
    with suppress(OSError, UserError, RuntimeError):
        stream = io.BytesIO()
        compiled.export_model(stream)
        blob = stream.getvalue()
        with new_file(file) as temporary:
            temporary.write_bytes(blob + hashlib.sha256(blob).hexdigest().encode())
        files = sorted(file.parent.iterdir(), key=lambda each: each.stat().st_mtime)
        for old in files[:-_MOST]:
            old.unlink()
