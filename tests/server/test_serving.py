"""Options --serve and --token of the command line."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from rvos_edge.cli import app
from rvos_edge.cli.options import RunOptions


def run(tiny: Path, *arguments: str) -> Result:
    base = ["run", "--bundle", str(tiny), "--source", "synthetic", "--backend", "onnxruntime"]
    return CliRunner().invoke(app, [*base, *arguments])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--serve", "0.0.0.0:8000"), "add --token"),
        (("--serve", "0.0.0.0:8000", "--token", "short"), "at least 8"),
        (("--serve", "somewhere:over"), "write it as HOST:PORT"),
        (("--serve", "203.0.113.7:8000", "--token", "long enough"), "cannot be used"),
        ((), "there is no query; say what to segment"),
    ],
)
def test_bad_options_are_refused(tiny: Path, arguments: tuple[str, ...], words: str) -> None:
    result = run(tiny, *arguments)
    assert result.exit_code == 2, result.output
    assert result.stderr.count("\n") == 1
    assert words in result.stderr


def test_a_port_that_is_taken_leaves_no_output_behind(tiny: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        outputs = ("--output", str(tmp_path / "out/video.mp4"), "--json", str(tmp_path / "out/lines.jsonl"))
        result = run(tiny, "--query", "a dog", "--serve", address, *outputs)
    assert result.exit_code == 2, result.output
    assert "cannot be used" in result.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--serve"], "127.0.0.1:8000"),
        (["--serve", "--frames", "2"], "127.0.0.1:8000"),
        (["--serve", "9000"], "9000"),
        (["--serve", "a cat"], "127.0.0.1:8000"),
        (["--serve=[::1]:9000"], "[::1]:9000"),
        ([], None),
    ],
)
def test_serve_may_stand_alone(monkeypatch: pytest.MonkeyPatch, arguments: list[str], expected: str | None) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(RunOptions, "server", property(lambda options: seen.append(options.serve) or 1 / 0))
    result = CliRunner().invoke(app, ["run", "--source", "synthetic", "--query", "a dog", *arguments])
    assert isinstance(result.exception, ZeroDivisionError)
    assert seen == [expected]


def test_a_missing_extra_is_named(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rvos_edge.server.app", None)
    monkeypatch.delitem(sys.modules, "uvicorn", raising=False)
    monkeypatch.setattr(sys, "meta_path", [_Missing("uvicorn"), *sys.meta_path])
    monkeypatch.delitem(sys.modules, "rvos_edge.server.app")
    result = run(tiny, "--query", "a dog", "--serve", ":0")
    assert result.exit_code == 2, result.output
    assert "needs uvicorn" in result.stderr
    assert "rvos-edge[serve]" in result.stderr


class _Missing:
    """Import hook that hides a package."""

    def __init__(self, package: str) -> None:
        self._package = package

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        if name.partition(".")[0] == self._package:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def test_a_stream_is_served_until_ctrl_c(tiny: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "rvos_edge.cli", "run", "--bundle", str(tiny), "--source", "synthetic:2"]
    command += ["--backend", "onnxruntime", "--threads", "1", "--serve", ":0", "--json", str(tmp_path / "out.jsonl")]
    environment = {**os.environ, "TMPDIR": str(tmp_path), "RVOS_EDGE_CACHE": str(tmp_path / "cache")}
    environment |= {"RVOS_EDGE_TOKEN": "correct horse"}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
    try:
        assert process.stderr is not None
        told = next(line for line in process.stderr if "The page is at" in line)
        found = re.search(r"http://(127\.0\.0\.1:[0-9]+)/", told)
        assert found, told
        assert "horse" not in told  # logs and screenshots are no place for secrets
        bearer = {"Authorization": "Bearer correct horse"}
        request = urllib.request.Request(
            f"http://{found[1]}/api/queries", b'{"queries": ["the dog"]}', bearer, method="PUT"
        )
        with urllib.request.urlopen(request, timeout=20) as answer:
            revision = json.load(answer)["revision"]
        while True:
            request = urllib.request.Request(f"http://{found[1]}/api/status", headers=bearer)
            with urllib.request.urlopen(request, timeout=20) as answer:
                status = json.load(answer)
            if status["shown"] >= revision and status["frames"] > 3:
                break
        assert len(list(tmp_path.glob("rvos-edge-*"))) == 1
        process.send_signal(signal.SIGINT)
        out, error = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 0, error
    assert "frames per second" in out  # the summary
    assert "Traceback" not in error
    assert list(tmp_path.glob("rvos-edge-*")) == []
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [query["text"] for query in lines[-1]["queries"]] == ["the dog"]
