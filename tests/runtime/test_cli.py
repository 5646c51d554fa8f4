"""The command line on a tiny bundle: what it writes, and how it answers bad input."""

from __future__ import annotations

import builtins
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from support.tiny_bundle import write_tiny_bundle
from typer.testing import CliRunner, Result

import rvos_edge
from rvos_edge.cli import app
from rvos_edge.streaming.sources import VideoFile

FRAMES = 4
QUERIES = ("--query", "the red ball", "--query", "a black car")


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("video") / "clip.mp4"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 10.0, (96, 64))
    for index in range(FRAMES):
        writer.write(np.roll(np.random.default_rng(1).integers(0, 255, (64, 96, 3), np.uint8), index, 1))
    writer.release()
    return path


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """Folder of the outputs; it does not exist yet."""
    return tmp_path / "out"


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    monkeypatch.setenv("RVOS_EDGE_CACHE", str(tmp_path_factory.mktemp("cache")))


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def run(bundle: Path, source: object, *arguments: object) -> Result:
    return invoke("run", "--bundle", bundle, "--source", source, "--device", "cpu", "--threads", 1, *arguments)


def outputs(out: Path) -> list[object]:
    return ["--output", out / "clip.mp4", "--masks", out / "masks", "--json", out / "clip.jsonl"]


def refuses(result: Result, *words: str) -> None:
    """One line on stderr with these words, exit code 2, no traceback."""
    assert result.exit_code == 2, result.output
    assert result.stderr.startswith("Error: ")
    assert result.stderr.count("\n") == 1
    assert "Traceback" not in result.stderr
    for word in words:
        assert word in result.stderr


def count_frames(path: Path) -> int:
    capture, count = cv2.VideoCapture(str(path)), 0
    while capture.read()[0]:
        count += 1
    return count


def test_run_writes_video_masks_and_json(tiny: Path, video: Path, out: Path) -> None:
    result = run(tiny, video, *QUERIES, *outputs(out))
    assert result.exit_code == 0, result.output
    assert count_frames(out / "clip.mp4") == FRAMES
    names = [f"{index:05d}.png" for index in range(FRAMES)]
    for query in ("1", "2"):
        assert sorted(path.name for path in (out / "masks" / query).iterdir()) == names
    lines = [json.loads(line) for line in (out / "clip.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [line["frame"] for line in lines] == list(range(FRAMES))
    assert [query["text"] for query in lines[0]["queries"]] == ["the red ball", "a black car"]
    assert sorted(path.name for path in out.iterdir()) == ["clip.jsonl", "clip.mp4", "masks"]
    assert f"clip.mp4: {FRAMES} frames" in result.stdout


def test_flow_options_reach_the_frames(tiny: Path, video: Path) -> None:
    options = ("--iterations", 5, "--flow-every", 2, "--still", 0.5, "--hold-fps", 1)
    result = run(tiny, video, *QUERIES, "--json", "-", *options)
    flows = [json.loads(line)["flow"] for line in result.stdout.splitlines()]
    assert [(flow["action"], flow["iterations"]) for flow in flows] == [
        ("zero", 0),
        ("run", 5),
        ("keep", 0),
        ("run", 5),
    ]
    assert [flow["reason"] for flow in flows[:3]] == ["first frame", "due", "computed every 2 frames"]


def test_json_on_stdout_leaves_nothing_else_there(tiny: Path, video: Path) -> None:
    result = run(tiny, video, *QUERIES, "--json", "-")
    assert [json.loads(line)["frame"] for line in result.stdout.splitlines()] == list(range(FRAMES))
    assert f"{FRAMES} frames" in result.stderr


def test_opacity_reaches_the_video(tiny: Path, out: Path) -> None:
    for opacity in (0, 1):
        path = out / f"{opacity}.mp4"
        assert run(tiny, "synthetic", *QUERIES, "--frames", 1, "--output", path, "--opacity", opacity).exit_code == 0
    images = [cv2.VideoCapture(str(out / f"{opacity}.mp4")).read()[1].astype(int) for opacity in (0, 1)]
    assert np.abs(images[0] - images[1]).mean() > 5


def _changed_byte(bundle: Path) -> None:
    path = bundle / "backbone.onnx"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def _missing_graph(bundle: Path) -> None:
    document = json.loads((bundle / "manifest.json").read_text())
    del document["graphs"]["aspp"]
    (bundle / "manifest.json").write_text(json.dumps(document))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda bundle: (bundle / "manifest.json").unlink(), ("is not a bundle", "manifest.json")),
        (lambda bundle: (bundle / "manifest.json").write_text("{"), ("manifest.json is not readable JSON",)),
        (_changed_byte, ("backbone.onnx does not match its sha256",)),
        (lambda bundle: (bundle / "gating.onnx").unlink(), ("graph 'gating'", "is missing")),
        (_missing_graph, ("graph 'aspp' is missing",)),
    ],
)
def test_damaged_bundle(
    damage: Callable[[Path], Any], words: tuple[str, ...], video: Path, tmp_path: Path, out: Path
) -> None:
    bundle = write_tiny_bundle(tmp_path / "bundle")
    damage(bundle)
    refuses(run(bundle, video, *QUERIES, *outputs(out)), *words)
    refuses(invoke("demo", "--bundle", bundle, "--output", out), *words)
    assert not out.exists()


