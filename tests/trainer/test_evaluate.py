"""What the figures mean: an oracle gets everything, a predictor deaf to the text is found out."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from rich.console import Console
from tiny_bundle import write_tiny_bundle
from tokenizers import Tokenizer

from rvos_edge.bundle import Bundle
from rvos_edge.errors import UserError
from rvos_edge.stream.synthetic import SyntheticCamera
from rvos_edge.trainer import evaluate_swap as swap
from rvos_edge.trainer.card import card_facts, write_card
from rvos_edge.trainer.checkpoint import Checkpoint, save_checkpoint
from rvos_edge.trainer.evaluate import evaluate, evaluate_davis, evaluate_swap, evaluate_synthetic
from rvos_edge.trainer.model.hinet import HINet
from rvos_edge.trainer.model.presets import model_config

Masks = NDArray[np.bool_]
SENTENCES = {"car-turn": ["a red car", "the car"], "hike": ["a hiker walking", "the man"], "lucia": ["a woman"]}
BOX = (slice(10, 40), slice(5, 35))


class Fake:
    """Answers each query with ``answer(frame, query)``, and remembers how it was called."""

    def __init__(self, answer: Callable[[NDArray[np.uint8], str], Masks]) -> None:
        self.answer = answer
        self.asked: list[list[str]] = []
        self.frames = self.resets = 0

    def reset(self) -> None:
        self.resets += 1

    def set_queries(self, queries: Sequence[str]) -> None:
        self.asked.append(list(queries))

    def masks(self, frame: NDArray[np.uint8]) -> Masks:
        self.frames += 1
        return np.stack([self.answer(frame, query) for query in self.asked[-1]])


def white(frame: NDArray[np.uint8], query: str) -> Masks:
    """Deaf: the white box of the fixture, whatever is asked."""
    return frame.min(axis=2) > 200


def nothing(frame: NDArray[np.uint8], query: str) -> Masks:
    return np.zeros(frame.shape[:2], bool)


@pytest.fixture
def davis(tmp_path: Path) -> Path:
    """The official layout in small: three videos of four frames, a white box on gray."""
    root = tmp_path / "davis"
    expressions = {}
    for video, sentences in SENTENCES.items():
        for kind in ("JPEGImages", "Annotations"):
            (root / kind / "480p" / video).mkdir(parents=True)
        for index in range(4):
            mask = np.zeros((48, 96), np.uint8)
            mask[BOX] = 255
            image = np.where(mask > 0, 255, 100).astype(np.uint8)[..., None].repeat(3, axis=2)
            options = [cv2.IMWRITE_JPEG_QUALITY, 100]
            cv2.imwrite(str(root / "JPEGImages" / "480p" / video / f"{index:05d}.jpg"), image, options)
            cv2.imwrite(str(root / "Annotations" / "480p" / video / f"{index:05d}.png"), mask)
        expressions[video] = {"expressions": {str(i): {"exp": s, "obj_id": "1"} for i, s in enumerate(sentences)}}
    (root / "meta_expressions.json").write_text(json.dumps({"videos": expressions}))
    return root


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    bundle = write_tiny_bundle(tmp_path / "for_its_tokenizer")
    tokenizer = Tokenizer.from_file(str(bundle / "tokenizer.json"))
    path = tmp_path / "checkpoint"
    save_checkpoint(path, Checkpoint(HINet(config=model_config("test")), tokenizer, {"name": "random"}))
    return path


def test_an_oracle_that_follows_the_text_gets_everything(davis: Path) -> None:
    cars = SENTENCES["car-turn"]
    oracle = Fake(lambda frame, query: white(frame, query) if query in cars else nothing(frame, query))
    figures = evaluate_davis(oracle, davis, split=["car-turn", "hike"])
    car, hike = figures["videos"]["car-turn"], figures["videos"]["hike"]
    assert (car["j"], car["f"], car["j_recall"], car["j_decay"]) == (1.0, 1.0, 1.0, 0.0)
    assert list(car["expressions"]) == cars
    assert car["shuffled"] == {"sentence": "a hiker walking", "j": 0.0, "foreground": 0.0, "absent": False}, (
        "a person may well be in the video of the car"
    )
    assert hike["j"] == 0.0
    assert hike["shuffled"]["absent"], "no car on the hike"
    assert hike["shuffled"]["j"] == 1.0, "the oracle of cars answers the foreign sentence with the hiker"
    assert figures["j"] == 0.5
    assert figures["absent_foreground"] == pytest.approx(900 / (48 * 96), rel=0.02)


def test_all_sentences_go_in_one_pass_and_every_frame_is_seen_even_if_not_scored(davis: Path) -> None:
    fake = Fake(white)
    figures = evaluate_davis(fake, davis, split="dev", every=3)
    assert fake.asked == [["a red car", "the car", "a hiker walking"], ["a hiker walking", "the man", "a red car"]]
    assert (fake.resets, fake.frames) == (2, 8)
    assert figures["videos"]["hike"]["frames"] == 2, "frames 0 and 3"
    assert figures["shuffled_j"] == 1.0, "deaf to the text"


def test_splits_follow_the_official_list_where_there_is_one(davis: Path) -> None:
    def videos(split: str) -> list[str]:
        return list(evaluate_davis(Fake(nothing), davis, split=split)["videos"])

    assert videos("val") == videos("dev") == ["car-turn", "hike"]
    assert videos("train") == ["lucia"]
    assert len(videos("all")) == 3
    assert videos("lucia, hike") == ["lucia", "hike"]
    (davis / "ImageSets" / "480p").mkdir(parents=True)
    line = "/JPEGImages/480p/lucia/0000{0}.jpg /Annotations/480p/lucia/0000{0}.png \n"
    (davis / "ImageSets" / "480p" / "val.txt").write_text("".join(line.format(i) for i in range(4)))
    assert videos("val") == ["lucia"]
    one = evaluate_davis(Fake(nothing), davis, split="val")
    assert one["shuffled_j"] is None, "a single video has no next one"


def test_the_synthetic_figures_tell_an_oracle_from_a_deaf_predictor() -> None:
    size, seeds, frames = (96, 160), range(3), 4
    truth: dict[tuple[bytes, str], Masks] = {}
    for camera in (SyntheticCamera(seed=seed, size=size) for seed in seeds):
        rendered = [camera.render(index) for index in range(frames)]
        for number in range(len(camera.objects)):
            said = {s for i in range(frames) for s in camera.expressions(i, kinds=("colour", "shape", "size"))[number]}
            truth |= {(frame.image.tobytes(), s): frame.masks[number] for frame in rendered for s in said}
    empty = np.zeros(size, bool)
    oracle = evaluate_synthetic(
        Fake(lambda f, q: truth.get((f.tobytes(), q), empty)), seeds=seeds, frames=frames, size=size
    )
    assert oracle["j"] == 1.0
    assert oracle["absent_empty"] == 1.0
    assert oracle["objects"] >= 12
    deaf = evaluate_synthetic(Fake(lambda f, q: ~empty), seeds=[0], frames=2, size=size)
    assert deaf["j"] < 0.3
    assert (deaf["absent_empty"], deaf["absent_foreground"]) == (0.0, 1.0)
    with pytest.raises(UserError, match="training scene"):
        evaluate_synthetic(oracle, seeds=[1000])  # type: ignore[arg-type]


class SwapOracle(Fake):
    """Knows the frames of the swap test, as they are handed out."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, upside_down: bool = False) -> None:
        self.drawn: list[swap.SwapFrame] = []
        build = swap._frame

        def spy(*args: object, **options: object) -> swap.SwapFrame | None:
            frame = build(*args, **options)  # type: ignore[arg-type]
            self.drawn += [frame] if frame is not None else []
            return frame

        monkeypatch.setattr(swap, "_frame", spy)
        super().__init__(nothing)
        self.upside_down = upside_down

    def masks(self, frame: NDArray[np.uint8]) -> Masks:
        last = self.drawn[-1]
        assert last.queries == self.asked[-1]
        assert np.array_equal(last.image, frame)
        return last.masks[::-1] if self.upside_down and len(last.masks) == 2 else last.masks


