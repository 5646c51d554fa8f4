"""DAVIS frames with referring expressions."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest

from rvos_edge.errors import UserError
from rvos_edge.trainer.data.clips_dataset import ClipsDataset
from rvos_edge.trainer.data.flow_cache import FlowCache, FlowKey
from rvos_edge.trainer.data.generate import vocabulary
from rvos_edge.trainer.data.generate.templates import flip_words, place_holds
from rvos_edge.trainer.data.readers.davis16 import SCENERY, VALIDATION_VIDEOS, Davis16Clips
from rvos_edge.trainer.data.transforms import Augmentation

SIZE, FLOW = (32, 64), (16, 32)
NONE = Augmentation.none()


def write_davis(root: Path, videos: dict[str, list[str]], *, frames: int = 2) -> Path:
    """The official layout in small: a white box on gray at the left of every frame."""
    expressions = {}
    for video, sentences in videos.items():
        for kind in ("JPEGImages", "Annotations"):
            (root / kind / "480p" / video).mkdir(parents=True)
        for index in range(frames):
            mask = np.zeros((48, 96), np.uint8)
            mask[10:40, 5:35] = 255
            image = np.where(mask[..., None] > 0, 255, 100).astype(np.uint8).repeat(3, axis=2)
            cv2.imwrite(str(root / "JPEGImages" / "480p" / video / f"{index:05d}.jpg"), image)
            cv2.imwrite(str(root / "Annotations" / "480p" / video / f"{index:05d}.png"), mask)
        said = {str(i): {"exp": s, "obj_id": "1"} for i, s in enumerate(sentences)}
        expressions[video] = {"expressions": said, "frames": [f"{i:05d}" for i in range(frames)]}
    (root / "meta_expressions.json").write_text(json.dumps({"videos": expressions}))
    return root


def samples(
    root: Path,
    *,
    split: str = "all",
    videos: Sequence[str] | None = None,
    flow: FlowCache | None = None,
    augmentation: Augmentation = NONE,
) -> ClipsDataset:
    clips = Davis16Clips(root, split=split, videos=videos)
    return ClipsDataset(clips, size=SIZE, flow_size=FLOW, flow=flow, scenery=SCENERY, augmentation=augmentation)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    videos = {"poodle": ["a dog on the left"], "rider": ["a man on a bike"], "walker": ["a woman walking"]}
    return write_davis(tmp_path, videos)


def test_a_sample_holds_the_videos_object_and_other_videos_sentences_without_a_mask(root: Path) -> None:
    data = samples(root, videos=["poodle", "rider"])
    seen = set()
    for seed in range(12):
        sample = data.draw(np.random.default_rng(seed))
        assert sample.image.shape == (*SIZE, 3)
        assert sample.flow.shape == (*FLOW, 2)
        assert sample.masks.shape == (len(sample.expressions), *SIZE)
        for sentence, mask in zip(sample.expressions, sample.masks, strict=True):
            if mask.any():
                seen.add(sentence)
                assert mask[10, 10]
                assert not mask[:, 40:].any()
    assert seen == {"a dog on the left", "a man on a bike"}


def test_a_person_is_never_absent_from_a_video_with_a_person(root: Path) -> None:
    data = samples(root)
    for seed in range(40):
        sample = data.draw(np.random.default_rng(seed))
        present = {s for s, mask in zip(sample.expressions, sample.masks, strict=True) if mask.any()}
        absent = set(sample.expressions) - present
        if present & {"a man on a bike", "a woman walking"}:
            assert not any("person" in vocabulary.concepts(sentence) for sentence in absent)


def test_mirrored_samples_swap_left_and_right(root: Path) -> None:
    flips = Augmentation(zoom=(1, 1), stretch=1, letterbox=0, flip=1, colour=0, blur=0, noise=0, jpeg=0)
    data = samples(root, videos=["poodle"], augmentation=flips)
    sample = data.draw(np.random.default_rng(0))
    index = sample.expressions.index("a dog on the right")
    assert sample.masks[index][:, 40:].any()
    assert flip_words("the leftmost dog moving to the right") == "the rightmost dog moving to the left"


def test_a_place_that_does_not_hold_is_noticed() -> None:
    mask = np.zeros((10, 20), bool)
    mask[2:4, 15:18] = True
    assert place_holds("the dog on the right", mask)
    assert not place_holds("the dog on the left", mask)
    assert place_holds("a dog moving to the left", mask), "a direction is no place"


def test_stored_flow_is_scaled_to_the_samples_pixels(root: Path, tmp_path: Path) -> None:
    store = FlowCache(tmp_path / "flow", key=FlowKey(checkpoint="c", size=(16, 32), scale=1, iterations=1))
    frames = sorted((root / "JPEGImages/480p/poodle").glob("*.jpg"))
    field = np.broadcast_to(np.float32([3, 1])[:, None, None], (2, 8, 16))
    store.write("poodle", frames, (field * (i > 0) for i in range(len(frames))))
    data = samples(root, videos=["poodle"], flow=store)
    flows = [data.draw(np.random.default_rng(seed)).flow[5, 5].tolist() for seed in range(8)]
    assert [0.0, 0.0] in flows, "the first frame"
    assert [6.0, 2.0] in flows, "the second"


def test_what_is_missing_or_wrong_is_named(root: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        samples(root / "nowhere")
    with pytest.raises(UserError, match="zebra"):
        samples(root, videos=["zebra"])
    (root / "JPEGImages/480p/walker").rename(root / "elsewhere")
    with pytest.raises(UserError, match=r"name 1 of 3 videos that .*480p does not have \(walker\)"):
        samples(root)
    mask = root / "Annotations/480p/rider/00001.png"
    cv2.imwrite(str(mask), np.zeros((4, 4), np.uint8))
    data = samples(root, videos=["rider"])
    with pytest.raises(UserError, match=r"rider/00001\.png is \(4, 4\)"):
        data.load("rider", 1)
    mask.unlink()
    with pytest.raises(UserError, match=r"no mask .*00001\.png"):
        samples(root, videos=["rider"])
    image = root / "JPEGImages/480p/poodle/00000.jpg"
    image.write_bytes(image.read_bytes()[:40])
    with pytest.raises(UserError, match=r"00000\.jpg.*damaged"):
        samples(root, videos=["poodle"]).load("poodle", 0)


def test_official_lists_decide_the_split_where_they_are(root: Path) -> None:
    said = {video: Davis16Clips(root, split="all").queries(video)[0].object_id for video in ("poodle", "rider")}
    assert said == {"poodle": None, "rider": None}, "the whole foreground"
    assert Davis16Clips(root, split="train").videos == ("poodle", "rider", "walker"), "none is of our validation split"
    lists = root / "ImageSets" / "480p"
    lists.mkdir(parents=True)
    line = "/JPEGImages/480p/walker/0000{0}.jpg /Annotations/480p/walker/0000{0}.png \n"
    (lists / "val.txt").write_text("".join(line.format(i) for i in range(2)))
    assert Davis16Clips(root, split="val").videos == ("walker",)
    assert Davis16Clips(root, split="train").videos == ("poodle", "rider")
    (lists / "train.txt").write_text("poodle\n")
    assert Davis16Clips(root, split="train").videos == ("poodle",)
    with pytest.raises(UserError, match="'test' is not a split"):
        Davis16Clips(root, split="test")


def test_text_files_are_read_too(root: Path) -> None:
    (root / "meta_expressions.json").unlink()
    (root / "davis_text_annotations").mkdir()
    (root / "davis_text_annotations" / "Davis16_annot1.txt").write_text('poodle 1 "A dog"\n')
    (query,) = Davis16Clips(root, split="all").queries("poodle")
    assert (query.key, query.expression, query.object_id) == ("annot1/1", "a dog", None)


def test_the_real_data_set_splits_24_to_6(shared: Path) -> None:
    root = shared / "data" / "davis2016-train"
    train = samples(root, split="train", augmentation=Augmentation())
    held_out = samples(root, split="val")
    assert len(train.videos) == 24
    assert set(held_out.videos) == set(VALIDATION_VIDEOS)
    assert not set(train.videos) & set(held_out.videos)
    sample = train.draw(np.random.default_rng(3))
    assert len(sample.expressions) >= 7
