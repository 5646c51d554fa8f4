"""Objects are shown by masks, boxes or points on frames of a source."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from support.tiny_bundle import write_tiny_bundle
from typer.testing import CliRunner

from rvos_edge import TaughtQuery, UserError
from rvos_edge.cli import app
from rvos_edge.rle import encode_rle
from rvos_edge.showing import mask_of_box, mask_of_points, parse_boxes, parse_points, read_shown
from rvos_edge.streaming.sources import open_source


def _scene(place: int) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """A green disc on a red ground."""
    rng = np.random.default_rng(place)
    frame = np.clip(rng.normal((10, 10, 180), 6, (96, 144, 3)), 0, 255).astype(np.uint8)
    mask = np.zeros((96, 144), np.uint8)
    cv2.circle(mask, (place, 48), 24, 1, -1)
    frame[mask > 0] = np.clip(rng.normal((20, 200, 20), 6, (int(mask.sum()), 3)), 0, 255)
    return frame, mask > 0


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    folder = tmp_path / "clip"
    folder.mkdir()
    for index in range(4):
        cv2.imwrite(str(folder / f"shot-{index}.png"), _scene(40 + 10 * index)[0])
    return folder


def _iou(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    return float((one & other).sum() / (one | other).sum())


def test_a_box_or_a_point_gives_the_object() -> None:
    frame, mask = _scene(60)
    assert _iou(mask_of_box(frame, (30, 18, 60, 60)), mask) > 0.95
    assert _iou(mask_of_points(frame, [(60, 48)]), mask) > 0.95


def test_masks_come_from_a_coco_file(clip: Path, tmp_path: Path) -> None:
    """Run lengths, compressed and not, and polygons; an image without annotations is not shown."""
    left, right = _scene(50)[1], _scene(70)[1]
    runs = np.diff(np.flatnonzero(np.diff(np.concatenate([[-1], right.ravel(order="F"), [2]]).astype(int)))).tolist()
    square = [[10.0, 20.0, 40.0, 20.0, 40.0, 60.0, 10.0, 60.0]]
    shapes = {
        1: {"size": [96, 144], "counts": encode_rle(left)},
        3: {"size": [96, 144], "counts": runs},
        2: square,
    }
    document = {
        "images": [{"id": number, "file_name": f"x/shot-{number}.jpg"} for number in range(4)],
        "annotations": [{"image_id": number, "segmentation": shape} for number, shape in shapes.items()],
    }
    path = tmp_path / "instances.json"
    path.write_text(json.dumps(document))
    with open_source(str(clip)) as source:
        shown = read_shown(source, path, {}, {})
    assert [one.name for one in shown] == ["shot-1", "shot-2", "shot-3"]
    np.testing.assert_array_equal(shown[0].mask, left)
    np.testing.assert_array_equal(shown[2].mask, right)
    drawn = np.zeros((96, 144), bool)
    drawn[20:60, 10:40] = True
    assert _iou(shown[1].mask, drawn) > 0.9
    document["annotations"][0]["segmentation"] = {"size": [96, 144], "counts": "22"}
    for text, message in ((json.dumps(document), "an outline on 'shot-1' cannot be read"), ("{}", "cannot be read as")):
        path.write_text(text)
        with open_source(str(clip)) as source, pytest.raises(UserError, match=message):
            read_shown(source, path, {}, {})


def test_a_box_begins_from_a_networks_mask() -> None:
    """A box around two objects, and one where GrabCut finds nothing."""
    frame, left = _scene(40)
    other, right = _scene(100)
    frame[right] = other[right]
    box = (10, 18, 124, 60)
    assert _iou(mask_of_box(frame, box, left), left | right) > 0.95  # colours alone tell no two apart
    grey = np.full((96, 144, 3), 128, np.uint8)
    np.testing.assert_array_equal(mask_of_box(grey, box, left), left)
    with pytest.raises(UserError, match="no object is found"):
        mask_of_box(grey, box, left & right)


def test_what_is_shown_comes_with_the_frame_before_it(clip: Path, tmp_path: Path) -> None:
    masks = tmp_path / "masks"
    masks.mkdir()
    cv2.imwrite(str(masks / "shot-1.png"), 255 * _scene(50)[1].astype(np.uint8))
    cv2.imwrite(str(masks / "3.png"), np.zeros((96, 144), np.uint8))
    with open_source(str(clip)) as source:
        shown = read_shown(source, masks, {0: (16, 18, 50, 60)}, {})
    assert [one.name for one in shown] == ["shot-0", "shot-1", "shot-3"]
    assert [bool(one.mask.any()) for one in shown] == [True, True, False]
    assert shown[0].previous is None
    assert shown[1].previous is not None
    np.testing.assert_array_equal(shown[1].previous, shown[0].frame)


def test_the_command_makes_a_query_that_run_takes(clip: Path, tmp_path: Path) -> None:
    bundle = write_tiny_bundle(tmp_path / "tiny", size=(64, 96), teach=True)
    common = ["--bundle", str(bundle), "--device", "cpu", "--backend", "onnxruntime"]
    made = tmp_path / "green.query"
    shown = ["--box", "0:16,18,50,60", "--point", "2:60,48", "--keep-masks", str(tmp_path / "used")]
    done = CliRunner().invoke(
        app, ["teach", str(clip), "--like", "the red ball", "--output", str(made), *shown, *common]
    )
    assert done.exit_code == 0, done.output
    assert "rvos-edge run SOURCE @" in done.output
    assert TaughtQuery.load(made).shots == 2
    assert sorted(path.name for path in (tmp_path / "used").iterdir()) == ["shot-0.png", "shot-2.png"]
    masks = tmp_path / "masks"
    done = CliRunner().invoke(
        app, ["run", "--source", str(clip), "--query", f"@{made}", "--masks", str(masks), *common]
    )
    assert done.exit_code == 0, done.output
    answer = cv2.imread(str(masks / "shot-3.png"), cv2.IMREAD_GRAYSCALE)
    assert answer is not None
    assert _iou(answer > 0, _scene(70)[1]) > 0.6


@pytest.mark.parametrize(
    ("parse", "text"),
    [(parse_boxes, "3:1,2,3"), (parse_boxes, "1,2,3,4"), (parse_points, "1:2"), (parse_points, "x:1,2")],
)
def test_what_is_written_otherwise_is_refused(parse: object, text: str) -> None:
    with pytest.raises(UserError, match="write FRAME:x,y"):
        parse([text])  # type: ignore[operator]


def test_a_mask_without_a_frame_is_named(clip: Path, tmp_path: Path) -> None:
    masks = tmp_path / "masks"
    masks.mkdir()
    cv2.imwrite(str(masks / "9.png"), np.ones((96, 144), np.uint8))
    with open_source(str(clip)) as source, pytest.raises(UserError, match="'9' belongs to no frame"):
        read_shown(source, masks, {}, {})
    with open_source(str(clip)) as source, pytest.raises(UserError, match="there is no frame 7"):
        read_shown(source, None, {7: (0, 0, 10, 10)}, {})
    with open_source(str(clip)) as source, pytest.raises(UserError, match="nothing is shown"):
        read_shown(source, None, {}, {})
