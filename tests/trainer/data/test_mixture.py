"""A single source of known length is gone through in epochs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.layouts import write_davis17

from rvos_edge.trainer.data.clips_dataset import ClipsDataset
from rvos_edge.trainer.data.mixture import MixtureDataset
from rvos_edge.trainer.data.readers.davis17 import Davis17Clips
from rvos_edge.trainer.data.sample import Paired, Sample
from rvos_edge.trainer.data.transforms import Augmentation


class Numbered:
    """Frames whose pixels are their number."""

    def __len__(self) -> int:
        return 7

    def draw(self, rng: np.random.Generator) -> Sample:
        return self.draw_at(int(rng.integers(7)), rng)

    def draw_at(self, position: int, rng: np.random.Generator) -> Sample:
        image = np.full((4, 4, 3), position, np.uint8)
        return Sample(image, np.zeros((4, 4, 2), np.float32), np.ones((1, 4, 4), np.bool_), ("a thing",))


def _numbers(data: MixtureDataset, indices: range) -> list[int]:
    return [int(data[index].image[0, 0, 0]) for index in indices]


def test_every_epoch_shows_each_frame_once_in_an_order_of_its_own() -> None:
    data = MixtureDataset([(Numbered(), 1)], length=100, queries=1, seed=3)
    assert data.epoch == 7
    epochs = [_numbers(data, range(7 * epoch, 7 * epoch + 7)) for epoch in range(3)]
    assert all(sorted(epoch) == list(range(7)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]
    # Whoever starts in the middle, as a resumed run and a loader's worker do, sees the same.
    again = MixtureDataset([(Numbered(), 1)], length=100, queries=1, seed=3)
    assert _numbers(again, range(10, 21)) == [*epochs[1][3:], *epochs[2]]
    other = MixtureDataset([(Numbered(), 1)], length=100, queries=1, seed=4)
    assert _numbers(other, range(7)) != epochs[0]


def test_several_sources_are_drawn_from_by_share() -> None:
    data = MixtureDataset([(Numbered(), 1), (Numbered(), 1)], length=100, queries=1, seed=3)
    assert data.epoch is None
    assert any(sorted(_numbers(data, range(start, start + 7))) != list(range(7)) for start in (0, 7))


def test_clips_are_counted_by_their_annotated_frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_davis17(tmp_path / "DAVIS", {"train": ["bear", "dog"]}, frames=3)
    clips = Davis17Clips(root, split="train")
    child = ClipsDataset(clips, size=(48, 48), flow_size=(48, 48), augmentation=Augmentation.none())
    assert len(child) == 6
    shown: list[tuple[str, int]] = []
    load = child.load

    def watched(video: str, index: int) -> Any:
        shown.append((video, index))
        return load(video, index)

    monkeypatch.setattr(child, "load", watched)
    data = MixtureDataset([(child, 1)], length=100, queries=2, seed=0)
    for index in range(6):
        assert data[index].image.shape == (48, 48, 3)
    assert sorted(shown) == [(video, index) for video in ("bear", "dog") for index in range(3)]


@pytest.mark.parametrize("flip", [0.0, 1.0])
def test_with_one_query_an_epoch_is_every_pair_of_sentence_and_frame(flip: float, tmp_path: Path) -> None:
    root = write_davis17(tmp_path / "DAVIS", {"train": ["bear", "dog"]}, frames=3)
    clips = Davis17Clips(root, split="train")
    child = ClipsDataset(clips, size=(48, 48), flow_size=(48, 48), augmentation=Augmentation.paper(flip=flip))
    assert isinstance(child, Paired)
    data = MixtureDataset([(child, 1)], length=1000, queries=1, seed=0, absent_share=0.0)
    # Two videos of three frames; four files with a sentence for each of two objects.
    assert data.epoch == child.pairs == 2 * 3 * 8
    samples = [data[index] for index in range(48)]
    said = [sample.expressions[0] for sample in samples]
    written = {query.expression for video in clips.videos for query in clips.queries(video)}
    assert {text: said.count(text) for text in set(said)} == dict.fromkeys(written, 3)
    for sample in samples:
        assert sample.masks.shape == (1, 48, 48)
        left, right = sample.masks[0, :, :24].sum(), sample.masks[0, :, 24:].sum()
        if sample.masks.any():  # a crop without the object has an empty mask, and still counts
            assert (left > right) == sample.expressions[0].startswith("the left")


class _Saying:
    """Frames of which every second one has nothing true to say; all have something absent."""

    def draw(self, rng: np.random.Generator) -> Sample:
        said = ("a thing", "another", "nothing") if rng.random() < 0.5 else ("nothing", "nothing else")
        masks = np.zeros((len(said), 4, 4), np.bool_)
        for index, sentence in enumerate(said):
            masks[index, 2 * index : 2 * index + 2] = not sentence.startswith("nothing")
        return Sample(np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4, 2), np.float32), masks, said)


def test_without_a_share_of_absent_sentences_every_one_is_true() -> None:
    data = MixtureDataset([(_Saying(), 1)], length=20, queries=3, seed=1, absent_share=0.0, spare=2)
    for index in range(20):
        sample = data[index]
        assert len(sample.expressions) == 5
        assert set(sample.expressions) == {"a thing", "another"}
        assert sample.masks.any(axis=(1, 2)).all()
