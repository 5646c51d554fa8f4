"""The demo on the clip of the package and a tiny bundle."""

from __future__ import annotations

import io
from pathlib import Path

import cv2
import pytest
from rich.console import Console
from support.fake_results import files
from support.tiny_bundle import write_tiny_bundle

import rvos_edge
from rvos_edge.demo import CLIP, QUERIES, run_demo
from rvos_edge.protocol import SegmenterProtocol
from rvos_edge.streaming.sources import open_source


@pytest.fixture(scope="module")
def segmenter(tmp_path_factory: pytest.TempPathFactory) -> SegmenterProtocol:
    return rvos_edge.open(write_tiny_bundle(tmp_path_factory.mktemp("tiny"), presence=True), device="cpu", threads=1)


def test_it_says_what_it_found_and_writes_a_video_and_a_sheet(segmenter: SegmenterProtocol, tmp_path: Path) -> None:
    said = io.StringIO()
    summary = run_demo(segmenter, tmp_path / "demo", frames=3, console=Console(file=said, width=200))
    assert summary.frames == 3
    for query in QUERIES:
        assert f"{query}: found in " in said.getvalue()
    assert files(tmp_path / "demo") == ["demo.mp4", "demo.png"]
    assert cv2.imread(str(tmp_path / "demo" / "demo.png")).shape[1] > 3 * 512


def test_an_error_leaves_nothing(segmenter: SegmenterProtocol, tmp_path: Path) -> None:
    with pytest.raises(rvos_edge.UserError, match="0 frames cannot be segmented"):
        run_demo(segmenter, tmp_path / "demo", frames=0, quiet=True)
    assert files(tmp_path) == []


def test_the_clip_is_short_and_small() -> None:
    with open_source(str(CLIP)) as source:
        assert 2 <= (source.length or 0) / (source.fps or 1) <= 4
    assert CLIP.stat().st_size < 500_000
