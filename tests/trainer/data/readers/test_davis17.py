"""DAVIS-2017: the text files of two annotators, and the JSON form."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.layouts import expressions_json, ids, write_davis17, write_json

from rvos_edge.errors import UserError
from rvos_edge.trainer.data.clips_dataset import ClipsDataset
from rvos_edge.trainer.data.readers.davis17 import Davis17Clips
from rvos_edge.trainer.data.transforms import Augmentation


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_davis17(tmp_path / "DAVIS", {"train": ["bear", "dogs-scale"], "val": ["goat"]})


def test_text_files_of_both_annotators_are_read(root: Path) -> None:
    clips = Davis17Clips(root, split="val")
    assert clips.videos == ("goat",)
    said = {query.key: (query.expression, query.object_id) for query in clips.queries("goat")}
    assert said["annot1/1"] == ("the left box of goat", 1)
    assert said["annot2/2"] == ("the right café box of goat", 2), "the second annotator's file is Latin-1"
    assert said["annot1_full_video/2"] == ("the right box of goat full video", 2)
    assert len(said) == 8
    masks = clips.masks("goat", 1)
    assert masks is not None
    for query, mask in zip(clips.queries("goat"), masks, strict=True):
        assert np.array_equal(mask, ids(2) == query.object_id)
    assert clips.annotated("goat") == [0, 1]


def test_one_file_alone_can_be_given(root: Path) -> None:
    path = root / "davis_text_annotations" / "Davis17_annot2.txt"
    clips = Davis17Clips(root, split="all", expressions=path)
    assert set(clips.videos) == {"bear", "dogs-scale", "goat"}
    assert [query.key for query in clips.queries("bear")] == ["annot2/1", "annot2/2"]


def test_misspelt_names_and_missing_quotes_of_the_published_files_are_understood(root: Path) -> None:
    path = root / "davis_text_annotations" / "Davis17_annot1.txt"
    path.write_text('\ufeffdog-scale 1 "A \u201cbig\u201d  dog"  \r\n\r\ndogs-scale 2 a small dog\n', encoding="utf-8")
    clips = Davis17Clips(root, split="train", expressions=path, videos=["dogs-scale"])
    assert [query.expression for query in clips.queries("dogs-scale")] == ["a “big” dog", "a small dog"]


def test_the_json_form_speaks_for_its_split(root: Path) -> None:
    said = expressions_json({"goat": [("a goat", 1), ("the goat", 2)]}, ["00000", "00001"])
    path = write_json(root / "meta_expressions" / "valid" / "meta_expressions.json", said)
    clips = Davis17Clips(root, split="val", expressions=path)
    assert [query.key for query in clips.queries("goat")] == ["0", "1"]
    for file in (root / "davis_text_annotations").iterdir():
        file.unlink()
    for file in (root / "ImageSets" / "2017").iterdir():
        file.unlink()
    assert Davis17Clips(root, split="val").videos == ("goat",), "found without the text files and lists"


def test_samples_show_both_objects_with_a_sentence_each(root: Path) -> None:
    data = ClipsDataset(
        Davis17Clips(root, split="train"), size=(48, 96), flow_size=(12, 24), augmentation=Augmentation.none()
    )
    assert [referred.object_id for referred in data.objects["bear"]] == [1, 2]
    assert len(data.objects["bear"][0].sentences) == 4
    sample = data.draw(np.random.default_rng(0))
    pairs = [(s, m) for s, m in zip(sample.expressions, sample.masks, strict=True) if m.any()]
    assert {"left" in sentence for sentence, _ in pairs} == {True, False}
    for sentence, mask in pairs:
        assert np.array_equal(mask, ids(2) == (1 if "left" in sentence else 2))


def test_what_is_missing_or_wrong_is_named(root: Path) -> None:
    with pytest.raises(UserError, match="'dev' is not a split"):
        Davis17Clips(root, split="dev")
    with pytest.raises(UserError, match="JPEGImages/480p does not exist"):
        Davis17Clips(root / "JPEGImages")
    path = root / "davis_text_annotations" / "Davis17_annot1.txt"
    with path.open("a") as file:
        file.write('unicorn 1 "a unicorn"\n')
    with pytest.raises(UserError, match=r"name 1 of 4 videos .*\(unicorn\)"):
        Davis17Clips(root)
    path.write_text("goat one goat\n")
    with pytest.raises(UserError, match=r"Davis17_annot1\.txt, line 1 is not of the form"):
        Davis17Clips(root)
    path.unlink()
    (root / "Annotations/480p/goat/00001.png").unlink()
    with pytest.raises(UserError, match=r"no mask .*goat/00001\.png \(1 are missing\)"):
        Davis17Clips(root)
    (root / "ImageSets/2017/val.txt").unlink()
    with pytest.raises(UserError, match=r"val\.txt does not exist: it lists the split"):
        Davis17Clips(root)
