"""A program ffmpeg that is played by a script."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

FFMPEG = f"""#!{sys.executable}
import pathlib, sys, time
folder = pathlib.Path(__file__).parent
with (folder / "arguments").open("a") as log:
    print(*sys.argv[1:], file=log)
if (folder / "away").exists():
    sys.exit(sys.argv[-1] + ": Connection refused")
if (folder / "hangs").exists():
    time.sleep(600)
with (folder / "received").open("ab", buffering=0) as out:
    while part := sys.stdin.buffer.read(9216):
        out.write(part)
        if (folder / "drops").exists():
            sys.exit("Connection reset by peer")
"""


@pytest.fixture
def fake_ffmpeg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on the path with a program ffmpeg that keeps what it gets; files in it make it fail."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "ffmpeg").write_text(FFMPEG)
    (folder / "ffmpeg").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return folder
