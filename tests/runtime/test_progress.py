"""Progress in a log: a line every few seconds."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from rvos_edge import progress


def test_a_log_gets_lines_and_a_terminal_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)
    monkeypatch.delenv("CI", raising=False)
    log, screen = io.StringIO(), io.StringIO()
    assert list(progress.follow("abc", "letters", Console(file=log))) == ["a", "b", "c"]
    assert log.getvalue().splitlines()[-1].startswith("letters: 3 of 3, 0 s")
    list(progress.follow("abc", "letters", Console(file=screen, force_terminal=True)))
    assert "3/3" in screen.getvalue()


def test_nothing_is_said_of_what_is_quick_or_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.StringIO()
    list(progress.follow("abc", "letters", Console(file=out)))
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)
    with progress.progress_bar(Console(file=out), hidden=True) as bar:
        bar.advance(bar.add_task("work", total=2))
    assert out.getvalue() == ""
