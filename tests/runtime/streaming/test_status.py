"""The status on a terminal while a stream runs; pipes and files get none."""

from __future__ import annotations

import io
import os
import pty
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from rich.console import Console
from support.fake_stream import FakeSegmenter, FakeSource

from rvos_edge.flow.policy import FlowDecision
from rvos_edge.result import Result
from rvos_edge.streaming.loop import Meter, run_stream
from rvos_edge.streaming.sources import Frame
from rvos_edge.streaming.status import Status, status_table

ESCAPE = "\x1b"


class FlowSegmenter(FakeSegmenter):
    def step(self, frame: NDArray[np.uint8]) -> Result:
        result = super().step(frame)
        object.__setattr__(result, "decision", FlowDecision("run", "due", 3))
        return result


class LiveFake(FakeSource):
    live = True

    def __init__(self, frames: int = 5) -> None:
        super().__init__(frames)
        self.dropped = 7


def follow(source: FakeSource, *, terminal: bool = True, hidden: bool = False) -> str:
    """Everything that is written while a source is segmented."""
    said = io.StringIO()
    console = Console(file=said, force_terminal=terminal, width=100)
    meter = Meter()
    with Status(source, meter, backend="ONNX Runtime (cpu)", console=console, hidden=hidden) as on_result:
        run_stream(FlowSegmenter(), source, [], on_result=on_result, meter=meter)
    return said.getvalue()


def test_a_camera_has_a_status() -> None:
    said = follow(LiveFake())
    for words in ("frames/s", "latency p50", "p95", "7 dropped", "a bright thing", "1.00", "ONNX Runtime (cpu)"):
        assert words in said
    assert "run (due, 3 updates)" in said


def test_a_file_has_a_bar_with_the_time_left() -> None:
    said = follow(FakeSource(5))
    assert "5/5" in said
    assert "left" in said
    assert "dropped" not in said


@pytest.mark.parametrize("source", [LiveFake, FakeSource])
def test_nothing_is_written_to_a_pipe_or_when_hidden(source: type[FakeSource]) -> None:
    assert follow(source(), terminal=False) == ""
    assert follow(source(), hidden=True) == ""


def test_the_terminal_is_left_as_it_was_after_an_error() -> None:
    said = io.StringIO()
    console = Console(file=said, force_terminal=True, width=100)
    meter, segmenter = Meter(), FakeSegmenter(fail_at=2, error=RuntimeError("bug"))
    status = Status(LiveFake(), meter, backend="b", console=console)
    with pytest.raises(RuntimeError, match="bug"), status as on_result:
        run_stream(segmenter, LiveFake(), [], on_result=on_result, meter=meter)
    assert said.getvalue().rfind(f"{ESCAPE}[?25h") > said.getvalue().rfind(f"{ESCAPE}[?25l") >= 0  # the cursor is back


def test_what_looks_like_markup_is_only_text() -> None:
    segmenter = FakeSegmenter()
    segmenter.queries = ("[bold]a dog[/bold] [/]",)
    result = segmenter.step(np.zeros((4, 4, 3), np.uint8))
    said = io.StringIO()
    table = status_table(FakeSource(), Meter(), result, backend="[red]x")
    Console(file=said, width=100).print(table)
    assert "[bold]a dog[/bold] [/]" in said.getvalue()
    assert "[red]x" in said.getvalue()


def test_meter_knows_the_rate_and_the_latency_of_late() -> None:
    meter = Meter()
    assert (meter.fps, meter.latency) == (0.0, None)
    result = FakeSegmenter().step(np.zeros((4, 4, 3), np.uint8))
    for index in range(200):
        # The first frames were slow: what is shown forgets them, the summary does not.
        age = 9.0 if index < 50 else 0.01
        frame = Frame(np.zeros((4, 4, 3), np.uint8), index, 0.0, "", time.perf_counter() - age)
        meter.taken()
        meter.segmented(frame, result, time.perf_counter())
        meter.written()
    assert meter.fps > 0
    assert meter.latency is not None
    assert meter.latency.p95 < 1000
    summary = meter.summary(dropped=0, interrupted=False)
    assert summary.latency is not None
    assert summary.latency.p95 > 8000
    assert summary.frames == 200


def command(bundle: Path, *more: str) -> list[str]:
    start = [sys.executable, "-m", "rvos_edge.cli", "run", "--bundle", str(bundle), "--query", "the red ball"]
    return [*start, "--source", "synthetic", "--frames", "6", "--backend", "onnxruntime", *more]


def test_piped_it_prints_the_backend_and_the_summary(tiny: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "RVOS_EDGE_CACHE": str(tmp_path), "TERM": "xterm-256color"}
    done = subprocess.run(command(tiny), capture_output=True, text=True, check=True, env=environment, cwd=tmp_path)
    assert done.stderr.startswith("ONNX Runtime (cpu) because")
    # On a slow machine, lines that say how far it is come between.
    assert all(" of 6, " in line for line in done.stderr.splitlines()[1:])
    assert ESCAPE not in done.stdout
    assert "6 frames" in done.stdout


def test_on_a_terminal_it_shows_the_status_and_json_still_goes_to_the_pipe(tiny: Path, tmp_path: Path) -> None:
    """Stderr is a terminal and stdout is not, as with `rvos-edge run --json - | jq`."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "RVOS_EDGE_CACHE": str(tmp_path), "TERM": "xterm-256color", "COLUMNS": "100"}
    environment.pop("NO_COLOR", None)
    process = subprocess.Popen(command(tiny, "--json", "-"), stdout=subprocess.PIPE, stderr=theirs, env=environment)
    os.close(theirs)
    seen: list[bytes] = []
    reader = threading.Thread(target=_drain, args=(ours, seen), daemon=True)
    reader.start()
    stdout, _ = process.communicate(timeout=60)
    reader.join(timeout=10)
    assert process.returncode == 0
    assert len(stdout.splitlines()) == 6
    assert ESCAPE.encode() not in stdout
    shown = b"".join(seen).decode()
    assert f"{ESCAPE}[" in shown
    assert "6/6" in shown  # the camera is endless, but --frames makes it a file's length


def _drain(descriptor: int, seen: list[bytes]) -> None:
    while True:
        try:
            data = os.read(descriptor, 4096)
        except OSError:  # the other end is closed
            break
        if not data:
            break
        seen.append(data)
    os.close(descriptor)
