"""Annotations go from one tool to another and back without loss."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as mask_utils
from support.fake_results import MASKS, make_frame, make_result
from typer.testing import CliRunner

from rvos_edge.annotations import encode_brush
from rvos_edge.cli import app
from rvos_edge.errors import UserError
from rvos_edge.streaming.sinks import DatasetSink
from rvos_edge.trainer.data.convert import Form, convert, decode_brush

FILES = {Form.COCO: "instances.json", Form.CVAT: "annotations.xml", Form.LABEL_STUDIO: "label-studio.json"}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two pictures of a data set; the first mask has a hole, and on the second picture there is only one."""
    masks = MASKS.copy()
    masks[0, 4:8, 6:10] = False
    sink = DatasetSink(tmp_path / "set")
    sink.write(make_frame(0), make_result(masks), None)
    sink.write(make_frame(1), make_result(MASKS * np.array([False, True])[:, None, None]), None)
    sink.close()
    return tmp_path / "set"


def content(path: Path) -> dict[str, list[Any]]:
    """A COCO file as lists of rows, by file name."""
    read = json.loads(path.read_text(encoding="utf-8"))
    names = {one["id"]: one["name"] for one in read["categories"]}
    rows: dict[str, list[Any]] = {}
    for image in read["images"]:
        rows[Path(image["file_name"]).name] = [
            (names[one["category_id"]], one["track_id"], one["score"], one["area"], one["segmentation"])
            for one in read["annotations"]
            if one["image_id"] == image["id"]
        ]
    return rows


@pytest.mark.parametrize(("through", "kind"), list(product(FILES, FILES)))
def test_every_form_through_every_form(data: Path, tmp_path: Path, through: Form, kind: Form) -> None:
    middle, last = tmp_path / f"middle{Path(FILES[kind]).suffix}", tmp_path / "last.json"
    assert "2 pictures, 3 objects" in convert(data / FILES[through], middle, kind)
    convert(middle, last)
    assert content(last) == content(data / "instances.json")
    assert [len(rows) for rows in content(last).values()] == [2, 1]


def test_a_mask_of_cvat_has_its_rows_as_runs(data: Path) -> None:
    """Datumaro reads column-wise run lengths of the transposed part, beginning with background."""
    text = (data / "annotations.xml").read_text(encoding="utf-8")
    mask = text[text.index("<mask") :]
    left, top, width, height = (
        int(mask.split(f'{name}="')[1].split('"')[0]) for name in ("left", "top", "width", "height")
    )
    counts = [int(run) for run in mask.split('rle="')[1].split('"')[0].split(",")]
    rle = mask_utils.frPyObjects({"size": [width, height], "counts": counts}, width, height)
    expected = MASKS[0].copy()
    expected[4:8, 6:10] = False
    assert (expected[top : top + height, left : left + width] == mask_utils.decode(rle).T).all()


def test_label_studios_own_brush_is_read() -> None:
    """Bytes that label_studio_sdk 2.1.2 writes for this mask; it reads ours the same."""
    mask = np.zeros((4, 6), np.bool_)
    mask[1:3, 2:5] = True
    theirs = [0, 0, 0, 96, 57, 27, 254, 31, 0, 183, 255, 108, 2, 223, 254, 27, 0, 0]
    for packed in (theirs, encode_brush(mask)):
        assert (decode_brush(packed, (4, 6)) == mask).all()
    with pytest.raises(ValueError, match="96 values and its picture 80"):
        decode_brush(theirs, (4, 5))


def test_what_people_correct_by_hand_comes_back(tmp_path: Path) -> None:
    """Polygons, boxes, tracks of a video; what is no region is counted."""
    (tmp_path / "video.xml").write_text(
        """<annotations><meta><task><original_size><width>20</width><height>10</height></original_size></task></meta>
        <track id="7" label="a dog"><box frame="3" outside="0" xtl="2" ytl="1" xbr="6" ybr="5"/>
        <box frame="4" outside="1" xtl="2" ytl="1" xbr="6" ybr="5"/></track>
        <track id="8" label="a cat"><polygon frame="3" outside="0" points="8,2;12,2;12,6;8,6"/>
        <points frame="3" points="1,1"/></track></annotations>"""
    )
    assert convert(tmp_path / "video.xml", tmp_path / "video.json").endswith("Left out: 1 shapes of the kind 'points'.")
    read = json.loads((tmp_path / "video.json").read_text())
    assert [(one["track_id"], one["bbox"]) for one in read["annotations"]] == [(7, [2, 1, 4, 4]), (8, [8, 2, 4, 4])]
    assert read["images"] == [{"id": 1, "file_name": "frame_000003.PNG", "height": 10, "width": 20}]
    size = {"original_width": 20, "original_height": 10}
    polygon = {"points": [[40, 20], [60, 20], [60, 60], [40, 60]], "polygonlabels": ["a cat"]}
    right = [{"type": "polygonlabels", **size, "value": polygon}, {"type": "choices", **size, "value": {}}]
    tasks = [
        {
            "data": {"image": "/data/upload/1/a.jpg"},
            "annotations": [{"was_cancelled": True, "result": []}, {"result": right}],
            "predictions": [{"result": []}],
        },
        {"data": {"image": "b.jpg"}, "annotations": []},
    ]
    (tmp_path / "tasks.json").write_text(json.dumps(tasks))
    said = convert(tmp_path / "tasks.json", tmp_path / "out.json")
    assert "1 pictures, 1 objects" in said
    assert "1 results of the kind 'choices'" in said
    assert "1 pictures without annotations" in said
    (found,) = json.loads((tmp_path / "out.json").read_text())["annotations"]
    assert found["bbox"] == [8, 2, 4, 4]


def test_bad_files_are_refused_and_nothing_is_replaced(data: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.json").write_text("{}")
    (tmp_path / "mine.json").write_text("[]")
    for source, output, said in (
        ("bad.json", "out.json", "is neither COCO's instances"),
        ("missing.xml", "out.json", "cannot be read"),
        ("bad.json", "out.txt", "must end in"),
        ("bad.json", "bad.json", "is the source itself"),
        ("set/instances.json", "mine.json", "did not write"),
    ):
        with pytest.raises(UserError, match=said):
            convert(tmp_path / source, tmp_path / output)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.json", "mine.json", "set"]
    done = CliRunner().invoke(app, ["data", "convert", str(data / "annotations.xml"), "x.json", "--to", "yolo"])
    assert "--to yolo is unknown; give coco, cvat, label-studio" in done.output
