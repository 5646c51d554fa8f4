"""A query settles on what it sees, only where it is sure, and lets go again."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from support.tiny_bundle import write_tiny_bundle

import rvos_edge
from rvos_edge import Result, Segmenter, UserError
from rvos_edge import adaptation as module
from rvos_edge.preprocess import Placement, place
from rvos_edge.teaching import Features, Teacher

SENTENCE = "the red ball"
SURE_PRESENCE = module._SURE_PRESENCE


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_bundle(tmp_path_factory.mktemp("tiny"), teach=True, presence=True)


@pytest.fixture(autouse=True)
def _tiny_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tiny network is never as sure as a trained one, and believes in nothing."""
    monkeypatch.setattr(module, "_SURE_SCORE", 0.5)
    monkeypatch.setattr(module, "_SURE_PRESENCE", 0.0)
    monkeypatch.setattr(module, "_LARGEST", 1.0)


def _open(bundle: Path, adapt: str = "once") -> Segmenter:
    segmenter = rvos_edge.open(bundle, device="cpu", backend="onnxruntime", threads=1, adapt=adapt, min_presence=0)
    assert isinstance(segmenter, Segmenter)
    segmenter.set_queries([SENTENCE])
    return segmenter


def _video(count: int) -> list[NDArray[np.uint8]]:
    """A green square that slides over red ground."""
    frames = []
    for index in range(count):
        frame = np.zeros((64, 96, 3), np.uint8)
        frame[..., 2] = 180
        frame[16:48, 2 * index : 2 * index + 32] = (20, 220, 20)
        frames.append(frame)
    return frames


def _margins(results: list[Result]) -> NDArray[np.float32]:
    return np.stack([result.margins for result in results])


def test_it_settles_after_two_sure_frames(tiny: Path) -> None:
    one, two = _open(tiny, "off"), _open(tiny)
    without, settled = ([segmenter.step(frame) for frame in _video(12)] for segmenter in (one, two))
    first = next(index for index, result in enumerate(settled) if result.adapted.any())
    assert 2 <= first < 12
    np.testing.assert_array_equal(_margins(settled[:first]), _margins(without[:first]))
    assert settled[first].scores[0] > without[first].scores[0]
    assert not any(result.adapted.any() for result in without)


def test_the_same_clip_gives_the_same_masks(tiny: Path) -> None:
    segmenter = _open(tiny)
    runs = []
    for _ in range(2):
        segmenter.reset()
        runs.append(_margins([segmenter.step(frame) for frame in _video(12)]))
    np.testing.assert_array_equal(*runs)


def test_an_absent_query_is_left_alone(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SURE_PRESENCE", 1.0)
    segmenter = _open(tiny)
    assert not any(segmenter.step(frame).adapted.any() for frame in _video(12))


class Watched:
    """An adaptation that is told scores and presence, as if a network had given them."""

    def __init__(self, segmenter: Segmenter, *, again: bool = False) -> None:
        self.own = segmenter.encode([SENTENCE])["lang1"][0]
        self._adaptation = module.Adaptation(lambda: Teacher(segmenter.bundle), segmenter.encode, again=again)
        self._adaptation.start([SENTENCE], segmenter.encode([SENTENCE]))
        self._features = segmenter.features(_video(1)[0])
        self.index = self.asked = 0

    def see(self, frames: int, score: float, presence: float = 1.0, *, cut: bool = False) -> dict[int, module.Vectors]:
        """Tell the next frames; returns what changed."""

        def features() -> tuple[Features, Placement]:
            self.asked += 1
            return self._features, place((64, 96), (64, 96))

        changes: dict[int, module.Vectors] = {}
        for number in range(frames):
            scores, chances = np.array([score], np.float32), np.array([presence], np.float32)
            margins = np.ones((1, 16, 24), np.float32)
            self._adaptation.observe(self.index, margins, scores, chances, features, cut=cut and not number)
            changes |= self._adaptation.changes()
            self.index += 1
        return changes

    @property
    def adapted(self) -> bool:
        return bool(self._adaptation.adapted.all())


def test_what_was_learned_is_undone_when_confidence_falls(tiny: Path) -> None:
    watched = Watched(_open(tiny))
    learned = watched.see(12, 0.9)[0]
    assert watched.adapted
    assert not np.array_equal(learned["lang1"], watched.own)
    np.testing.assert_array_equal(watched.see(12, 0.2)[0]["lang1"], watched.own)
    assert not watched.adapted
    assert watched.see(30, 0.9) == {}  # once


def test_it_settles_again_where_that_is_wanted(tiny: Path) -> None:
    watched = Watched(_open(tiny), again=True)
    learned = watched.see(12, 0.9)[0]
    np.testing.assert_array_equal(watched.see(12, 0.2)[0]["lang1"], watched.own)
    np.testing.assert_array_equal(watched.see(12, 0.9)[0]["lang1"], learned["lang1"])
    assert watched.adapted


def test_a_query_that_may_be_absent_never_learns(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However sure its mask is; with the threshold that ships."""
    monkeypatch.setattr(module, "_SURE_PRESENCE", SURE_PRESENCE)
    watched = Watched(_open(tiny))
    assert watched.see(50, 0.99, presence=SURE_PRESENCE - 0.01) == {}
    assert (watched.asked, watched.adapted) == (0, False)


def test_it_starts_afresh_on_a_cut_where_the_object_is_gone(tiny: Path) -> None:
    watched = Watched(_open(tiny))
    watched.see(12, 0.9)
    assert watched.see(5, 0.9, cut=True) == {}  # the same object in another view
    assert watched.see(2, 0.0, presence=0.05) == {}  # gone for a moment
    assert watched.adapted
    np.testing.assert_array_equal(watched.see(1, 0.0, presence=0.05, cut=True)[0]["lang1"], watched.own)
    assert not watched.adapted
    watched.see(12, 0.9)
    assert watched.adapted


def test_a_live_stream_does_not_wait(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    segmenter = _open(tiny)
    segmenter.set_adapt("once", background=True)
    gate, learn = threading.Event(), module.Adaptation._taught

    def slowly(self: module.Adaptation, *arguments: object) -> object:
        assert gate.wait(60)
        return learn(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(module.Adaptation, "_taught", slowly)
    results = [segmenter.step(frame) for frame in _video(12)]
    assert not any(result.adapted.any() for result in results)
    gate.set()
    for thread in threading.enumerate():
        if thread.name == "rvos-edge-adapt":
            thread.join(60)
    assert segmenter.step(_video(13)[-1]).adapted.all()


def test_new_queries_begin_with_their_sentences(tiny: Path) -> None:
    segmenter = _open(tiny)
    assert [segmenter.step(frame) for frame in _video(12)][-1].adapted.all()
    segmenter.set_queries(["a dog", SENTENCE])
    assert not segmenter.step(_video(1)[0]).adapted.any()


def test_an_unknown_mode_is_refused(tiny: Path) -> None:
    with pytest.raises(UserError, match="use off, once or on"):
        _open(tiny, "always")


def test_without_presence_nothing_adapts(tmp_path: Path) -> None:
    """A wrong query would settle on what it is sure of, too."""
    segmenter = _open(write_tiny_bundle(tmp_path / "tiny", teach=True))
    assert not any(segmenter.step(frame).adapted.any() for frame in _video(12))
