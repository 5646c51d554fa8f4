"""The soak of `tests/soak.py`, without viewers and too short to say anything about memory."""

from __future__ import annotations

from pathlib import Path

from soak import soak


def test_every_loss_and_every_return_is_said_once(tmp_path: Path) -> None:
    found = soak(tmp_path, frames=120, losses=5, visitors=0)
    assert found["frames"] == 120
    assert found["reconnects"] == 5
    assert (found["said"]["lost"], found["said"]["back"]) == (5, 5)
    assert (found["events"]["camera lost"], found["events"]["camera back"]) == (5, 5)
