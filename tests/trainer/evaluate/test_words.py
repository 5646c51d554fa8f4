"""Single words on pictures that training leaves out, seen and held-out ones apart."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from rvos_edge.trainer.data.readers.coco import is_held_out
from rvos_edge.trainer.evaluate.words import evaluate_taught_words, evaluate_words

_NAMES = {1: "dog", 2: "sheep", 3: "bus", 4: "giraffe"}


def _folder(root: Path, pictures: int = 3, training: int = 0) -> Path:
    """Pictures with a dog on the left and a sheep on the right, kept from training by their names, and others."""
    (root / "images").mkdir(parents=True)
    names = [f"{number}.png" for number in range(200)]
    files = [name for name in names if is_held_out(name)][:pictures]
    files += [name for name in names if not is_held_out(name)][:training]
    annotations = []
    for number, file in enumerate(files):
        cv2.imwrite(str(root / "images" / file), np.full((40, 80, 3), 90, np.uint8))
        for category, x in ((1, 0), (2, 40)):
            box = [x, 0, 30, 40]
            outline = [[x, 0, x + 30, 0, x + 30, 40, x, 40]]
            annotations.append(
                {"id": len(annotations) + 1, "image_id": number, "category_id": category, "bbox": box, "area": 1200,
                 "iscrowd": 0, "segmentation": outline}
            )  # fmt: skip
    document = {
        "images": [{"id": i, "file_name": file, "height": 40, "width": 80} for i, file in enumerate(files)],
        "categories": [{"id": i, "name": name, "supercategory": "thing"} for i, name in _NAMES.items()],
        "annotations": annotations,
    }
    (root / "instances.json").write_text(json.dumps(document))
    return root


class _Knowing:
    """Finds dogs, takes a sheep for a dog, and knows what is there unless it is a giraffe."""

    def __init__(self) -> None:
        self.presence: NDArray[np.float32] | None = None
        self.queries: Sequence[str] = ()

    def reset(self) -> None:
        """Nothing is remembered."""

    def set_queries(self, queries: Sequence[str]) -> None:
        """Say what to segment."""
        self.queries = queries

    def masks(self, frame: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """The left of the frame for every animal."""
        masks = np.zeros((len(self.queries), *frame.shape[:2]), np.bool_)
        for query, mask in zip(self.queries, masks, strict=True):
            mask[:, :30] = query in ("the dog", "the sheep")
        known = {"the dog": 0.9, "the sheep": 0.9, "the bus": 0.1}
        self.presence = np.array([known.get(query, 0.8) for query in self.queries], np.float32)
        return masks


def test_seen_and_held_out_words_are_told_apart(tmp_path: Path) -> None:
    found = evaluate_words(_Knowing(), _folder(tmp_path / "animals"))
    assert (found["seen"]["words"], found["held_out"]["words"]) == (3, 3)
    assert found["seen"]["j"] == pytest.approx(1.0, abs=0.05)
    assert found["held_out"]["j"] == 0.0
    assert found["seen"]["presence"]["false"] == 0.0  # the bus
    assert found["held_out"]["presence"]["false"] == 1.0  # the giraffe
    assert found["pairs"] == {"share": 0.0, "named_wins": 0.5, "pairs": 3}
    assert sum(row["true"] for row in found["seen"]["presence"]["curve"]) == 3
    shapes = found["by_shape"]
    assert {name: row["words"] for name, row in shapes.items()} == {"tall": 0, "square": 0, "wide": 6}
    assert shapes["wide"]["j"] == pytest.approx(0.5, abs=0.05)


class _Taught(_Knowing):
    """Finds the right of the frame for what it was taught on pictures of it."""

    def teach(
        self,
        frames: Sequence[NDArray[np.uint8]],
        masks: Sequence[NDArray[np.bool_]],
        previous: Sequence[NDArray[np.uint8] | None],
        sentence: str,
    ) -> str:
        assert len(frames) == len(masks) == len(previous) == 2
        assert all(mask[:, 40:70].all() and not mask[:, :40].any() for mask in masks)
        return f"taught {sentence}"

    def masks(self, frame: NDArray[np.uint8]) -> NDArray[np.bool_]:
        masks = super().masks(frame)
        for query, mask in zip(self.queries, masks, strict=True):
            mask[:, 40:70] = query == "taught the sheep"
        return masks


def test_held_out_words_are_taught_by_pictures_of_training_and_scored_on_others(tmp_path: Path) -> None:
    folder = _folder(tmp_path / "animals", training=2)
    found = evaluate_taught_words(_Taught(), folder, 2)
    assert found["by_word"] == {"sheep": {"pictures": 3, "noun": 0.0, "taught": pytest.approx(1.0, abs=0.05)}}
    assert found["noun"]["words"] == found["taught"]["words"] == 3
    assert evaluate_taught_words(_Taught(), folder, 3)["by_word"] == {}  # too few to show
