"""Results as plain NumPy and as supervision's detections."""

from __future__ import annotations

import builtins
import copy
import json
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
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


def test_what_json_takes(result: Result) -> None:
    document = json.loads(json.dumps(result.to_dict()))
    assert document["size"] == [20, 30]
    first, second, _ = document["queries"]
    assert first == {
        "text": "the dog on the left",
        "score": 0.9,
        "presence": 1.0,
        "present": True,
        "adapted": False,
        "area": pytest.approx(71 / 600, abs=1e-6),
        "bbox": [7, 4, 19, 10],
    }
    assert (second["present"], second["bbox"]) == (False, None)


def test_coco_reads_its_masks(result: Result) -> None:
    mask_utils = pytest.importorskip("pycocotools.mask", reason="needs the extra 'train'")
    found = result.to_coco(image_id=7)
    assert [(one["image_id"], one["category_id"], one["text"]) for one in found] == [
        (7, 1, "the dog on the left"),
        (7, 3, "狗"),
    ]
    for one in found:
        mask = mask_utils.decode(one["segmentation"])
        assert (mask == result.masks[one["category_id"] - 1]).all()
        assert mask_utils.area(one["segmentation"]) == one["area"]
        assert mask_utils.toBbox(one["segmentation"]).tolist() == one["bbox"]


def test_short_words_for_it(result: Result) -> None:
    assert repr(result) == (
        "<Result of frame 0, 20x30: 'the dog on the left' 0.90 [7, 4, 19, 10], 'a cat' not found, "
        "'狗' 0.60 [29, 19, 30, 20]>"
    )


def test_equal_are_those_that_find_the_same(result: Result) -> None:
    assert result == replace(result, timings={"backbone": 3.0}, image=np.zeros((20, 30, 3), np.uint8))
    assert result != replace(result, masks=~result.masks)
    assert result != replace(result, queries=("a dog", "a cat", "狗"))
    assert result != "a result"


def test_pictures_of_it(result: Result, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not know its frame"):
        result.plot()
    result = replace(result, image=np.full((20, 30, 3), 100, np.uint8))
    drawn = result.plot(opacity=1)
    assert (drawn[7, 12] != 100).any()
    assert (result.image == 100).all()
    for name in ("a.png", "a.jpg"):
        for _ in range(2):  # its own file is replaced
            result.save(tmp_path / name)
        assert cv2.imread(str(tmp_path / name)).shape == (20, 30, 3)
    with pytest.raises(UserError, match=r"a\.gif must end in"):
        result.save(tmp_path / "a.gif")


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


def test_results_are_equal_if_they_find_the_same(result: Result) -> None:
    same, other = replace(result, timings={"backbone": 3.0}), replace(result, masks=~result.masks)
    assert result == same
    assert result in [other, same]
    assert result != other
    assert result != None  # noqa: E711 (as people write it)
    assert result != "a dog"


def test_results_pass_to_other_processes(result: Result) -> None:
    assert result.boxes.shape == (3, 4)  # cached in it from now on
    assert pickle.loads(pickle.dumps(result)) == result
    assert copy.deepcopy(result) == result
