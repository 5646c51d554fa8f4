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


def write_davis16(root: Path, sentences: Mapping[str, Sequence[str]], *, frames: int = 4) -> Path:
    """One white box a video, described by sentences, without the official lists."""
    names = [f"{index:05d}" for index in range(frames)]
    for video in sentences:
        for name in names:
            write_image(root / "JPEGImages" / "480p" / video / f"{name}.jpg", picture(ids()))
            write_image(root / "Annotations" / "480p" / video / f"{name}.png", ids() * np.uint8(255))
    said = {video: [(sentence, 1) for sentence in some] for video, some in sentences.items()}
    write_json(root / "meta_expressions.json", expressions_json(said, names))
    return root


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


def write_video(path: Path, frames: Sequence[NDArray[np.uint8]]) -> None:
    """An mp4 of BGR frames whose sides are even."""
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width = frames[0].shape[:2]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 25, (width, height))
    for frame in frames:
        writer.write(frame)
    writer.release()


def write_instances(path: Path, instances: Mapping[int, NDArray[np.bool_]]) -> None:
    """The HDF5 of an annotated A2D frame, as MATLAB writes it: columns first, no axis for a single instance."""
    import h5py

    path.parent.mkdir(parents=True, exist_ok=True)
    masks = np.stack([mask.T for mask in instances.values()]).astype(np.uint8)
    with h5py.File(path, "w") as file:
        file["instance"] = np.array(list(instances), np.float64)
        file["reMask"] = masks[0] if len(masks) == 1 else masks


def write_a2d(root: Path, *, pngs: bool = False, frames: int = 6) -> Path:
    """Two training videos and a test video; frames 2 and 5 are annotated, the first video has two instances."""
    usage = {"train_a-1": 0, "train_b": 0, "test_c": 1, "missed_d": 0}
    sentences = ["video_id,instance_id,query"]
    for video in usage:
        shots = [picture(ids(2)) // (1 + i) for i in range(frames)]
        if pngs:
            for i, shot in enumerate(shots):
                write_image(root / "Release" / "pngs320H" / video / f"{i + 1:05d}.png", shot)
        else:
            write_video(root / "Release" / "clips320H" / f"{video}.mp4", shots)
        if video == "missed_d":
            continue
        both = {0: ids(2) == 1, 1: ids(2) == 2}
        first = {0: both[0]}
        folder = root / "text_annotations" / "a2d_annotation_with_instances" / video
        write_instances(folder / "00002.h5", both if video == "train_a-1" else first)
        write_instances(folder / "00005.h5", first)
        sentences.append(f"{video},0,A white Box  is standing on the left")
        if video == "train_a-1":
            sentences += [f"{video},1,box rolling", f"{video},1 (copy),box rolling"]
    rows = [f"{video},11,0:00,0:05,{HEIGHT},{WIDTH},{frames},2,{use}" for video, use in usage.items()]
    (root / "Release" / "videoset.csv").write_text("\n".join(rows) + "\n")
    text = root / "text_annotations"
    (text / "a2d_annotation.txt").write_text("\n".join(sentences) + "\n")
    (text / "a2d_missed_videos.txt").write_text("missed_d\n")
    return root


def write_jhmdb(root: Path, *, frames: int = 4, masks: int = 3) -> Path:
    """Two videos of two actions; the last frame has no mask."""
    from scipy.io import savemat

    lines = ["video_id,query"]
    for action, video in (("catch", "ball_catch_1"), ("wave", "wave_2")):
        for index in range(frames):
            write_image(root / "Rename_Images" / action / video / f"{index + 1:05d}.png", picture(ids(1)))
        (root / "Rename_Images" / action / ".AppleDouble").mkdir()
        path = root / "puppet_mask" / action / video / "puppet_mask.mat"
        path.parent.mkdir(parents=True)
        savemat(path, {"part_mask": np.stack([ids(1)] * masks, axis=-1)})
        lines.append(f"{video},A man  doing a {action}")
    (root / "jhmdb_annotation.txt").write_text("\n".join(lines) + "\n")
    return root


def write_refcoco(root: Path) -> Path:
    """Two images with two boxes each; RefCOCO's list of references as JSON."""
    annotations, references = [], []
    for image in (7, 8):
        write_image(root / "images" / f"COCO_train2014_{image:012d}.jpg", picture(ids(2)))
        for number, (rows, columns) in enumerate(BOXES):
            x0, y0, x1, y1 = columns.start, rows.start, columns.stop, rows.stop
            key = 100 * image + number
            polygon = [x0, y0, x1, y0, x1, y1, x0, y1]
            facts = {"segmentation": [polygon], "bbox": [x0, y0, x1 - x0, y1 - y0], "area": (x1 - x0) * (y1 - y0)}
            annotations.append({"id": key, "image_id": image, "category_id": 1, "iscrowd": 0} | facts)
            side = ("left", "right")[number]
            said = [{"sent": f"Box on the {side}", "raw": f"Box on the {side}!"}, {"raw": f"{side}  box"}]
            reference = {"ref_id": key + 1, "ann_id": key, "image_id": image, "split": "train" if image == 7 else "val"}
            references.append(reference | {"sentences": said})
    images = [
        {"id": image, "file_name": f"COCO_train2014_{image:012d}.jpg", "height": HEIGHT, "width": WIDTH}
        for image in (7, 8)
    ]
    categories = [{"id": 1, "name": "suitcase", "supercategory": "accessory"}]
    write_json(root / "instances.json", {"images": images, "annotations": annotations, "categories": categories})
    write_json(root / "refs.json", references)
    return root


def write_mevis(root: Path) -> Path:
    """MeViS: a video of two frames in each split; the server keeps the masks of `valid`."""
    for split in ("train", "valid_u", "valid"):
        _write_mevis_split(root, split)
    return root


def _write_mevis_split(root: Path, split: str) -> None:
    from pycocotools import mask as mask_utils

    objects = ids(2)
    rles: dict[str, Any] = {}
    for number in (1, 2):
        coded = mask_utils.encode(np.asfortranarray(objects == number, dtype=np.uint8))
        rles[str(number + 6)] = [{"size": coded["size"], "counts": coded["counts"].decode()}, None]
    said = {
        "0": {"exp": "The two that   move", "obj_id": [0, 1], "anno_id": [7, 8]},
        "1": {"exp": "the left one", "obj_id": [0], "anno_id": [7]},
        "2": {"exp": "both", "obj_id": [0, 1], "anno_id": [7, 8]},
    }
    if split == "valid":
        said = {key: {"exp": item["exp"]} for key, item in said.items()}
    frames = ["00000", "00001"]
    for name in frames:
        write_image(root / split / "JPEGImages/v1" / f"{name}.jpg", picture(objects))
    document = {"videos": {"v1": {"vid_id": 0, "expressions": said, "frames": frames}}}
    (root / split / "meta_expressions.json").write_text(json.dumps(document))
    if split != "valid":
        (root / split / "mask_dict.json").write_text(json.dumps(rles))
