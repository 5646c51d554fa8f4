"""Frames of other shapes than the network's: stretched a little, then between bars that count for nothing."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from support.tiny_bundle import Reference, write_tiny_bundle

import rvos_edge
from rvos_edge import FlowOptions
from rvos_edge.preprocess import Preprocessor, fill_padding, place


@pytest.mark.parametrize(
    ("frame", "rows", "columns"),
    [
        ((720, 1280), (0, 288), (0, 512)),
        ((480, 640), (0, 288), (0, 512)),  # 4:3 is stretched
        ((640, 480), (0, 288), (112, 400)),  # 3:4 by 4/3, to a square
        ((1000, 1000), (0, 288), (64, 448)),
        ((300, 1280), (64, 224), (0, 512)),
        ((8000, 10), (0, 288), (248, 256)),
    ],
)
def test_a_frame_is_stretched_by_four_thirds_at_most(
    frame: tuple[int, int], rows: tuple[int, int], columns: tuple[int, int]
) -> None:
    placed = place(frame, (288, 512))
    assert (placed.rows.start, placed.rows.stop) == rows
    assert (placed.columns.start, placed.columns.stop) == columns
    assert placed.padded == ((rows, columns) != ((0, 288), (0, 512)))
    assert placed.on((72, 128)) == (slice(rows[0] // 4, rows[1] // 4), slice(columns[0] // 4, columns[1] // 4))


def test_bars_of_an_earlier_frame_do_not_shine_through() -> None:
    preprocess = Preprocessor((64, 96))
    preprocess(np.full((64, 96, 3), 255, np.uint8).copy())
    preprocess(np.full((120, 160, 3), 255, np.uint8))
    image = preprocess(np.full((200, 60, 3), 255, np.uint8))
    rows, columns = preprocess.placement.rows, preprocess.placement.columns
    assert (image[rows, columns] == 255).all()
    assert set(np.unique(np.delete(image, np.r_[columns], axis=1))) == {104, 116, 124}


def test_padding_leaves_the_statistics_of_the_flow() -> None:
    """``gating`` reads the mean and the mean distance from it; both are those of the frame alone."""
    placed = place((640, 480), (288, 512))
    flow = np.random.default_rng(0).normal(3, 2, (1, 2, 144, 256)).astype(np.float32)
    rows, columns = placed.on((144, 256))
    inside = flow[0][:, rows, columns]
    filled = fill_padding(flow, placed)
    np.testing.assert_array_equal(filled[0][:, rows, columns], inside)

    def statistics(field: np.ndarray) -> tuple[np.ndarray, float]:
        mean = field.mean((1, 2), keepdims=True)
        return mean.ravel(), float(np.sqrt(((field - mean) ** 2).sum(0)).mean())

    mean, spread = statistics(filled[0])
    expected_mean, expected_spread = statistics(inside)
    np.testing.assert_allclose(mean, expected_mean, atol=1e-3)
    assert spread == pytest.approx(expected_spread, rel=1e-3)


def test_the_masks_are_those_of_what_is_between_the_bars(tmp_path: Path) -> None:
    segmenter = rvos_edge.open(
        write_tiny_bundle(tmp_path / "tiny"), backend="onnxruntime", threads=1, flow=FlowOptions(enabled=False)
    )
    segmenter.set_queries(["the red ball"])
    frame = cv2.resize(np.random.default_rng(3).integers(0, 255, (16, 9, 3), np.uint8), (90, 160))
    result = segmenter.step(frame)
    placed = place((160, 90), (64, 96))
    image = np.empty((64, 96, 3), np.uint8)
    image[:] = (104, 116, 124)
    width = placed.columns.stop - placed.columns.start
    image[:, placed.columns] = cv2.resize(frame, (width, 64))
    margins, _ = Reference().step(image, ["the red ball"], flow="zero")
    np.testing.assert_allclose(result.margins, margins[:, :, placed.on((16, 24))[1]], atol=2e-4)
    assert result.masks.shape == (1, 160, 90)


def test_flow_goes_on_between_bars(tmp_path: Path) -> None:
    segmenter = rvos_edge.open(
        write_tiny_bundle(tmp_path / "tiny"), backend="onnxruntime", threads=1, flow=FlowOptions(keep_flow=True)
    )
    segmenter.set_queries(["the red ball"])
    texture = np.random.default_rng(3).integers(0, 255, (16, 9, 3), np.uint8)
    results = [segmenter.step(cv2.resize(np.roll(texture, shift, 0), (90, 160))) for shift in range(3)]
    assert [result.flow_used for result in results] == [False, True, True]
    assert results[2].flow is not None
    columns = place((160, 90), (64, 96)).columns
    assert np.ptp(results[2].flow[1][:, : columns.start]) == 0
    assert np.ptp(results[2].flow[1][:, columns]) > 0
