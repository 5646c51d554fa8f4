"""``rvos-edge bench`` on a tiny bundle: measurements, the JSON file, bad input."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from support.tiny_bundle import write_tiny_bundle
from typer.testing import CliRunner, Result

from rvos_edge.benchmarks import fresh
from rvos_edge.benchmarks.frames import make_queries
from rvos_edge.benchmarks.measure import BenchOptions, run_benchmark
from rvos_edge.benchmarks.schema import read_result, to_json
from rvos_edge.bundle import Bundle
from rvos_edge.cli import app
from rvos_edge.errors import UserError

BACKENDS = [name for name in ("onnxruntime", "openvino") if find_spec(name)]


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["bench", *map(str, arguments)])


def test_benchmark_measures_every_stage_and_writes_json(tiny: Path, tmp_path: Path) -> None:
    named = [option for name in BACKENDS for option in ("--backend", name)]
    folder = tmp_path / "results"
    folder.mkdir()
    done = invoke(
        *("--bundle", tiny, *named, "--frames", 12, "--warmup", 2, "--query-count", 2, "--threads", 1, "--starts", 1),
        *("--device", "cpu", "--fps", 1000, "--json", folder),
    )
    assert done.exit_code == 0, done.output
    (path,) = folder.iterdir()
    result = read_result(path)
    assert [run.backend for run in result.runs] == BACKENDS
    assert result.bundle.fingerprint == Bundle.open(tiny).fingerprint
    assert (result.workload.queries, result.workload.frames, result.workload.distinct) == (2, 12, 14)
    for run in result.runs:
        assert run.times is not None
        assert len(run.times.frame_us) == 12
        assert {"preprocess", "backbone", "flow_step", "gating", "postprocess"} <= set(run.stages)
        assert None not in run.times.stages_us["flow_step"], "the frame without flow belongs to the warm-up"
        stages = sum(values.p50 for values in run.stages.values())
        assert 0 < stages <= 1.2 * run.end_to_end.p50
        assert run.end_to_end.p50 <= run.end_to_end.p90 <= run.end_to_end.p99
        assert run.memory is not None
        assert run.memory.host_mib > 20
        start = run.start_up
        assert start is not None
        parts = start.imports_s + start.open_s + start.queries_s + start.first_frame_s
        assert start.total_s == pytest.approx(parts, abs=0.01)
        assert run.camera is not None
        assert run.camera.segmented == 12
    assert all(name in done.stdout for name in ("end to end", "flow_step", "peak memory"))
    # Results are published: they hold no paths of the machine.
    assert not [word for word in (str(tiny), str(tmp_path), tiny.parent.name) if word in path.read_text()]


def test_the_benchmark_imports_no_training_framework(tiny: Path, tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from rvos_edge.cli import main\n"
        "try:\n    main()\n"
        "except SystemExit as end:\n    assert not end.code, end.code\n"
        "heavy = {'torch', 'transformers', 'onnx', 'torchvision', 'yaml'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    arguments = ["bench", "--bundle", str(tiny), "--backend", "onnxruntime", "--frames", "2", "--starts", "0"]
    subprocess.run([sys.executable, "-c", code, *arguments], check=True, cwd=tmp_path, timeout=120)


def test_compare_and_roofline_on_the_command_line(tiny: Path, tmp_path: Path) -> None:
    result = run_benchmark(BenchOptions(bundle=tiny, backends=["onnxruntime"], frames=12, warmup=2, starts=0))
    path = tmp_path / "result.json"
    path.write_text(to_json(result), encoding="utf-8")
    compared = invoke("--compare", path, path)
    assert compared.exit_code == 0, compared.output
    assert "undecided" in compared.stdout
    roof = invoke("--bundle", tiny, "--roofline", "orin-nano", "--result", path)
    assert roof.exit_code == 0, roof.output
    assert all(word in roof.stdout for word in ("Orin Nano", "flow_step x 3", "%"))


def test_a_backend_may_be_the_c_runtimes(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, object]] = []
    monkeypatch.setattr(fresh, "open_segmenter", lambda _, **options: asked.append(options))
    for backend in ("cpp:openvino", "openvino"):
        fresh.open_run(Path("edge"), (96, 160), backend, device="cpu", threads=1)
    assert [(options["runtime"], options["backend"]) for options in asked] == [
        ("cpp", "openvino"),
        ("python", "openvino"),
    ]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--frames", 0), "--frames 0 is out of range"),
        (("--query-count", 0), "--query-count 0 is out of range"),
        (("--query-count", 65), "--query-count 65 is more than this bundle's 64"),
        (("--warmup", 0), "--warmup 0 is out of range"),
        (("--fps", 0), "--fps 0 is out of range"),
        (("--size", "96"), "--size 96: write it as HxW"),
        (("--size", "96x96"), "has no graphs for 96x96"),
        (("--backend", "tpu"), "backend 'tpu' is unknown"),
        (("--source", "nowhere.mp4"), "does not exist"),
        (("--result", "x.json"), "--result belongs to --roofline"),
        (("--roofline", "toaster"), "--roofline toaster: there is no such device"),
        (("--roofline", "h100", "--json", "x.json"), "--json keeps what is measured"),
        (("--compare", "x.json", "y.json"), "x.json cannot be read"),
        (("--compare", "x.json", "y.json", "--roofline", "cpu"), "exclude each other"),
        (("--backend", "java:openvino"), "runtime 'java' is unknown"),
    ],
)
def test_bad_input(
    arguments: tuple[object, ...], words: str, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = invoke("--bundle", tiny, "--starts", 0, *arguments)
    assert done.exit_code == 2, done.output
    assert done.stderr.startswith("Error: ")
    assert done.stderr.count("\n") == 1
    assert words in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_result_of_another_bundle_is_refused(tiny: Path, tmp_path: Path) -> None:
    result = run_benchmark(BenchOptions(bundle=tiny, backends=["onnxruntime"], frames=2, warmup=2, starts=0))
    document = json.loads(to_json(result))
    document["bundle"]["fingerprint"] = "f" * 64
    path = tmp_path / "result.json"
    path.write_text(json.dumps(document), encoding="utf-8")
    assert "another bundle or size" in invoke("--bundle", tiny, "--roofline", "h100", "--result", path).stderr


def test_error_of_a_fresh_process_is_passed_on(tiny: Path, tmp_path: Path) -> None:
    bundle = write_tiny_bundle(tmp_path / "bundle")
    from rvos_edge.benchmarks import fresh, measure

    clip = measure.read_clip("synthetic", frames=1, size=(64, 96))
    (bundle / "gating.onnx").unlink()
    order = fresh.Order(bundle=bundle, backend="onnxruntime", device="cpu", size=(64, 96), threads=1, queries=["a dog"])
    with pytest.raises(UserError, match=r"backend 'onnxruntime' failed: .*graph 'gating' .* is missing"):
        fresh.start(order, clip.images, starts=1)


def test_queries_are_all_different() -> None:
    assert len(set(make_queries(150))) == 150
