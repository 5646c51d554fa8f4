"""Finished parts survive a crash, and belong to one model and one set of options."""

from __future__ import annotations

from pathlib import Path

import pytest

from rvos_edge.errors import UserError
from rvos_edge.streaming.ledger import Ledger

FACTS = {"model": "abc", "split": "val", "every": 1}


def test_rows_come_back_exactly(tmp_path: Path) -> None:
    path = tmp_path / "new" / "out.partial.jsonl"
    row = {"j": 0.1 + 0.2, "f": None, "expressions": {"0": {"j": 1 / 3}}}
    ledger = Ledger(path, FACTS)
    assert not path.exists(), "no file without a finished video"
    assert ledger.put("davis16", "bear", row) == row
    ledger.put("swap", "", {"share": 0.5})
    again = Ledger(path, FACTS)
    assert len(again) == 2
    assert again.get("davis16", "bear") == row
    assert again.get("davis16", "") is None
    again.remove()
    assert not path.exists()


def test_a_line_cut_short_is_dropped_and_written_anew(tmp_path: Path) -> None:
    path = tmp_path / "out.partial.jsonl"
    ledger = Ledger(path, FACTS)
    for video in ("a", "b"):
        ledger.put("davis16", video, {"j": 1.0})
    whole = path.read_bytes()
    for cut in (1, 9):
        path.write_bytes(whole[:-cut])
        torn = Ledger(path, FACTS)
        assert torn.get("davis16", "a") is not None
        assert torn.get("davis16", "b") is None
        torn.put("davis16", "b", {"j": 1.0})
        assert path.read_bytes() == whole


def test_another_model_or_other_options_are_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "out.partial.jsonl"
    Ledger(path, FACTS).put("davis16", "a", {"j": 1.0})
    with pytest.raises(UserError, match=r"out\.partial\.jsonl .* another model, every; .* --no-resume"):
        Ledger(path, FACTS | {"model": "xyz", "every": 2})
    anew = Ledger(path, FACTS | {"model": "xyz"}, resume=False)
    assert len(anew) == 0
    anew.put("davis16", "b", {"j": 0.0})
    assert Ledger(path, FACTS | {"model": "xyz"}).get("davis16", "a") is None
    path.write_text("[]\n[]\n")
    with pytest.raises(UserError, match="exists and is something that rvos-edge did not write"):
        Ledger(path, FACTS)


def test_a_place_that_cannot_be_written_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"file cannot be written: .*; choose another path"):
        Ledger(tmp_path / "file" / "out.partial.jsonl", FACTS)
