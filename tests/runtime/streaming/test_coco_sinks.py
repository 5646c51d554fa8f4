"""Annotations that are written are those that are read."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from support.fake_results import MASKS, files, make_frame, make_result

from rvos_edge.errors import UserError
from rvos_edge.streaming.sinks import CocoSink, DatasetSink

RING = MASKS.copy()
RING[0, 4:8, 6:10] = False
"""The first mask with a hole; both have several runs."""


def test_a_coco_file_is_read_by_pycocotools_and_loses_nothing(tmp_path: Path) -> None:
    coco = pytest.importorskip("pycocotools.coco", reason="needs the extra 'train'")
    sink = CocoSink(tmp_path / "out.json")
    sink.write(make_frame(0), make_result(RING), None)
    sink.write(replace(make_frame(1), file="photo.png"), make_result(np.zeros_like(MASKS)), None)
    sink.write(make_frame(2), replace(make_result(MASKS[1:]), queries=("a cat",)), None)
    sink.close()
    read = coco.COCO(str(tmp_path / "out.json"))
    assert [image["file_name"] for image in read.imgs.values()] == ["00000.jpg", "photo.png", "00002.jpg"]
    assert [category["name"] for category in read.cats.values()] == ["a dog", "der große Ball", "a cat"]
    found = list(read.anns.values())
    assert [(one["image_id"], one["category_id"], one["track_id"]) for one in found] == [
        (1, 1, 1),
        (1, 2, 2),
        (3, 3, 3),
    ]
    for one, mask in zip(found, [RING[0], RING[1], MASKS[1]], strict=True):
        assert (read.annToMask(one) == mask).all()


def test_the_trainer_reads_it(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="needs the extra 'train'")
    from rvos_edge.trainer.data.readers.coco_file import find_image, read_coco

    sink = DatasetSink(tmp_path / "set")
    sink.write(make_frame(0), make_result(RING), None)
    sink.close()
    (picture,) = read_coco(tmp_path / "set" / "instances.json").annotated
    assert find_image(tmp_path / "set" / "images", picture.file) is not None
    assert [instance.category for instance in picture.instances] == ["a dog", "der große ball"]
    for instance, mask in zip(picture.instances, RING, strict=True):
        assert (instance.mask(picture.size) == mask).all()


def test_yolo_has_the_outer_outlines_in_fractions(tmp_path: Path) -> None:
    sink = DatasetSink(tmp_path / "set")
    sink.write(make_frame(0), make_result(RING), None)
    sink.write(make_frame(1), make_result(np.zeros_like(MASKS)), None)
    sink.close()
    names = ["00000", "00001"]
    images, labels = (
        [f"{folder}/{name}{end}" for name in names] for folder, end in (("images", ".jpg"), ("labels", ".txt"))
    )
    assert files(tmp_path / "set") == [
        "annotations.xml",
        "data.yaml",
        "images",
        *images,
        "instances.json",
        "label-studio.json",
        "labels",
        *labels,
    ]
    assert yaml.safe_load((tmp_path / "set" / "data.yaml").read_text(encoding="utf-8"))["names"] == {
        0: "a dog",
        1: "der große Ball",
    }
    assert (tmp_path / "set" / "labels" / "00001.txt").read_text() == ""
    for number, line in enumerate((tmp_path / "set" / "labels" / "00000.txt").read_text().splitlines()):
        kind, *values = line.split()
        assert int(kind) == number
        points = np.array(values, float).reshape(-1, 2) * (24, 16) - 0.5
        drawn = cv2.fillPoly(np.zeros((16, 24), np.uint8), [points.round().astype(np.int32)], 1)
        assert (drawn == MASKS[number]).all()  # the hole is filled


def test_an_aborted_one_leaves_nothing_and_a_foreign_one_stays(tmp_path: Path) -> None:
    for sink in (CocoSink(tmp_path / "new" / "out.json"), DatasetSink(tmp_path / "other" / "set")):
        sink.write(make_frame(), make_result(), None)
        sink.abort()
    assert files(tmp_path) == []
    (tmp_path / "instances.json").write_text(json.dumps({"annotations": [], "images": [], "categories": []}))
    with pytest.raises(UserError, match="did not write"):
        CocoSink(tmp_path / "instances.json")
    with pytest.raises(UserError, match="did not write"):
        DatasetSink(tmp_path)
    with pytest.raises(UserError, match=r"must end in \.json"):
        CocoSink(tmp_path / "out.txt")


def test_its_own_is_replaced(tmp_path: Path) -> None:
    for _ in range(2):
        for sink in (CocoSink(tmp_path / "out.json"), DatasetSink(tmp_path / "set")):
            sink.write(make_frame(), make_result(), None)
            sink.close()
    assert len(json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))["annotations"]) == 2
