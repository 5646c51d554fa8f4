"""The report: what the rules choose, what the page says, and what is refused."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from rich.console import Console
from support.tiny_bundle import write_tiny_bundle
from support.tiny_checkpoint import write_checkpoint
from torch.utils.tensorboard import SummaryWriter
from typer.testing import CliRunner

from rvos_edge.cli import app
from rvos_edge.errors import UserError
from rvos_edge.trainer.checkpoint import load_checkpoint, save_checkpoint
from rvos_edge.trainer.config import load_config
from rvos_edge.trainer.data.readers.base import Query
from rvos_edge.trainer.evaluate.data import open_clips
from rvos_edge.trainer.evaluate.video import Rules, evaluate_clips
from rvos_edge.trainer.metrics import region_similarity
from rvos_edge.trainer.predictor import TorchSegmenter
from rvos_edge.trainer.report import ReportOptions, report
from rvos_edge.trainer.report.choose import evenly, mean_when_still, most_changed, rows_of_queries, stillest
from rvos_edge.trainer.report.curves import read_losses
from rvos_edge.trainer.report.record import RecordedMotion, Recording, Scored, record
from rvos_edge.trainer.report.runs import (
    FULL,
    ROLES,
    SINGLE,
    STATIC,
    ReportRun,
    Role,
    differences,
    read_runs,
    train_command,
)

VIDEOS = {"car-turn": ["a red car", "the <small> car", "a car"], "hike": ["a man in $5 boots"]}
FRAMES = 6
WHITE = np.full(3, 255, np.uint8)


@pytest.fixture
def davis(tmp_path: Path) -> Path:
    """Two videos in the official layout: in one a white box moves over noise, in the other it changes sides.

    Whatever flow random weights see, on one of the two sides there is less of it: some object is still.
    """
    root = tmp_path / "davis"
    noise = np.random.default_rng(0).integers(40, 120, (72, 128, 3), dtype=np.uint8)
    described = {}
    for video, sentences in VIDEOS.items():
        for index in range(FRAMES):
            mask = np.zeros((72, 128), np.uint8)
            left = 10 + 8 * index if video == "car-turn" else 64 * (index // 2 % 2)
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


def checkpoint(folder: Path, role: Role) -> Path:
    """Random weights, with the bias that makes half of a frame the answer: variants then differ."""
    path = write_checkpoint(folder / f"{role.fusion}-{role.flow}" / "checkpoint", fusion=role.fusion, flow=role.flow)
    kept = load_checkpoint(path)
    segmenter = TorchSegmenter(kept)
    segmenter.set_queries(["a car"])
    frame = np.random.default_rng(1).integers(0, 255, (72, 128, 3), dtype=np.uint8)
    with torch.no_grad():
        kept.model.decoder.head[-1].bias[1] -= segmenter.margins(frame).median()
    save_checkpoint(path, kept)
    return path


def quiet(tmp_path: Path) -> Console:
    return Console(file=(tmp_path / "log").open("w"), width=200)


def pictures(page: Path) -> dict[str, NDArray[np.uint8]]:
    """The pictures that a page shows, by file name, decoded; none may be missing or lie about unused."""
    named = re.findall(r'<img src="([^"]+)"', page.read_text())
    assert sorted(named) == sorted(path.name for path in page.parent.glob("*.png"))
    read = {name: cv2.imread(str(page.parent / name)) for name in named}
    assert all(image is not None and image.std() > 5 for image in read.values())
    return read


@pytest.mark.slow
def test_all_variants_make_all_figures(tmp_path: Path, davis: Path) -> None:
    runs = [f"{role.title}={checkpoint(tmp_path, role)}" for role in ROLES]
    with SummaryWriter(str(tmp_path / "hierarchical-both")) as board:
        for step in (10, 20, 30):
            board.add_scalar("loss", 3 / step, step)
    page = report(ReportOptions(runs, davis, every=2, output=tmp_path / "report"), quiet(tmp_path))
    text = page.read_text()
    for title in ("Fig. 1.", "Fig. 2.", "Fig. 3.", "Figs. 4 to 11.", "Fig. 4. car-turn", "Fig. 5. hike", "Loss curves"):
        assert title in text
    for rule in ("gains most in J over", "changes J most against the static model", "An object is still where"):
        assert rule in text, "the rule of every figure is on the page"
    shown = pictures(page)
    figures = ["ablation", "effect-of-flow", "losses", "queries-04", "queries-05", "static-objects"]
    assert sorted(shown) == [f"{name}.png" for name in figures]
    assert shown["ablation.png"].shape[1] > 1.3 * shown["effect-of-flow.png"].shape[1], "seven columns, and five"
    table = json.loads((page.parent / "report.json").read_text())
    assert [run["network"] for run in table["runs"]] == [role.title for role in ROLES]
    assert table["data"] == {"root": "davis", "videos": ["car-turn", "hike"], "every": 2, "frames": 6}
    full = evaluate_clips(
        TorchSegmenter(load_checkpoint(checkpoint(tmp_path, FULL))),
        open_clips("davis16", davis, "dev"),
        "davis16",
        rules=Rules(every=2),
    )
    assert [table["runs"][-1][name] for name in "jf"] == pytest.approx([full["j"], full["f"]]), "as eval counts"
    for run in table["runs"]:
        assert f"{run['name']}</td>" in text
        assert f"{100 * run['j']:.1f}" in text
        assert run["j"] == pytest.approx(np.mean([row["j"] for row in run["videos"].values()]))
        assert f"--checkpoint {tmp_path}" in run["score"]
    assert "--every 2" in table["command"]
    assert "<script" not in text
    assert "http" not in text, "nothing is fetched"
    assert not list(tmp_path.glob(".report*")), "no temporary folder is left"


def test_figure_without_its_variants_is_left_out_with_a_note(tmp_path: Path, davis: Path) -> None:
    only = checkpoint(tmp_path, FULL)
    page = report(ReportOptions([f"mine & yours={only}"], davis, output=tmp_path / "report", every=5), quiet(tmp_path))
    assert set(pictures(page)) == {"queries-04.png", "queries-05.png"}
    text = page.read_text()
    assert "mine &amp; yours" in text
    assert text.count("Left out: it compares flow in both places with the static model.") == 2
    assert "Not among the runs: hierarchical, no flow (fusion: hierarchical, flow: none)." in text
    assert "Left out: it compares two variants or more." in text
    assert "Left out: there are no TensorBoard events" in text


def test_a_report_replaces_a_report_and_nothing_else(tmp_path: Path, davis: Path) -> None:
    runs, output = [f"a={checkpoint(tmp_path, STATIC)}"], tmp_path / "out"
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
    assert set(pictures(page)) == {"queries-04.png"}


def test_a_bundle_stands_beside_the_checkpoints_and_is_no_column(tmp_path: Path, davis: Path) -> None:
    runs = [f"static={checkpoint(tmp_path, STATIC)}"]
    bundle = write_tiny_bundle(tmp_path / "shipped")
    page = report(
        ReportOptions(runs, davis, split="hike", bundle=bundle, output=tmp_path / "out", every=5), quiet(tmp_path)
    )
    table = json.loads((page.parent / "report.json").read_text())
    assert [run["name"] for run in table["runs"]] == ["static", "shipped"]
    assert "segmented by \N{LEFT DOUBLE QUOTATION MARK}shipped\N{RIGHT DOUBLE QUOTATION MARK} (" in page.read_text()
    assert "no flow (fusion: hierarchical, flow: none)" not in page.read_text(), "the static model is there"
    assert f"--bundle {bundle}" in table["command"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--run", "a=nowhere"], "nowhere is not a checkpoint"),
        (["--run", "nowhere"], "write it as NAME=CHECKPOINT"),
        (["--run", "a=CHECKPOINT", "--run", "a=CHECKPOINT"], "Two runs are called 'a'"),
        (["--run", "a=CHECKPOINT", "--every", "0"], "--every 0 is out of range"),
        (["--run", "a=CHECKPOINT", "--videos", "lucia"], "lucia"),
        (["--run", "a=CHECKPOINT", "--videos", "empty"], "empty"),
        (["--run", "a=CHECKPOINT", "--output", "CHECKPOINT"], "is the source itself"),
    ],
)
def test_bad_input_is_one_sentence(tmp_path: Path, davis: Path, arguments: Sequence[str], message: str) -> None:
    described = json.loads((davis / "meta_expressions.json").read_text())
    described["videos"]["empty"] = described["videos"]["hike"]
    (davis / "meta_expressions.json").write_text(json.dumps(described))
    path = str(checkpoint(tmp_path, STATIC))
    words = [word.replace("CHECKPOINT", path) for word in arguments]
    output = [] if "--output" in words else ["--output", str(tmp_path / "out")]
    videos = [] if "--videos" in words else ["--videos", "hike"]
    result = CliRunner().invoke(app, ["report", "--root", str(davis), *output, *videos, *words])
    assert result.exit_code == 2, result.output
    assert re.search(message, " ".join(result.stderr.split()))
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


class Boxes:
    """Two videos of five frames; the third frame has no annotation, and of two objects one lies left, one right."""

    root = Path("boxes")
    videos = ("one", "two")

    def frames(self, video: str) -> list[str]:
        return [f"{index}" for index in range(5)]

    def queries(self, video: str) -> tuple[Query, ...]:
        return (Query("a", "left", 1), Query("b", "right", 2))

    def image_path(self, video: str, index: int) -> Path:
        return self.root

    def image(self, video: str, index: int) -> NDArray[np.uint8]:
        return np.full((16, 32, 3), 50 * index, np.uint8)

    def masks(self, video: str, index: int) -> NDArray[np.bool_] | None:
        left = np.zeros((16, 32), np.bool_)
        left[:, :16] = True
        return None if index == 2 else np.stack([left, ~left])


class AlwaysLeft:
    """Answers every query with the left half, and counts the frames it is shown."""

    seen = 0

    def reset(self) -> None: ...

    def set_queries(self, queries: Sequence[str]) -> None:
        self.queries = list(queries)

    def masks(self, frame: NDArray[np.uint8]) -> NDArray[np.bool_]:
        self.seen += 1
        left = np.zeros((len(self.queries), *frame.shape[:2]), np.bool_)
        left[..., :16] = True
        return left


def run(role: Role, **card: object) -> ReportRun:
    return ReportRun("run", Path("runs/run/checkpoint"), role.fusion, role.flow, card)


def test_a_recording_keeps_what_was_answered() -> None:
    clips, predictor = Boxes(), AlwaysLeft()
    kept = record(run(STATIC), predictor, clips, every=2)
    assert predictor.seen == 10, "all frames are seen"
    assert list(kept.videos["one"]) == [0, 3], "the first and the third of the annotated ones"
    for video, frames in kept.videos.items():
        for index, frame in frames.items():
            truth = clips.masks(video, index)
            assert truth is not None
            assert np.array_equal(frame.masks(), np.stack([truth[0], truth[0]]))
            assert np.array_equal(frame.j, region_similarity(truth, frame.masks()))
            assert frame.motion is None
    assert (kept.j(), kept.j("one"), kept.of_query("one", 0), kept.of_query("one", 1)) == (0.5, 0.5, 1.0, 0.0)


def test_motion_is_measured_inside_and_outside_of_the_object(tmp_path: Path) -> None:
    clips = Boxes()
    segmenter = TorchSegmenter(load_checkpoint(checkpoint(tmp_path, FULL)))
    kept = record(run(FULL), segmenter, clips)
    assert kept.videos["one"][0].motion is None, "a first frame has no flow"
    motion = kept.videos["two"][4].motion
    assert motion is not None
    assert motion.image().shape == segmenter.flow.shape[2:]
    relative = segmenter.flow[0] - segmenter.flow[0].mean(dim=(1, 2), keepdim=True)
    magnitude = relative.norm(dim=0).numpy()
    half = magnitude.shape[1] // 2
    assert motion.inside == pytest.approx([magnitude[:, :half].mean(), magnitude[:, half:].mean()], rel=1e-4)
    assert motion.outside == pytest.approx(motion.inside[::-1])


def recording(j: dict[str, list[list[float]]], motion: dict[str, list[tuple[float, float]]] | None = None) -> Recording:
    """By video, J of each frame's queries; and motion inside and outside of all of them."""
    videos = {}
    for video, rows in j.items():
        moved = (motion or {}).get(video)
        videos[video] = {
            index: Scored(
                np.array(row),
                np.array(row),
                b"",
                RecordedMotion(b"", *(np.full(len(row), value) for value in moved[index])) if moved and index else None,
            )
            for index, row in enumerate(rows)
        }
    return Recording(run(FULL), videos)


