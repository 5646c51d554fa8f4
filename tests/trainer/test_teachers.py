"""Teachers label frames; networks of transformers are the real classes with random weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support import tiny_teachers
from transformers import BertConfig

from rvos_edge.errors import UserError
from rvos_edge.queries import TaughtQuery
from rvos_edge.trainer import teachers
from rvos_edge.trainer.teachers import Labels, open_teacher

QUERIES = ("a dog", "a cat")
FRAMES = [np.random.default_rng(seed).integers(0, 256, (48, 64, 3), dtype=np.uint8) for seed in range(4)]


def labels(name: object) -> list[Labels]:
    found = list(open_teacher(str(name), QUERIES, device="cpu")(FRAMES))
    assert [one.masks.shape for one in found] == [(2, 48, 64)] * 4
    assert all(one.masks.dtype == np.bool_ for one in found)
    assert all(((one.confidence >= 0) & (one.confidence <= 1)).all() for one in found)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("lite", [False, True], ids=["sam3", "litetext"])
def test_sam_3_labels_videos(tmp_path: Path, lite: bool) -> None:
    found = labels(tiny_teachers.write_sam3_video(tmp_path, lite=lite))
    assert all(one.masks.any() for one in found), "whatever is detected is an object"
    assert all((one.confidence < 0.5).all() for one in found), "random weights are not sure"


def test_sam_3_labels_single_frames(tmp_path: Path) -> None:
    found = labels(tiny_teachers.write_sam3_images(tmp_path))
    assert not any(one.masks.any() for one in found), "no detection reaches one half"
    assert all((one.confidence > 0.5).all() for one in found), "so it is absent"


@pytest.mark.slow
@pytest.mark.parametrize("detector", ["grounding_dino", "omdet_turbo"])
def test_sam_2_follows_the_boxes_of_a_detector(tmp_path: Path, detector: str, monkeypatch: pytest.MonkeyPatch) -> None:
    write = getattr(tiny_teachers, f"write_{detector}")
    name = f"{write(tmp_path / 'detector')}+{tiny_teachers.write_sam2_video(tmp_path / 'tracker')}"
    monkeypatch.setattr(teachers, "_DETECTED", 2.0)
    assert not any(one.masks.any() for one in labels(name)), "no box is believed"
    monkeypatch.setattr(teachers, "_DETECTED", 0.01)
    monkeypatch.setattr(teachers, "_LOOK", 1)
    assert all(one.masks.any() for one in labels(name)), "before and after the frame of the surest box"


def test_a_bundle_labels_and_says_how_sure_it_is(tiny: Path) -> None:
    found = labels(tiny)
    again = labels(tiny)
    assert all((one.masks == two.masks).all() for one, two in zip(found, again, strict=True))


def test_what_cannot_teach_is_refused_in_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"facebook/sam3 is not on this machine .*: hf download facebook/sam3 \(where"):
        open_teacher("sam3", QUERIES)
    with pytest.raises(UserError, match="omlab/omdet-turbo-swin-tiny-hf is not on this machine"):
        open_teacher("omdet-turbo", QUERIES)
    BertConfig().save_pretrained(tmp_path)
    with pytest.raises(UserError, match="is a network of the kind bert; give a bundle, SAM 3, or DETECTOR"):
        open_teacher(str(tmp_path), QUERIES)
    with pytest.raises(UserError, match=r"cannot be read .*; download it again"):
        open_teacher(f"{tmp_path}+{tmp_path}", QUERIES)
    taught = TaughtQuery("a dog", {}, "network")
    with pytest.raises(UserError, match=r"--teacher sam3 takes sentences; taught queries .* are for a bundle"):
        open_teacher("sam3", [taught])
