"""Signals cost no output: what is being written is finished first."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from pathlib import Path

import cv2
import pytest
from support.fake_results import files

from rvos_edge.streaming.signals import terminate_as_interrupt, uninterrupted


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_wait_until_a_block_ends(number: signal.Signals) -> None:
    steps: list[str] = []
    with pytest.raises(KeyboardInterrupt), terminate_as_interrupt():  # noqa: PT012
        with uninterrupted():
            signal.raise_signal(number)
            signal.raise_signal(number)
            steps.append("written")
        steps.append("not reached")
    assert steps == ["written"]
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_signals_do_not_wait_for_what_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rvos_edge.streaming.signals._PATIENCE", -1.0)
    steps: list[str] = []
    with pytest.raises(KeyboardInterrupt), uninterrupted():  # noqa: PT012
        signal.raise_signal(signal.SIGINT)
        steps.append("hangs")
        signal.raise_signal(signal.SIGINT)
        steps.append("not reached")
    assert steps == ["hangs"]


def test_other_threads_are_not_touched_by_signals() -> None:
    done: list[bool] = []

    def work() -> None:
        with terminate_as_interrupt(), uninterrupted():
            done.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done == [True]


STREAM = """
import sys, time
import numpy as np
sys.path.append(sys.argv[1])
from pathlib import Path
from support.fake_results import make_result
from rvos_edge.streaming.loop import run_stream
from rvos_edge.streaming.signals import terminate_as_interrupt
from rvos_edge.streaming.sinks import JsonSink, MaskSink, VideoSink
from rvos_edge.streaming.sources import open_source
folder = Path(sys.argv[2])

class Segmenter:
    queries = ("a dog",)
    def step(self, frame):
        return make_result(np.zeros((1, *frame.shape[:2]), bool))

with terminate_as_interrupt(), open_source("synthetic", size=(48, 64)) as source:
    sinks = [VideoSink(folder / "o.mp4", 25), MaskSink(folder / "masks"), JsonSink(folder / "o.jsonl")]
    seen = lambda frame, *_: print(frame.index, flush=True)
    summary = run_stream(Segmenter(), source, sinks, on_result=seen)
print("frames", summary.frames, summary.interrupted)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signal_finishes_the_files(number: signal.Signals, tmp_path: Path) -> None:
    command = [sys.executable, "-c", STREAM, str(Path(__file__).parents[2]), str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.strip() == "10":
                process.send_signal(number)
                process.send_signal(number)  # who is impatient presses again
                break
        out, err = process.communicate(timeout=60)
    name, count, interrupted = out.splitlines()[-1].split()
    assert (name, interrupted, process.returncode) == ("frames", "True", 0), err
    frames = int(count)
    assert frames > 10
    assert files(tmp_path / "masks") == [f"{index:05d}.png" for index in range(frames)]
    assert len((tmp_path / "o.jsonl").read_text().splitlines()) == frames
    assert cv2.VideoCapture(str(tmp_path / "o.mp4")).get(cv2.CAP_PROP_FRAME_COUNT) == frames
    assert files(tmp_path)[-2:] == ["o.jsonl", "o.mp4"]
