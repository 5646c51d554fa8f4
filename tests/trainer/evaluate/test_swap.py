"""The swap test tells a network that follows the words from one that does not."""

from __future__ import annotations

import json
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from support.fake_clips import Fake, Masks, nothing
from support.layouts import write_davis16

from rvos_edge.errors import UserError
from rvos_edge.trainer.data.readers.coco import CocoDataset, is_held_out
from rvos_edge.trainer.evaluate import swap
from rvos_edge.trainer.evaluate.swap import evaluate_swap


class SwapOracle(Fake):
    """Knows the frames of the swap test, as they are handed out."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, upside_down: bool = False) -> None:
        self.drawn: list[swap.SwapFrame] = []
        build = swap._frame

        def spy(*args: object, **options: object) -> swap.SwapFrame | None:
            frame = build(*args, **options)  # type: ignore[arg-type]
            self.drawn += [frame] if frame is not None else []
            return frame

        monkeypatch.setattr(swap, "_frame", spy)
        super().__init__(nothing)
        self.upside_down = upside_down

    def masks(self, frame: NDArray[np.uint8]) -> Masks:
        last = self.drawn[-1]
        assert [*last.queries, *last.absent] == self.asked[-1]
        assert np.array_equal(last.image, frame)
        masks = last.masks[::-1] if self.upside_down and len(last.masks) == 2 else last.masks
        return np.concatenate([masks, np.zeros((len(last.absent), *frame.shape[:2]), bool)])


def coco(root: Path) -> Path:
    """Three held-out pictures and one of training, each with a whole dog on the left and a whole car on the right."""
    (root / "images").mkdir(parents=True)
    names = [f"{number}.jpg" for number in range(100)]
    held_out = [name for name in names if is_held_out(name)][:3]
    files = [*held_out, next(name for name in names if not is_held_out(name))]
    annotations = []
    for image, name in enumerate(files):
        picture = np.random.default_rng(image).integers(90, 110, (64, 96, 3), dtype=np.uint8)
        cv2.imwrite(str(root / "images" / name), picture)
        for category, x0, x1 in ((18, 5, 45), (3, 50, 90)):
            polygon = [x0, 10, x1, 10, x1, 55, x0, 55]
            facts = {"bbox": [x0, 10, x1 - x0, 45], "area": 45 * (x1 - x0), "segmentation": [polygon]}
            annotations.append({"id": len(annotations), "image_id": image, "category_id": category} | facts)
    data = {
        "images": [{"id": i, "file_name": name, "width": 96, "height": 64} for i, name in enumerate(files)],
        "annotations": annotations,
        "categories": [{"id": 18, "name": "dog"}, {"id": 3, "name": "car"}, {"id": 67, "name": "zebra"}],
    }
    (root / "instances.json").write_text(json.dumps(data))
    return root


def test_the_swap_test_is_1_for_an_oracle_on_every_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    davis = write_davis16(tmp_path / "davis", {"hike": ["a hiker"]})
    oracle = SwapOracle(monkeypatch)
    figures = evaluate_swap(oracle, coco(tmp_path / "coco"), davis, count=3)
    assert set(figures) == {"synthetic", "composed", "coco", "overall"}
    assert all(row["share"] == row["named_wins"] == 1.0 and row["pairs"] >= 1 for row in figures.values())
    assert all(row["absent_foreground"] == 0.0 and row["absent_empty"] == 1.0 for row in figures.values())
    assert figures["coco"]["frames"] == 3, "the picture of training is left out"
    assert figures["coco"]["absent"] == 6
    assert oracle.resets == len(oracle.drawn) == figures["overall"]["frames"]
    for name in ("frames", "pairs", "absent"):
        assert figures["overall"][name] == sum(figures[source][name] for source in ("synthetic", "composed", "coco"))
    asked = [query for queries in oracle.asked for query in queries]
    assert not any("mov" in query or "still" in query for query in asked), "a still frame shows no motion"


def test_the_swap_test_is_0_for_a_predictor_that_ignores_the_text(tmp_path: Path) -> None:
    root = coco(tmp_path)
    left = np.arange(512) < 256
    for answer in (nothing, lambda f, q: np.ones(f.shape[:2], bool), lambda f, q: left & np.ones((288, 1), bool)):
        figures = evaluate_swap(Fake(answer), root, count=2)
        assert figures["overall"]["share"] == 0.0
        assert figures["overall"]["pairs"] >= 4
        area = answer(np.zeros((288, 512, 3), np.uint8), "").mean()
        assert figures["overall"]["absent_foreground"] == pytest.approx(area)
        assert figures["overall"]["absent_empty"] == (area == 0)


def test_always_the_same_object_wins_half_of_the_sentences_and_no_pair(tmp_path: Path) -> None:
    left = np.broadcast_to(np.arange(512) < 256, (288, 512))
    figures = evaluate_swap(Fake(lambda frame, query: left), coco(tmp_path), count=3)
    assert (figures["coco"]["share"], figures["coco"]["named_wins"]) == (0.0, 0.5)


def test_the_swap_test_is_0_where_the_objects_are_mixed_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figures = evaluate_swap(SwapOracle(monkeypatch, upside_down=True), coco(tmp_path), count=2)
    assert figures["coco"]["share"] == 0.0


def test_equal_seeds_give_equal_frames(tmp_path: Path) -> None:
    asked, root = [], coco(tmp_path)
    for seed in (0, 0, 1):
        fake = Fake(nothing)
        evaluate_swap(fake, root, count=3, seed=seed)
        asked.append(fake.asked)
    assert asked[0] == asked[1] != asked[2]


def test_count_below_one_is_refused() -> None:
    with pytest.raises(UserError, match="count"):
        evaluate_swap(Fake(nothing), count=0)


def test_people_in_a_row_are_told_apart(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    oracle = SwapOracle(monkeypatch)
    figures = evaluate_swap(oracle, shared / "data/coco-small", people=shared / "data/people", count=4)
    row = figures["rows"]
    assert (row["frames"], row["share"]) == (4, 1.0)
    said = " ".join(query for frame in oracle.drawn[-4:] for query in frame.queries)
    assert re.search(r"left|right|middle|wearing|first|second|third|tall|small|large", said), said


def test_the_held_out_pictures_of_the_excerpt_give_enough_pairs(shared: Path) -> None:
    dataset = CocoDataset(
        shared / "data/coco-small",
        size=(288, 512),
        flow_size=(36, 64),
        split="held_out",
        augmentation=swap.Augmentation.none(),
    )
    frames = list(swap._coco(dataset, 100, 0))
    assert sum(len(frame.pairs) for frame in frames) >= 200
