"""The peers on a tiny network: the runtime computes what PyTorch does, and everybody is timed."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import cv2
import pytest
import torch
from rich.console import Console
from support.tiny_checkpoint import write_checkpoint

from rvos_edge.benchmarks.peers import (
    LEAST_IOU,
    PeerOptions,
    PeerReport,
    Standing,
    compare_peers,
    print_report,
)
from rvos_edge.benchmarks.stats import Ratio
from rvos_edge.bundle import shipped_bundle
from rvos_edge.errors import UserError


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    """Put back what `threads` changes."""
    threads = torch.get_num_threads(), cv2.getNumThreads()
    yield
    torch.set_num_threads(threads[0])
    cv2.setNumThreads(threads[1])


@pytest.mark.slow
def test_runtime_against_pytorch_and_opencv() -> None:
    """A network of the preset is made and exported on the spot."""
    report = compare_peers(
        # One thread: layers this small are slower on several, much so on a busy machine.
        PeerOptions(preset="test", frames=10, warmup=2, backends=["onnxruntime"], skip=["compile", "refvos"], threads=1)
    )
    (runtime,) = report.whole
    assert runtime.name == "ONNX Runtime (cpu)"
    assert runtime.iou is not None
    assert runtime.iou >= LEAST_IOU
    assert runtime.ratio.pairs == 10
    assert [standing.name for standing in report.flow] == ["OpenCV DIS", "OpenCV Farneback"]
    assert all(standing.ratio.value > 0 for standing in report.flow)
    assert not report.trained


def test_tables_of_peers() -> None:
    console = Console(file=io.StringIO(), width=200)
    whole = [Standing("fast", Ratio(2.0, 1.5, 2.5, 20), 1.0), Standing("wrong", Ratio(0.5, None, None, 1), 0.5)]
    print_report(PeerReport(whole, [Standing("flow", Ratio(3.0, 2.0, 4.0, 20))], "graphs", 20, trained=True), console)
    lines = [" ".join(line.split()) for line in console.file.getvalue().splitlines()]  # type: ignore[attr-defined]
    for row in ("fast │ 2.00 │ 1.50 to 2.50 │ 1.0000", "wrong │ 0.50 │ too few frames │ 0.5000"):
        assert any(row in line for line in lines), lines
    assert "│ flow │ 3.00 │ 2.00 to 4.00 │" in lines
    assert any("masks of wrong agree with PyTorch's only to 0.500" in line for line in lines)


def test_bundle_of_other_weights_is_refused(tmp_path: Path) -> None:
    other = write_checkpoint(tmp_path / "other")
    with pytest.raises(UserError, match=r"was not made of .*other"):
        compare_peers(PeerOptions(checkpoint=other, bundle=shipped_bundle()))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (PeerOptions(threads=0), "--threads 0 is out of range"),
        (PeerOptions(warmup=1), "--warmup at least 2"),
        (PeerOptions(skip=["lunch"]), "--skip lunch"),
        (PeerOptions(bundle=Path("bundle")), "--bundle needs the checkpoint"),
        (PeerOptions(checkpoint=Path("nowhere")), "nowhere is not a checkpoint"),
    ],
)
def test_bad_input(options: PeerOptions, words: str) -> None:
    with pytest.raises(UserError, match=words):
        compare_peers(options)
