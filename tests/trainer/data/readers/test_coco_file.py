"""Instances files as people have them: their own categories, and the exports of annotation tools."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from rvos_edge.errors import UserError
from rvos_edge.trainer.data.check import check_dataset, is_complete
from rvos_edge.trainer.data.readers.coco import CocoDataset
from rvos_edge.trainer.data.readers.coco_file import DataWarning, category_name, find_image, read_coco
from rvos_edge.trainer.data.transforms import Augmentation

SQUARE = [10, 10, 50, 10, 50, 50, 10, 50]
FAR = [60, 20, 90, 20, 90, 60, 60, 60]


def write(root: Path, entries: list[dict[str, Any]], *, bom: bool = False, **image: Any) -> Path:
    """One picture of 64x96 with entries, whose categories are 1 Forklift, 2 Dog and "3" traffic_light."""
    (root / "images").mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(root / "images/0.jpg"), np.full((64, 96, 3), 100, np.uint8))
    names = {1: "Forklift", 2: "Dog", "3": "traffic_light"}
    content = {
        "images": [{"id": 7, "file_name": "0.jpg", "height": 64, "width": 96} | image],
        "categories": [{"id": number, "name": name} for number, name in names.items()],
        "annotations": [{"id": 100 + i, "image_id": 7} | entry for i, entry in enumerate(entries)],
    }
    (root / "instances.json").write_text(json.dumps(content), encoding="utf-8-sig" if bom else "utf-8")
    return root


def dataset(root: Path, **options: Any) -> CocoDataset:
    return CocoDataset(root, size=(64, 96), flow_size=(32, 48), augmentation=Augmentation.none(), **options)


def said(data: CocoDataset, draws: int = 40) -> tuple[set[str], set[str]]:
    """Sentences that come up with a mask, and without."""
    present, absent = set(), set()
    for seed in range(draws):
        sample = data.draw(np.random.default_rng(seed))
        for sentence, mask in zip(sample.expressions, sample.masks, strict=True):
            (present if mask.any() else absent).add(sentence)
    return present, absent


def test_own_categories_are_trained_on_as_they_are_named(tmp_path: Path) -> None:
    entries = [{"category_id": 1, "segmentation": [SQUARE]}, {"category_id": 2, "segmentation": [FAR]}]
    data = dataset(write(tmp_path, entries), distractors=["a black cat", "a camel", "the traffic light"])
    present, absent = said(data)
    assert {"the forklift", "a dog"} <= present
    assert any("traffic light" in sentence for sentence in absent), "the file knows them, the picture has none"
    assert not any("cat" in sentence or "camel" in sentence for sentence in absent), "nobody looked for those"
    assert data.pairs() == {"forklift": 1, "dog": 1}


def test_a_wider_word_for_what_is_there_is_not_absent(tmp_path: Path) -> None:
    root = write(tmp_path, [{"category_id": 2, "segmentation": [SQUARE]}])
    content = json.loads((root / "instances.json").read_text())
    content["categories"] += [{"id": 9, "name": "animal"}, {"id": 10, "name": "pallet"}]
    content["categories"][1]["supercategory"] = "dogs"
    content["categories"].append({"id": 11, "name": "dogs"})
    (root / "instances.json").write_text(json.dumps(content))
    data = dataset(root)
    near, far = data.absentees(data.pictures[0])
    assert set(near) | set(far) == {"forklift", "traffic light", "pallet"}


@pytest.mark.parametrize(
    ("name", "spoken"),
    [
        ("Dog", "dog"),
        ("traffic_light", "traffic light"),
        ("car_(automobile)", "car"),
        (" Fork  Lift ", "fork lift"),
        ("0", ""),
    ],
)
def test_category_names(name: str, spoken: str) -> None:
    assert category_name(name) == spoken


@pytest.mark.parametrize(
    "entry",
    [
        {"category_id": 1, "segmentation": SQUARE, "bbox": [10, 10, 40, 40]},
        {"category_id": "1", "segmentation": [SQUARE], "image_id": "7", "id": "17"},
        {"category_id": 1, "segmentation": [[[10, 10], [50, 10], [50, 50], [10, 50]]], "area": 0},
        {
            "category_id": 1,
            "segmentation": {"size": [64, 96], "counts": [650, *([40, 24] * 39), 40, 2994 - 40]},
            "iscrowd": 1,
        },
    ],
    ids=["flat polygon", "ids as strings", "points in pairs", "run lengths"],
)
def test_what_tools_leave_out_comes_from_the_outline(tmp_path: Path, entry: dict[str, Any]) -> None:
    ((picture,)) = read_coco(write(tmp_path, [entry], bom=True) / "instances.json").annotated
    (instance,) = picture.instances
    assert instance.category == "forklift"
    assert not instance.crowd, "some tools mark every run-length mask as a crowd"
    assert instance.area == pytest.approx(1600)
    assert instance.box == pytest.approx((10, 10, 50, 50))
    assert instance.mask((64, 96)).sum() == pytest.approx(1600, rel=0.06)


def test_entries_that_cannot_be_used_are_named_and_the_others_are_read(tmp_path: Path) -> None:
    entries = [
        {"category_id": 1, "segmentation": [SQUARE]},
        {"category_id": 1, "bbox": [60, 10, 20, 20]},
        {"category_id": 2, "segmentation": [[1, 2, 3, 4]]},
        {"category_id": 99, "segmentation": [SQUARE]},
        {"category_id": 1, "segmentation": [SQUARE], "image_id": 8},
        {"category_id": 1, "segmentation": {"size": [9, 9], "counts": [81]}},
    ]
    root = write(tmp_path, entries)
    refused = read_coco(root / "instances.json").refused
    assert sorted(refused.values()) == [["101", "102", "105"], ["103"], ["104"]]
    with pytest.warns(DataWarning, match="5 entries cannot be used; rvos-edge data check"):
        data = dataset(root)
    scene = data.scene(np.random.default_rng(0))
    assert not scene.things, "where a box hides another forklift, no sentence about forklifts is sure"
    assert scene.ignore is not None
    assert scene.ignore[15, 65]
    rows = check_dataset("coco", root)
    said = "; ".join(row.missing for row in rows)
    assert "101, 102, 105" in said
    assert any("forklift" in row.found or "forklift" in row.missing for row in rows if "categories" in row.item)


def test_data_check_counts_the_pairs_of_every_category_and_goes_on_after_a_bad_picture(tmp_path: Path) -> None:
    root = write(tmp_path, [{"category_id": 1, "segmentation": [SQUARE]}, {"category_id": 2, "segmentation": [FAR]}])
    rows = {row.item: row for row in check_dataset("coco", root)}
    assert rows["3 categories"].found == "forklift 1, dog 1"
    assert rows["3 categories"].missing == "none of traffic light"
    assert is_complete(list(rows.values()))
    (root / "images/0.jpg").write_bytes(b"no image")
    rows = {row.item: row for row in check_dataset("coco", root)}
    assert "0.jpg" in rows["pictures"].missing
    assert rows["3 categories"].found == "forklift 1, dog 1"


@pytest.mark.parametrize(
    "name", ["images\\0.jpg", "../../upload/0.jpg", "/data/local-files/?d=images/0.jpg", "0.JPG", "sub/0.jpg"]
)
def test_names_of_images_as_tools_write_them(tmp_path: Path, name: str) -> None:
    root = write(tmp_path, [{"category_id": 1, "segmentation": [SQUARE]}], file_name=name, height=None)
    assert find_image(root / "images", name) == root / "images/0.jpg"
    data = dataset(root)
    assert data.read(data.pictures[0]).shape == (64, 96, 3)
    assert find_image(root / "images", "none.jpg") is None


@pytest.mark.parametrize(("height", "width"), [(96, 64), (64, 96)], ids=["as shown", "as stored"])
def test_pictures_lie_as_they_were_annotated(tmp_path: Path, height: int, width: int) -> None:
    """A telephone's portrait is stored on its side; some tools annotate it upright, others as it is stored."""
    root = write(tmp_path, [{"category_id": 1, "segmentation": [SQUARE]}], height=height, width=width)
    stored = np.zeros((64, 96, 3), np.uint8)
    stored[:32, :48] = 255
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(stored).save(root / "images/0.jpg", exif=exif)
    data = dataset(root)
    image = data.read(data.pictures[0])
    assert image.shape == (height, width, 3)
    assert (image[8, 8].max() > 200) == (height == 64), "upright, the white corner is at the top right"


def test_a_file_without_anything_usable_says_why(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no annotated image.*without an outline"):
        read_coco(write(tmp_path, [{"category_id": 1}]) / "instances.json")
