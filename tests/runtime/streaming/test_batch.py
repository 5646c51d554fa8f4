"""Many files with one bundle: which files, their outputs, resuming, workers."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from support.tiny_bundle import write_tiny_bundle
from typer.testing import CliRunner, Result

from rvos_edge.cli import app
from rvos_edge.errors import UserError
from rvos_edge.streaming.batch import BatchJob, BatchRow, FileProcessor, find_files, make_rows
from rvos_edge.streaming.ledger import LEDGER_NAME, BatchLedger, plan
from rvos_edge.streaming.workers import process_files

FRAMES = 3
NAMES = ("clip1", "clip2", "clip10")
QUERIES = ("the red ball", "a black car")


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    for seed, name in enumerate(NAMES):
        write_clip(folder / f"{name}.mp4", seed)
    return folder


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    monkeypatch.setenv("RVOS_EDGE_CACHE", str(tmp_path_factory.mktemp("cache")))


def write_clip(path: Path, seed: int, *, frames: int = FRAMES) -> None:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 10.0, (96, 64))
    first = cv2.resize(np.random.default_rng(seed).integers(0, 255, (8, 12, 3), np.uint8), (96, 64))
    for index in range(frames):
        writer.write(np.roll(first, 4 * index, 1))
    writer.release()


def arguments(bundle: Path, source: object, out: Path, *more: object) -> list[str]:
    queries = [part for query in QUERIES for part in ("--query", query)]
    outputs = ["--output", out / "videos", "--masks", out / "masks", "--json", out / "json"]
    # Without a choice of its own: most of the time goes into starting OpenVINO.
    return [
        str(part)
        for part in (
            "run",
            "--bundle",
            bundle,
            "--source",
            source,
            *queries,
            *outputs,
            "--backend",
            "onnxruntime",
            *more,
        )
    ]


def run(bundle: Path, source: object, out: Path, *more: object) -> Result:
    return CliRunner().invoke(app, arguments(bundle, source, out, *more))


def contents(out: Path) -> dict[str, Any]:
    """Outputs of a batch without times."""
    found: dict[str, Any] = {}
    for path in sorted(path for path in out.rglob("*") if path.is_file() and path.name != LEDGER_NAME):
        content: Any = path.read_bytes()
        if path.suffix == ".jsonl":
            content = [json.loads(line) for line in content.splitlines()]
            for line in content:
                del line["timings_ms"], line["total_ms"]
        if path.suffix == ".mp4":
            content = int(cv2.VideoCapture(str(path)).get(cv2.CAP_PROP_FRAME_COUNT))  # its layout depends on time
        found[str(path.relative_to(out))] = content
    return found


@pytest.fixture(scope="module")
def single(tiny: Path, clips: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Outputs of one process for all clips."""
    out = tmp_path_factory.mktemp("single")
    result = run(tiny, clips / "*.mp4", out, "--threads", 1)
    assert result.exit_code == 0, result.output
    assert f"3 of 3 files done, {3 * FRAMES} frames" in result.stdout
    return contents(out)


def test_outputs_are_named_by_stem(single: dict[str, Any]) -> None:
    masks = [f"masks/{name}/{query}/{index:05d}.png" for name in NAMES for query in (1, 2) for index in range(FRAMES)]
    assert set(single) == {*masks, *(f"videos/{name}.mp4" for name in NAMES), *(f"json/{name}.jsonl" for name in NAMES)}


def test_a_file_of_a_batch_is_as_if_alone(tiny: Path, clips: Path, single: dict[str, Any], tmp_path: Path) -> None:
    """The flow does not run on from the file before."""
    name = NAMES[1]
    outputs = ("--output", tmp_path / "a.mp4", "--masks", tmp_path / "masks", "--json", tmp_path / "a.jsonl")
    queries = [part for query in QUERIES for part in ("--query", query)]
    alone = ["run", "--bundle", tiny, "--source", clips / f"{name}.mp4", "--backend", "onnxruntime", *queries, *outputs]
    assert CliRunner().invoke(app, [str(part) for part in alone]).exit_code == 0
    written = contents(tmp_path)
    for index in range(FRAMES):
        assert written[f"masks/2/{index:05d}.png"] == single[f"masks/{name}/2/{index:05d}.png"]
    assert written["a.jsonl"] == single[f"json/{name}.jsonl"]


