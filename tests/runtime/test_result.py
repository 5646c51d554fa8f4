"""Results as plain NumPy and as supervision's detections."""

from __future__ import annotations

import builtins
from typing import Any

import numpy as np
import pytest

from rvos_edge.errors import UserError
from rvos_edge.result import Result, mask_boxes


@pytest.fixture
def result() -> Result:
    """Three queries: a rectangle with a hole, nothing, one pixel in the corner."""
    masks = np.zeros((3, 20, 30), np.bool_)
    masks[0, 4:10, 7:19] = True
    masks[0, 6, 9] = False
    masks[2, 19, 29] = True
    return Result(
        queries=("the dog on the left", "a cat", "狗"),
        masks=masks,
        margins=np.zeros((3, 5, 8), np.float32),
        scores=np.asarray([0.9, 0, 0.6], np.float32),
        timings={},
        flow_used=False,
        flow=None,
        index=0,
    )


def test_numpy(result: Result) -> None:
    arrays = result.to_numpy()
    assert arrays["boxes"].tolist() == [[7, 4, 19, 10], [0, 0, 0, 0], [29, 19, 30, 20]]
    assert arrays["areas"].tolist() == [71, 0, 1]
    assert arrays["queries"].tolist() == list(result.queries)
    assert arrays["masks"] is result.masks
    assert arrays["scores"] is result.scores


def test_boxes_are_the_extremes_of_the_pixels() -> None:
    masks = np.random.default_rng(5).random((6, 33, 47)) > 0.997
    for box, mask in zip(mask_boxes(masks), masks, strict=True):
        rows, columns = np.nonzero(mask)
        assert box.tolist() == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


def test_supervision(result: Result) -> None:
    supervision = pytest.importorskip("supervision", reason="needs the extra 'supervision'")
    detections = result.to_supervision()
    assert isinstance(detections, supervision.Detections)
    assert len(detections) == 2  # the cat was not found
    assert detections.xyxy.tolist() == [[7, 4, 19, 10], [29, 19, 30, 20]]
    assert (detections.mask == result.masks[[0, 2]]).all()
    assert detections.confidence.tolist() == pytest.approx([0.9, 0.6])
    assert detections.class_id.tolist() == [0, 2]
    assert detections["class_name"].tolist() == ["the dog on the left", "狗"]
    assert detections.area.tolist() == [71, 1]
    assert detections.box_area.tolist() == [72, 1]
    best = detections[detections.confidence > 0.7]
    assert best["class_name"].tolist() == ["the dog on the left"]


def test_supervision_draws_them(result: Result) -> None:
    supervision = pytest.importorskip("supervision", reason="needs the extra 'supervision'")
    picture = np.zeros((20, 30, 3), np.uint8)
    drawn = supervision.MaskAnnotator(opacity=1.0).annotate(picture.copy(), result.to_supervision())
    assert ((drawn > 0).any(-1) == result.masks.any(0)).all()


def test_nothing_found(result: Result) -> None:
    supervision = pytest.importorskip("supervision", reason="needs the extra 'supervision'")
    result.masks[:] = False
    detections = result.to_supervision()
    assert len(detections) == 0
    assert len(supervision.Detections.merge([detections, detections])) == 0


def test_supervision_that_is_not_installed(result: Result, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name == "supervision":
            raise ModuleNotFoundError("No module named 'supervision'", name="supervision")
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UserError, match=r'pip install "rvos-edge\[supervision\]"'):
        result.to_supervision()
