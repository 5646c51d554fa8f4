"""Files and folders are replaced whole or stay as they were; two runs never mix."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from rvos_edge.atomic import PendingFile, new_directory, new_file, only_writer, recover, write_output
from rvos_edge.errors import UserError
from rvos_edge.streaming.sinks import JsonSink, VideoSink

REPORT = '{"data": {}, "runs": ["%s"]}'


def _write(path: Path, text: str) -> None:
    with new_directory(path) as temporary:
        (temporary / "report.json").write_text(REPORT % text)


def _read(path: Path) -> str:
    return (path / "report.json").read_text()


def test_the_old_directory_is_replaced_at_the_end(tmp_path: Path) -> None:
    _write(tmp_path / "report", "old")
    with new_directory(tmp_path / "report") as temporary:
        (temporary / "report.json").write_text(REPORT % "new")
        assert "old" in _read(tmp_path / "report")
    assert "new" in _read(tmp_path / "report")
    assert [path.name for path in tmp_path.iterdir()] == ["report"]


def test_after_an_error_the_old_one_stays_and_nothing_new_is_left(tmp_path: Path) -> None:
    _write(tmp_path / "report", "old")
    for path in (tmp_path / "report", tmp_path / "deep/er/report"):
        with pytest.raises(FileNotFoundError), new_directory(path) as temporary:
            (temporary / "missing/file").write_text("new")
    assert "old" in _read(tmp_path / "report")
    assert [path.name for path in tmp_path.iterdir()] == ["report"]


def test_a_crash_between_the_renames_is_mended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _write(tmp_path / "report", "old")
    rename = os.rename

    def dying(source: Path, target: Path) -> None:
        if Path(target).name == "report":
            raise OSError("no")
        rename(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", dying)
        with pytest.raises(OSError, match="no"):
            _write(tmp_path / "report", "new")
    recover(tmp_path / "report")
    assert "old" in _read(tmp_path / "report")


def test_a_folder_with_something_else_in_it_is_not_replaced(tmp_path: Path) -> None:
    _write(tmp_path / "report", "old")
    (tmp_path / "report/notes.txt").write_text("mine")
    with pytest.raises(UserError, match="report holds what rvos-edge did not write; choose another output, or remove"):
        _write(tmp_path / "report", "new")
    assert (tmp_path / "report/notes.txt").read_text() == "mine"


def test_a_file_of_somebody_else_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "film.jsonl"
    path.write_bytes(b"\0\0\0\x18ftypmp42")
    with pytest.raises(UserError, match=r"film\.jsonl exists and is something that rvos-edge did not write"):
        PendingFile(path)
    assert path.read_bytes() == b"\0\0\0\x18ftypmp42"
    assert [path.name for path in tmp_path.iterdir()] == ["film.jsonl"]


def test_the_second_run_of_one_output_is_refused(tmp_path: Path) -> None:
    for name in ("o.jsonl", "o"):  # neither takes the other for its own
        first = PendingFile(tmp_path / name)
        with pytest.raises(UserError, match=f"{name} is being written by another run; wait for it"):
            PendingFile(tmp_path / name)
        first.partial.write_text("first")
        first.commit()
        assert (tmp_path / name).read_text() == "first"
    with (
        new_directory(tmp_path / "folder"),
        pytest.raises(UserError, match="folder is being written"),
        new_directory(tmp_path / "folder"),
    ):
        pass
    with only_writer(tmp_path), pytest.raises(UserError, match="being written"), only_writer(tmp_path):
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "o", "o.jsonl"]


def test_leftovers_of_a_killed_run_are_removed(tmp_path: Path) -> None:
    (tmp_path / ".o.part-1-0123abcd.mp4").write_text("half")
    (tmp_path / ".o.part-of-mine.mp4").write_text("somebody's")
    (tmp_path / ".d.part-1-0123abcd").mkdir()
    (tmp_path / ".d.part-1-0123abcd/half").touch()
    PendingFile(tmp_path / "o.mp4").discard()
    _write(tmp_path / "d", "new")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".o.part-of-mine.mp4", "d"]


def test_a_link_stays_and_its_target_is_written(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    for name in ("file", "folder"):
        (tmp_path / name).symlink_to(tmp_path / "disk" / name)
    write_output(tmp_path / "file", "")
    write_output(tmp_path / "file", '{"model": "", "command": ""}')
    _write(tmp_path / "folder", "old")
    _write(tmp_path / "folder", "new")
    with new_file(tmp_path / "file") as temporary:
        temporary.write_text("new")
    assert (tmp_path / "file").is_symlink()
    assert (tmp_path / "folder").is_symlink()
    assert (tmp_path / "disk/file").read_text() == "new"
    assert "new" in _read(tmp_path / "disk/folder")
    assert len(list(tmp_path.rglob("*"))) == 6


def test_pipes_and_devices_are_written_through(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_bytes()))
    reader.start()
    sink = JsonSink(pipe)
    sink.abort()
    reader.join()
    assert (read, pipe.is_fifo()) == ([b""], True)
    reader = threading.Thread(target=lambda: read.append(pipe.read_bytes()))
    reader.start()
    write_output(pipe, "whole")
    reader.join()
    assert (read[1], pipe.is_fifo()) == (b"whole", True)
    (tmp_path / "nowhere").symlink_to("/dev/null")
    write_output(tmp_path / "nowhere", "gone")
    assert Path("/dev/null").is_char_device()
    with pytest.raises(NotADirectoryError), new_directory(pipe):
        pass
    (tmp_path / "pipe.mp4").symlink_to(pipe)
    with pytest.raises(UserError, match=r"pipe\.mp4 is a pipe or a device, which holds no video"):
        VideoSink(tmp_path / "pipe.mp4", 25)
    assert pipe.is_fifo()
