"""The same frames and queries through both runtimes: the same masks, decisions and scores."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from support.cpp_probe import Probe
from support.tiny_bundle import read_manifest, write_tiny_bundle
from support.tiny_graphs import CHANNELS

import rvos_edge
from rvos_edge.bundle import shipped_bundle
from rvos_edge.demo import CLIP, QUERIES
from rvos_edge.flow.policy import FlowOptions
from rvos_edge.queries import TaughtQuery, read_queries
from rvos_edge.streaming.sources import open_source
from rvos_edge.synthetic.camera import SyntheticCamera

pytest.importorskip("openvino")

Frame = NDArray[np.uint8]


@dataclass(frozen=True)
class Step:
    """One frame, and what is done before it."""

    frame: Frame
    queries: tuple[str, ...] = ()
    reset: bool = False


def synthetic(size: tuple[int, int], frames: int, seed: int) -> list[Step]:
    """A scene, asked for one thing, then for two and then for something that is not there."""
    camera = SyntheticCamera(seed=seed, size=size, frames=frames)
    first, second = camera.expressions(0)[0][0], camera.expressions(0)[1][0]
    changes = {0: (first,), frames // 3: (first, second), 2 * frames // 3: ("a purple elephant",)}
    return [Step(frame.image, changes.get(frame.index, ()), reset=frame.index == 0) for frame in camera]


def real(folder: Path, frames: int, changes: dict[int, tuple[str, ...]]) -> list[Step]:
    """The first frames of a clip."""
    paths = sorted(folder.glob("*.jpg"))[:frames]
    images = [cv2.imread(str(path)) for path in paths]
    return [Step(np.asarray(image, np.uint8), changes.get(i, ()), i == 0) for i, image in enumerate(images)]


def run_cpp(
    probe: Probe,
    bundle: Path,
    steps: Sequence[Step],
    flow: FlowOptions,
    folder: Path,
    backend: str,
    *,
    adapt: bool = False,
) -> list[dict[str, Any]]:
    """Results of the C++ library, with ``masks`` and ``margins`` added to its lines."""
    frames, masks = folder / "frames.raw", folder / "masks.raw"
    with frames.open("wb") as file:
        for step in steps:
            file.write(np.ascontiguousarray(step.frame).tobytes())
    script = {
        "bundle": str(bundle),
        "backend": backend,
        "flow": flow.model_dump(exclude_defaults=True),
        "adapt": adapt,
        "frames": str(frames),
        "masks": str(masks),
        "steps": [
            {"size": step.frame.shape[:2], "reset": step.reset, **({"queries": step.queries} if step.queries else {})}
            for step in steps
        ],
    }
    results = [json.loads(line) for line in probe.lines("run", data=json.dumps(script))]
    data = masks.read_bytes()
    for step, result in zip(steps, results, strict=True):
        shape = (len(result["queries"]), *step.frame.shape[:2])
        size, margin_size = int(np.prod(shape)), int(np.prod(result["margin_shape"]))
        result["masks"] = np.frombuffer(data[:size], np.bool_).reshape(shape)
        margins = np.frombuffer(data[size : size + 4 * margin_size], np.float32)
        result["margins"] = margins.reshape(result["margin_shape"])
        data = data[size + 4 * margin_size :]
    assert not data
    return results


def check(
    probe: Probe,
    bundle: Path,
    steps: Sequence[Step],
    folder: Path,
    flow: FlowOptions | None = None,
    backend: str = "openvino",
    *,
    adapt: bool = False,
    quantum: float = 0.0,
) -> list[list[bool]]:
    """Run both and compare; returns what had adapted on each frame. ``quantum`` is a step of eight bits in the margins:
    the last bit of a sum decides on which side of it a value falls.
    """
    options = flow or FlowOptions()
    found = run_cpp(probe, bundle, steps, options, folder, backend, adapt=adapt)
    segmenter = rvos_edge.open(bundle, backend=backend, flow=options, adapt="once" if adapt else "off")
    worst, some = 1.0, 0
    for step, result in zip(steps, found, strict=True):
        if step.reset:
            segmenter.reset()
        if step.queries:
            segmenter.set_queries(read_queries(step.queries))
        expected = segmenter.step(step.frame)
        assert result["queries"] == list(expected.queries)
        assert result["index"] == expected.index
        assert list(result["timings"]) == sorted(expected.timings)
        assert result.get("decision") == (None if expected.decision is None else asdict(expected.decision))
        assert result["flow_used"] == expected.flow_used
        np.testing.assert_allclose(result["presence"], expected.presence, atol=1e-4)
        assert result["present"] == expected.present.tolist()
        assert result["adapted"] == expected.adapted.tolist()
        np.testing.assert_allclose(result["margins"], expected.margins, atol=5e-3 + quantum, rtol=1e-3)
        np.testing.assert_allclose(result["scores"], expected.scores, atol=1e-3)
        for mask, wanted in zip(result["masks"], expected.masks, strict=True):
            union = np.logical_or(mask, wanted).sum()
            some += int(wanted.any())
            worst = min(worst, float(np.logical_and(mask, wanted).sum() / union) if union else 1.0)
    assert some > len(steps) // 2, "too few masks to compare anything"
    assert worst >= (0.98 if quantum else 0.999)
    return [result["adapted"] for result in found]


def test_synthetic_frames(probe: Probe, tmp_path: Path) -> None:
    steps = synthetic((288, 512), 9, seed=3) + synthetic((360, 480), 6, seed=5)
    check(probe, shipped_bundle(), steps, tmp_path)


def test_onnxruntime(probe: Probe, tmp_path: Path) -> None:
    if "onnxruntime" not in probe.lines("backends", str(shipped_bundle())):
        pytest.skip("needs a C++ library with ONNX Runtime: cpp_bindings/tools/onnxruntime_root.sh")
    check(probe, shipped_bundle(), synthetic((288, 512), 6, seed=3), tmp_path, backend="onnxruntime")


@pytest.mark.parametrize("size", [(160, 90), (40, 200), (96, 64)])
def test_frames_of_another_shape_lie_between_bars(probe: Probe, tmp_path: Path, size: tuple[int, int]) -> None:
    bundle = write_tiny_bundle(tmp_path / "tiny")
    frames = SyntheticCamera(seed=2, size=(200, 200), frames=6)
    steps = [Step(cv2.resize(frame.image, size[::-1]).astype(np.uint8), ("a dog", "the red ball")) for frame in frames]
    check(probe, bundle, steps, tmp_path)


@pytest.mark.slow
def test_real_frames(probe: Probe, shared: Path, tmp_path: Path) -> None:
    folder = shared / "data/davis2016-train/JPEGImages/480p"
    steps = real(folder / "bear", 6, {0: ("the bear",), 3: ("a brown bear walking", "a rock")})
    steps += real(folder / "dog", 4, {0: ("the dog",)})
    check(probe, shipped_bundle(), steps, tmp_path)


@pytest.mark.parametrize("flow", [{}, {"every": 2, "iterations": 2}, {"still": 6.0}, {"enabled": False}])
def test_flow_settings(probe: Probe, tmp_path: Path, flow: dict[str, Any]) -> None:
    bundle = write_tiny_bundle(tmp_path / "tiny")
    camera = SyntheticCamera(seed=2, size=(80, 120), frames=8)
    changes = {0: ("the red ball",), 3: ("a dog", "the red ball"), 5: ("a cat on left",)}
    steps = [Step(frame.image, changes.get(frame.index, ())) for frame in camera]
    steps += [Step(cv2.resize(step.frame, (96, 64)).astype(np.uint8)) for step in steps[:3]]
    check(probe, bundle, steps, tmp_path, FlowOptions(**flow))


def test_a_bundle_without_flow(probe: Probe, tmp_path: Path) -> None:
    bundle = write_tiny_bundle(tmp_path / "tiny", flow=False)
    steps = [Step(frame.image, ("a dog",)) for frame in SyntheticCamera(seed=2, size=(64, 96), frames=3)]
    check(probe, bundle, steps, tmp_path)


def with_presence(bundle: Path) -> Path:
    """Give the gating graph of a tiny bundle an output ``presence``: the logistic function of the mean margin."""
    path = bundle / "gating.onnx"
    model = onnx.load(path)
    model.graph.node.append(
        onnx.helper.make_node("ReduceMean", ["margin", "presence_axes"], ["presence_mean"], keepdims=0)
    )
    model.graph.node.append(onnx.helper.make_node("Sigmoid", ["presence_mean"], ["presence"]))
    model.graph.initializer.append(onnx.helper.make_tensor("presence_axes", onnx.TensorProto.INT64, [2], [1, 2]))
    model.graph.output.append(onnx.helper.make_tensor_value_info("presence", onnx.TensorProto.FLOAT, ["Q"]))
    onnx.save(model, path)
    document = json.loads((bundle / "manifest.json").read_text())
    gating = document["graphs"]["gating"]
    gating["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    gating["outputs"].append({"name": "presence", "dtype": "float32", "shape": ["Q"]})
    (bundle / "manifest.json").write_text(json.dumps(document))
    return bundle


def test_presence(probe: Probe, tmp_path: Path) -> None:
    bundle = with_presence(write_tiny_bundle(tmp_path / "tiny"))
    steps = [Step(frame.image, ("a dog", "the red ball")) for frame in SyntheticCamera(seed=2, size=(64, 96), frames=3)]
    check(probe, bundle, steps, tmp_path)


@pytest.mark.slow
def test_queries_that_settle(probe: Probe, tmp_path: Path) -> None:
    """A cat is learned, and margins agree before and after; a woman is not seen for long, and a bus never."""
    with open_source(str(CLIP)) as source:
        frames = [frame.image for frame in islice(source, 60)][::3]
    steps = [Step(np.asarray(image, np.uint8), () if index else QUERIES) for index, image in enumerate(frames)]
    adapted = check(probe, shipped_bundle(), steps, tmp_path, adapt=True)
    assert [True in row for row in zip(*adapted, strict=True)] == [True, False, False]


def with_int8(bundle: Path) -> Path:
    """Put the convolutions of a tiny bundle's backbone into eight bits."""
    pytest.importorskip("torch")
    from rvos_edge.export.int8 import calibrate

    path = bundle / "backbone.onnx"
    seen = [{"image": frame.image} for frame in SyntheticCamera(seed=1, size=(64, 96), frames=3)]
    part = calibrate("backbone", onnx.load(path), seen)
    onnx.save(part.quantised(part.layers), path)
    document = json.loads((bundle / "manifest.json").read_text())
    document["graphs"]["backbone"] |= {
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "precision": "int8",
        "weights": "int8",
    }
    (bundle / "manifest.json").write_text(json.dumps(document))
    return bundle