def test_examples_are_the_largest_changes_one_of_each_video() -> None:
    base = recording({"a": [[0.0], [0.5], [0.5]], "b": [[0.5, 0.5]] * 3, "c": [[0.5]] * 3})
    better = recording({"a": [[1.0], [0.6], [0.7]], "b": [[0.5, 0.5], [0.2, 0.9], [0.5, 0.5]], "c": [[0.5]] * 3})
    chosen = most_changed(better, base, gains=2, losses=1)
    assert [(e.video, e.index, e.query) for e in chosen] == [("b", 1, 1), ("a", 2, 0), ("b", 1, 0)], (
        "the first frame of a gains most, but has no flow; c does not change"
    )
    assert [e.reason for e in chosen] == ["gain of 40.0", "gain of 20.0", "loss of 30.0"]


def test_still_objects_move_less_than_their_surroundings_or_hardly_at_all() -> None:
    motion = {"a": [(0.0, 0.0), (3.0, 1.0), (2.0, 4.0)], "b": [(0.0, 0.0), (0.4, 0.1), (np.nan, 1.0)]}
    full = recording({"a": [[0.1], [0.2], [0.8]], "b": [[0.1], [0.6], [1.0]]}, motion)
    static = recording({"a": [[0.1], [0.2], [0.6]], "b": [[0.1], [0.5], [0.0]]})
    assert [(e.video, e.index) for e in stillest(full, rows=4)] == [("a", 2), ("b", 1)]
    assert [e.video for e in stillest(full, rows=1)] == ["a"]
    assert "motion 2.00 px inside, 4.00 px outside" in stillest(full, rows=1)[0].reason
    mine, others, count = mean_when_still(full, static)
    assert (mine, others, count) == (pytest.approx(0.7), pytest.approx(0.55), 2), "absent objects do not count"


