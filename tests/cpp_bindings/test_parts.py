"""Pixels, decisions and cache files of the C++ library against those of Python."""

from __future__ import annotations

import json
import random
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from support.cpp_probe import Probe

from rvos_edge.flow.policy import FlowOptions, FlowPolicy
from rvos_edge.preprocess import Postprocessor
from rvos_edge.synthetic.camera import SyntheticCamera

FLOW_STAGES = {"flow_encode": 4.0, "flow_context": 6.0, "flow_step": 8.0, "flow_up": 1.0}


def resized(probe: Probe, kind: str, image: NDArray[Any], size: tuple[int, int], **more: Any) -> NDArray[np.uint8]:
    request = {"kind": kind, "from": image.shape[:2], "to": size, **more}
    return np.frombuffer(probe("resize", json.dumps(request), data=image.tobytes()), np.uint8)


@pytest.mark.parametrize("source", [(480, 854), (720, 1280), (1080, 1920), (37, 61), (288, 512), (576, 1024), (1, 1)])
def test_frames_are_resized_as_by_opencv(probe: Probe, source: tuple[int, int]) -> None:
    image = np.random.default_rng(1).integers(0, 256, (*source, 3), np.uint8)
    for size in ((288, 512), (64, 96)):
        expected = cv2.resize(image, size[::-1], interpolation=cv2.INTER_LINEAR)
        np.testing.assert_array_equal(resized(probe, "linear", image, size).reshape(expected.shape), expected)


@pytest.mark.parametrize("source", [(288, 512), (64, 96), (480, 854), (96, 128), (18, 32)])
def test_thumbnails_are_those_of_opencv(probe: Probe, source: tuple[int, int]) -> None:
    image = np.random.default_rng(2).integers(0, 256, (*source, 3), np.uint8)
    expected = cv2.resize(image, (32, 18), interpolation=cv2.INTER_AREA)
    np.testing.assert_array_equal(resized(probe, "area", image, (18, 32)).reshape(expected.shape), expected)


@pytest.mark.parametrize("size", [(288, 512), (480, 854), (37, 61), (720, 1280)])
def test_masks_are_those_of_python(probe: Probe, size: tuple[int, int]) -> None:
    rng = np.random.default_rng(3)
    margin = cv2.GaussianBlur(rng.standard_normal((72, 128), np.float32), (0, 0), 4) * 40
    for threshold in (0.0, 1.5):
        expected = Postprocessor(threshold).masks(margin[None], size)[0]
        found = resized(probe, "masks", margin, size, threshold=threshold)[: expected.size].reshape(size)
        # OpenCV's own float32 arithmetic differs in the last bits from one build to the next.
        assert np.count_nonzero(found != expected) <= expected.size * 2e-5
        assert 0 < expected.mean() < 1


def trace(folder: Path, options: dict[str, Any], frames: int) -> tuple[str, list[dict[str, Any]]]:
    """A video with cuts, still stretches, changes of size and slow spells, and what Python decides on it."""
    chance = random.Random(5)
    cameras = [SyntheticCamera(seed=seed, size=(96, 128), frames=frames) for seed in (1, 2)]
    images = [np.full((96, 128, 3), 128, np.uint8), *(camera.render(i).image for camera in cameras for i in range(12))]
    (folder / "images.raw").write_bytes(b"".join(image.tobytes() for image in images))
    policy = FlowPolicy(FlowOptions(**options), iterations=4)
    steps, decisions = [], []
    image, size = 1, (96, 128)
    for index in range(frames):
        kind = chance.random()
        if kind < 0.05:
            image = chance.randrange(len(images))
        elif kind < 0.6:
            image = 1 + image % 24
        if kind > 0.97:
            size = chance.choice([(96, 128), (480, 640)])
        slow = 1.0 if index % 100 < 50 else 2.2
        always = {"preprocess": 1.0, "backbone": 20.0 * slow * chance.uniform(0.9, 1.2), "gating": 5.0 * slow}
        per_flow = {name: time * slow * chance.uniform(0.9, 1.1) for name, time in FLOW_STAGES.items()}
        step = {
            "image": image,
            "size": size,
            "reset": kind > 0.99,
            "without_flow": list(always.items()),
            "with_flow": list({**always, **per_flow}.items()),
        }
        if step["reset"]:
            policy.reset()
        decision = policy.decide(images[image], size)
        times = dict(step["with_flow"] if decision.iterations else step["without_flow"])
        if "flow_step" in times:
            times["flow_step"] *= decision.iterations
        policy.observe(times, decision)
        steps.append(step)
        decisions.append(asdict(decision))
    document = {
        "input": (96, 128),
        "images": str(folder / "images.raw"),
        "options": options,
        "iterations": 4,
        "frames": steps,
    }
    return json.dumps(document), decisions


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"every": 3},
        {"still": 3.0},
        {"still": 6.0, "iterations": 2},
        {"hold_fps": 24.0},
        {"hold_fps": 20.0, "still": 4.0},
        {"hold_fps": 18.0, "every": 2},
    ],
)
def test_the_same_decisions(probe: Probe, tmp_path: Path, options: dict[str, Any]) -> None:
    document, expected = trace(tmp_path, options, 400)
    assert [json.loads(line) for line in probe.lines("policy", data=document)] == expected
    assert {decision["action"] for decision in expected} >= {"run", "zero"}
    if "hold_fps" in options:
        assert len({decision["iterations"] for decision in expected}) > 2


def test_cache_files_go_both_ways(probe: Probe, tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    arrays = {"lang1": rng.random(48, np.float32), "lang2": rng.random(3).astype(np.float16), "ids": np.arange(6)}
    np.savez(tmp_path / "python.npz", **arrays)
    assert probe("npz", str(tmp_path / "python.npz"), str(tmp_path / "cpp.npz")) == b"3\n"
    with np.load(tmp_path / "cpp.npz", allow_pickle=False) as archive:
        assert archive.files == list(arrays)
        for name, array in arrays.items():
            np.testing.assert_array_equal(archive[name], array)
            assert archive[name].dtype == array.dtype


def test_a_damaged_cache_file_is_a_miss(probe: Probe, tmp_path: Path) -> None:
    path = tmp_path / "whole.npz"
    np.savez(path, lang1=np.arange(8, dtype=np.float32))
    whole = path.read_bytes()
    for name, data in {"cut": whole[:-9], "flipped": whole[:200] + b"x" + whole[201:], "empty": b""}.items():
        (tmp_path / name).write_bytes(data)
        assert probe("npz", str(tmp_path / name), str(tmp_path / "copy.npz")) == b"damaged\n"
    np.savez_compressed(path, lang1=np.arange(8, dtype=np.float32))
    assert probe("npz", str(path), str(tmp_path / "copy.npz")) == b"damaged\n"
