"""Labels of a teacher that knows the truth: laid out, left out, interrupted, corrected."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from rich.console import Console
from typer.testing import CliRunner

from rvos_edge.cli import app
from rvos_edge.errors import UserError
from rvos_edge.queries import TaughtQuery
from rvos_edge.trainer.data.convert import convert
from rvos_edge.trainer.data.readers.mevis import MevisClips
from rvos_edge.trainer.tasks import label as module
from rvos_edge.trainer.tasks.label import LabelFacts, label, lay_out, sentences_of
from rvos_edge.trainer.teachers import Labels

QUERIES = ["a white box", "Something bright"]
FACTS = LabelFacts(queries=QUERIES, teacher="truth", confidence=0.6)


def console() -> Console:
    return Console(file=io.StringIO())


def boxes(frame: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """The box and, overlapping it, its upper half."""
    box = frame[..., 0] > 200
    upper = box.copy()
    upper[20:] = False
    return np.stack([box, upper])


class Truth:
    """Is unsure of every fourth frame."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, frames: Sequence[NDArray[np.uint8]]) -> Iterator[Labels]:
        self.calls += 1
        for index, frame in enumerate(frames):
            yield Labels(boxes(frame), np.array([0.9, 0.4 if index % 4 == 3 else 0.7], np.float32))


@pytest.fixture
def clip(tmp_path: Path) -> str:
    """Twelve frames of a moving box, absent from the last one."""
    folder = tmp_path / "clip"
    folder.mkdir()
    for index in range(12):
        frame = np.full((48, 64, 3), 60, np.uint8)
        if index < 11:
            frame[10:30, 4 * index : 4 * index + 12] = 255
        cv2.imwrite(str(folder / f"{index:05d}.png"), frame)
    return str(folder)


def test_sure_frames_are_training_data_and_the_last_are_kept_for_validation(clip: str, tmp_path: Path) -> None:
    data = tmp_path / "data"
    label([clip], Truth(), FACTS, data, console=console())
    train, held = (MevisClips(data, split=split) for split in ("train", "valid_u"))
    assert train.frames("clip") == [f"{index:05d}" for index in (0, 1, 2, 4, 5, 6, 8, 9)]
    assert held.frames("clip") == ["00010"]
    assert [query.expression for query in train.queries("clip")] == ["a white box", "something bright"]
    for clips in (train, held):
        for index, name in enumerate(clips.frames("clip")):
            masks = clips.masks("clip", index)
            assert masks is not None
            assert (masks == boxes(cv2.imread(f"{clip}/{name}.png"))).all(), "overlapping masks are both kept"
    sheet = cv2.imread(str(data / "labels/clip.png"))
    assert sheet.shape[1] > 5 * 320
    label([clip], Truth(), FACTS.model_copy(update={"confidence": 0.3}), data, console=console())
    assert len(MevisClips(data, split="train").frames("clip")) == 10, "twelve are sure now"


def test_an_interrupted_labelling_goes_on_where_it_stopped(
    clip: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_SEGMENT", 5)
    label([clip], Truth(), FACTS, tmp_path / "whole", console=console())

    class Cut(Truth):
        def __call__(self, frames: Sequence[NDArray[np.uint8]]) -> Iterator[Labels]:
            if self.calls == 1:
                raise KeyboardInterrupt
            return super().__call__(frames)

    data = tmp_path / "data"
    with pytest.raises(KeyboardInterrupt):
        label([clip], Cut(), FACTS, data, console=console())
    assert not (data / "labels/clip.json").exists()
    truth = Truth()
    label([clip], truth, FACTS, data, console=console())
    assert truth.calls == 2, "of three segments"
    for name in ("labels/clip.json", "train/mask_dict.json", "valid_u/meta_expressions.json"):
        assert (data / name).read_text() == (tmp_path / "whole" / name).read_text()
    assert [path.name for path in sorted((data / "labels").iterdir())] == ["clip.json", "clip.png"]


def test_corrections_come_back_and_are_sure(clip: str, tmp_path: Path) -> None:
    data = tmp_path / "data"
    label([clip], Truth(), FACTS, data, console=console())
    labels, drawn = data / "labels/clip.json", tmp_path / "clip.xml"
    convert(labels, drawn)
    text = drawn.read_text(encoding="utf-8")
    assert text.count('label="Something bright"') == 11
    drawn.write_text(text.replace('label="Something bright"', 'label="a white box"', 1), encoding="utf-8")
    convert(drawn, labels)
    label([clip], Truth(), FACTS, data, console=console())
    train = MevisClips(data, split="train")
    assert len(train.frames("clip")) == 10
    assert [bool(train.masks("clip", index)[1].any()) for index in (0, 1)] == [False, True]  # type: ignore[index]
    labels.write_text(labels.read_text(encoding="utf-8").replace("a white box", "a box"), encoding="utf-8")
    with pytest.raises(UserError, match="the label 'a box' is none of a white box, Something bright; rename it"):
        lay_out(data, console=console())


def test_folders_and_queries_that_do_not_fit_are_refused(clip: str, tmp_path: Path) -> None:
    data = tmp_path / "data"
    label([clip], Truth(), FACTS, data, console=console())
    with pytest.raises(UserError, match="was labelled with another queries; choose another --output"):
        label([clip], Truth(), FACTS.model_copy(update={"queries": ["a box"]}), data, console=console())
    with pytest.raises(UserError, match="clip holds what rvos-edge label did not write"):
        label(["synthetic"], Truth(), FACTS, Path(clip), console=console())
    with pytest.raises(UserError, match="two sources have the name 'clip'"):
        label([clip, clip], Truth(), FACTS, tmp_path / "twice", console=console())
    sure = FACTS.model_copy(update={"confidence": 0.95})
    with pytest.raises(UserError, match=r"has no video with 5 frames that are sure: look at .*, and lower"):
        label([clip], Truth(), sure, data, console=console())
    assert sentences_of([TaughtQuery("a mug", {}, "network"), "a spoon"]) == ["a mug", "a spoon"]
    with pytest.raises(UserError, match="two queries say 'a mug'"):
        sentences_of([TaughtQuery("a mug", {}, "network"), "a mug"])


def test_the_command_labels_with_a_bundle(clip: str, tiny: Path, tmp_path: Path) -> None:
    arguments = ["label", clip, "--query", "a white box", "--teacher", str(tiny), "--output", str(tmp_path / "data")]
    done = CliRunner().invoke(app, [*arguments, "--confidence", "0", "--every", "2"])
    assert done.exit_code == 0, done.output
    assert f"rvos-edge train specialist --data {tmp_path / 'data'}" in done.output
    images = json.loads((tmp_path / "data/labels/clip.json").read_text())["images"]
    assert [image["file_name"] for image in images] == [f"{index:05d}.jpg" for index in range(0, 12, 2)]
