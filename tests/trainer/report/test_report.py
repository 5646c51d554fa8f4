"""The page of a report: its figures and tables, its warnings, and what is refused."""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from support.reports import quiet, run
from support.tiny_bundle import write_tiny_bundle
from support.tiny_checkpoint import write_checkpoint
from torch.utils.tensorboard import SummaryWriter
from typer.testing import CliRunner

from rvos_edge.cli import app
from rvos_edge.errors import UserError
from rvos_edge.trainer.checkpoint import load_checkpoint, save_checkpoint
from rvos_edge.trainer.data.datasets import open_clips
from rvos_edge.trainer.evaluate.video import Rules, evaluate_clips
from rvos_edge.trainer.predictor import TorchSegmenter
from rvos_edge.trainer.report import ReportOptions, report
from rvos_edge.trainer.report.runs import (
    ReportRun,
    trained_videos,
)

VIDEOS = {"car-turn": ["a red car", "the <small> car", "a car"], "hike": ["a man in $5 boots"]}
FRAMES = 6
WHITE = np.full(3, 255, np.uint8)


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Recordings go to runs/recordings."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def davis(tmp_path: Path) -> Path:
    """Two videos in the official layout: in one a white box moves over noise, in the other it stands still."""
    root = tmp_path / "davis"
    noise = np.random.default_rng(0).integers(40, 120, (72, 128, 3), dtype=np.uint8)
    described = {}
    for video, sentences in VIDEOS.items():
        for index in range(FRAMES):
            mask = np.zeros((72, 128), np.uint8)
            left = 10 + 8 * index if video == "car-turn" else 30
            mask[10:60, left : left + 64] = 255
            for kind, suffix, picture in (
                ("JPEGImages", "jpg", np.where(mask[..., None] > 0, WHITE, noise)),
                ("Annotations", "png", mask),
            ):
                path = root / kind / "480p" / video / f"{index:05d}.{suffix}"
                path.parent.mkdir(parents=True, exist_ok=True)
                cv2.imwrite(str(path), picture)
        described[video] = {"expressions": {str(i): {"exp": s, "obj_id": "1"} for i, s in enumerate(sentences)}}
    (root / "meta_expressions.json").write_text(json.dumps({"videos": described}))
    return root


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Checkpoints without flow and with it: random weights, with the bias that makes half of a frame the answer."""
    frame = np.random.default_rng(1).integers(0, 255, (72, 128, 3), dtype=np.uint8)
    paths = {}
    for flow in ("none", "both"):
        paths[flow] = write_checkpoint(tmp_path_factory.mktemp(flow) / "checkpoint", flow=flow)
        kept = load_checkpoint(paths[flow])
        segmenter = TorchSegmenter(kept)
        segmenter.set_queries(["a car"])
        with torch.no_grad():
            kept.model.decoder.head[-1].bias[1] -= segmenter.margins(frame).median()
        save_checkpoint(paths[flow], kept)
    return paths


def pictures(page: Path) -> set[str]:
    """The pictures that a page shows, by file name, which all exist with a PDF beside; none lies about unused."""
    named = re.findall(r'<img src="([^"]+)"', page.read_text())
    assert sorted(named) == sorted(path.name for path in page.parent.glob("*.png"))
    for name in named:
        image = cv2.imread(str(page.parent / name))
        assert image is not None
        assert image.std() > 5
        assert (page.parent / name).with_suffix(".pdf").read_bytes().startswith(b"%PDF")
    return set(named)


@pytest.mark.slow
def test_runs_stand_side_by_side_with_their_names(tmp_path: Path, davis: Path, networks: dict[str, Path]) -> None:
    runs = [f"still={networks['none']}", f"my $run={networks['both']}"]
    with SummaryWriter(str(networks["both"].parent)) as board:
        for step in (10, 20, 30):
            board.add_scalar("loss", 3 / step, step)
            board.add_scalar("validation/j", step / 30, step)
    options = ReportOptions(runs, davis, every=2, output=tmp_path / "report", frames="2")
    page = report(options, quiet(tmp_path))
    text = page.read_text()
    for title in ("Fig. 1.", "Fig. 2.", "Fig. 3.", "Figs. 4 to 11.", "Fig. 4. car-turn, hike", "Loss curves"):
        assert title in text
    assert pictures(page) >= {"ablation.png", "queries-04.png", "curves.png"}
    content = json.loads((page.parent / "report.json").read_text())
    assert content["data"] | {"frames": 6, "every": 2, "split": "val"} == content["data"]
    checked = evaluate_clips(
        TorchSegmenter(load_checkpoint(networks["both"])),
        open_clips("davis16", davis),
        "davis16",
        rules=Rules(every=2),
    )
    assert content["runs"][1]["results"] == json.loads(json.dumps(checked)), "as eval counts"
    assert content["runs"][1]["differs"] == {"model.flow": "both"} | {
        key: value for key, value in content["runs"][1]["differs"].items() if key.startswith("model.raft")
    }
    rows = list(csv.reader((page.parent / "results.csv").open()))
    assert [row[0] for row in rows] == ["run", "still", "my $run"]
    assert rows[2][1] == f"{100 * checked['j']:.1f}"
    assert r"my \$run &" in (page.parent / "results.tex").read_text()
    assert "--every 2 --frames 2 --output" in content["command"]
    assert "has no db_info.yml" in text
    assert "has no db_info.yml" in (tmp_path / "log").read_text()
    assert "<script" not in text
    assert "http" not in text, "nothing is fetched"


def test_redrawing_runs_no_network(
    tmp_path: Path, davis: Path, networks: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ReportOptions([f"a={networks['none']}"], davis, split="hike", output=tmp_path / "out", every=5)
    before = (report(options, quiet(tmp_path)).parent / "report.json").read_text()
    assert "0 of 1 videos are recorded" in (tmp_path / "log").read_text()
    monkeypatch.delattr(TorchSegmenter, "margins")
    again = report(options, quiet(tmp_path))
    assert (again.parent / "report.json").read_text() == before
    assert "1 of 1 videos are recorded" in (tmp_path / "log").read_text()
    with pytest.raises(AttributeError):
        report(replace(options, every=2), quiet(tmp_path))


def test_figures_without_their_runs_are_left_out_with_a_note(
    tmp_path: Path, davis: Path, networks: dict[str, Path]
) -> None:
    options = ReportOptions([f"a & b={networks['none']}"], davis, output=tmp_path / "report", every=5)
    page = report(replace(options, frames="hike:00005"), quiet(tmp_path))
    assert pictures(page) == {"queries-04.png"}
    text = page.read_text()
    assert "a &amp; b" in text
    assert text.count("Left out: it compares a checkpoint without flow") == 2
    assert "Left out: it compares two runs or more" in text
    assert "Left out: there are no TensorBoard events" in text
    assert "Fig. 4. hike." in text, "of the other video no frame was asked for"


def test_a_page_warns_of_videos_that_were_trained_on(tmp_path: Path, davis: Path, networks: dict[str, Path]) -> None:
    path = Path(shutil.copytree(networks["none"], tmp_path / "trained"))
    source = {"kind": "davis", "root": str(davis), "videos": ["hike"]}
    (path / "card.json").write_text(json.dumps({"iterations": 7, "config": {"data": {"sources": [source]}}}))
    page = report(ReportOptions([f"mine={path}"], davis, output=tmp_path / "out", every=5), quiet(tmp_path))
    warning = "Warning: mine was trained on 1 of the 2 videos of this report (hike): its results on them say nothing"
    assert warning in page.read_text()
    assert warning in (tmp_path / "log").read_text()
    assert "not the official validation videos" in page.read_text(), "there is no list of them"


def trained(*sources: dict[str, object]) -> ReportRun:
    return run(iterations=1, history=[{"iterations": 2, "config": {"data": {"sources": list(sources)}}}])


def test_the_card_tells_what_was_trained_on(davis: Path) -> None:
    clips = open_clips("davis16", davis)
    both = ["car-turn", "hike"]
    assert trained_videos(run(), "davis16", clips) == []
    assert trained_videos(trained({"kind": "davis", "root": str(davis), "videos": "all"}), "davis16", clips) == both
    assert trained_videos(trained({"kind": "davis", "root": "gone", "videos": "all"}), "davis16", clips) == both
    assert trained_videos(trained({"kind": "davis", "root": "gone", "videos": "all"}), "davis17", clips) == []
    assert trained_videos(trained({"kind": "davis", "root": "gone", "videos": "train"}), "davis16", clips) == []
    assert trained_videos(trained({"kind": "davis17", "root": "gone", "videos": ["hike"]}), "davis16", clips) == [
        "hike"
    ]
    assert trained_videos(trained({"kind": "a2d", "root": "gone", "videos": ["hike"]}), "davis16", clips) == []
    known = run(
        iterations=1,
        videos={"davis": ["hike"], "a2d": ["car-turn"]},
        config={"data": {"sources": [{"kind": "davis", "root": str(davis), "videos": "all"}]}},
    )
    assert trained_videos(known, "davis17", clips) == ["hike"], "the names are recorded, whatever the folder holds now"
    (davis / "ImageSets" / "480p").mkdir(parents=True)
    (davis / "ImageSets" / "480p" / "val.txt").write_text("/JPEGImages/480p/hike/00000.jpg x\n")
    pasted = {"kind": "composed", "coco": "coco", "davis": str(davis)}
    assert trained_videos(trained(pasted), "davis16", clips) == ["car-turn"], "what the official list leaves"


def test_a_report_replaces_a_report_and_nothing_else(tmp_path: Path, davis: Path, networks: dict[str, Path]) -> None:
    runs, output = [f"a={networks['none']}"], tmp_path / "out"
    output.mkdir()
    (output / "thesis.txt").write_text("years of work")
    with pytest.raises(UserError, match="holds what rvos-edge did not write"):
        report(ReportOptions(runs, davis, output=output), quiet(tmp_path))
    assert [path.name for path in output.iterdir()] == ["thesis.txt"]
    (output / "thesis.txt").rename(tmp_path / "thesis.txt")
    output.rmdir()
    for every in (5, 2):
        page = report(ReportOptions(runs, davis, split="hike", output=output, every=every), quiet(tmp_path))
        assert f"One frame in {every} is scored" in page.read_text()
    assert pictures(page) == {"queries-04.png"}


def test_a_bundle_stands_beside_the_checkpoints(tmp_path: Path, davis: Path, networks: dict[str, Path]) -> None:
    runs = [f"static={networks['none']}"]
    bundle = write_tiny_bundle(tmp_path / "shipped")
    options = ReportOptions(runs, davis, split="hike", bundle=bundle, output=tmp_path / "out", every=5)
    page = report(options, quiet(tmp_path))
    content = json.loads((page.parent / "report.json").read_text())
    assert [run["name"] for run in content["runs"]] == ["static", "shipped"]
    assert pictures(page) == {"ablation.png", "queries-04.png"}
    assert f"--bundle {bundle}" in content["command"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--run", "a=nowhere"], "nowhere is not a checkpoint"),
        (["--run", "nowhere"], "write it as NAME=CHECKPOINT"),
        (["--run", "a=CHECKPOINT", "--run", "a=CHECKPOINT"], "Two runs are called 'a'"),
        (["--run", "a=CHECKPOINT", "--every", "0"], "--every 0 is out of range"),
        (["--run", "a=CHECKPOINT", "--frames", "0"], "--frames 0: give a number of frames per video"),
        (["--run", "a=CHECKPOINT", "--frames", "hike:9"], "--frames hike:9: no such frame was scored"),
        (["--run", "a=CHECKPOINT", "--frames", "hike:00000:7"], "its queries are 0"),
        (["--run", "a=CHECKPOINT", "--root", "nowhere"], "--root nowhere does not exist; give the folder"),
        (["--run", "a=CHECKPOINT", "--videos", "lucia"], "lucia"),
        (["--run", "a=CHECKPOINT", "--videos", "empty"], "empty"),
        (["--run", "a=CHECKPOINT", "--output", "CHECKPOINT"], "is the source itself"),
    ],
)
def test_bad_input_is_one_sentence(
    tmp_path: Path, davis: Path, networks: dict[str, Path], arguments: Sequence[str], message: str
) -> None:
    described = json.loads((davis / "meta_expressions.json").read_text())
    described["videos"]["empty"] = described["videos"]["hike"]
    (davis / "meta_expressions.json").write_text(json.dumps(described))
    path = str(networks["none"])
    words = [word.replace("CHECKPOINT", path) for word in arguments]
    output = [] if "--output" in words else ["--output", str(tmp_path / "out")]
    videos = [] if "--videos" in words else ["--videos", "hike"]
    result = CliRunner().invoke(app, ["report", "--root", str(davis), *output, *videos, *words])
    assert result.exit_code == 2, result.output
    assert re.search(message, " ".join(result.stderr.split()))
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()
