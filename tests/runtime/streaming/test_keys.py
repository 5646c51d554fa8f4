"""The keys of the live window, pressed without a window."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
from support.fake_stream import FakeSegmenter, FakeSource

from rvos_edge.errors import UserError
from rvos_edge.streaming.keys import KeyControls, KeyState
from rvos_edge.streaming.loop import run_stream
from rvos_edge.streaming.overlay import OverlayView
from rvos_edge.streaming.sinks.window import CLOSED

ENTER, ESCAPE, BACKSPACE, CLEAR = 13, 27, 8, 21


def typed(text: str, *codes: int, queries: tuple[str, ...] = ("a dog",)) -> KeyState:
    """The state after characters and further keys."""
    state = KeyState(queries=queries)
    for code in (*map(ord, text), *codes):
        state.press(code)
    return state


def test_commands() -> None:
    assert typed("q").quit
    assert typed(" ").paused
    assert not typed("  ").paused
    assert typed("s").snapshot
    assert typed("xyz").typed is None
    nothing = typed("", 0xFF20, 0xFF2F, 0xFF31, 0xFFE1, 0x100 + ord("q"))  # keys that end like " ", "/", "1" and "q"
    assert nothing == KeyState(queries=("a dog",))


@pytest.mark.parametrize(("keys", "hidden"), [("1", {0}), ("13", {0, 2}), ("121", {1}), ("4", set()), ("0", set())])
def test_digits_hide_and_show_the_queries_that_there_are(keys: str, hidden: set[int]) -> None:
    assert typed(keys, queries=("a", "b", "c")).hidden == hidden


def test_an_edit_takes_every_command_as_a_letter() -> None:
    state = typed("/ q s/1")
    assert state.typed == " q s/1"
    assert (state.quit, state.paused, state.snapshot, state.hidden) == (False, False, False, frozenset())


@pytest.mark.parametrize("enter", [10, 13, 0xFF8D])
def test_enter_gives_the_queries(enter: int) -> None:
    state = typed("/a red ball; ;the dog ", enter)
    assert state.edited == ("a red ball", "the dog")
    assert state.typed is None


def test_escape_leaves_the_queries() -> None:
    state = typed("/a red ball", ESCAPE)
    assert (state.edited, state.typed) == (None, None)
    state.press(ord("q"))
    assert state.quit


def test_an_edit_starts_with_the_queries_and_the_first_letter_replaces_them() -> None:
    both = ("a dog", "a cat")
    assert typed("/", queries=both).typed == "a dog; a cat"
    assert typed("/x", queries=both).typed == "x"
    assert typed("/", BACKSPACE, *map(ord, "r"), queries=both).typed == "a dog; a car"
    assert typed("/", CLEAR, queries=both).typed == ""
    assert typed("/", ENTER, queries=both).edited == both


def test_nothing_typed_changes_nothing() -> None:
    assert typed("/", CLEAR, ENTER).edited is None


@pytest.mark.parametrize(
    ("code", "letter"),
    [
        (0xE9, "é"),  # Latin-1
        (0x01000000 + ord("狗"), "狗"),  # X11's code of other characters
        (0x01000000 + ord("ب"), "ب"),
        (0x100000 + ord("d"), "d"),  # Num Lock is on
        (0xFF51, ""),  # an arrow
        (0x06C1, ""),  # an old code of X11, which stands for another letter than in Unicode
        (7, ""),
        (-1, ""),
    ],
)
def test_letters_of_other_keyboards(code: int, letter: str) -> None:
    state = typed("/", CLEAR)
    state.press(code)
    assert state.typed == letter


def test_a_line_has_an_end() -> None:
    assert len(typed("/" + "x" * 5000).typed or "") == 1000


def test_a_closed_window_ends_the_stream_also_while_typing() -> None:
    assert typed("/q").quit is False
    assert typed("/q", CLOSED).quit


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


def test_an_edited_query_is_segmented_from_the_next_frame_on() -> None:
    """And the picture waits while one types: at two frames per second the window would lose most letters."""
    _, segmenter, frames = watch([None, "/", "x", "y", ENTER])
    assert segmenter.history == [(2, ("xy",))]
    assert frames == 5


def test_a_query_that_is_refused_is_told_and_the_old_ones_stay() -> None:
    class Refusing(FakeSegmenter):
        def set_queries(self, queries: Sequence[str]) -> None:
            raise UserError("query 1 has 62 tokens")

    screen, segmenter, frames = watch(["/", "x", ENTER], segmenter=Refusing())
    assert frames == 5
    assert segmenter.queries == ("a bright thing",)
    assert screen.notes[3] == "query 1 has 62 tokens"
    assert (screen.pictures[3][-8:] != screen.pictures[0][-8:]).any()
    assert len(screen.pictures) == 5 + 2


def test_typing_is_shown_on_the_screen_and_recorded_nowhere() -> None:
    class Recorder:
        wants_overlay = True

        def __init__(self) -> None:
            self.pictures: list[np.ndarray] = []

        def write(self, frame: object, result: object, overlay: np.ndarray | None) -> None:
            assert overlay is not None
            self.pictures.append(overlay)

        def close(self) -> None: ...

        def abort(self) -> None: ...

    controls, recorder = KeyControls(), Recorder()
    screen = FakeScreen(controls, [ord("/"), ord("x"), ESCAPE])
    run_stream(FakeSegmenter(), FakeSource(3), [screen, recorder, controls], controls=controls)
    assert [note.rpartition(":  ")[2] for note in screen.notes] == ["", "/a bright thing_", "/x_", "", ""]
    plain, *recorded = recorder.pictures
    assert len(recorded) == 2
    assert (screen.pictures[0] == plain).all()
    assert all((picture != plain).any() for picture in screen.pictures[1:3])
    assert all((a == b).all() for a, b in zip(screen.pictures[3:], recorded, strict=True))


def test_a_pause_holds_the_frame_and_shows_what_is_toggled() -> None:
    screen, segmenter, frames = watch([None, " ", None, "1", None, " "])
    assert frames == 5
    assert len(screen.pictures) == 5 + 4
    paused = screen.pictures[2:6]
    assert screen.notes[2] == "paused, space goes on"
    assert (paused[0] == paused[1]).all()
    # A pixel of the mask that is below the legend and above the note: hidden, it is the frame's own.
    assert (paused[0][19, 15] != [200, 200, 200]).any()
    assert (paused[2][19, 15] == [200, 200, 200]).all()
    assert segmenter.history == []


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


def test_view_is_kept_and_hidden_added() -> None:
    controls = KeyControls(view=OverlayView(opacity=0.9, outline=False))
    controls.apply(FakeSegmenter())
    controls.press(ord("1"))
    assert controls.view == OverlayView(opacity=0.9, outline=False, hidden=frozenset({0}))


def test_hidden_queries_come_back_with_new_ones() -> None:
    controls, segmenter = KeyControls(), FakeSegmenter()
    controls.apply(segmenter)
    for code in (ord("1"), ord("/"), ord("x"), ENTER):
        controls.press(code)
    assert controls.apply(segmenter)
    assert controls.view.hidden == frozenset()
    assert segmenter.queries == ("x",)


def test_a_pause_costs_no_processor() -> None:
    """The loop sleeps between its looks at the controls."""
    controls = KeyControls()

    class Counting(FakeScreen):
        def show(self, image: np.ndarray) -> None:
            super().show(image)
            if len(self.pictures) == 6:
                controls.press(ord("q"))

    controls.press(ord(" "))
    before = time.process_time(), time.perf_counter()
    run_stream(FakeSegmenter(), FakeSource(3), [Counting(controls, [])], controls=controls)
    used, passed = time.process_time() - before[0], time.perf_counter() - before[1]
    assert used < passed
