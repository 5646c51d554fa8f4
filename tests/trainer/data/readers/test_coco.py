"""COCO images as clips: masks, sentences that are true, motion that is told."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from pycocotools import mask as mask_utils

from rvos_edge.errors import UserError
from rvos_edge.trainer.data.generate import vocabulary
from rvos_edge.trainer.data.generate.held_out import load_held_out
from rvos_edge.trainer.data.generate.labelled_frame import MOVERS, LabelledFrame, finish
from rvos_edge.trainer.data.generate.templates import Thing, contradictions, describe, dominant_colour
from rvos_edge.trainer.data.readers.coco import CocoDataset
from rvos_edge.trainer.data.readers.coco_file import decode_mask, parse_instance
from rvos_edge.trainer.data.transforms import Augmentation

SIZE, FLOW = (64, 96), (32, 48)
NAMES = {1: "person", 3: "car", 18: "dog", 17: "cat"}


def box(x0: float, y0: float, x1: float, y1: float) -> list[list[float]]:
    return [[x0, y0, x1, y0, x1, y1, x0, y1]]


def annotation(
    image: int, category: int, x0: float, y0: float, x1: float, y1: float, **extra: object
) -> dict[str, object]:
    entry = {"image_id": image, "category_id": category, "iscrowd": 0, "segmentation": box(x0, y0, x1, y1)}
    return entry | {"bbox": [x0, y0, x1 - x0, y1 - y0], "area": (x1 - x0) * (y1 - y0)} | extra


def write_coco(root: Path, annotations: list[dict[str, object]], *, images: int = 1) -> Path:
    (root / "images").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for index in range(images):
        picture = rng.integers(90, 110, (64, 96, 3), dtype=np.uint8)
        cv2.imwrite(str(root / "images" / f"{index}.jpg"), picture)
    data = {
        "images": [{"id": i, "file_name": f"{i}.jpg", "width": 96, "height": 64} for i in range(images)],
        "annotations": [{"id": i} | entry for i, entry in enumerate(annotations)],
        "categories": [{"id": i, "name": name, "supercategory": "x"} for i, name in NAMES.items()],
    }
    (root / "instances.json").write_text(json.dumps(data))
    return root


def dataset(root: Path) -> CocoDataset:
    return CocoDataset(root, size=SIZE, flow_size=FLOW, augmentation=Augmentation.none())


def thing(x0: int, x1: int, category: str = "dog", height: int = 20, **facts: object) -> Thing:
    mask = np.zeros((100, 200), bool)
    mask[40 : 40 + height, x0:x1] = True
    return Thing(mask=mask, category=category, **facts)  # type: ignore[arg-type]


def said(things: list[Thing], tries: int = 60, **options: object) -> dict[str, int]:
    """Every wording that comes up, with the area of its mask."""
    out = {}
    for seed in range(tries):
        for sentence, mask in describe(things, rng=np.random.default_rng(seed), **options):  # type: ignore[arg-type]
            out[sentence] = int(mask.sum())
    return out


def test_polygons_become_masks_and_categories_become_sentences(tmp_path: Path) -> None:
    data = dataset(write_coco(tmp_path, [annotation(0, 18, 10, 10, 40, 50), annotation(0, 3, 60, 10, 90, 50)]))
    sample = data.draw(np.random.default_rng(1))
    pairs = dict(zip(sample.expressions, sample.masks, strict=True))
    dogs = [mask for sentence, mask in pairs.items() if mask.any() and "dog" in sentence]
    assert dogs[0].sum() == pytest.approx(30 * 40, rel=0.08)
    assert dogs[0][30, 25]
    assert any(not mask.any() for mask in pairs.values())
    assert not any("dog" in s or "truck" in s for s, m in pairs.items() if not m.any() and "on the" not in s
                   and "moving" not in s)  # fmt: skip


def test_two_of_a_kind_are_told_apart_by_place_or_named_together() -> None:
    left, right = thing(10, 40), thing(140, 190, height=45)
    sentences = said([left, right])
    assert sentences["the dog on the left"] == left.area
    assert sentences["the rightmost dog"] == right.area
    assert sentences["the biggest dog"] == right.area
    assert sentences["all the dogs"] == left.area + right.area
    assert not {"the dog", "a dog"} & sentences.keys()


def test_close_ones_get_no_place_and_uncertain_ones_no_smallest() -> None:
    assert not any("left" in s for s in said([thing(80, 100), thing(95, 115)]))
    assert not any("small" in s or "left" in s for s in said([thing(10, 20), thing(140, 190)], uncertain=["dog"]))


def test_motion_words_follow_the_motion() -> None:
    things = [thing(10, 40, motion=(-4.0, 0.0)), thing(140, 170, motion=(0.0, 0.0))]
    sentences = said(things)
    assert sentences["the dog moving to the left"] == things[0].area
    assert "the dog moving to the right" not in sentences
    assert {sentences[s] for s in ("the dog running", "a dog walking")} == {things[0].area}
    assert not any("running" in s for s in said([*things, thing(80, 110, motion=(3.0, 0.0))]))
    wrong = {s for seed in range(40) for s in contradictions([things[0]], rng=np.random.default_rng(seed))}
    assert "the dog moving to the right" in wrong
    assert "the dog moving to the left" not in wrong


def test_what_follows_a_thing_names_no_other() -> None:
    words = {*vocabulary.SURROUNDINGS, *vocabulary.RELATIONS}.union(
        *(vocabulary.actions(c) for c in vocabulary.COCO_CATEGORIES)
    )
    assert {word for word in words if vocabulary.concepts(f"a dog {word}") != {"dog"}} == set()
    assert vocabulary.actions("cup") == ()
    things = [thing(10, 40, category="bird"), thing(140, 190, category="cup", height=45)]
    sentences = said(things, tries=200, tails=True)
    told = {s: area for s, area in sentences.items() if s.split()[-1] in vocabulary.SURROUNDINGS}
    assert {area for s, area in told.items() if "bird" in s} == {30 * 20}
    assert {area for s, area in told.items() if "cup" in s} == {50 * 45}
    assert any(" flying" in s for s in sentences)
    assert not any(" flying" in s or "grass" in s for s in said(things, tries=200)), "judging asks plainly"


def _filmed(things: list[Thing], *moved: float) -> LabelledFrame:
    """Things moving to the right by so many pixels per frame, under a camera that pans."""
    flow = np.full((*FLOW, 2), (3.0, 1.0), np.float32)
    for one, speed in zip(things, moved, strict=True):
        share = cv2.resize(one.mask.astype(np.float32), FLOW[::-1], interpolation=cv2.INTER_AREA)
        flow -= np.stack([share * speed, 0 * share], axis=-1)
    return LabelledFrame(image=np.zeros((*things[0].mask.shape, 3), np.uint8), flow=flow, things=things)


@pytest.mark.parametrize(
    ("speeds", "mover"),
    [((6.0, 0.0), 0), ((0.0, 6.0), 1), ((0.0, 0.0), None), ((1.0, 0.0), None), ((6.0, 3.0), None), ((6.0, 1.0), 0)],
)
def test_the_only_thing_that_moves_can_be_asked_for(speeds: tuple[float, float], mover: int | None) -> None:
    things = [thing(10, 60, height=40), thing(120, 190, category="cat", height=40)]
    sample = finish(_filmed(things, *speeds), np.random.default_rng(0), Augmentation.none())
    asked = {s: m for s, m in zip(sample.expressions, sample.masks, strict=True) if s in MOVERS}
    assert len(asked) == (mover is not None)
    assert all(np.array_equal(mask, things[mover or 0].mask) for mask in asked.values())


def test_a_rider_and_what_carries_it_can_be_asked_for_as_one() -> None:
    bike = thing(60, 100, "bicycle", height=30)
    rider = Thing(mask=np.roll(thing(70, 90, height=35).mask, -20, axis=0), category="person")
    both = int((bike.mask | rider.mask).sum())
    named = {s: area for s, area in said([bike, rider]).items() if "person" in s or "rider" in s}
    assert named["a person riding a bike and a bike"] == named["a rider on a bicycle"] == both
    assert named["the person"] == rider.area
    parked = thing(120, 160, "bicycle", height=30)
    assert said([bike, rider, parked])["a person riding a bicycle"] == both
    second = replace(rider, mask=np.roll(rider.mask, 60, axis=1))
    assert not any("rid" in sentence for sentence in said([bike, rider, parked, second])), "which of the two?"


@pytest.mark.parametrize(
    "others",
    [
        [thing(40, 59, "person", height=35)],  # stands beside it on the same ground
        [thing(120, 140, "person", height=10)],  # nowhere near it
        [thing(62, 70, "person", height=5), thing(90, 98, "person", height=5)],  # two at once
    ],
)
def test_whoever_does_not_ride_is_not_said_to(others: list[Thing]) -> None:
    assert not any("rid" in sentence for sentence in said([thing(60, 100, "bicycle", height=30), *others]))


def test_a_colour_must_be_clear() -> None:
    mask = np.ones((40, 40), bool)
    red = np.full((40, 40, 3), (220, 10, 10), np.uint8)
    mixed = red.copy()
    mixed[:, 20:] = (10, 10, 220)
    assert dominant_colour(red, mask, "car") == "red"
    assert dominant_colour(mixed, mask, "car") is None
    assert dominant_colour(red, mask, "person") is None


def test_crowds_and_tiny_things_are_ignored(tmp_path: Path) -> None:
    crowd = {"counts": [0, 64 * 10, 64 * 86], "size": [64, 96]}
    entries = [annotation(0, 1, 0, 0, 10, 64, segmentation=crowd, iscrowd=1), annotation(0, 1, 50, 10, 80, 50)]
    entries += [annotation(0, 18, 20, 20, 24, 23), annotation(0, 17, 20, 30, 40, 60)]
    sample = dataset(write_coco(tmp_path, entries)).draw(np.random.default_rng(0))
    assert sample.ignore is not None
    assert sample.ignore[5, 5]
    assert sample.ignore[30, 60], "no sentence about people: only some of them are annotated"
    assert sample.ignore[21, 22]
    present = [s for s, mask in zip(sample.expressions, sample.masks, strict=True) if mask.any()]
    assert present
    assert all("cat" in s or "animal" in s for s in present)


@pytest.mark.parametrize("compressed", [False, True])
def test_run_lengths(compressed: bool) -> None:
    truth = np.zeros((6, 9), np.uint8)
    truth[1:4, 2:7] = 1
    rle = mask_utils.encode(np.asfortranarray(truth))
    plain = {"size": [6, 9], "counts": [13, 3, 3, 3, 3, 3, 3, 3, 3, 3, 14]}
    segmentation = {"size": [6, 9], "counts": rle["counts"].decode()} if compressed else plain
    instance = parse_instance(annotation(0, 18, 2, 1, 7, 4, segmentation=segmentation), "dog")
    assert np.array_equal(instance.mask((6, 9)), truth.astype(bool))
    with pytest.raises(UserError, match="run-length"):
        decode_mask(rle, (9, 6))


def test_an_object_in_several_parts_is_one_mask() -> None:
    parts = [*box(0, 0, 4, 4), *box(6, 0, 10, 4)]
    instance = parse_instance(annotation(0, 18, 0, 0, 10, 4, segmentation=parts), "dog")
    mask = instance.mask((8, 12))
    assert mask[2, 2]
    assert mask[2, 8]
    assert not mask[2, 5]


@pytest.mark.parametrize(
    ("negative", "lone_only", "absent"),
    [
        (None, False, {"person", "car", "cat"}),  # the file's categories
        ([17], False, {"cat"}),  # what the image lists, as in LVIS
        ([], False, set()),
        (None, True, set()),  # annotated for this object alone
    ],
)
def test_what_is_absent_comes_from_the_file(
    tmp_path: Path, negative: list[int] | None, lone_only: bool, absent: set[str]
) -> None:
    root = write_coco(tmp_path, [annotation(0, 18, 10, 10, 60, 60)])
    content = json.loads((root / "instances.json").read_text())
    if negative is not None:
        content["images"][0]["neg_category_ids"] = negative
    (root / "instances.json").write_text(json.dumps(content))
    data = CocoDataset(root, size=SIZE, flow_size=FLOW, augmentation=Augmentation.none(), lone_only=lone_only)
    assert data.pictures[0].absent == absent
    for seed in range(20):
        sample = data.draw(np.random.default_rng(seed))
        said = [s for s, mask in zip(sample.expressions, sample.masks, strict=True) if not mask.any()]
        words = {category for sentence in said for category in vocabulary.concepts(sentence)}
        assert words - {"dog"} <= absent | {"truck"}, "'a car' speaks of trucks too"


def test_narrower_names_and_captions_are_said(tmp_path: Path) -> None:
    root = write_coco(tmp_path, [annotation(0, 18, 10, 10, 40, 50), annotation(0, 1, 60, 10, 90, 50)])
    data = CocoDataset(
        root,
        size=SIZE,
        flow_size=FLOW,
        augmentation=Augmentation.none(),
        names={0: ("collie", "shepherd dog"), 1: ("pug",)},
        captions={"0.jpg": ["A woman on a hill."]},
        held_out=load_held_out(),
    )
    said = {}
    for seed in range(60):
        sample = data.draw(np.random.default_rng(seed))
        said |= {s: m for s, m in zip(sample.expressions, sample.masks, strict=True) if m.any()}
    assert any("collie" in sentence and mask[30, 25] for sentence, mask in said.items())
    assert said["a woman on a hill"][30, 75]
    assert not any("pug" in sentence for sentence in said), "held out"


def test_moving_things_move_against_the_flow(tmp_path: Path) -> None:
    data = dataset(write_coco(tmp_path, [annotation(0, 18, 30, 20, 60, 50), annotation(0, 3, 70, 5, 90, 15)]))
    checked = 0
    for seed in range(30):
        scene = data.scene(np.random.default_rng(seed))
        dog = next(t for t in scene.things if t.category == "dog")
        if dog.motion is None or abs(dog.motion[0]) < 2:
            continue
        inside, outside = scene.flow[17, 22, 0], scene.flow[17, 8, 0]
        checked += 1
        assert np.sign(outside - inside) == np.sign(dog.motion[0])
    assert checked


def test_damage_is_named(tmp_path: Path) -> None:
    root = write_coco(tmp_path / "a", [annotation(0, 18, 10, 10, 40, 50)])
    (root / "images" / "0.jpg").write_bytes(b"no jpeg")
    with pytest.raises(UserError, match=r"0\.jpg.*damaged"):
        dataset(root).draw(np.random.default_rng(0))
    (root / "instances.json").write_text("[]")
    with pytest.raises(UserError, match="not a COCO instances file"):
        dataset(root)
    with pytest.raises(UserError, match="does not exist"):
        dataset(tmp_path / "b")


def test_real_pictures_give_present_and_absent_pairs(shared: Path) -> None:
    data = CocoDataset(shared / "data" / "coco-small", size=(96, 160), flow_size=(48, 80))
    filled = [data.draw(np.random.default_rng(seed)).masks.any(axis=(1, 2)) for seed in range(12)]
    assert sum(row.any() for row in filled) >= 10
    assert all((~row).any() for row in filled)