@pytest.mark.parametrize("backend", ["openvino", "openvino-bf16", "onnxruntime"])
def test_eight_bits(probe: Probe, tmp_path: Path, backend: str) -> None:
    """A quantised graph gives the masks of Python, which are not those of the graph as it was."""
    plain, quantised = write_tiny_bundle(tmp_path / "plain"), with_int8(write_tiny_bundle(tmp_path / "quantised"))
    if backend not in probe.lines("backends", str(quantised)):
        pytest.skip(f"needs a C++ library with {backend}")
    steps = [Step(frame.image, ("a dog", "the red ball")) for frame in SyntheticCamera(seed=2, size=(64, 96), frames=3)]
    check(probe, quantised, steps, tmp_path, backend=backend, quantum=2e-2)
    found = []
    for bundle in (plain, quantised):
        segmenter = rvos_edge.open(bundle, backend=backend)
        segmenter.set_queries(["a dog"])
        found.append(segmenter.step(steps[0].frame).margins)
    assert not np.array_equal(*found)


def test_taught_queries(probe: Probe, tmp_path: Path) -> None:
    """One query in other vectors than its sentence's, and another that an absent object would need."""
    bundle = with_presence(write_tiny_bundle(tmp_path / "tiny"))
    rng = np.random.default_rng(4)
    vectors = {f"lang{i + 1}": rng.normal(size=c).astype(np.float32) for i, c in enumerate(CHANNELS)}
    network = read_manifest(bundle).identity
    TaughtQuery("a dog", vectors, network, name="Rex", presence_shift=-1.5).save(tmp_path / "rex.query")
    TaughtQuery("the red ball", {"lang4": -vectors["lang4"]}, network).save(tmp_path / "ball.query")
    queries = ("a dog", f"@{tmp_path / 'rex.query'}", f"@{tmp_path / 'ball.query'}")
    steps = [Step(frame.image, queries) for frame in SyntheticCamera(seed=2, size=(64, 96), frames=3)]
    check(probe, bundle, steps, tmp_path)