def test_a_second_run_has_nothing_to_do(tiny: Path, clips: Path, tmp_path: Path) -> None:
    assert run(tiny, clips / "*.mp4", tmp_path).exit_code == 0
    times = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    result = run(tiny, clips / "*.mp4", tmp_path)
    assert result.exit_code == 0
    assert "0 of 3 files done" in result.stdout
    assert "3 were finished before" in result.stdout
    assert times == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}


def test_what_is_missing_or_changed_is_done_again(tiny: Path, clips: Path, tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.mkdir()
    for name in NAMES:
        (own / f"{name}.mp4").write_bytes((clips / f"{name}.mp4").read_bytes())
    out = tmp_path / "out"
    assert run(tiny, own / "*.mp4", out).exit_code == 0
    (out / "json" / "clip1.jsonl").unlink()
    write_clip(own / "clip2.mp4", 9, frames=2)
    assert "2 of 3 files done" in run(tiny, own / "*.mp4", out).stdout
    assert (out / "json" / "clip1.jsonl").exists()
    # The shorter clip's masks are not mixed with those of the longer one.
    assert len(list((out / "masks" / "clip2" / "1").iterdir())) == 2


def test_it_goes_on_after_the_last_whole_line_of_the_ledger(
    tiny: Path, clips: Path, single: dict[str, Any], tmp_path: Path
) -> None:
    assert run(tiny, clips / "*.mp4", tmp_path, "--threads", 1).exit_code == 0
    ledger = tmp_path / "videos" / LEDGER_NAME
    ledger.write_bytes(ledger.read_bytes()[:-20])  # a crash in the middle of the last line
    leftover = tmp_path / "masks" / ".clip10.part-1-0123abcd"
    leftover.mkdir()
    (leftover / "00009.png").write_bytes(b"of an interrupted run")
    assert "1 of 3 files done" in run(tiny, clips / "*.mp4", tmp_path, "--threads", 1).stdout
    assert contents(tmp_path) == single


@pytest.mark.parametrize(
    ("changed", "word"),
    [
        (("--query", "a dog"), "queries"),
        pytest.param(("--iterations", 1), "options", marks=pytest.mark.slow),
        pytest.param(("--frames", 2), "options", marks=pytest.mark.slow),
    ],
)
def test_another_job_is_refused_or_done_anew(
    changed: tuple[object, ...], word: str, tiny: Path, clips: Path, tmp_path: Path
) -> None:
    assert run(tiny, clips / "clip*.mp4", tmp_path).exit_code == 0
    before = contents(tmp_path)
    result = run(tiny, clips / "clip*.mp4", tmp_path, *changed)
    assert result.exit_code == 2
    assert f"another {word};" in result.stderr
    assert "--no-resume" in result.stderr
    assert contents(tmp_path) == before
    assert run(tiny, clips / "clip*.mp4", tmp_path, *changed, "--no-resume").exit_code == 0
    assert contents(tmp_path) != before
    assert run(tiny, clips / "clip*.mp4", tmp_path, *changed).exit_code == 0


def test_another_bundle_is_refused(tiny: Path, clips: Path, tmp_path: Path) -> None:
    assert run(tiny, clips / "*.mp4", tmp_path).exit_code == 0
    other = write_tiny_bundle(tmp_path / "other", flow=False)
    result = run(other, clips / "*.mp4", tmp_path)
    assert result.exit_code == 2
    assert "another bundle;" in result.stderr


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_write_the_same_bytes_and_a_file_that_fails_is_told(
    workers: int, tiny: Path, clips: Path, single: dict[str, Any], tmp_path: Path
) -> None:
    own = tmp_path / "own"
    own.mkdir()
    for name in NAMES:
        (own / f"{name}.mp4").write_bytes((clips / f"{name}.mp4").read_bytes())
    (own / "bad.mp4").write_bytes(b"noise" * 100)
    result = run(tiny, own / "*.mp4", tmp_path / "out", "--threads", 1, "--workers", workers)
    assert result.exit_code == 2
    assert re.search(r"bad\.mp4: .*holds no video", result.stderr)
    assert "3 of 4 files done" in result.stdout
    assert "1 failed" in result.stdout
    assert contents(tmp_path / "out") == single


def test_a_bug_is_told_too_and_the_exit_code_tells_it_from_bad_input(
    tiny: Path, clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = FileProcessor._process

    def buggy(self: FileProcessor, path: str, name: str) -> tuple[int, float]:
        if name == "clip2":
            raise ZeroDivisionError("division by zero")
        return real(self, path, name)

    monkeypatch.setattr(FileProcessor, "_process", buggy)
    result = run(tiny, clips / "*.mp4", tmp_path)
    assert result.exit_code == 1
    assert "clip2.mp4: ZeroDivisionError: division by zero" in result.stderr
    assert "2 of 3 files done" in result.stdout


def test_a_worker_that_dies_costs_its_file_alone(tiny: Path, clips: Path, tmp_path: Path) -> None:
    """An error as when memory runs out."""
    rows = make_rows([stuck(tmp_path / "stuck"), *sorted(clips.iterdir())])
    done: list[BatchRow] = []
    results = process_files(
        BatchJob(QUERIES, tiny, masks=tmp_path / "masks", options={"backend": "onnxruntime", "threads": 1}),
        rows,
        workers=2,
    )
    for row in results:
        done.append(row)
        if len(done) == len(NAMES):
            for pid in children():
                os.kill(pid, signal.SIGKILL)
    assert sorted(row["name"] for row in done) == sorted([*NAMES, "stuck"])
    (failed,) = [row for row in done if row["error"]]
    assert (failed["name"], failed["error"]) == ("stuck", "its process ended with exit code -9")
    assert not children()


def stuck(folder: Path) -> Path:
    """A folder of frames whose second one never comes: a pipe that nobody writes to."""
    folder.mkdir()
    cv2.imwrite(str(folder / "00000.png"), np.zeros((48, 64, 3), np.uint8))
    os.mkfifo(folder / "00001.png")
    return folder


def children() -> list[int]:
    """Processes of multiprocessing that we have started and that still run."""
    import multiprocessing

    return [child.pid for child in multiprocessing.active_children() if child.pid is not None]


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_ctrl_c_ends_all_of_it_and_the_next_run_goes_on(
    workers: int, tiny: Path, clips: Path, single: dict[str, Any], tmp_path: Path
) -> None:
    own, out = tmp_path / "own", tmp_path / "out"
    own.mkdir()
    for name in NAMES:
        (own / f"{name}.mp4").write_bytes((clips / f"{name}.mp4").read_bytes())
    stuck(own / "zzz")
    command = [sys.executable, "-m", "rvos_edge.cli", *arguments(tiny, own / "*", out, "--threads", 1)]
    process = subprocess.Popen(
        [*command, "--workers", str(workers)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    ledger = out / "videos" / LEDGER_NAME
    deadline = time.monotonic() + 60
    while not (ledger.exists() and len(ledger.read_bytes().splitlines()) > len(NAMES)):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    stdout, stderr = process.communicate(timeout=30)
    assert process.returncode == 130, stderr
    assert "interrupted: the same command goes on from here" in stdout
    assert "Traceback" not in stderr
    while group_lives(process.pid):  # multiprocessing's own tracker takes a moment longer
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert contents(out) == single
    assert "0 of 3 files done" in run(tiny, own / "*.mp4", out, "--threads", 1).stdout


def group_lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def test_folders_of_images_are_a_batch(tiny: Path, tmp_path: Path) -> None:
    for name in ("bear", "v1.0"):
        (tmp_path / "in" / name).mkdir(parents=True)
        for index in range(2):
            cv2.imwrite(str(tmp_path / "in" / name / f"{index:05d}.jpg"), np.full((48, 64, 3), 90 * index, np.uint8))
    assert run(tiny, tmp_path / "in" / "*", tmp_path / "out").exit_code == 0
    assert sorted(path.name for path in (tmp_path / "out" / "masks").iterdir()) == ["bear", "v1.0"]


def test_which_sources_are_batches(clips: Path, tmp_path: Path) -> None:
    in_order = [clips / f"{name}.mp4" for name in NAMES]
    assert find_files(str(clips / "*.mp4")) == in_order
    assert find_files(str(clips)) == in_order
    assert find_files(str(in_order[0])) is None
    for spec in ("synthetic", "0", "rtsp://camera/stream?channel=1", str(tmp_path / "nothing*.mp4"), str(tmp_path)):
        assert find_files(spec) is None
    cv2.imwrite(str(tmp_path / "frame.jpg"), np.zeros((8, 8, 3), np.uint8))
    assert find_files(str(tmp_path / "*.jpg")) is None
    assert find_files(str(tmp_path)) is None
    (tmp_path / "clip[1].mp4").write_bytes(b"")
    assert find_files(str(tmp_path / "clip[1].mp4")) is None
    with pytest.raises(UserError, match=r"matches images and videos \(frame\.jpg, clip\[1\]\.mp4\)"):
        find_files(str(tmp_path / "*"))


def test_two_files_of_one_stem_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"a/clip\.mp4 and .*b/clip\.avi would write the same outputs, clip"):
        make_rows([tmp_path / "a" / "clip.mp4", tmp_path / "b" / "clip.avi"])


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--output", "out.mp4"), "--output out.mp4: many files need a folder"),
        (("--json", "-"), "--json -: many files need a folder"),
        (("--masks", "file"), "file is a file"),
        (("--masks", "out", "--workers", 0), "0 workers"),
        (("--masks", "out", "--frames", 0), "0 frames cannot be segmented; ask for at least 1"),
        (("--masks", "out", "--query", " "), "query 2 is empty"),
        (("--masks", "out", "--query", "the red ball " * 20), "has 62 tokens"),
        (("--masks", "out", "--backend", "abacus"), "backend 'abacus' is unknown"),
    ],
)
def test_a_batch_that_cannot_be_done(
    more: tuple[object, ...], words: str, tiny: Path, clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("")
    line = ["run", "--bundle", tiny, "--source", clips / "*.mp4", "--query", "a dog", *more]
    result = CliRunner().invoke(app, [str(part) for part in line])
    assert result.exit_code == 2, result.output
    assert words in result.stderr
    assert result.stderr.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_without_a_place_results_get_a_folder_in_which_the_same_work_goes_on(
    tiny: Path, clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    base = ["run", str(clips / "*.mp4"), "--bundle", str(tiny), "--backend", "onnxruntime", "--frames", "1"]
    for query, name, done in (("a dog", "", "3 of 3"), ("a cat", "-2", "3 of 3"), ("a dog", "", "0 of 3")):
        result = CliRunner().invoke(app, [*base, query])
        assert result.exit_code == 0, result.output
        assert f"{done} files done" in result.stdout
        assert f"Results are in rvos-edge-out/{clips.name}{name}." in result.stdout
    assert len(list((tmp_path / "rvos-edge-out").iterdir())) == 2
    with pytest.raises(UserError, match="nothing would be written"):
        plan(BatchJob(QUERIES, tiny), [clips / "clip1.mp4"])


def test_workers_are_for_many_files(tiny: Path, clips: Path, tmp_path: Path) -> None:
    result = run(tiny, clips / "clip1.mp4", tmp_path, "--workers", 2)
    assert result.exit_code == 2
    assert "--workers shares many files" in result.stderr


def test_a_foreign_ledger_is_left_alone(tiny: Path, tmp_path: Path) -> None:
    (tmp_path / LEDGER_NAME).write_text('{"format": 9}\n{"name": "clip1"}\n')
    with pytest.raises(UserError, match="exists and is something that rvos-edge did not write"):
        BatchLedger(BatchJob(QUERIES, tiny, masks=tmp_path))
    assert (tmp_path / LEDGER_NAME).read_text().startswith('{"format": 9}')
