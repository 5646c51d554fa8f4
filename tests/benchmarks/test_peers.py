"""The peers on a tiny network: the runtime computes what PyTorch does, and everybody is timed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import pytest
import torch
from support.tiny_checkpoint import write_checkpoint

from rvos_edge.benchmarks.peers import LEAST_IOU, PeerOptions, compare_peers
from rvos_edge.bundle import shipped_bundle
from rvos_edge.errors import UserError


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    """Put back what `threads` changes."""
    threads = torch.get_num_threads(), cv2.getNumThreads()
    yield
    torch.set_num_threads(threads[0])
    cv2.setNumThreads(threads[1])


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
