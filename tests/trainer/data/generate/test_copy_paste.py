"""Pasted objects: several candidates in one frame, and a mixture that repeats itself exactly."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from rvos_edge.errors import UserError
from rvos_edge.trainer.data.clips_dataset import ClipsDataset
from rvos_edge.trainer.data.generate.copy_paste import ComposedDataset
from rvos_edge.trainer.data.generate.templates import describe
from rvos_edge.trainer.data.mixture import MixtureDataset
from rvos_edge.trainer.data.readers.coco import CocoDataset
from rvos_edge.trainer.data.readers.davis16 import SCENERY, Davis16Clips
from rvos_edge.trainer.data.sample import IGNORE, Sample, arrange, collate
from rvos_edge.trainer.data.transforms import Augmentation

SIZE, FLOW = (96, 160), (48, 80)


class Flat:
    """A data set of plain frames: the first pair is present, the second absent."""

    def __init__(self, name: str) -> None:
        self.name = name

    def draw(self, rng: np.random.Generator) -> Sample:
        masks = np.zeros((3, 8, 8), bool)
        masks[0, :2], masks[1, 4:] = True, True
        image = np.full((8, 8, 3), int(rng.integers(255)), np.uint8)
        ignore = np.zeros((8, 8), bool)
        ignore[3] = True
        names = (f"{self.name} 0", f"{self.name} 1", f"no {self.name}")
        return Sample(image, np.zeros((4, 4, 2), np.float32), masks, names, ignore)


@pytest.fixture(scope="module")
def composed(shared: Path) -> ComposedDataset:
    plain = Augmentation.none()
    coco = CocoDataset(shared / "data" / "coco-small", size=SIZE, flow_size=FLOW, augmentation=plain, lone_only=True)
    clips = Davis16Clips(shared / "data" / "davis2016-train", split="train")
    davis = ClipsDataset(clips, size=SIZE, flow_size=FLOW, scenery=SCENERY, augmentation=plain)
    return ComposedDataset(coco=coco, davis=davis)


def test_pasted_things_do_not_overlap_and_keep_most_of_themselves(composed: ComposedDataset) -> None:
    several = 0
    for seed in range(15):
        scene = composed.scene(np.random.default_rng(seed))
        assert scene.image.shape == (*SIZE, 3)
        assert scene.flow.shape == (*FLOW, 2)
        pasted = [t for t in scene.things if t.motion is not None and t.category]
        several += len(scene.things) > 1
        for thing in pasted:
            assert thing.mask.any()
    assert several >= 8


def test_pasted_things_show_their_motion_in_the_flow(composed: ComposedDataset) -> None:
    # DAVIS frames without stored flow: whatever the flow shows was pasted.
    still = ComposedDataset(coco=composed.coco, davis=composed.davis, davis_backgrounds=1.0)
    checked = 0
    for seed in range(30):
        scene = still.scene(np.random.default_rng(seed))
        last = scene.things[-1]
        if last.motion is None or last.area < 600:
            continue
        small = cv2.resize(last.mask.astype(np.uint8), FLOW[::-1], interpolation=cv2.INTER_NEAREST)
        core = cv2.erode(small, np.ones((7, 7), np.uint8)).astype(bool)
        if core.sum() > 20:
            assert np.median(scene.flow[core][:, 0]) == pytest.approx(-last.motion[0], rel=0.2, abs=0.1)
            checked += last.motion[0] != 0
    assert checked >= 3


def test_people_are_set_on_what_can_be_ridden(composed: ComposedDataset) -> None:
    sentences: set[str] = set()
    for seed in range(60):
        scene = composed.scene(np.random.default_rng(seed))
        for sentence, mask in describe(scene.things, uncertain=scene.uncertain, rng=np.random.default_rng(seed)):
            if sentence.startswith("a person riding"):
                sentences.add(sentence)
                # One foreground: no more than specks lie apart from the rest.
                _, _, stats, _ = cv2.connectedComponentsWithStats(mask.view(np.uint8))
                assert stats[1:, cv2.CC_STAT_AREA].max() > 0.5 * mask.sum()
    assert len(sentences) >= 2


@pytest.mark.slow
def test_riders_come_as_often_as_asked_for(composed: ComposedDataset) -> None:
    def riders(share: float) -> int:
        asked = ComposedDataset(coco=composed.coco, davis=composed.davis, riders=share)
        chosen = [asked._choose(rng := np.random.default_rng(seed), asked.coco.scene(rng)) for seed in range(80)]
        return sum(cut.rider is not None for cuts in chosen for cut in cuts)

    assert riders(0.8) > 1.5 * riders(0.1)


def test_a_data_set_without_whole_objects_is_refused(tmp_path: Path) -> None:
    from trainer.data.readers.test_coco import annotation, write_coco  # the fixture of the COCO tests

    root = write_coco(tmp_path, [annotation(0, 18, 0, 0, 96, 64), annotation(0, 17, 0, 0, 9, 9)])
    with pytest.raises(UserError, match="no whole object"):
        ComposedDataset(coco=CocoDataset(root, size=SIZE, flow_size=FLOW))


def test_arrange_prefers_different_objects_and_fills_up() -> None:
    sample = Flat("dog").draw(np.random.default_rng(0))
    two = arrange(sample, 2, np.random.default_rng(0), absent_share=1e-9)
    assert sorted(two.expressions) == ["dog 0", "dog 1"]
    five = arrange(sample, 5, np.random.default_rng(0))
    assert len(five.expressions) == 5
    assert set(five.expressions) == set(sample.expressions)
    spare = arrange(sample, 2, np.random.default_rng(0), absent_share=1e-9, spare=3)
    assert spare.expressions[:2] == two.expressions
    assert len(spare.expressions) == len(spare.masks) == 5
    assert not set(spare.expressions[2:]) & set(two.expressions)


def test_the_mixture_depends_on_seed_and_index_alone() -> None:
    data = MixtureDataset([(Flat("dog"), 1), (Flat("cat"), 3), (Flat("never"), 0)], length=200, queries=2, seed=7)
    first = [data[i].expressions for i in range(200)]
    assert first == [data[i].expressions for i in range(200)]
    assert data[3].expressions == first[3]
    cats = sum("cat" in row[0] for row in first)
    assert 120 < cats < 180
    assert not any("never" in row[0] for row in first)
    other = MixtureDataset([(Flat("dog"), 1), (Flat("cat"), 3)], length=200, queries=2, seed=8)
    assert [other[i].expressions for i in range(200)] != first
    with pytest.raises(UserError, match="weights"):
        MixtureDataset([(Flat("dog"), 0)], length=1, queries=1, seed=0)


def test_batches_carry_tensors_and_mark_ignored_pixels() -> None:
    data = MixtureDataset([(Flat("dog"), 1)], length=8, queries=3, seed=0)
    loader = DataLoader(data, 4, collate_fn=lambda samples: collate(samples, 3), num_workers=0)
    batch = next(iter(loader))
    assert batch.image.shape == (4, 3, 8, 8)
    assert batch.image.dtype == torch.uint8
    assert batch.flow.shape == (4, 2, 4, 4)
    assert batch.masks.shape == (4, 3, 8, 8)
    assert (batch.masks[:, :, 3] == IGNORE).all()
    assert set(batch.masks.unique().tolist()) == {0, 1, 255}
    assert [len(row) for row in batch.expressions] == [3] * 4


@pytest.mark.parametrize("kind", ["voc", "people"])
def test_masks_of_run_lengths_are_pasted(shared: Path, composed: ComposedDataset, kind: str) -> None:
    lent = CocoDataset(shared / "data" / kind, size=SIZE, flow_size=FLOW)
    both = ComposedDataset(coco=composed.coco, objects=[lent])
    pasted = {source.root.name for entries in both._objects.values() for source, _, _ in entries}
    assert kind in pasted
    assert not any(instance.crowd for entries in both._objects.values() for *_, instance in entries)


def test_a_row_is_of_one_kind_and_each_sentence_is_true_of_one(shared: Path, composed: ComposedDataset) -> None:
    people = shared / "data" / "people"
    lent = CocoDataset(people, size=SIZE, flow_size=FLOW, labels=people / "labels")
    rows = ComposedDataset(coco=composed.coco, objects=[lent], rows=1.0)
    said: set[str] = set()
    for seed in range(40):
        scene = rows.scene(np.random.default_rng(seed))
        for sentence, mask in describe(scene.things, uncertain=scene.uncertain, rng=np.random.default_rng(seed)):
            if " person " in f" {sentence} " and (" in a " in sentence or " from the " in sentence):
                said.add(sentence)
                assert sum(np.array_equal(mask, thing.mask) for thing in scene.things) == 1
    assert any("from the left" in sentence for sentence in said)
    assert any(" in a" in sentence for sentence in said)
