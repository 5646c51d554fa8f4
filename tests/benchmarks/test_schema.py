"""The JSON of a benchmark: it comes back as it went, and nothing else gets in."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.bench_results import make_result

from rvos_edge.benchmarks.schema import read_result, to_json
from rvos_edge.errors import UserError

RESULT = make_result({"onnxruntime": [10.0, 20.0, 30.0], "openvino": [5.0, 6.0, 7.0]})


def test_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    path.write_text(to_json(RESULT), encoding="utf-8")
    assert read_result(path) == RESULT
    assert '"frame_us": [10000,20000,30000]' in path.read_text(encoding="utf-8")


def test_stage_that_did_not_run_on_every_frame(tmp_path: Path) -> None:
    document = json.loads(to_json(RESULT))
    document["runs"][0]["times"]["stages_us"]["flow_step"] = [None, 1000, None]
    path = tmp_path / "result.json"
    path.write_text(json.dumps(document), encoding="utf-8")
    result = read_result(path)
    assert result.runs[0].times is not None
    assert result.runs[0].times.stages_us["flow_step"] == (None, 1000, None)
    assert '"flow_step": [null,1000,null]' in to_json(result)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda document: document.update(format_version=2), "format version 2, this program reads 1"),
        (lambda document: document.update(host="somewhere"), "'host': extra inputs"),
        (lambda document: document["bundle"].pop("fingerprint"), "'bundle.fingerprint': field required"),
        (lambda document: document.update(made="yesterday"), "'made'"),
        (lambda document: document.update(runs=[]), "'runs'"),
        (lambda document: document["runs"][1].update(backend="onnxruntime"), "a backend occurs twice"),
        (lambda document: document["runs"][0]["times"]["frame_us"].pop(), "2 times for 'frame_us', not 3"),
        (lambda document: document["runs"][0].update(fps="12"), "'runs.0.fps'"),
    ],
)
def test_invalid_result_files_are_refused(damage: Callable[[dict[str, Any]], Any], words: str, tmp_path: Path) -> None:
    document = json.loads(to_json(RESULT))
    damage(document)
    path = tmp_path / "result.json"
    path.write_text(json.dumps(document), encoding="utf-8")
    with pytest.raises(UserError, match=r"result\.json") as caught:
        read_result(path)
    assert words in str(caught.value)


def test_unreadable_files(tmp_path: Path) -> None:
    (tmp_path / "broken.json").write_text("{", encoding="utf-8")
    with pytest.raises(UserError, match=r"broken\.json is not readable JSON"):
        read_result(tmp_path / "broken.json")
    with pytest.raises(UserError, match=r"missing\.json cannot be read"):
        read_result(tmp_path / "missing.json")
