"""``rvos-edge run`` as people type it: positional words, results without a given place, options from a file."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from support.fake_results import files
from support.tiny_bundle import write_tiny_bundle
from typer.main import get_command
from typer.testing import CliRunner, Result

from rvos_edge.cli import app
from rvos_edge.streaming.sources import output_name

FRAMES = 3


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_bundle(tmp_path_factory.mktemp("tiny"), presence=True)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with clip.mp4 and photo.png."""
    monkeypatch.chdir(tmp_path)
    noise = np.random.default_rng(1).integers(0, 255, (64, 96, 3), np.uint8)
    writer = cv2.VideoWriter("clip.mp4", cv2.VideoWriter.fourcc(*"mp4v"), 10.0, (96, 64))
    for index in range(FRAMES):
        writer.write(np.roll(noise, index, 1))
    writer.release()
    cv2.imwrite("photo.png", noise)
    return tmp_path


def run(tiny: Path, *words: object) -> Result:
    machine = ("--bundle", tiny, "--backend", "onnxruntime", "--threads", 1)
    return CliRunner().invoke(app, [str(word) for word in ("run", *words, *machine)])


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_a_source_and_queries_are_enough(tiny: Path, here: Path) -> None:
    for folder in ("clip", "clip-2"):
        result = run(tiny, "clip.mp4", "the red ball", "a black car")
        assert result.exit_code == 0, result.output
        assert files(here / "rvos-edge-out" / folder) == ["clip.jsonl", "clip.mp4"]
        assert f"Wrote rvos-edge-out/{folder}/clip.mp4, rvos-edge-out/{folder}/clip.jsonl." in result.stdout
    written = lines(here / "rvos-edge-out" / "clip" / "clip.jsonl")
    assert [query["text"] for query in written[0]["queries"]] == ["the red ball", "a black car"]


def test_the_end_says_how_often_each_query_was_found(tiny: Path, here: Path) -> None:
    result = run(tiny, "clip.mp4", "the red ball", "--min-presence", 0)
    assert f"the red ball: found in {FRAMES} of {FRAMES} frames, mean presence 0." in result.stdout
    result = run(tiny, "clip.mp4", "the red ball", "--min-presence", 1)
    assert f"the red ball: found in 0 of {FRAMES} frames, mean presence 0." in result.stdout


def test_the_backend_is_said_before_the_first_frame(tiny: Path, here: Path) -> None:
    (here / "folder").mkdir()
    cv2.imwrite("folder/0.png", np.zeros((64, 96, 3), np.uint8))
    (here / "folder" / "1.png").write_text("no picture")
    result = run(tiny, "folder", "a dog")
    assert result.exit_code == 2
    assert result.stderr.startswith("ONNX Runtime (cpu) because")
    assert "1.png cannot be read as an image" in result.stderr.splitlines()[1]


def test_masks_and_cut_outs_are_cut_into_segments_as_overlays_are(tiny: Path, here: Path) -> None:
    result = run(tiny, "clip.mp4", "a ball", "--mask-video", "m.mp4", "--cutout", "cut.webm", "--segment", "9999d")
    assert result.exit_code == 0, result.output
    stamped = "-????????T??????Z"
    assert [len(list(here.glob(name))) for name in (f"m{stamped}.mp4", f"cut{stamped}.webm", "m.mp4")] == [1, 1, 0]


def test_one_picture_gives_one_picture(tiny: Path, here: Path) -> None:
    assert run(tiny, "photo.png", "the red ball").exit_code == 0
    assert files(here / "rvos-edge-out") == ["photo", "photo/photo.jsonl", "photo/photo.png"]
    assert cv2.imread("rvos-edge-out/photo/photo.png").shape == (64, 96, 3)
    result = run(tiny, "clip.mp4", "a dog", "--output", "one.jpg", "--json", "lines.jsonl")
    assert "one.jpg holds one frame and the source has more" in result.stderr


def test_a_folder_of_pictures_becomes_a_data_set(tiny: Path, here: Path) -> None:
    result = run(tiny, "clip.mp4", "the red ball", "--min-presence", 0, "--dataset", "set", "--coco", "out.json")
    assert result.exit_code == 0, result.output
    assert "Wrote out.json, set." in result.stdout
    for path in (here / "out.json", here / "set" / "instances.json"):
        document = json.loads(path.read_text(encoding="utf-8"))
        assert len(document["images"]) == len(document["annotations"]) == FRAMES
    assert len(list((here / "set" / "labels").iterdir())) == FRAMES


