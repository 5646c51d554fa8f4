"""The batch as a Ray Data map on a local cluster of two workers."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from support.tiny_bundle import write_tiny_bundle

from rvos_edge.streaming.batch import BatchJob, make_rows
from rvos_edge.streaming.workers import process_files

EXAMPLE = Path(__file__).resolve().parents[3] / "examples" / "ray_batch.py"
QUERIES = ("the red ball", "a black car")
ONE = {"backend": "onnxruntime", "threads": 1}

pytestmark = pytest.mark.ray


def contents(out: Path) -> dict[str, Any]:
    """Outputs of a batch without times."""
    found: dict[str, Any] = {}
    for path in sorted(path for path in out.rglob("*") if path.suffix in (".png", ".jsonl") and path.is_file()):
        if path.name.startswith("."):
            continue
        content: Any = path.read_bytes()
        if path.suffix == ".jsonl":
            content = [json.loads(line) for line in content.splitlines()]
            for line in content:
                del line["timings_ms"], line["total_ms"]
        found[str(path.relative_to(out))] = content
    return found


def servers(pid: int) -> set[str]:
    """Addresses on which a process and its descendants listen."""
    import psutil  # Ray brings it

    found: set[str] = set()
    with contextlib.suppress(psutil.Error):
        parent = psutil.Process(pid)
        for process in (parent, *parent.children(recursive=True)):
            with contextlib.suppress(psutil.Error):
                found |= {entry.laddr.ip for entry in process.net_connections("tcp") if entry.status == "LISTEN"}
    return found


def test_two_workers_write_what_one_process_writes(tmp_path: Path) -> None:
    pytest.importorskip("ray.data", reason="needs the extra 'ray'")
    tiny = write_tiny_bundle(tmp_path / "tiny")
    clips = tmp_path / "clips"
    clips.mkdir()
    for seed in range(4):
        writer = cv2.VideoWriter(str(clips / f"clip{seed}.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 10.0, (96, 64))
        for index in range(3):
            writer.write(np.roll(np.random.default_rng(seed).integers(0, 255, (64, 96, 3), np.uint8), index, 1))
        writer.release()
    one = tmp_path / "one"
    job = BatchJob(QUERIES, tiny, masks=one / "masks", json=one / "json", options=ONE)
    assert not [row for row in process_files(job, make_rows(sorted(clips.iterdir()))) if row["error"]]
    (clips / "bad.mp4").write_bytes(b"noise" * 100)

    environment = {
        **os.environ,
        "RVOS_EDGE_CACHE": str(tmp_path / "cache"),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_TMPDIR": "/tmp",  # its sockets need a short path
    }
    environment.pop("RAY_ADDRESS", None)
    outputs = ["--masks", str(tmp_path / "two" / "masks"), "--json", str(tmp_path / "two" / "json")]
    queries = [part for query in QUERIES for part in ("--query", query)]
    command = [sys.executable, str(EXAMPLE), str(clips / "*.mp4"), *queries, "--bundle", str(tiny), *outputs]
    command += ["--backend", "onnxruntime", "--workers", "2"]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    listening = set()
    while process.poll() is None:
        listening |= servers(process.pid)
        time.sleep(0.2)
    stdout, stderr = process.communicate()
    assert process.returncode == 1, stderr
    assert "4 of 5 files done, 0 were finished before, 1 failed." in stdout
    assert "holds no video" in stderr
    assert listening, "Ray has servers"
    assert all(host in ("127.0.0.1", "::1", "::ffff:127.0.0.1") for host in listening)
    assert contents(tmp_path / "two") == contents(one)


def test_a_folder_of_outputs_that_holds_the_sources_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("ray.data", reason="needs the extra 'ray'")
    source = tmp_path / "clip.mp4"
    source.write_bytes(b"mine")
    command = [sys.executable, str(EXAMPLE), str(tmp_path / "*.mp4"), "--query", "a dog", "--output", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "clip.mp4 is the source itself" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["clip.mp4"]
    assert source.read_bytes() == b"mine"