def test_frames_are_spread_evenly_and_queries_of_one_object_stand_below_each_other() -> None:
    assert evenly([0, 2, 4, 6, 8, 10, 12], 4) == [0, 4, 8, 12]
    assert evenly([3], 5) == [3]
    one = [Query(str(i), "a dog", None) for i in range(4)]
    assert rows_of_queries(one, most=3) == [[0], [1], [2]]
    several = [Query("0", "a dog", 1), Query("1", "a cat", 2), Query("2", "the dog", 1), Query("3", "a cow", 3)]
    assert rows_of_queries(several, most=3) == [[0, 1, 3], [2]]


def test_the_training_command_names_the_shipped_configuration_and_what_was_changed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DATA_ROOT", "/data")
    config = load_config(Path("edge-ablation"), ["model.fusion=single", "model.flow=none", "loss.alignment=0.0"])
    trained = run(SINGLE, config=config.model_dump(mode="json"), iterations=300, batch=8)
    command = train_command(trained)
    assert command is not None
    assert command.startswith("rvos-edge train edge-ablation --output runs/run --set ")
    changes = re.findall(r"--set (\S+)", command)
    assert sorted(changes) == ["loss.alignment=0.0", "model.flow=none", "model.fusion=single"]
    again = load_config(Path("edge-ablation"), changes)
    assert again == config, "the command trains the same"
    assert trained.trained == "300 iterations of 8 frames of 160x288"
    mean = replace(trained, card={"averaged": 2, "history": [trained.card]})
    assert mean.trained == "300 iterations of 8 frames of 160x288, then the mean of 2 of them"
    assert train_command(run(SINGLE)) is None, "nothing was recorded"


