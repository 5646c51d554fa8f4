"""The keys of the live window, pressed without a window."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from support.fake_stream import FakeSegmenter, FakeSource

from rvos_edge.streaming.loop import run_stream
from rvos_edge.streaming.sinks.window import CLOSED, KeyControls


class FakeScreen:
    """Stands for the window: presses the next key at each picture, and keeps the pictures."""

    wants_overlay = True

    def __init__(self, controls: KeyControls, keys: Sequence[int | None]) -> None:
        self.controls, self.keys = controls, list(keys)
        self.pictures: list[np.ndarray] = []
        self.notes: list[str] = []

    def write(self, frame: object, result: object, overlay: np.ndarray | None) -> None:
        assert overlay is not None
        self.show(overlay)

    def show(self, image: np.ndarray) -> None:
        self.pictures.append(image)
        self.notes.append(self.controls.view.note)
        if self.keys and (key := self.keys.pop(0)) is not None:
            self.controls.press(key)

    def close(self) -> None: ...

    def abort(self) -> None: ...


def watch(
    keys: Sequence[int | str | None],
    *,
    frames: int = 5,
    segmenter: FakeSegmenter | None = None,
    folder: Path | None = None,
) -> tuple[FakeScreen, FakeSegmenter, int]:
    """Run the loop over five frames while at each picture the next key is pressed, None for no key."""
    segmenter = segmenter or FakeSegmenter()
    controls = KeyControls(snapshots=folder)
    codes = [ord(key) if isinstance(key, str) else key for key in keys]
    screen = FakeScreen(controls, codes)
    summary = run_stream(segmenter, FakeSource(5), [screen, controls], controls=controls)
    return screen, segmenter, summary.frames


def test_q_ends_after_the_frame_in_hand() -> None:
    assert watch([None, "q"])[2] == 2


def test_a_pause_holds_the_frame() -> None:
    screen, segmenter, frames = watch([None, " ", None, "x", " "])
    assert frames == 5
    assert len(screen.pictures) == 5 + 3
    assert screen.notes[2] == "paused, space goes on"
    assert (screen.pictures[2] == screen.pictures[3]).all()
    assert segmenter.history == [], "other keys do nothing"


def test_a_closed_window_ends_the_stream() -> None:
    assert watch([None, CLOSED])[2] == 2


def test_q_ends_a_pause() -> None:
    assert watch([" ", "q"])[2] == 1


def test_snapshot_of_a_paused_frame(tmp_path: Path) -> None:
    screen, _, _ = watch([None, " ", "s", None, " "], folder=tmp_path / "new")
    (path,) = (tmp_path / "new").iterdir()
    assert path.name.endswith("-00001.png")
    assert screen.notes[4] == f"saved {path}"
    saved = cv2.imread(str(path))
    assert saved is not None
    assert (saved == screen.pictures[1]).all()


def test_a_snapshot_that_cannot_be_saved_is_told_and_nothing_ends(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    screen, _, frames = watch(["s"], folder=tmp_path / "file")
    assert frames == 5
    assert screen.notes[1].startswith("no snapshot: ")


def test_a_pause_costs_no_processor() -> None:
    """The loop sleeps between its looks at the controls."""
    controls = KeyControls()

    class Counting(FakeScreen):
        def show(self, image: np.ndarray) -> None:
            super().show(image)
            if len(self.pictures) == 6:
                controls.press(ord("q"))

    controls.press(ord(" "))
    before = time.thread_time(), time.perf_counter()  # other tests' threads do not count
    run_stream(FakeSegmenter(), FakeSource(3), [Counting(controls, [])], controls=controls)
    used, passed = time.thread_time() - before[0], time.perf_counter() - before[1]
    assert used < 0.75 * passed
