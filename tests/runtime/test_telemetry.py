"""No library that the runtime loads reports about its user, keeps an identity of the machine or opens a connection.

ONNX Runtime (since 1.29) and OpenVINO do all three by default where ``CI`` is not set.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
from support.tiny_bundle import write_tiny_bundle

RUN = ["run", "--source", "synthetic", "--frames", "3", "--query", "the dog", "--backend"]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_bundle(tmp_path_factory.mktemp("tiny") / "bundle")


@cache
def _tracer() -> list[str]:
    """Command that records connections, or nothing where strace is missing or may not trace."""
    strace = shutil.which("strace")
    if strace is None or subprocess.run([strace, "-qq", "-o", os.devnull, "true"], check=False).returncode:
        return []
    return [strace, "-f", "-qq", "-e", "trace=connect,sendto"]


def _run(arguments: list[str], folder: Path, **environment: str) -> None:
    """Run Python as a user does: a home of its own, not in CI. Fail if anything is sent, or left behind but for the
    graphs that were compiled.
    """
    home, temporary, trace = folder / "home", folder / "tmp", folder / "trace"
    home.mkdir()
    temporary.mkdir()
    clean = {name: os.environ[name] for name in ("PATH", "PYTHONPATH", "VIRTUAL_ENV") if name in os.environ}
    clean |= {"HOME": str(home), "TMPDIR": str(temporary), "LANG": "C.UTF-8", **environment}
    tracer = [*_tracer(), "-o", str(trace)] if _tracer() else []
    done = subprocess.run(
        [*tracer, sys.executable, *arguments], capture_output=True, text=True, env=clean, cwd=folder, check=False
    )
    assert done.returncode == 0, done.stderr
    kept = home / ".cache/rvos-edge/openvino"
    left = [path for place in (home, temporary) for path in place.rglob("*")]
    assert not [path for path in left if path.parent != kept and not kept.is_relative_to(path)]
    calls = trace.read_text() if trace.exists() else ""
    addresses = re.findall(r'inet_addr\("([^"]+)"\)|inet_pton\(AF_INET6, "([^"]+)"', calls)
    assert not [a or b for a, b in addresses if not a.startswith("127.") and b != "::1"]


@pytest.mark.parametrize("backend", ["onnxruntime", pytest.param("openvino", marks=pytest.mark.slow)])
def test_run_leaves_nothing_and_connects_to_nobody(tiny: Path, tmp_path: Path, backend: str) -> None:
    pytest.importorskip(backend)
    _run(["-m", "rvos_edge.cli", *RUN, backend, "--bundle", str(tiny)], tmp_path)


@pytest.mark.slow
def test_inspect_leaves_nothing_and_connects_to_nobody(tiny: Path, tmp_path: Path) -> None:
    _run(["-m", "rvos_edge.cli", "inspect", str(tiny)], tmp_path)


@pytest.mark.parametrize(
    "ours", ["rvos_edge", *(pytest.param(f"rvos_edge.{name}", marks=pytest.mark.slow) for name in ("errors", "bundle"))]
)
def test_any_import_of_ours_is_early_enough(tmp_path: Path, ours: str) -> None:
    """A host program may import the libraries itself, after any module of this package."""
    pytest.importorskip("openvino")
    _run(["-c", f"import {ours}, onnxruntime, openvino"], tmp_path)


@pytest.mark.parametrize("wish", ["0", "1"])
def test_the_wish_of_the_host_stays(tmp_path: Path, wish: str) -> None:
    code = f"import os, rvos_edge; assert os.environ['ORT_DISABLE_TELEMETRY'] == '{wish}'"
    _run(["-c", code], tmp_path, ORT_DISABLE_TELEMETRY=wish)


def test_openvino_starts_no_process_when_it_is_imported(tmp_path: Path) -> None:
    """The telemetry would start a thread and fork a process beside the threads of the host."""
    pytest.importorskip("openvino")
    code = (
        "import threading, multiprocessing\n"
        "started = []\n"
        "multiprocessing.Process.start = lambda self: started.append(self)\n"
        "import rvos_edge.engines.openvino\n"
        "assert threading.active_count() == 1, threading.enumerate()\n"
        "assert not started\n"
    )
    _run(["-c", code], tmp_path)


def test_the_cpp_runtime_leaves_nothing_and_connects_to_nobody(tiny: Path, tmp_path: Path) -> None:
    pytest.importorskip("rvos_edge_cpp", reason="needs the C++ module: pip install ./cpp_bindings")
    code = "import sys, rvos_edge_cpp; rvos_edge_cpp.Segmenter(sys.argv[1]).set_queries(['the dog'])"
    _run(["-c", code, str(tiny)], tmp_path)
