"""``rvos-edge data check``: what is there, what is missing and where to get it."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from support.layouts import ids, write_a2d, write_davis17, write_jhmdb, write_palette, write_refcoco, write_youtube_vos
from typer.testing import CliRunner, Result

from rvos_edge.cli import app
from rvos_edge.trainer.data.check import DataFinding, check_dataset, is_complete

WRITERS = {
    "youtube_vos": lambda root: write_youtube_vos(root, {"v1": [("a dog", 1)], "v2": [("a cat", 2)]}),
    "davis17": lambda root: write_davis17(root, {"train": ["bear"], "val": ["goat"]}),
    "a2d": write_a2d,
    "jhmdb": write_jhmdb,
    "refcoco": write_refcoco,
    "coco": write_refcoco,
}
# What is taken away, and what the table then names.
LOSSES = {
    "youtube_vos": ("train/Annotations", "train/Annotations", "youtube-vos.org"),
    "davis17": ("ImageSets/2017/val.txt", "split val", "davischallenge.org"),
    "a2d": ("text_annotations/a2d_annotation.txt", "a2d_annotation.txt", "kgavrilyuk.github.io"),
    "jhmdb": ("puppet_mask", "puppet_mask", "jhmdb.is.tue.mpg.de"),
    "refcoco": ("refs.json", "references", "github.com/lichengunc/refer"),
    "coco": ("instances.json", "instances.json", "cocodataset.org"),
}


def check(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["data", "check", *map(str, arguments)], env={"COLUMNS": "80"})


def rows(name: str, root: Path) -> dict[str, DataFinding]:
    return {finding.item: finding for finding in check_dataset(name, root)}


@pytest.mark.parametrize("name", WRITERS)
def test_a_whole_data_set_passes_and_a_part_of_it_does_not(name: str, tmp_path: Path) -> None:
    root = WRITERS[name](tmp_path)
    assert is_complete(check_dataset(name, root))
    lost, item, source = LOSSES[name]
    path = root / lost
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    found = rows(name, root)
    assert found[item].missing
    assert source in found[item].source
    assert not is_complete(list(found.values()))


def test_the_command_prints_lines_and_exits_with_2_when_something_is_missing(tmp_path: Path) -> None:
    root = write_youtube_vos(tmp_path, {"v1": [("a dog", 1), ("the dog", 1)]})
    whole = check("--dataset", "youtube-vos", "--root", root)
    assert whole.exit_code == 0
    assert "1 videos, 3 frames, 3 with masks, 2 expressions; 2 frames read, sizes agree" in whole.output
    assert "valid/JPEGImages" in whole.output
    assert "optional  valid/JPEGImages" in whole.output
    shutil.rmtree(root / "train" / "JPEGImages")
    broken = check("--dataset", "youtube-vos", "--root", root)
    assert broken.exit_code == 2
    assert "https://youtube-vos.org/dataset/rvos/" in broken.output
    assert check("--dataset", "imagenet", "--root", root).exit_code == 2
    assert check("--dataset", "a2d", "--root", root / "nowhere").exit_code == 2


def test_missing_expressions_are_a_warning_and_a_file_given_by_hand_is_used(tmp_path: Path) -> None:
    root = write_youtube_vos(tmp_path / "data", {"v1": [("a dog", 1)]})
    path = root / "meta_expressions/train/meta_expressions.json"
    path.rename(tmp_path / "mine.json")
    bare = check("--dataset", "youtube_vos", "--root", root)
    assert bare.exit_code == 0
    assert "give --expressions, or 'expressions' in a configuration" in bare.output
    assert "optional  split train" in bare.output
    given = check("--dataset", "youtube_vos", "--root", root, "--expressions", tmp_path / "mine.json")
    assert given.exit_code == 0
    assert "ok        split train" in given.output


def test_masks_of_another_size_or_of_other_objects_are_found(tmp_path: Path) -> None:
    root = write_youtube_vos(tmp_path, {"v1": [("a dog", 1)]})
    for path in (root / "train/Annotations/v1").iterdir():
        write_palette(path, np.full((48, 96), 2, np.uint8))
    assert "object ids are of another data set" in rows("youtube_vos", root)["split train"].missing
    write_palette(root / "train/Annotations/v1/00000.png", ids(1)[:20])
    assert "(96, 20), its image (96, 48)" in rows("youtube_vos", root)["split train"].missing
    (root / "train/JPEGImages/v1/00010.jpg").unlink()
    assert "1 frames of 'v1' are missing" in rows("youtube_vos", root)["split train"].missing


def test_the_real_folders_pass(shared: Path) -> None:
    davis = rows("davis16", shared / "data" / "davis2016-train")
    assert davis["JPEGImages/480p"].found == "2079 files in 30 folders"
    assert davis["split train"].found.startswith("24 videos, 1679 frames, 1679 with masks, 96 expressions")
    assert is_complete(list(davis.values()))
    coco = rows("coco", shared / "data" / "coco-small")
    assert coco["pictures"].found == "1367 annotated images; 49 read, sizes agree"
    assert coco["80 categories"].found.startswith("person ")
    assert is_complete(list(coco.values()))
