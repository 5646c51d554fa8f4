"""Tiny data sets on disk, each in its official layout: white boxes on grey."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

HEIGHT, WIDTH = 48, 96
# The boxes of objects 1, 2, ...: rows and columns.
BOXES = ((slice(10, 40), slice(5, 35)), (slice(8, 44), slice(60, 90)))
_PALETTE = [0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0]


def ids(objects: int = 1, size: tuple[int, int] = (HEIGHT, WIDTH)) -> NDArray[np.uint8]:
    """An annotation [H,W]: object n has the value n."""
    values = np.zeros(size, np.uint8)
    for number, box in enumerate(BOXES[:objects], start=1):
        values[box] = number
    return values


def picture(values: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The frame that an annotation belongs to: white objects on grey, BGR."""
    return np.where(values[..., None] > 0, 255, 100).astype(np.uint8).repeat(3, axis=2)


def write_image(path: Path, image: NDArray[np.uint8]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), image, [cv2.IMWRITE_JPEG_QUALITY, 100])


def write_palette(path: Path, values: NDArray[np.uint8]) -> None:
    """A palette PNG, as the official annotations are: its colours are not the ids."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(values)
    image.putpalette(_PALETTE)
    image.save(path)


def cut_off(path: Path, share: float = 0.6) -> None:
    """Damage a file as a broken download does."""
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])


def write_json(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def expressions_json(videos: Mapping[str, Sequence[tuple[str, int]]], names: Sequence[str]) -> dict[str, Any]:
    """The form of Refer-YouTube-VOS: (expression, object id) pairs per video."""
    return {
        "videos": {
            video: {
                "expressions": {str(i): {"exp": said, "obj_id": str(number)} for i, (said, number) in enumerate(pairs)},
                "frames": list(names),
            }
            for video, pairs in videos.items()
        }
    }


def write_youtube_vos(
    root: Path, videos: Mapping[str, Sequence[tuple[str, int]]], *, split: str = "train", frames: int = 3
) -> Path:
    """Every fifth frame, two objects; expressions of "valid" and "test" do not tell the object, nor are there masks."""
    names = [f"{5 * i:05d}" for i in range(frames)]
    for video in videos:
        for name in names:
            write_image(root / split / "JPEGImages" / video / f"{name}.jpg", picture(ids(2)))
            if split == "train":
                write_palette(root / split / "Annotations" / video / f"{name}.png", ids(2))
    content = expressions_json(videos, names)
    if split != "train":
        for entry in content["videos"].values():
            for said in entry["expressions"].values():
                del said["obj_id"]
    write_json(root / "meta_expressions" / split / "meta_expressions.json", content)
    return root


def write_davis17(root: Path, splits: Mapping[str, Sequence[str]], *, frames: int = 2) -> Path:
    """Two objects a video, four text files by two annotators, the second in Latin-1."""
    videos = [video for names in splits.values() for video in names]
    for split, names in splits.items():
        path = root / "ImageSets" / "2017" / f"{split}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{name}\n" for name in names))
    for video in videos:
        for index in range(frames):
            write_image(root / "JPEGImages" / "480p" / video / f"{index:05d}.jpg", picture(ids(2)))
            write_palette(root / "Annotations" / "480p" / video / f"{index:05d}.png", ids(2))
    folder = root / "davis_text_annotations"
    folder.mkdir()
    for annotator, encoding, word in (("annot1", "utf-8", "box"), ("annot2", "latin-1", "caf\xe9 box")):
        for suffix in ("", "_full_video"):
            lines = [
                f'{video} {number} "the {side} {word} of {video}{suffix.replace("_", " ")}"\n'
                for video in videos
                for number, side in ((1, "left"), (2, "right"))
            ]
            (folder / f"Davis17_{annotator}{suffix}.txt").write_text("".join(lines), encoding=encoding)
    return root
