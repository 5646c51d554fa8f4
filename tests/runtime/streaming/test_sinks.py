from __future__ import annotations

import json
import signal
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from support.fake_results import MASKS, files, make_frame, make_result

from rvos_edge.errors import UserError
from rvos_edge.result import Overlap
from rvos_edge.streaming.overlay import palette
from rvos_edge.streaming.sinks import EventSink, JsonSink, MaskSink, VideoSink, indexed_png, label_image, open_sinks


def read_palette_png(content: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Indices and palette as Pillow sees them."""
    import io

    image = pytest.importorskip("PIL.Image").open(io.BytesIO(content))
    assert image.mode == "P"
    return np.asarray(image), np.asarray(image.getpalette(), np.uint8).reshape(-1, 3)


def test_abort_after_close_changes_nothing(tmp_path: Path) -> None:
    video, masks, lines = (VideoSink(tmp_path / "o.mp4", 25), MaskSink(tmp_path / "m"), JsonSink(tmp_path / "o.jsonl"))
    for sink in (video, masks, lines):
        sink.write(make_frame(), make_result(), np.zeros((48, 64, 3), np.uint8))
        sink.close()
        sink.abort()
    assert files(tmp_path) == ["m", "m/00000.png", "o.jsonl", "o.mp4"]


def test_labels_follow_the_davis_rule() -> None:
    labels = label_image(MASKS)
    assert labels[0, 0] == 0
    assert labels[3, 5] == 1
    assert labels[8, 10] == 2, "the later query lies on top"
    with pytest.raises(UserError, match="255"):
        label_image(np.zeros((256, 2, 2), bool))


def test_mask_is_an_indexed_png_named_after_the_frame(tmp_path: Path) -> None:
    sink = MaskSink(tmp_path / "masks")
    sink.write(make_frame(3, "frame_0003"), make_result(), None)
    sink.close()
    assert files(tmp_path / "masks") == ["frame_0003.png"]
    content = (tmp_path / "masks" / "frame_0003.png").read_bytes()
    indices, colours = read_palette_png(content)
    np.testing.assert_array_equal(indices, label_image(MASKS))
    np.testing.assert_array_equal(colours, palette())
    shown = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    assert shown is not None
    np.testing.assert_array_equal(shown[..., ::-1], palette()[label_image(MASKS)])


@pytest.mark.parametrize("shape", [(1, 1), (3, 7), (480, 854)])
def test_png_keeps_every_value(shape: tuple[int, int]) -> None:
    labels = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    np.testing.assert_array_equal(read_palette_png(indexed_png(labels))[0], labels)


def test_aborted_masks_are_removed(tmp_path: Path) -> None:
    sink = MaskSink(tmp_path / "a" / "masks")
    sink.write(make_frame(), make_result(), None)
    sink.abort()
    assert files(tmp_path) == []


def test_json_line_says_what_was_found(tmp_path: Path) -> None:
    masks = MASKS.copy()
    masks[1] = False
    sink = JsonSink(tmp_path / "new" / "out.jsonl")
    sink.write(make_frame(0), make_result(), None)
    sink.write(replace(make_frame(1, "dog_1"), time=0.25), make_result(masks), None)  # of a live source
    sink.close()
    first, second = map(json.loads, (tmp_path / "new" / "out.jsonl").read_text(encoding="utf-8").splitlines())
    there = {"presence": 1.0, "present": True, "adapted": False}
    assert first == {
        "frame": 0,
        "timestamp": 0.0,
        "time": None,
        "source": "00000",
        "size": [16, 24],
        "queries": [
            {"text": "a dog", "score": 0.75, **there, "area": round(64 / 384, 6), "bbox": [4, 2, 12, 10]},
            {"text": "der große Ball", "score": 0.5, **there, "area": round(72 / 384, 6), "bbox": [8, 6, 20, 12]},
        ],
        "timings_ms": {"backbone": 4.0, "gating": 1.5},
        "total_ms": 5.5,
        "flow_used": True,
        "flow": None,
    }
    assert (second["frame"], second["timestamp"], second["source"]) == (1, 0.04, "dog_1")
    assert second["time"] == "1970-01-01T00:00:00.250Z"
    assert (second["queries"][1]["area"], second["queries"][1]["bbox"]) == (0.0, None)


def test_json_to_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    sink = JsonSink("-")
    sink.write(make_frame(), make_result(), None)
    sink.abort()
    sink.close()
    assert json.loads(capsys.readouterr().out)["frame"] == 0
    print("stdout is still open")


def test_json_aborted(tmp_path: Path) -> None:
    sink = JsonSink(tmp_path / "new" / "out.jsonl")
    sink.write(make_frame(), make_result(), None)
    sink.abort()
    assert files(tmp_path) == []


@pytest.mark.parametrize("make", [lambda path: VideoSink(path, 25), MaskSink, JsonSink])
def test_path_below_a_file_cannot_be_written(tmp_path: Path, make) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        make(tmp_path / "file" / "new" / "out.mp4")


def test_kind_of_path_is_checked(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError, match="is a file"):
        MaskSink(tmp_path / "file")
    with pytest.raises(UserError, match="is a folder"):
        JsonSink(tmp_path / "folder")


def test_several_sinks_or_none(tmp_path: Path) -> None:
    makers = [lambda: JsonSink(tmp_path / "new" / "out.jsonl"), lambda: VideoSink(tmp_path / "out.avi", 25)]
    with pytest.raises(UserError, match="must end in"), open_sinks(makers):
        pass
    assert files(tmp_path) == []


def test_ctrl_c_before_the_first_frame_leaves_nothing(tmp_path: Path) -> None:
    def make() -> JsonSink:
        signal.raise_signal(signal.SIGINT)  # while the file is being made
        return JsonSink(tmp_path / "new" / "out.jsonl")

    with pytest.raises(KeyboardInterrupt), open_sinks([make]):
        pass
    assert files(tmp_path) == []


def test_overlapping_masks_can_be_kept_apart(tmp_path: Path) -> None:
    sink = MaskSink(tmp_path / "new" / "masks", overlap=Overlap.KEEP)
    sink.write(make_frame(7), make_result(), None)
    assert files(tmp_path / "new" / "masks") == ["1", "1/00007.png", "2", "2/00007.png"]
    for value, mask in enumerate(MASKS, start=1):
        content = (tmp_path / "new" / "masks" / str(value) / "00007.png").read_bytes()
        np.testing.assert_array_equal(read_palette_png(content)[0], mask * value)
    sink.abort()
    assert files(tmp_path) == []


def test_events_are_what_appears_and_what_is_gone(tmp_path: Path) -> None:
    sink = EventSink(tmp_path / "events.jsonl")
    for index, present in enumerate(([True, False], [True, False], [False, True], [False, True])):
        masks = MASKS & np.array(present)[:, None, None]
        result = replace(make_result(masks), present=np.array(present), presence=np.full(2, 0.5, np.float32))
        sink.write(make_frame(index), result, None)
    sink.close()
    events = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [(event["event"], event["query"], event["frame"]) for event in events] == [
        ("appeared", "a dog", 0),
        ("gone", "a dog", 2),
        ("appeared", "der große Ball", 2),
    ]
    assert events[0] | {"bbox": [4, 2, 12, 10], "presence": 0.5, "timestamp": 0.0, "source": "00000"} == events[0]
    assert events[1]["bbox"] is None
