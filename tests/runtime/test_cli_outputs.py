"""No command costs the user a file: outputs that would are refused, and everything stays as it was."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import cv2
import numpy as np
import pytest
from support.full_disk import files_at_most
from typer.testing import CliRunner, Result

from rvos_edge.cli import app

PICTURE = np.random.default_rng(1).integers(0, 255, (64, 96, 3), np.uint8)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that the user works in: two films, a folder of frames, notes, another program's JSON."""
    for path in ("s/a.mp4", "s/b.mp4"):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        writer = cv2.VideoWriter(str(tmp_path / path), cv2.VideoWriter.fourcc(*"mp4v"), 10.0, (96, 64))
        for _ in range(2):
            writer.write(PICTURE)
        writer.release()
    (tmp_path / "frames/clip").mkdir(parents=True)
    for index in range(2):
        cv2.imwrite(str(tmp_path / f"frames/clip/{index:05d}.png"), PICTURE)
    for path in ("frames/clip/notes.txt", "frames/notes.txt", "s/notes.txt"):
        (tmp_path / path).write_text("mine")
    (tmp_path / "package.json").write_text('{"name": "mine"}')
    shutil.copy(tmp_path / "s/a.mp4", tmp_path / "s/demo.mp4")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def run(tiny: Path, *arguments: object) -> Result:
    given = ("run", "--bundle", tiny, "--query", "a dog", "--backend", "onnxruntime", "--threads", 1, *arguments)
    return CliRunner().invoke(app, [str(argument) for argument in given])


