"""Outputs are ours or new: nothing else is ever replaced, and nothing that is read."""

from __future__ import annotations

import json
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from support.fake_results import make_frame, make_result

from rvos_edge.errors import UserError
from rvos_edge.outputs import check_outputs, is_ours, mark_png
from rvos_edge.streaming.sinks import JsonSink, MaskSink, RleSink, Sink, VideoSink


def finish(sink: Sink) -> None:
    sink.write(make_frame(), make_result(), np.zeros((48, 64, 3), np.uint8))
    sink.close()


def test_what_sinks_write_is_known_again(tmp_path: Path) -> None:
    for _ in range(2):  # the second time over the first
        finish(VideoSink(tmp_path / "o.mp4", 25))
        finish(JsonSink(tmp_path / "o.jsonl"))
        finish(RleSink(tmp_path / "o.rle.jsonl"))
        finish(MaskSink(tmp_path / "masks"))
    assert all(is_ours(tmp_path / name) for name in ("o.mp4", "o.jsonl", "o.rle.jsonl", "masks"))
    assert cv2.VideoCapture(str(tmp_path / "o.mp4")).read()[0]
    assert cv2.imread(str(tmp_path / "masks/00000.png")) is not None


def test_what_others_write_is_not(tmp_path: Path) -> None:
    png = cv2.imencode(".png", np.zeros((4, 4, 3), np.uint8))[1].tobytes()
    for name, content in {
        "film.mp4": b"\0\0\0\x18ftypmp42" + bytes(100),
        "picture.png": png,
        "package.json": b'{\n  "name": "mine"\n}\n',
        "list.json": b"[1, 2]",
        "deep.json": b"[" * 100_000,
        "notes.txt": b"mine",
    }.items():
        (tmp_path / name).write_bytes(content)
        assert not is_ours(tmp_path / name), name
    (tmp_path / "empty").touch()
    (tmp_path / "figures.json").write_text(json.dumps({"model": "m", "command": "eval"}, indent=2))
    (tmp_path / "marked.png").write_bytes(mark_png(png))
    assert all(is_ours(tmp_path / name) for name in ("empty", "figures.json", "marked.png"))


def test_a_folder_is_ours_if_all_it_holds_is(tmp_path: Path) -> None:
    (tmp_path / "preset").write_text("")
    checkpoint = tmp_path / "checkpoint"
    checkpoint.mkdir()
    assert is_ours(checkpoint), "empty"
    (checkpoint / "config.json").write_text('{"preset": "edge", "backbone": {}}')
    (checkpoint / "model.safetensors").write_bytes(b"weights")
    assert is_ours(checkpoint)
    assert not is_ours(tmp_path), "the folder of a checkpoint is none"
    (checkpoint / "thesis.tex").write_text("mine")
    assert not is_ours(checkpoint)


def test_outputs_among_the_inputs_are_refused(tmp_path: Path) -> None:
    (tmp_path / "runs/a").mkdir(parents=True)
    film = tmp_path / "film.mp4"
    film.touch()
    (tmp_path / "link.mp4").symlink_to(film)
    inputs = [film, tmp_path / "runs/a", "rtsp://camera/", None]
    for output, words in (
        (film, "is the source itself"),
        (tmp_path / "link.mp4", "is the source itself"),
        (tmp_path / "runs/../runs/a", "is the source itself"),
        (tmp_path / "runs", "holds the input .*runs/a"),
        (tmp_path / os.fsdecode(b"\xff.mp4"), "is not UTF-8; rename it"),
    ):
        with pytest.raises(UserError, match=words):
            check_outputs([output], inputs)
    check_outputs([tmp_path / "runs/a/new.json", tmp_path / "other.mp4", None], inputs)
    check_outputs(["/dev/null"], ["/dev/null"])


def test_masks_do_not_replace_pictures(tmp_path: Path) -> None:
    picture = tmp_path / "00000.png"
    cv2.imwrite(str(picture), np.zeros((4, 4, 3), np.uint8))
    with pytest.raises(UserError, match=r"00000\.png exists and is something that rvos-edge did not write"):
        MaskSink(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["00000.png"]