def coco(root: Path) -> Path:
    """Three pictures, each with a whole dog on the left and a whole car on the right."""
    (root / "images").mkdir(parents=True)
    annotations = []
    for image in range(3):
        picture = np.random.default_rng(image).integers(90, 110, (64, 96, 3), dtype=np.uint8)
        cv2.imwrite(str(root / "images" / f"{image}.jpg"), picture)
        for category, x0, x1 in ((18, 5, 45), (3, 50, 90)):
            polygon = [x0, 10, x1, 10, x1, 55, x0, 55]
            facts = {"bbox": [x0, 10, x1 - x0, 45], "area": 45 * (x1 - x0), "segmentation": [polygon]}
            annotations.append({"id": len(annotations), "image_id": image, "category_id": category} | facts)
    data = {
        "images": [{"id": i, "file_name": f"{i}.jpg", "width": 96, "height": 64} for i in range(3)],
        "annotations": annotations,
        "categories": [{"id": 18, "name": "dog"}, {"id": 3, "name": "car"}],
    }
    (root / "instances.json").write_text(json.dumps(data))
    return root


def test_the_swap_test_is_1_for_an_oracle_on_every_source(
    tmp_path: Path, davis: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    oracle = SwapOracle(monkeypatch)
    figures = evaluate_swap(oracle, coco(tmp_path / "coco"), davis, count=3)
    assert set(figures) == {"synthetic", "composed", "coco", "overall"}
    assert all(row["share"] == 1.0 and row["pairs"] >= 1 for row in figures.values())
    assert figures["coco"]["frames"] == 3
    assert oracle.resets == len(oracle.drawn) == figures["overall"]["frames"]
    assert not any("mov" in query or "still" in query for queries in oracle.asked for query in queries), (
        "a still frame shows no motion"
    )


def test_the_swap_test_is_0_for_a_predictor_that_ignores_the_text(tmp_path: Path) -> None:
    root = coco(tmp_path)
    left = np.arange(512) < 256
    for answer in (nothing, lambda f, q: np.ones(f.shape[:2], bool), lambda f, q: left & np.ones((288, 1), bool)):
        figures = evaluate_swap(Fake(answer), root, count=2)
        assert figures["overall"]["share"] == 0.0
        assert figures["overall"]["pairs"] >= 4


def test_the_swap_test_is_0_where_the_objects_are_mixed_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figures = evaluate_swap(SwapOracle(monkeypatch, upside_down=True), coco(tmp_path), count=2)
    assert figures["coco"]["share"] == 0.0


def test_equal_seeds_give_equal_frames(tmp_path: Path) -> None:
    asked, root = [], coco(tmp_path)
    for seed in (0, 0, 1):
        fake = Fake(nothing)
        evaluate_swap(fake, root, count=3, seed=seed)
        asked.append(fake.asked)
    assert asked[0] == asked[1] != asked[2]


def test_checkpoints_and_bundles_are_judged_alike(tmp_path: Path, davis: Path, checkpoint: Path) -> None:
    bundle = write_tiny_bundle(tmp_path / "tiny")
    for path in ({"checkpoint": checkpoint, "bundle": None}, {"checkpoint": None, "bundle": bundle}):
        out = tmp_path / "figures.json"
        console = Console(record=True, width=120, file=(tmp_path / "log").open("w"))
        figures = evaluate(dataset="davis16", root=davis, json_path=out, every=2, console=console, **path)
        assert json.loads(out.read_text()) == figures
        assert set(figures["davis16"]["videos"]) == {"car-turn", "hike"}
        assert 0 <= figures["davis16"]["j"] <= 1
        assert "car-turn" in console.export_text()
        assert str(tmp_path) not in figures["command"], "folders by their names alone"
    assert not list(tmp_path.glob(".figures*")), "no temporary file is left"


def test_the_card_lies_in_the_bundle_and_leaves_it_valid(tmp_path: Path, davis: Path) -> None:
    bundle = write_tiny_bundle(tmp_path / "tiny")
    facts = {
        "iterations": 900,
        "batch": 8,
        "interrupted": True,
        "config": {"iterations": 1200},
        "data": [{"name": "davis", "share": 0.6}, {"name": "synthetic", "share": 0.4}],
        "licences": ["DAVIS: CC BY-NC"],
        "before": {"iterations": 500, "batch": 2, "data": [{"name": "coco", "share": 1.0}]},
    }
    (bundle / "card.json").write_text(json.dumps(facts))
    console = Console(file=(tmp_path / "log").open("w"))
    figures = evaluate(
        checkpoint=None, bundle=bundle, dataset="davis16", root=davis, card=True, every=4, console=console
    )
    Bundle.open(bundle)
    page = (bundle / "README.md").read_text()
    assert f"| car-turn | {100 * figures['davis16']['videos']['car-turn']['j']:.1f} |" in page
    earlier = page.index("500 iterations of 2 frames: coco 100 %")
    assert earlier < page.index("900 iterations of 8 frames, stopped early (of 1200): davis 60 %, synthetic 40 %")
    assert "DAVIS: CC BY-NC" in page
    assert "not be used commercially" in page
    assert "rvos-edge eval --dataset davis16 --bundle tiny --root davis --every 4" in page
    row = {"share": 0.75, "pairs": 8, "frames": 4, "kept": 6}
    write_card(bundle, {"swap": {"coco": row, "overall": row}}, {})
    page = (bundle / "README.md").read_text()
    assert "COCO images: 8 pairs | 75.0 |" in page
    assert "not recorded" in page
    (bundle / "card.json").write_text("{")
    with pytest.raises(UserError, match=r"card\.json"):
        card_facts(bundle)


def test_options_that_do_not_fit_are_named(tmp_path: Path, davis: Path) -> None:
    options = {"checkpoint": tmp_path, "bundle": None, "dataset": "all", "root": davis}
    for change, message in (
        ({"bundle": tmp_path}, "either --checkpoint or --bundle"),
        ({"checkpoint": None}, "either --checkpoint or --bundle"),
        ({"dataset": "imagenet"}, "imagenet.*choose one of davis16"),
        ({"root": None}, "needs --root"),
        ({"root": tmp_path / "nowhere"}, "--root .*nowhere does not exist"),
        ({"coco": tmp_path / "nowhere"}, "--coco .*nowhere does not exist"),
        ({"card": True}, "--card describes a bundle"),
        ({"json_path": tmp_path}, "is a folder"),
    ):
        with pytest.raises(UserError, match=message):
            evaluate(**(options | change))  # type: ignore[arg-type]
    with pytest.raises(UserError, match="every"):
        evaluate_davis(Fake(nothing), davis, every=0)
    with pytest.raises(UserError, match="count"):
        evaluate_swap(Fake(nothing), count=0)
