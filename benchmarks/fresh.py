"""Start-up time and peak memory of a fresh process.

``start`` runs this module in a new interpreter, which prints its measurements as one line of JSON.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rvos_edge.benchmarks.schema import Memory, StartUp
from rvos_edge.benchmarks.state import gpu_memory_mib
from rvos_edge.errors import UserError
from rvos_edge.opening import open_segmenter
from rvos_edge.protocol import SegmenterProtocol
from rvos_edge.strict import StrictModel


class Order(StrictModel):
    """Instructions to the fresh process."""

    bundle: Path
    backend: str
    device: str
    size: tuple[int, int]
    threads: int | None
    queries: list[str]
    frames: Path = Path()
    """NumPy file of uint8 [N,H,W,3]."""
    started: float = 0.0
    """``time.monotonic()`` at the start; this clock is shared by all processes."""


def start(order: Order, images: Sequence[NDArray[np.uint8]], starts: int) -> tuple[StartUp, Memory]:
    """Start a process several times, one after the other; returns the median start-up, and the largest memory.

    From the second start on files are in the system's cache.

    Args:
        order: Instructions; frames and start are filled in here.
        images: Frames to segment, uint8 [H,W,3] BGR.

    Raises:
        UserError: A process fails; the message is the process's own.
    """
    reports = []
    with tempfile.TemporaryDirectory(prefix="rvos-edge-") as folder:
        file = Path(folder) / "frames.npy"
        np.save(file, np.stack(images))
        for _ in range(starts):
            told = order.model_copy(update={"frames": file, "started": time.monotonic()}).model_dump_json()
            command = [sys.executable, "-m", "rvos_edge.benchmarks.fresh", told]
            # Another working directory: a checkout in the current one would hide the installed package.
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
            if done.returncode:
                lines = done.stderr.strip().splitlines() or ["no message"]
                raise UserError(f"a fresh process with backend '{order.backend}' failed: {lines[-1]}")
            reports.append(json.loads(done.stdout.splitlines()[-1]))
    middle = sorted(reports, key=lambda report: report["start_up"]["total_s"])[(len(reports) - 1) // 2]
    host = max(report["memory"]["host_mib"] for report in reports)
    return StartUp(starts=starts, **middle["start_up"]), Memory(**{**middle["memory"], "host_mib": host})


def open_run(
    bundle: Path, size: tuple[int, int], backend: str, *, device: str, threads: int | None
) -> SegmenterProtocol:
    """The segmenter of a bundle on a backend; "cpp:" before its name means the C++ runtime.

    Raises:
        UserError: The backend is unknown, not installed, or cannot run the bundle.
    """
    runtime, _, name = backend.rpartition(":")
    return open_segmenter(bundle, size=size, backend=name, device=device, threads=threads, runtime=runtime or "python")


def _main(text: str) -> None:
    order = Order.model_validate_json(text)
    laps = [order.started, time.monotonic()]
    before = gpu_memory_mib()
    # nvidia-smi is not part of a user's start-up: its time is subtracted.
    overhead = time.monotonic() - laps[-1]
    segmenter = open_run(order.bundle, order.size, order.backend, device=order.device, threads=order.threads)
    laps.append(time.monotonic() - overhead)
    segmenter.set_queries(order.queries)
    laps.append(time.monotonic() - overhead)
    images = np.load(order.frames)
    segmenter.step(images[0])
    laps.append(time.monotonic() - overhead)
    for image in images[1:]:
        segmenter.step(image)
    after = gpu_memory_mib()
    names = ("imports_s", "open_s", "queries_s", "first_frame_s")
    start_up = {name: round(end - begin, 4) for name, begin, end in zip(names, laps, laps[1:], strict=False)}
    start_up["total_s"] = round(laps[-1] - laps[0], 4)
    grown = max(0.0, after - before) if before is not None and after is not None else None
    memory = {"host_mib": round(_peak_mib(), 1), "device_mib": grown}
    print(json.dumps({"start_up": start_up, "memory": memory}))


def _peak_mib() -> float:
    """Peak resident set size of this process."""
    status = Path("/proc/self/status")
    if status.is_file():
        # Not getrusage: on Linux its maximum is inherited from the parent process.
        lines = dict(line.split(":", 1) for line in status.read_text().splitlines() if ":" in line)
        return int(lines["VmHWM"].split()[0]) / 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 1024


if __name__ == "__main__":
    try:
        _main(sys.argv[1])
    except UserError as error:
        sys.exit(str(error))
