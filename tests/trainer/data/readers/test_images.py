"""One reader for images, masks and sizes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.layouts import write_youtube_vos

from rvos_edge.errors import UserError
from rvos_edge.trainer.data.readers.images import image_files, read_annotation, read_image, read_size
from rvos_edge.trainer.data.readers.youtube_vos import YouTubeVosClips

IDS = np.array([[0, 1, 2], [255, 0, 3]], np.uint8)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_image_mask_and_size_are_turned_alike(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels = np.random.default_rng(0).integers(0, 255, (3, 4, 3), np.uint8).repeat(8, 0).repeat(8, 1)
    Image.fromarray(pixels).save(tmp_path / "a.jpg", exif=exif, quality=95)
    Image.fromarray(pixels[..., 0]).save(tmp_path / "m.webp", exif=exif, lossless=True)
    image = read_image(tmp_path / "a.jpg")
    assert image.shape[:2] == read_size(tmp_path / "a.jpg") == read_annotation(tmp_path / "m.webp").shape[:2]
    from PIL import ImageOps

    with Image.open(tmp_path / "a.jpg") as stored:
        shown = np.asarray(ImageOps.exif_transpose(stored))[..., ::-1]
    assert np.abs(image.astype(int) - shown).max() <= 4
    assert read_image(tmp_path / "a.jpg", turned=False).shape == (24, 32, 3)


@pytest.mark.parametrize("mode", ["P", "L", "I;16", "LA"])
def test_ids_come_out_of_every_kind_of_png(tmp_path: Path, mode: str) -> None:
    if mode == "P":
        image = Image.fromarray(IDS, "P")
        image.putpalette([value for index in range(256) for value in (index, 255 - index, 7)])
    elif mode == "LA":
        image = Image.merge("LA", [Image.fromarray(IDS), Image.fromarray(np.full_like(IDS, 255))])
    else:
        image = Image.fromarray(IDS.astype(np.uint16) if mode == "I;16" else IDS)
    image.save(tmp_path / "m.png")
    np.testing.assert_array_equal(read_annotation(tmp_path / "m.png"), IDS)


def test_alpha_is_no_object_and_what_it_hides_is_none(tmp_path: Path) -> None:
    colours = np.zeros((2, 2, 4), np.uint8)
    colours[0, 0] = 255, 255, 255, 255
    colours[0, 1] = 255, 255, 255, 0
    colours[1, 0] = 0, 0, 0, 255
    Image.fromarray(colours).save(tmp_path / "m.png")
    assert read_annotation(tmp_path / "m.png").any(axis=2).tolist() == [[True, False], [False, False]]


def test_values_above_255_are_refused_and_not_wrapped(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 256]], np.uint16)).save(tmp_path / "m.png")
    with pytest.raises(UserError, match=r"m\.png holds the value 256"):
        read_annotation(tmp_path / "m.png")


def test_names_are_ordered_as_people_count_and_suffixes_are_any(tmp_path: Path) -> None:
    for name in ("10.JPG", "9.jpeg", "100.png", "1.webp", "._9.jpg", "notes.txt"):
        (tmp_path / name).write_bytes(b"")
    assert list(image_files(tmp_path)) == ["1", "9", "10", "100"]


def test_videos_of_other_image_formats(tmp_path: Path) -> None:
    root = write_youtube_vos(tmp_path, {"v1": [("a dog", 1)]})
    folder = root / "train/JPEGImages/v1"
    for path in sorted(folder.iterdir()):
        with Image.open(path) as image:
            image.save(path.with_suffix(".WEBP"), format="WEBP", lossless=True)
        path.unlink()
    clips = YouTubeVosClips(root)
    assert clips.image("v1", 0).shape[:2] == clips.masks("v1", 0).shape[1:]  # type: ignore[union-attr]
