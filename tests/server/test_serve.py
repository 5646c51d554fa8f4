"""The page from Python, as people write it."""

from __future__ import annotations

import json
import threading
import urllib.request
from pathlib import Path

import pytest

import rvos_edge
from rvos_edge.errors import UserError


def test_serve_runs_until_it_is_interrupted(tiny: Path, tmp_path: Path) -> None:
    from support.served import write_clip

    write_clip(tmp_path / "clip.mp4")
    seen: list[str] = []

    def visit(url: str) -> None:
        with urllib.request.urlopen(f"{url}api/status", timeout=30) as answer:
            seen.append(json.load(answer)["queries"][0]["text"])
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        rvos_edge.serve(tmp_path / "clip.mp4", "a dog", bundle=tiny, address="127.0.0.1:0", ready=visit)
    assert seen == ["a dog"]
    assert "page server" not in {thread.name for thread in threading.enumerate()}


def test_serve_refuses_before_anything_is_loaded(tiny: Path) -> None:
    with pytest.raises(UserError, match="add --token"):
        rvos_edge.serve(0, "a dog", bundle=tiny, address="0.0.0.0:0")
