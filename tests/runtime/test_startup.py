"""A signal that comes while the program starts ends it without a traceback and without half an output."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.tiny_bundle import write_tiny_bundle

LAUNCH = """
import rvos_edge.cli as cli
load = cli.__getattr__
cli.__getattr__ = lambda name: (print("up", flush=True), load(name))[1]
cli.main()
"""


@pytest.mark.parametrize(
    ("number", "delay"),
    [
        (signal.SIGINT, 0.0),
        (signal.SIGINT, 0.3),
        pytest.param(signal.SIGINT, 1.0, marks=pytest.mark.slow),
        pytest.param(signal.SIGTERM, 0.0, marks=pytest.mark.slow),
        pytest.param(signal.SIGHUP, 0.0, marks=pytest.mark.slow),
    ],
)
def test_early_signal(number: signal.Signals, delay: float, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = [sys.executable, "-c", LAUNCH, "run", "--bundle", str(write_tiny_bundle(tmp_path / "tiny"))]
    command += ["--source", "synthetic", "--query", "a dog", "--backend", "onnxruntime", "--output", str(out / "o.mp4")]
    command += ["--masks", str(out / "masks"), "--json", str(out / "o.jsonl")]
    environment = {**os.environ, "RVOS_EDGE_CACHE": str(tmp_path / "cache")}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(delay)
        process.send_signal(number)
        _, said = process.communicate(timeout=120)
    assert b"Traceback" not in said, said.decode()
    assert process.returncode in (0, 130), "0 where the stream had begun: its outputs are finished"
    assert not list(tmp_path.rglob("*.part-*"))
    assert not (process.returncode and out.exists())


def test_nohup_is_respected(tmp_path: Path) -> None:
    script = (
        "import signal\n"
        "signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
        "from rvos_edge.streaming.signals import terminate_as_interrupt, uninterrupted\n"
        "with terminate_as_interrupt(), uninterrupted():\n"
        "    signal.raise_signal(signal.SIGHUP)\n"
        "print('alive')\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "alive\n"
