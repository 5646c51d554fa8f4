"""What libraries would report about their users."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


def test_openvino_reports_to_nobody(tmp_path: Path) -> None:
    """Its telemetry would start a thread and fork a process when it is imported."""
    pytest.importorskip("openvino")
    code = (
        "import threading, multiprocessing\n"
        "started = []\n"
        "multiprocessing.Process.start = lambda self: started.append(self)\n"
        "import rvos_edge.engines.openvino\n"
        "assert threading.active_count() == 1, threading.enumerate()\n"
        "assert not started\n"
    )
    environment = {**os.environ, "HOME": str(tmp_path), "CI": ""}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
    assert not list(tmp_path.iterdir()), "and it keeps no identity of the user's"