def test_quiet_and_verbose(tiny: Path, here: Path) -> None:
    quiet, plain, verbose = (run(tiny, "clip.mp4", "a dog", *more) for more in (["-q"], [], ["-v"]))
    assert quiet.output == ""
    assert "backbone" not in plain.output
    assert "backbone" in verbose.stdout


def test_a_higher_threshold_gives_smaller_masks(tiny: Path, here: Path) -> None:
    areas = []
    for threshold in (0.5, 0.6):
        options = ("--threshold", threshold, "--min-presence", 0, "--json", f"{threshold}.jsonl")
        assert run(tiny, "photo.png", "the red ball", *options).exit_code == 0
        areas.append(lines(here / f"{threshold}.jsonl")[0]["queries"][0]["area"])
    assert areas[0] > areas[1]


def test_options_go_into_a_file_and_come_back(tiny: Path, here: Path) -> None:
    given = ("--frames", 2, "--json", "a.jsonl", "--overlap", "higher", "--token", "correct horse", "-q")
    assert run(tiny, "clip.mp4", "a dog", *given, "--save-config", "run.yaml").exit_code == 0
    saved = yaml.safe_load((here / "run.yaml").read_text())
    assert (saved["source"], saved["query"], saved["frames"], saved["overlap"]) == ("clip.mp4", ["a dog"], 2, "higher")
    assert not {"token", "quiet"} & saved.keys()
    result = CliRunner().invoke(app, ["run", "--config", "run.yaml", "--json", "b.jsonl", "--query", "a cat"])
    assert result.exit_code == 0, result.output
    again = lines(here / "b.jsonl")
    assert len(again) == 2
    assert [query["text"] for query in again[0]["queries"]] == ["a cat"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("speed: 3", "there is no option 'speed'"),
        ("frames: many", "frames: input should be a valid integer"),
        ("query: a dog", "query: input should be a valid array"),
        ("[1, 2]", "should be an object"),
        ("a: [", "is no YAML file of options"),
        (None, "cannot be read: No such file"),
    ],
)
def test_a_file_of_options_that_cannot_be_used(content: str | None, words: str, tiny: Path, here: Path) -> None:
    if content is not None:
        (here / "run.yaml").write_text(content)
    result = run(tiny, "clip.mp4", "a dog", "--config", "run.yaml")
    assert result.exit_code == 2, result.output
    assert result.stderr.startswith("Error: --config run.yaml")
    assert words in result.stderr
    assert not (here / "rvos-edge-out").exists()


def test_results_are_named_after_the_source(here: Path) -> None:
    (here / "frames").mkdir()
    sources = ("frames", "frames/", "*.mp4", "rtsp://user:secret@host/live?key=1", "-", "in/der große Hund.avi")
    names = ["frames", "frames", here.name, "live", "stream", "der-große-Hund"]
    assert [output_name(source) for source in sources] == names


_STARTS_AT_ONCE = {"bench", "demo", "doctor", "inspect", "verify", "bundles"}
"""Commands that need nothing."""


def commands(group: object, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    found: list[tuple[str, ...]] = []
    for name, command in group.commands.items():  # type: ignore[attr-defined]
        found += commands(command, (*path, name)) if hasattr(command, "commands") else [(*path, name)]
    return found


@pytest.mark.parametrize("command", commands(get_command(app)), ids=" ".join)
def test_every_command_answers_bare_and_helps(command: tuple[str, ...]) -> None:
    for option in ("-h", "--help"):
        helped = CliRunner().invoke(app, [*command, option])
        assert helped.exit_code == 0, helped.output
        assert "Usage" in helped.output
    if command[0] not in _STARTS_AT_ONCE:
        bare = CliRunner().invoke(app, list(command))
        assert bare.exit_code == 2, bare.output
        assert isinstance(bare.exception, SystemExit)
        assert "Traceback" not in bare.output


def test_help_of_run_has_groups_examples_and_exit_codes() -> None:
    text = CliRunner().invoke(app, ["run", "-h"]).output
    for words in ("Source and queries", "Results", "Masks", "Motion", "Model and machine", "Exit codes"):
        assert words in text
    assert text.count(" rvos-edge run ") == 3
