"""The peers on a tiny network: the runtime computes what PyTorch does, and everybody is timed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from tiny_checkpoint import write_checkpoint

from rvos_edge.benchmarks.peers import LEAST_IOU, Options, compare_peers
from rvos_edge.errors import UserError
from rvos_edge.export.package import Options as ExportOptions
from rvos_edge.export.package import export_bundle


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Layers this small are slower on several, much so on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("peers") / "checkpoint")


@pytest.fixture(scope="module")
def bundle(checkpoint: Path) -> Path:
    return export_bundle(checkpoint, checkpoint.with_name("bundle"), ExportOptions(weights="float32"))


def test_runtime_against_pytorch_and_opencv(checkpoint: Path, bundle: Path) -> None:
    report = compare_peers(
        Options(
            checkpoint=checkpoint,
            bundle=bundle,
            frames=10,
            warmup=2,
            backends=["onnxruntime"],
            skip=["compile", "refvos"],
        )
    )
    (runtime,) = report.whole
    assert runtime.name == "ONNX Runtime (cpu)"
    assert runtime.iou is not None
    assert runtime.iou >= LEAST_IOU
    assert runtime.ratio.pairs == 10
    assert [standing.name for standing in report.flow] == ["OpenCV DIS", "OpenCV Farneback"]
    assert all(standing.ratio.value > 0 for standing in report.flow)


def test_bundle_of_other_weights_is_refused(bundle: Path, tmp_path: Path) -> None:
    other = write_checkpoint(tmp_path / "other", decoder_channels=(16, 16, 8))
    with pytest.raises(UserError, match=r"was not made of .*other"):
        compare_peers(Options(checkpoint=other, bundle=bundle))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (Options(warmup=1), "--warmup at least 2"),
        (Options(skip=["lunch"]), "--skip lunch"),
        (Options(bundle=Path("bundle")), "--bundle needs the checkpoint"),
        (Options(checkpoint=Path("nowhere")), "nowhere is not a checkpoint"),
    ],
)
def test_bad_input(options: Options, words: str) -> None:
    with pytest.raises(UserError, match=words):
        compare_peers(options)
