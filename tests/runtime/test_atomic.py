"""A directory is replaced whole or stays as it was."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rvos_edge.atomic import new_directory, recover


def _write(path: Path, text: str) -> None:
    with new_directory(path) as temporary:
        (temporary / "file").write_text(text)


def test_the_old_directory_is_replaced_at_the_end(tmp_path: Path) -> None:
    _write(tmp_path / "bundle", "old")
    with new_directory(tmp_path / "bundle") as temporary:
        (temporary / "file").write_text("new")
        assert (tmp_path / "bundle/file").read_text() == "old"
    assert (tmp_path / "bundle/file").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_after_an_error_the_old_one_stays_and_nothing_new_is_left(tmp_path: Path) -> None:
    _write(tmp_path / "bundle", "old")
    with pytest.raises(FileNotFoundError), new_directory(tmp_path / "bundle") as temporary:
        (temporary / "missing/file").write_text("new")
    assert (tmp_path / "bundle/file").read_text() == "old"
    with pytest.raises(FileNotFoundError), new_directory(tmp_path / "deep/er/bundle") as temporary:
        (temporary / "missing/file").write_text("new")
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_a_crash_between_the_renames_is_mended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _write(tmp_path / "bundle", "old")
    rename = os.rename

    def dying(source: Path, target: Path) -> None:
        if Path(target).name == "bundle":
            raise OSError("no")
        rename(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", dying)
        with pytest.raises(OSError, match="no"):
            _write(tmp_path / "bundle", "new")
    recover(tmp_path / "bundle")
    assert (tmp_path / "bundle/file").read_text() == "old"
