"""The whole evaluation: checkpoints and bundles alike, every data set by its name, and options that do not fit."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from support.layouts import (
    write_a2d,
    write_davis16,
    write_davis17,
    write_jhmdb,
    write_mevis,
    write_refcoco,
    write_youtube_vos,
)
from support.tiny_bundle import write_tiny_bundle
from tokenizers import Tokenizer
from typer.testing import CliRunner

from rvos_edge.bundle import Bundle
from rvos_edge.cli import app
from rvos_edge.errors import UserError
from rvos_edge.trainer import evaluate as module
from rvos_edge.trainer.card import card_facts
from rvos_edge.trainer.checkpoint import Checkpoint, save_checkpoint
from rvos_edge.trainer.data.datasets import DATASETS, open_clips
from rvos_edge.trainer.evaluate import EvalOptions, evaluate
from rvos_edge.trainer.evaluate.model_card import write_card
from rvos_edge.trainer.model.hinet import HINet
from rvos_edge.trainer.model.presets import model_config

SENTENCES = {"car-turn": ["a red car", "the car"], "hike": ["a hiker walking", "the man"], "lucia": ["a woman"]}


@pytest.fixture
def davis(tmp_path: Path) -> Path:
    return write_davis16(tmp_path / "davis", SENTENCES)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_tiny_bundle(tmp_path / "tiny")


@pytest.fixture
def checkpoint(tmp_path: Path, bundle: Path) -> Path:
    torch.manual_seed(0)
    tokenizer = Tokenizer.from_file(str(bundle / "tokenizer.json"))
    path = tmp_path / "checkpoint"
    save_checkpoint(path, Checkpoint(HINet(config=model_config("test")), tokenizer, {"name": "random"}))
    return path


def quiet(tmp_path: Path) -> Console:
    return Console(record=True, width=120, file=(tmp_path / "log").open("w"))


def test_checkpoints_and_bundles_are_evaluated_alike(
    tmp_path: Path, davis: Path, checkpoint: Path, bundle: Path
) -> None:
    for model in ({"checkpoint": checkpoint}, {"bundle": bundle}):
        out = tmp_path / "figures.json"
        console = quiet(tmp_path)
        figures = evaluate(EvalOptions(dataset="davis16", root=davis, json=out, every=2, **model), console=console)
        assert json.loads(out.read_text()) == figures
        assert set(figures["davis16"]["videos"]) == {"car-turn", "hike"}
        assert 0 <= figures["davis16"]["j"] <= 1
        assert "car-turn" in console.export_text()
        assert str(tmp_path) not in figures["command"], "folders by their names alone"
    assert sorted(path.name for path in tmp_path.glob("*figures*")) == ["figures.json"], "nothing else is left"


@pytest.mark.parametrize("size", ["original", "64x64"])
def test_a_checkpoint_is_evaluated_at_any_size(tmp_path: Path, davis: Path, checkpoint: Path, size: str) -> None:
    options = EvalOptions(dataset="davis16", root=davis, checkpoint=checkpoint, size=size, every=2)
    figures = evaluate(options, console=quiet(tmp_path))
    assert f"--size {size}" in figures["command"]
    assert 0 <= figures["davis16"]["j"] <= 1


def test_a_bundle_is_evaluated_at_a_size_that_it_has(tmp_path: Path, davis: Path, bundle: Path) -> None:
    def score(size: str) -> None:
        evaluate(EvalOptions(dataset="davis16", root=davis, bundle=bundle, size=size), console=quiet(tmp_path))

    score("64x96")
    for size, message in (
        ("original", "--size original is for checkpoints"),
        ("32x32", "no graphs for 32x32"),
        ("large", "--size large: write it as HxW"),
    ):
        with pytest.raises(UserError, match=message):
            score(size)


def write(dataset: str, root: Path) -> Path:
    """A tiny data set in its official layout."""
    if dataset == "davis16":
        return write_davis16(root, SENTENCES)
    if dataset == "davis17":
        return write_davis17(root, {"val": ["cows", "goat"]})
    if dataset == "youtube-vos":
        return write_youtube_vos(root, {"0043f083b5": [("a red car", 1), ("the man", 2)]}, split="valid")
    writers = {"a2d": write_a2d, "jhmdb": write_jhmdb, "mevis": write_mevis, "refcoco": write_refcoco}
    return writers[dataset](root)


@pytest.mark.parametrize("dataset", DATASETS)
def test_every_data_set_is_evaluated_in_its_official_layout(tmp_path: Path, bundle: Path, dataset: str) -> None:
    root, masks = write(dataset, tmp_path / "data"), tmp_path / "masks"
    console = quiet(tmp_path)
    figures = evaluate(EvalOptions(bundle=bundle, dataset=dataset, root=root, masks=masks), console=console)
    assert f"{dataset}, {DATASETS[dataset].split}" in console.export_text()
    numbers = figures[dataset]
    if dataset == "youtube-vos":
        assert numbers["j"] is None, "the server has the annotations"
    elif dataset == "davis17":
        assert set(numbers["sets"]) == {"annot1", "annot1_full_video", "annot2", "annot2_full_video"}
        assert 0 <= numbers["standard"]["j"] <= 1
        assert (masks / "Combined/annot2/cows/00001.png").is_file()
    else:
        assert 0 <= numbers.get("j", numbers.get("overall_iou")) <= 1
    clips = open_clips(dataset, root)
    video = clips.videos[0]
    assert (masks / "Annotations" / video / clips.queries(video)[0].key).is_dir()


def test_any_davis16_split_is_evaluated_with_any_expressions(tmp_path: Path, davis: Path, bundle: Path) -> None:
    said = tmp_path / "mine.json"
    videos = {"lucia": {"expressions": {"7": {"exp": "The  Woman in blue", "obj_id": "1"}}}}
    said.write_text(json.dumps({"videos": videos}))
    options = EvalOptions(bundle=bundle, dataset="davis16", root=davis, split="lucia", expressions=said)
    figures = evaluate(options, console=quiet(tmp_path))
    assert figures["davis16"]["videos"]["lucia"]["expressions"]["7"]["expression"] == "the woman in blue"
    assert "--split lucia --expressions mine.json" in figures["command"]
    with pytest.raises(UserError, match="no expressions for hike"):
        evaluate(EvalOptions(bundle=bundle, dataset="davis16", root=davis, split="hike", expressions=said))


def test_the_attribute_table_comes_with_db_info(tmp_path: Path, davis: Path, bundle: Path) -> None:
    listed = [f"- {{name: {video}, attributes: [AC], set: training}}" for video in SENTENCES]
    (davis / "db_info.yml").write_text("\n".join(["sequences:", *listed]))
    console = quiet(tmp_path)
    figures = evaluate(EvalOptions(bundle=bundle, dataset="davis16", root=davis), console=console)["davis16"]
    assert figures["attributes"]["rows"]["AC"] == {"j": pytest.approx(figures["j"]), "videos": 2, "paper": 0.851}
    assert "these are others" in console.export_text()


def test_an_interrupted_evaluation_goes_on_and_belongs_to_its_model(
    tmp_path: Path, davis: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, partial = tmp_path / "figures.json", tmp_path / "figures.partial.jsonl"
    options: dict[str, Any] = {"bundle": bundle, "dataset": "davis16", "root": davis, "split": "all", "json": out}
    opened = module.open_clips
    seen: list[str] = []

    def open_and_fail(*args: Any) -> Any:
        clips = opened(*args)
        image = clips.image

        def read(video: str, index: int) -> Any:
            seen.append(video)
            if video == "lucia" and len(seen) == 10:
                raise KeyboardInterrupt
            return image(video, index)

        clips.image = read
        return clips

    monkeypatch.setattr(module, "open_clips", open_and_fail)
    with pytest.raises(KeyboardInterrupt):
        evaluate(EvalOptions(**options), console=quiet(tmp_path))
    assert partial.is_file()
    assert not out.exists()
    for change, name in (({"every": 2}, "every"), ({"split": "dev"}, "split"), ({"masks": tmp_path / "m"}, "masks")):
        with pytest.raises(UserError, match=f"another {name};"):
            evaluate(EvalOptions(**(options | change)))
    other = Path(shutil.copytree(bundle, tmp_path / "other"))
    (other / "manifest.json").write_text((other / "manifest.json").read_text() + " ")
    with pytest.raises(UserError, match="another model;"):
        evaluate(EvalOptions(**(options | {"bundle": other})))
    seen.clear()
    console = quiet(tmp_path)
    figures = evaluate(EvalOptions(**options), console=console)
    assert set(seen) == {"lucia"}
    assert "2 parts are done" in " ".join(console.export_text().split())
    assert figures == evaluate(EvalOptions(**(options | {"json": None})), console=quiet(tmp_path))
    assert not partial.exists()


def test_the_card_lies_in_the_bundle_and_leaves_it_valid(tmp_path: Path, davis: Path) -> None:
    bundle = write_tiny_bundle(tmp_path / "tiny")
    facts = {
        "iterations": 900,
        "batch": 8,
        "interrupted": True,
        "config": {"iterations": 1200},
        "data": [{"name": "davis", "share": 0.6}, {"name": "synthetic", "share": 0.4}],
        "licences": ["DAVIS: CC BY-NC"],
        "history": [{"iterations": 500, "batch": 2, "data": [{"name": "coco", "share": 1.0}]}],
    }
    (bundle / "card.json").write_text(json.dumps(facts))
    console = Console(file=(tmp_path / "log").open("w"))
    figures = evaluate(EvalOptions(bundle=bundle, dataset="davis16", root=davis, card=True, every=4), console=console)
    Bundle.open(bundle)
    page = (bundle / "README.md").read_text()
    assert f"| car-turn | {100 * figures['davis16']['videos']['car-turn']['j']:.1f} |" in page
    earlier = page.index("500 iterations of 2 frames: coco 100 %")
    assert earlier < page.index("900 iterations of 8 frames, stopped early (of 1200): davis 60 %, synthetic 40 %")
    assert "DAVIS: CC BY-NC" in page
    assert "for non-commercial use" in page
    assert "rvos-edge eval --dataset davis16 --bundle tiny --root davis --every 4" in page
    row = {"share": 0.75, "named_wins": 0.8, "pairs": 8, "frames": 4, "absent_foreground": 0.02}
    write_card(bundle, {"swap": {"coco": row, "overall": row}}, {})
    page = (bundle / "README.md").read_text()
    assert "held-out COCO images: 8 pairs | 75.0 | 80.0 | 2.0 |" in page
    assert "those of the swap test included" not in page
    assert "not recorded" in page
    sources = [{"kind": "coco", "root": "coco"}]
    before = {"iterations": 1, "config": {"data": {"sources": sources}}}
    write_card(bundle, {"swap": {"coco": row, "overall": row}}, {"iterations": 2, "history": [before]})
    assert "those of the swap test included" in (bundle / "README.md").read_text()
    (bundle / "card.json").write_text("{")
    with pytest.raises(UserError, match=r"card\.json"):
        card_facts(bundle)


_REGIONS = {
    "split": "val",
    "every": 1,
    "protocol": "every-frame",
    "videos": {},
    **dict.fromkeys(("j", "j_recall", "j_decay", "f", "f_recall", "f_decay"), 0.5),
    "shuffled_j": None,
    "shuffled_foreground": None,
    "absent_foreground": None,
}


def test_the_card_tells_what_was_learnt_of_words_and_of_presence(bundle: Path) -> None:
    bins = [{"said": 0.05, "observed": 0.025, "true": 1, "absent": 19}, {"said": None, "observed": None, "true": 0}]
    said = {"auc": 0.9, "ece": 0.04, "found": 0.88, "false": 0.15, "curve": [{"absent": 0, **each} for each in bins]}
    row = {"j": 0.61, "absent_foreground": 0.1, "words": 30, "absent": 20, "presence": said}
    alone = {"j": 0.5, "absent_foreground": 0.1, "words": 3, "absent": 0}
    words = {"seen": row, "held_out": alone, "pairs": {"share": 0.8, "named_wins": 0.9, "pairs": 12}}
    words["by_shape"] = {"tall": {"words": 12, "j": 0.5}}
    data = {"sources": [{"kind": "davis", "videos": "all"}]}
    trained = {"iterations": 5, "batch": 8, "config": {"data": data}}
    head = {"samples": 64, "presence": said, "history": [trained], "failures": ["A cow in the mist."]}
    manifest = json.loads((bundle / "manifest.json").read_text())
    proof = {"backend": "OpenVINO (cpu)", "graphs": {}, "mask_iou": 0.99, "frames": 4, "source": "synthetic"}
    manifest["proofs"] = {"openvino": proof, "onnxruntime": {**proof, "backend": "ORT", "mask_iou": None}}
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    ways = {"sentence": {"j": 0.5, "worst": ["cow", 0.0]}, "1 shown": {"j": 0.625, "worst": ["cow", -0.01]}}
    learning = {way: {**row, **dict.fromkeys(("f", "drift", "shuffled_j")), "videos": {}} for way, row in ways.items()}
    (bundle / "learning.json").write_text(json.dumps(learning))
    further = {"title": "Cows, %", "heads": ["cow", "J"], "rows": [["brown", "70.0"]], "note": "Two cows."}
    (bundle / "tables.json").write_text(json.dumps([further]))
    fold = {"j": 0.75, "f": 0.5, "shuffled_j": 0.25}
    (bundle / "folds.json").write_text(json.dumps({**fold, "videos": {"cow": fold}}))
    write_card(bundle, {"words": words, "davis16": _REGIONS}, head)
    page = (bundle / "README.md").read_text()
    assert "30 there, 20 not | 61.0 | 10.0 | 90.0 | 4.0 | 88.0 | 15.0 |" in page
    assert "3 there, 0 not | 50.0 | 10.0 | - | - | - | - |" in page
    assert "12 pairs in one picture" in page
    assert "| 0 to 10 | 5.0 | 2.5 | 1 | 19 |\n| 10 to 20 | - | - | 0 | 0 |" in page
    assert "| taller than wide | 12 | 50.0 |" in page
    assert "| cow | 75.0 | 50.0 | 25.0 |" in page
    assert "| 1 shown | 62.5 | - | - | - | cow -1.0 |" in page
    assert "Cows, %. Two cows.\n\n| cow | J |\n| --- | ---: |\n| brown | 70.0 |" in page
    assert "- OpenVINO (cpu): masks agree with PyTorch's at IoU 0.9900 over 4 frames (synthetic)" in page
    assert "ORT" not in page
    assert "- then the presence head, alone: 64 frames" in page
    assert "## Failures that were looked at\n\n- A cow in the mist.\n\n## Limits" in page
    assert "those of the table are not new to it" in page


def test_options_that_do_not_fit_are_named(tmp_path: Path, davis: Path, bundle: Path) -> None:
    options = {"checkpoint": tmp_path, "dataset": "all", "root": davis}
    (tmp_path / "run/checkpoint").mkdir(parents=True)
    (tmp_path / "run/checkpoint/model.safetensors").touch()
    for change, message in (
        ({"bundle": tmp_path}, "either --checkpoint or --bundle"),
        ({"checkpoint": None}, "either --checkpoint or --bundle"),
        ({"dataset": "imagenet"}, "imagenet.*choose one of davis16"),
        ({"root": None}, "needs --root"),
        ({"root": tmp_path / "nowhere"}, "--root .*nowhere does not exist"),
        ({"coco": tmp_path / "nowhere"}, "--coco .*nowhere does not exist"),
        ({"people": tmp_path}, "--people needs --coco"),
        ({"expressions": tmp_path / "nowhere"}, "--expressions .*nowhere does not exist"),
        ({"card": True}, "--card describes a bundle"),
        ({"json": tmp_path}, "is a folder"),
        ({"masks": tmp_path}, "--masks keeps"),
        ({"protocol": "x"}, "--protocol 'x'; choose one of every-frame"),
        ({"every": 0}, "--every must be at least 1"),
        ({}, "not a checkpoint"),
        ({"checkpoint": tmp_path / "run"}, "run is the folder of a run; give its checkpoint, .*run/checkpoint"),
    ):
        with pytest.raises(UserError, match=message):
            evaluate(EvalOptions(**(options | change)))  # type: ignore[arg-type]
    for dataset, split, message in (("youtube-vos", "val", "choose one of train, valid, test"), ("coco", None, "coco")):
        with pytest.raises(UserError, match=message):
            open_clips(dataset, davis, split)


def test_the_command_line_says_one_sentence(davis: Path, bundle: Path) -> None:
    arguments = ["eval", "--bundle", bundle, "--dataset", "a2d", "--root", davis, "--every", 2]
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == 2
    assert result.output.startswith("Error: ")
