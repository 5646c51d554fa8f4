"""The table of flow settings: on a tiny bundle, and its arithmetic by hand."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from support.fake_clips import FakeClips
from support.tiny_bundle import write_tiny_bundle

from rvos_edge.benchmarks.flow_table import (
    DEFAULT,
    SettingRow,
    as_markdown,
    main,
    measure,
    settings,
)
from rvos_edge.trainer.data.readers.base import Query

FRAMES = 6


class Sliding(FakeClips):
    """A texture that slides; the truth is its bright part."""

    def image(self, video: str, index: int) -> NDArray[np.uint8]:
        texture = np.random.default_rng(self.videos.index(video)).integers(0, 255, (9, 16, 3), np.uint8)
        return np.roll(np.asarray(cv2.resize(texture, (96, 64)), np.uint8), 2 * index, 1)


def _clips() -> Sliding:
    queries = [Query("0", "the red ball", None), Query("1", "a black car", None), Query("2", "a black car", None)]
    asked = {"first": queries[:1], "second": queries}
    clips = Sliding(asked, {video: [None] * FRAMES for video in asked})
    for video, own in asked.items():
        bright = [clips.image(video, index)[..., 1] > 128 for index in range(FRAMES)]
        clips.truth = {**clips.truth, video: [np.stack([mask] * len(own)) for mask in bright]}
    return clips


@pytest.mark.slow
def test_every_setting_sees_every_frame(tmp_path: Path) -> None:
    tiny = write_tiny_bundle(tmp_path / "tiny")
    rows = measure(settings([("once more", tiny)]), _clips(), tiny, every_frame=4)
    assert {len(row.times) for row in rows.values()} == {2 * FRAMES}
    assert {len(values) for row in rows.values() for values in row.j.values()} == {2}
    flow_on = {label: row.ran for label, row in rows.items()}
    assert flow_on[DEFAULT] == flow_on["3 iterations"] == 2 * (FRAMES - 1)
    assert (flow_on["no flow"], flow_on["every 2 frames"], flow_on["every 3 frames"]) == (0, 6, 4)
    # The same options, written otherwise, and another bundle that is the same.
    for label in ("3 iterations", "once more"):
        assert rows[label].j == rows[DEFAULT].j
        assert rows[label].error == rows[DEFAULT].error
    assert rows["12 iterations"].error == [0.0] * 2 * FRAMES
    assert rows["no flow"].j != rows[DEFAULT].j
    assert rows["1 iteration"].error != rows[DEFAULT].error
    assert len(as_markdown(rows).splitlines()) == len(rows) + 2


def test_the_arithmetic() -> None:
    base = SettingRow(j={("a", "0"): [0.5, 0.7], ("a", "1"): [0.8], ("b", "0"): [0.1]}, times=[10.0, 20.0, 60.0], ran=2)
    half = SettingRow(j={("a", "0"): [0.5], ("b", "0"): [0.3]}, times=[5.0, 10.0, 90.0], error=[0.5, 1.0, 1.5], ran=0)
    table = as_markdown({DEFAULT: base, "half": half}).splitlines()
    assert table[2:] == [
        "| default | 40.0 | +0.00 | 20.0 | 1.00 | 67% |  |",
        "| half | 40.0 | +0.00 | 10.0 | 0.50 | 0% | 1.00 |",
    ]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--root", "nowhere"), "nowhere"),
        (("--root", "nowhere", "--every-frame", "0"), "--every-frame and --frames must be at least 1"),
        (("--root", "nowhere", "--with", "my-bundle"), "--with my-bundle"),
    ],
)
def test_bad_input_is_one_sentence(arguments: tuple[str, ...], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("Error: ")
    assert error.count("\n") == 1
    assert words in error