def test_bundle_that_is_not_there(video: Path, tmp_path: Path, out: Path) -> None:
    refuses(run(tmp_path / "nothing", video, *QUERIES, *outputs(out)), "nothing is not a bundle")
    assert not out.exists()


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("noise.mp4", b"this is no video" * 100, "noise.mp4 holds no video"),
        ("empty.mp4", b"", "empty.mp4 holds no video"),
        ("picture.png", b"not a picture", "picture.png cannot be read as an image"),
        (None, None, "does not exist; give a video"),
    ],
)
def test_source_that_cannot_be_read(
    name: str | None, content: bytes | None, words: str, tiny: Path, tmp_path: Path, out: Path
) -> None:
    source = tmp_path / (name or "missing.mp4")
    if content is not None:
        source.write_bytes(content)
    refuses(run(tiny, source, *QUERIES, *outputs(out)), words)
    assert not out.exists()


def test_video_that_breaks_off_at_once(tiny: Path, video: Path, tmp_path: Path, out: Path) -> None:
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(video.read_bytes()[:200])
    refuses(run(tiny, cut, *QUERIES, *outputs(out)), "cut.mp4 holds no video")
    assert not out.exists()


def test_camera_that_is_not_there(tiny: Path, out: Path) -> None:
    refuses(run(tiny, 99, *QUERIES, *outputs(out)), "camera 99 cannot be opened")
    assert not out.exists()


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("", "query 1 is empty"),
        (" \t ", "query 1 is empty"),
        ("the red ball " * 20, "has 62 tokens"),
        (("the red ball " * 1000)[:10_000], "at most 16"),
        ("x" * 10_000, "a word of 10000 characters"),
    ],
)
def test_query_that_cannot_be_used(query: str, words: str, tiny: Path, video: Path, out: Path) -> None:
    result = run(tiny, video, "--query", query, *outputs(out))
    refuses(result, words)
    assert len(result.stderr) < 300
    assert not out.exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--frames", 0), "at least 1"),
        (("--threads", 0), "threads must be at least 1"),
        (("--iterations", 0), "--iterations 0"),
        (("--flow-every", 0), "--flow-every 0 is out of range: it should be greater than or equal to 1"),
        (("--still", -1), "--still -1"),
        (("--still", "nan"), "--still nan"),
        (("--hold-fps", 0), "--hold-fps 0"),
        (("--hold-fps", 1e9), "--hold-fps 1e+09"),
        (("--opacity", 1.5), "--opacity 1.5"),
        (("--threshold", 1), "a threshold of 1 separates nothing; give a probability between 0 and 1"),
        (("--min-presence", 2), "--min-presence 2"),
        (("-q", "-v"), "exclude each other"),
        (("--device", "tpu"), "device 'tpu' is unknown"),
        (("--output", "out.avi"), "out.avi must end in one of the kinds that are written"),
    ],
)
def test_option_out_of_range(
    arguments: tuple[object, ...], words: str, tiny: Path, video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    refuses(run(tiny, video, *QUERIES, "--json", "out/clip.jsonl", *arguments), words)
    assert list(tmp_path.iterdir()) == []


def test_output_must_not_be_the_source(tiny: Path, video: Path) -> None:
    before = video.read_bytes()
    refuses(run(tiny, video, *QUERIES, "--output", video), "is the source itself")
    assert video.read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("train",), "there is no configuration"),
        (("train", "nowhere.yaml"), "nowhere.yaml does not exist"),
        (("train", "edge-ablation", "--set", "model.preset=huge"), "Unknown preset 'huge'"),
        (("train", "edge-ablation", "--set", "optimizer.speed=1"), "unknown key 'optimizer.speed'"),
        (("train", "edge", "--set", "iterations"), "--set iterations: write it as key=value"),
        (("train", "edge-ablation", "--set", "iterations=0"), "'iterations'"),
        (("train", "--resume", "nowhere"), "it has no config.json; give its folder"),
        (("train", "edge", "--output", "a", "--resume", "b"), "--output and --resume"),
        (("export", "nowhere", "--output", "bundle", "--size", "100"), "--size 100: write it as HxW"),
        (("export", "nowhere", "--output", "bundle", "--fp16", "--bf16"), "exclude each other"),
        (("export", "nowhere", "--output", "bundle", "--int8"), "--int8 and --calibrate need each other"),
        (("export", "nowhere", "--output", "bundle", "--compute-capability", "86"), "--target tensorrt-rtx"),
    ],
)
def test_bad_settings(arguments: tuple[str, ...], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATA_ROOT", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    refuses(invoke(*arguments), words)
    assert list(tmp_path.iterdir()) == []


def test_missing_dataset_folder(tmp_path: Path, out: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(
        "name: gone\nmodel: {preset: test}\niterations: 1\n"
        "data: {sources: [{kind: davis, root: no/such/folder, share: 1}]}\n"
    )
    refuses(invoke("train", config, "--output", out), "no/such/folder does not exist")
    assert not out.exists()


def test_what_is_not_a_checkpoint(tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    for name in ("folder", "nowhere"):
        refuses(invoke("export", name, "--output", out), f"{name} is not a checkpoint")
        refuses(invoke("eval", "--checkpoint", name, "--dataset", "synthetic", "--json", out / "x.json"), name)
    assert not out.exists()


def test_checkpoint_of_another_preset(tmp_path: Path, out: Path) -> None:
    from support.tiny_checkpoint import write_checkpoint

    checkpoint = write_checkpoint(tmp_path / "checkpoint")
    result = invoke("export", checkpoint, "--output", out / "bundle", "--preset", "edge")
    refuses(result, "is of preset 'test', not 'edge'")
    assert not out.exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--dataset", "synthetic"), "either --checkpoint or --bundle"),
        (("--dataset", "coco", "--checkpoint", "c"), "Unknown --dataset 'coco'"),
        (("--dataset", "davis16", "--checkpoint", "c"), "needs --root"),
        (("--dataset", "davis16", "--checkpoint", "c", "--root", "nowhere"), "--root nowhere does not exist"),
        (("--dataset", "synthetic", "--bundle", "b"), "b is not a bundle"),
    ],
)
def test_evaluation_that_cannot_start(
    arguments: tuple[str, ...], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    refuses(invoke("eval", *arguments, "--json", "out/figures.json"), words)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("hidden", "arguments", "extra"),
    [
        ("torch", ("train", "edge"), "train"),
        ("torch", ("export", "checkpoint", "--output", "bundle"), "train"),
    ],
)
def test_missing_extra(
    hidden: str, arguments: tuple[str, ...], extra: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name.partition(".")[0] == hidden:
            raise ModuleNotFoundError(f"No module named '{hidden}'", name=hidden)
        return real(name, *rest)

    for name in list(sys.modules):
        if name.startswith(("rvos_edge.trainer", "rvos_edge.export")):
            monkeypatch.delitem(sys.modules, name)
    for room in ("trainer", "export"):  # or the package would keep what this test imports
        monkeypatch.delattr(rvos_edge, room, raising=False)
    monkeypatch.setattr(builtins, "__import__", without)
    monkeypatch.chdir(tmp_path)
    refuses(invoke(*arguments), hidden, f'pip install "rvos-edge[{extra}]"')
    assert list(tmp_path.iterdir()) == []


def test_a_whole_run_imports_no_training_framework(tiny: Path, video: Path, tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from rvos_edge.cli import main\n"
        "try:\n    main()\n"
        "except SystemExit as end:\n    assert not end.code, end.code\n"
        "heavy = {'torch', 'transformers', 'onnx', 'torchvision', 'yaml'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    arguments = ["run", "--bundle", tiny, "--source", video, *QUERIES, "--output", tmp_path / "clip.mp4"]
    subprocess.run([sys.executable, "-c", code, *map(str, arguments)], check=True, cwd=tmp_path, timeout=60)
    assert count_frames(tmp_path / "clip.mp4") == FRAMES


def test_version_and_help() -> None:
    assert invoke("--version").stdout.startswith("rvos-edge ")
    listing = invoke("--help").stdout
    assert all(command in listing for command in ("run", "demo", "train", "export", "doctor"))


def test_cut_outs_and_mask_videos(tiny: Path, video: Path, out: Path) -> None:
    places = ["--cutout", out / "cut", "--mask-video", out / "masks.mkv", "--output", out / "seen.gif"]
    for _ in range(2):  # the second time over the first
        result = run(tiny, video, *QUERIES, *places)
        assert result.exit_code == 0, result.output
    assert f"Wrote {out}/seen.gif, {out}/cut, {out}/masks.mkv" in result.stdout.replace("\n", "")
    cut = [cv2.imread(str(path), cv2.IMREAD_UNCHANGED) for path in sorted((out / "cut").iterdir())]
    assert [picture.shape for picture in cut] == [(64, 96, 4)] * FRAMES
    with VideoFile(out / "masks.mkv") as film:
        white = [frame.image[..., 0] > 128 for frame in film]
    assert all(np.mean((a[..., 3] > 0) == b) > 0.98 for a, b in zip(cut, white, strict=True))
    refuses(run(tiny, video, *QUERIES, "--cutout", out / "cut.mp4"), "cut.mp4 must end in", ".mov, .webm, .png")