def test_the_training_command_falls_back_on_the_runs_own_configuration(tmp_path: Path) -> None:
    own = ReportRun("own", tmp_path / "checkpoint", "single", "none", {"config": {"name": "nobody-ships-this"}})
    assert train_command(own) is None
    (tmp_path / "config.json").write_text("{}")
    assert train_command(own) == f"rvos-edge train {tmp_path}/config.json --output {tmp_path}-again"


def test_columns_of_unequal_budgets_are_found_out() -> None:
    config = {"model": {"flow": "none"}, "optimizer": {"lr": 0.1}, "workers": 1}
    one = run(STATIC, config=config, iterations=300)
    two = run(FULL, config={**config, "model": {"flow": "both"}, "workers": 2}, iterations=300)
    assert differences([one, two]) == [], "what an ablation compares, and what changes nothing, may differ"
    three = run(FULL, config={**config, "optimizer": {"lr": 0.2}}, iterations=900, history=[{"iterations": 5}])
    assert differences([one, three]) == ["iterations (300, 900)", "earlier runs (0, 1)", "optimizer.lr (0.1, 0.2)"]


def test_a_page_warns_where_the_columns_were_not_trained_alike(tmp_path: Path, davis: Path) -> None:
    runs = [f"{role.flow}={checkpoint(tmp_path, role)}" for role in (STATIC, FULL)]
    card = tmp_path / "hierarchical-both" / "checkpoint" / "card.json"
    card.write_text(json.dumps({"iterations": 7}))
    page = report(ReportOptions(runs, davis, split="hike", output=tmp_path / "out", every=2), quiet(tmp_path))
    assert "Beware: these runs (none, both) were not trained alike. They differ in iterations (null, 7)." in (
        page.read_text()
    )


def test_losses_of_a_resumed_run_are_joined(tmp_path: Path) -> None:
    assert read_losses(tmp_path) == {}
    for start in (0, 2):
        with SummaryWriter(str(tmp_path), filename_suffix=f".{start}") as board:
            for step in range(start, start + 3):
                board.add_scalar("loss", 10 * start + step, step)
    assert list(read_losses(tmp_path)) == [0, 1, 2, 3, 4]


def test_runs_are_known_by_their_configuration(tmp_path: Path) -> None:
    paths = {role: checkpoint(tmp_path, role) for role in (SINGLE, FULL)}
    single, full = read_runs([f"s={paths[SINGLE]}", f"f={paths[FULL]}"])
    assert single.plays(SINGLE)
    assert not single.plays(FULL)
    assert full.network == "flow in both"
    with pytest.raises(UserError, match="at least one --run"):
        read_runs([])
