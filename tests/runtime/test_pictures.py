"""Pictures of many kinds become the same frame."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from support.tiny_bundle import write_tiny_bundle

import rvos_edge
from rvos_edge.errors import UserError
from rvos_edge.pictures import as_frame

FRAME = np.random.default_rng(1).integers(0, 255, (48, 80, 3), np.uint8)
"""BGR."""


def test_a_frame_is_not_copied() -> None:
    assert as_frame(FRAME) is FRAME


def test_arrays() -> None:
    rgb = np.ascontiguousarray(FRAME[..., ::-1])
    assert (as_frame(rgb, "rgb") == FRAME).all()
    assert (as_frame(np.dstack([FRAME, FRAME[..., 0]])) == FRAME).all()
    assert (as_frame(np.dstack([rgb, FRAME[..., 0]]), "rgb") == FRAME).all()
    for grey in (FRAME[..., 0], FRAME[..., :1]):
        assert (as_frame(grey) == FRAME[..., :1]).all()


def test_files(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), FRAME)
    for path in (tmp_path / "a.png", str(tmp_path / "a.png")):
        assert (as_frame(path) == FRAME).all()
    (tmp_path / "b.png").write_text("no picture")
    for name in ("b.png", "missing.png"):
        with pytest.raises(UserError, match=rf"{name} cannot be read as a picture"):
            as_frame(tmp_path / name)


def test_pil() -> None:
    module = pytest.importorskip("PIL.Image", reason="needs the extra 'train'")
    picture = module.fromarray(FRAME[..., ::-1])
    assert (as_frame(picture) == FRAME).all()
    picture.putalpha(128)
    assert (as_frame(picture) == FRAME).all()
    grey = module.fromarray(FRAME[..., 0])
    assert (as_frame(grey) == FRAME[..., :1]).all()


def test_tensors() -> None:
    torch = pytest.importorskip("torch", reason="needs the extra 'train'")
    tensor = torch.from_numpy(FRAME[..., ::-1].transpose(2, 0, 1).copy())
    for picture in (tensor, tensor[None], tensor / 255):
        assert (as_frame(picture) == FRAME).all()
    assert (as_frame(tensor[2:]) == FRAME[..., :1]).all()
    with pytest.raises(UserError, match=r"not \[2, 3, 48, 80\]"):
        as_frame(torch.stack([tensor, tensor]))


@pytest.mark.parametrize(
    ("picture", "words"),
    [
        (FRAME.astype(np.float32), "not float32 of shape"),
        (FRAME[..., :2], r"of shape \[48, 80, 2\]"),
        (FRAME[:0], r"of shape \[0, 80, 3\]"),
        (None, "not NoneType"),
        ([[1, 2]], "not list"),
    ],
)
def test_what_is_no_picture(picture: Any, words: str) -> None:
    with pytest.raises(UserError, match=words):
        as_frame(picture)
    with pytest.raises(UserError, match="color 'hsv' is unknown"):
        as_frame(FRAME, "hsv")


def test_calling_segments_a_picture_by_itself_and_with_closes(tmp_path: Path) -> None:
    with rvos_edge.open(write_tiny_bundle(tmp_path / "tiny", presence=True), threads=1) as segment:
        segment.set_queries("the red ball")
        segment.step(FRAME)
        alone = segment(FRAME[..., ::-1], color="rgb")
        assert alone.index == 0
        assert alone.image is not None
        assert (alone.image == FRAME).all()
        assert alone == segment(FRAME) == segment.step(FRAME)
    with pytest.raises(UserError, match="the segmenter is closed"):
        segment.step(FRAME)