def refuses(result: Result, words: str) -> None:
    assert result.exit_code == 2, result.output
    assert result.stderr.startswith("Error: ")
    assert result.stderr.count("\n") == 1
    assert words in result.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("--source s/*.mp4 --output s", "s/a.mp4 is the source itself"),
        ("--source s --output s --workers 2", "s/a.mp4 is the source itself"),
        ("--source frames/* --masks frames", "frames/clip is the source itself"),
        ("--source frames/* --masks . --json j", "clip is the source itself"),
        ("--source frames/clip --masks frames/clip", "frames/clip is the source itself"),
        ("--source frames/clip --masks frames", "frames holds the input frames/clip"),
        ("--source frames/clip/*.png --masks frames/clip", "frames/clip holds the input frames/clip/0000"),
        ("--source synthetic --frames 1 --masks frames/clip", ".png exists and is something that rvos-edge did not"),
        ("--source s/a.mp4 --json s/b.mp4", "s/b.mp4 exists and is something that rvos-edge did not write; choose"),
        ("--source s/a.mp4 --rle package.json", "package.json exists and is something that rvos-edge did not write"),
        ("--source s/a.mp4 --json s/a.mp4", "s/a.mp4 is the source itself"),
        ("--source synthetic --output s/a.mp4", "s/a.mp4 exists and is something that rvos-edge did not write"),
    ],
)
def test_run(arguments: str, words: str, tiny: Path, home: Path) -> None:
    if "--masks ." in arguments:
        (home / "clip").symlink_to(home / "frames/clip")
    before = contents(home)
    refuses(run(tiny, *arguments.split()), words)
    assert contents(home) == before


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("average frames/clip s --output .", "holds the input"),
        ("average frames/clip s --output frames", "frames holds the input frames/clip"),
        ("restore frames/clip --output s", "s holds what rvos-edge did not write; choose another output, or remove it"),
        ("restore frames/clip --output frames", "frames holds the input frames/clip"),
        ("export frames/clip --output s", "s holds what rvos-edge did not write"),
        ("export frames/clip --output frames/clip", "frames/clip is the source itself, or another input"),
        ("eval --dataset davis16 --checkpoint s --root frames --json s/a.mp4", "s/a.mp4 exists and is something"),
        ("eval --dataset davis16 --checkpoint s --root frames --masks frames", "frames is the source itself"),
        ("bench --json s/a.mp4", "s/a.mp4 exists and is something that rvos-edge did not write"),
        ("bench --json s/notes.txt", "s/notes.txt exists and is something that rvos-edge did not write"),
        ("teach frames/clip --output q --keep-masks frames/clip", "frames/clip is the source itself"),
        (
            "teach frames/clip --output package.json",
            "package.json exists and is something that rvos-edge did not write",
        ),
        ("train edge --output .", "config.json exists and is something that rvos-edge did not write"),
    ],
)
def test_other_commands(command: str, words: str, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    monkeypatch.setenv("DATA_ROOT", str(home))
    (home / "config.json").write_text('{"name": "mine"}')
    before = contents(home)
    refuses(CliRunner().invoke(app, command.split()), words)
    assert contents(home) == before


def test_demo(tiny: Path, home: Path) -> None:
    before = contents(home)
    command = ["demo", "--bundle", str(tiny), "--output", "s", "--backend", "onnxruntime"]
    refuses(CliRunner().invoke(app, command), "s/demo.mp4 exists and is something that rvos-edge did not write")
    assert contents(home) == before


def test_the_same_command_again_replaces_its_outputs(tiny: Path, home: Path) -> None:
    for source, outputs in (
        ("s/a.mp4", "--output out/a.mp4 --masks out/masks --json out/a.jsonl --rle out/a.rle.jsonl"),
        ("s/[ab].mp4", "--output many --masks many/masks --json many/json --no-resume"),
    ):
        for _ in range(2):
            result = run(tiny, "--source", source, *outputs.split())
            assert result.exit_code == 0, result.output
    assert not list(home.rglob(".*.part-*"))


def test_json_through_a_pipe(tiny: Path, home: Path) -> None:
    os.mkfifo(home / "pipe")
    read: list[str] = []
    reader = threading.Thread(target=lambda: read.append((home / "pipe").read_text()))
    reader.start()
    result = run(tiny, "--source", "s/a.mp4", "--json", "pipe", "--rle", "/dev/null")
    reader.join()
    assert result.exit_code == 0, result.output
    assert read[0].count("\n") == 2
    assert (home / "pipe").is_fifo()
    assert Path("/dev/null").is_char_device()


def test_json_to_the_device_of_stdout(tiny: Path, home: Path) -> None:
    result = run(tiny, "--source", "s/a.mp4", "--json", "/dev/stdout")
    assert result.exit_code == 0, result.output
    assert [line[:10] for line in result.stdout.splitlines()] == ['{"frame": ', '{"frame": ']


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--source", os.fsdecode(b"s/\xff.mp4"), "--json", "o.jsonl"), r"'s/\udcff.mp4' is not UTF-8; rename it"),
        (("--source", "s/a.mp4", "--json", os.fsdecode(b"\xff.jsonl")), r"'\udcff.jsonl' is not UTF-8; rename it"),
        (("--source", "odd", "--json", "o.jsonl"), r"\udcff.png' is not UTF-8; rename it"),
        (("--source", "s/a.mp4", "--frames", 10**20), "100000000000000000000 frames cannot be segmented"),
        (("--source", "-", "--raw", "99999x99999"), "frames may have 67108864 pixels at most"),
        (("--source", "s/a.mp4", *("--query", "a cat") * 1999), "2000 queries are too many; give at most 255"),
    ],
)
def test_what_is_too_much_is_one_sentence(arguments: tuple[object, ...], words: str, tiny: Path, home: Path) -> None:
    (home / "odd").mkdir()
    cv2.imwrite("odd/picture.png", PICTURE)
    (home / "odd/picture.png").rename(home / "odd" / os.fsdecode(b"\xff.png"))
    refuses(run(tiny, *arguments), words)


def test_a_film_whose_name_is_not_utf8(tiny: Path, home: Path) -> None:
    (home / "s/b.mp4").rename(home / "s" / os.fsdecode(b"\xff.mp4"))
    refuses(run(tiny, "--source", "s", "--json", "out"), r"\udcff.mp4' is not UTF-8; rename it")
    assert not (home / "out").exists()


def test_ascii_terminal_and_a_chinese_query(tiny: Path, home: Path) -> None:
    script = "from rvos_edge.cli import main; main()"
    command = [sys.executable, "-c", script, "run", "--bundle", str(tiny), "--source", "s/a.mp4", "--query", "狗"]
    command += ["--backend", "onnxruntime", "--json", "-", "--masks", "masks"]
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(command, capture_output=True, env=environment, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.decode().count('"text": "狗"') == 2


def test_export_onto_a_full_disk_is_one_sentence(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    from support.tiny_checkpoint import write_checkpoint

    from rvos_edge.export import package

    monkeypatch.setattr(package, "export_onnx", lambda graph, example, path: path.write_bytes(bytes(30_000)))
    checkpoint = write_checkpoint(home / "checkpoint")
    with files_at_most(20_000):
        result = CliRunner().invoke(app, ["export", str(checkpoint), "--output", "bundle"])
    refuses(result, "bundle cannot be written: File too large; choose another path")
    assert not (home / "bundle").exists()
