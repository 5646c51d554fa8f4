"""Kept masks: where they lie, what they hold, and that a video is whole or absent."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rvos_edge.errors import UserError
from rvos_edge.trainer.evaluate.masks import MaskFolder

MASK = np.eye(5, 7) > 0


def test_the_layouts_of_the_server_and_of_the_public_evaluation(tmp_path: Path) -> None:
    folder = MaskFolder(tmp_path / "out")
    for _ in range(2):
        with folder.video("bear") as kept:
            kept.write("annot1/2", "00003", MASK)
            kept.write_objects("annot1", "00003", np.where(MASK, np.uint8(2), np.uint8(0)))
    single = Image.open(tmp_path / "out/Annotations/bear/annot1/2/00003.png")
    assert single.mode == "L"
    assert np.array_equal(np.asarray(single), MASK * 255)
    ids = Image.open(tmp_path / "out/Combined/annot1/bear/00003.png")
    assert ids.mode == "P"
    assert np.array_equal(np.asarray(ids), MASK * 2)


def test_masks_of_a_video_are_complete_or_absent(tmp_path: Path) -> None:
    folder = MaskFolder(tmp_path)
    # What a killed evaluation left behind.
    (tmp_path / "Annotations/.bear.part-1-0123abcd/0").mkdir(parents=True)
    (tmp_path / "Annotations/.bear.part-1-0123abcd/0/stale.png").write_bytes(b"")
    interrupted = folder.video("bear")
    interrupted.__enter__().write("0", "00000", MASK)
    assert interrupted.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None) is False
    assert list((tmp_path / "Annotations").iterdir()) == []


def test_annotations_of_a_data_set_are_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "Annotations/bear/0").mkdir(parents=True)
    Image.fromarray(np.zeros((5, 7), np.uint8)).save(tmp_path / "Annotations/bear/0/00000.png")
    with (
        pytest.raises(UserError, match="bear holds what rvos-edge did not write"),
        MaskFolder(tmp_path).video("bear") as kept,
    ):
        kept.write("0", "00000", MASK)
    assert Image.open(tmp_path / "Annotations/bear/0/00000.png").getextrema() == (0, 0)


@pytest.mark.parametrize("name", ["../up", "/root", "a/../../b", "", "a//b", "a\\b"])
def test_names_do_not_lead_out_of_the_folder(tmp_path: Path, name: str) -> None:
    folder = MaskFolder(tmp_path / "out")
    for video, key, frame in ((name, "0", "0"), ("bear", name, "0"), ("bear", "0", f"../{name}")):
        with pytest.raises(UserError, match="cannot be the name"), folder.video(video) as kept:
            kept.write(key, frame, MASK)
    assert list(tmp_path.rglob("*.png")) == []


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    with pytest.raises(UserError, match="--masks"):
        MaskFolder(tmp_path / "out")
