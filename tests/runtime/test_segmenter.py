"""Frames and queries in, masks out, compared with the same arithmetic in NumPy."""

from __future__ import annotations

import gc
import itertools
import subprocess
import sys
import threading
import time
import tracemalloc
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from support.tiny_bundle import ITERATIONS, Reference, write_tiny_bundle

import rvos_edge
from rvos_edge import FlowOptions, Result, Segmenter, UserError
from rvos_edge.preprocess import Postprocessor

QUERIES = ["the red ball", "a black car on the left"]
KEEP = FlowOptions(keep_flow=True)


def _open(
    bundle: Path, flow: FlowOptions | None = KEEP, queries: list[str] | None = None, *, backend: str = "onnxruntime"
) -> Segmenter:
    segmenter = rvos_edge.open(bundle, device="cpu", backend=backend, threads=1, flow=flow)
    segmenter.set_queries(queries or QUERIES)
    return segmenter


def _video(count: int, size: tuple[int, int] = (120, 160)) -> list[NDArray[np.uint8]]:
    """A texture that slides to the right."""
    texture = np.random.default_rng(3).integers(0, 255, (9, 16, 3), np.uint8)
    return [cv2.resize(np.roll(texture, t, 1), size[::-1]) for t in range(count)]


def _bilinear(plane: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    """PyTorch's interpolate(mode="bilinear", align_corners=False), without antialiasing."""
    for axis, length in enumerate(size):
        extent = plane.shape[axis]
        at = np.clip((np.arange(length) + 0.5) * extent / length - 0.5, 0, extent - 1)
        low = np.floor(at).astype(int)
        high = np.minimum(low + 1, extent - 1)
        part = (at - low).reshape([-1 if a == axis else 1 for a in range(2)])
        plane = plane.take(low, axis) * (1 - part) + plane.take(high, axis) * part
    return plane


def _assert_same(result: Result, margins: NDArray[Any], flow: NDArray[Any], frame: NDArray[Any]) -> None:
    np.testing.assert_allclose(result.margins, margins, atol=2e-4)
    assert result.flow is not None
    np.testing.assert_allclose(result.flow, flow, atol=1e-3)
    assert result.masks.dtype == np.bool_
    assert result.masks.shape == (len(margins), *frame.shape[:2])
    for mask, margin in zip(result.masks, margins, strict=True):
        upsampled = _bilinear(margin, frame.shape[:2])
        decided = np.abs(upsampled) > 1e-3
        np.testing.assert_array_equal(mask[decided], upsampled[decided] > 0)
        assert 0.1 < mask.mean() < 0.9  # neither side of the test is trivial


@pytest.mark.parametrize("iterations", [None, 1, 4])
def test_the_chain_is_the_reference(tiny: Path, iterations: int | None) -> None:
    segmenter = _open(tiny, FlowOptions(iterations=iterations, keep_flow=True))
    reference = Reference(iterations=iterations or ITERATIONS)
    for index, frame in enumerate(_video(5)):
        result = segmenter.step(frame)
        margins, flow = reference.step(frame, QUERIES)
        _assert_same(result, margins, flow, frame)
        assert result.index == index
        assert result.queries == tuple(QUERIES)
        assert result.flow_used == (index > 0)
    assert np.abs(flow).max() > 1


def test_flow_every_n_th_frame_is_kept_between(tiny: Path) -> None:
    segmenter, reference = _open(tiny, FlowOptions(every=3, keep_flow=True)), Reference()
    modes = ["zero", "run", "keep", "keep", "run", "keep"]
    for frame, mode in zip(_video(6), modes, strict=True):
        result = segmenter.step(frame)
        _assert_same(result, *reference.step(frame, QUERIES, flow=mode), frame)
        assert result.flow_used == (mode == "run")
        assert ("flow_step" in result.timings) == (mode == "run")


def test_a_still_picture_costs_no_flow(tiny: Path) -> None:
    segmenter, reference = _open(tiny, FlowOptions(still=0.5, keep_flow=True)), Reference()
    a, b, c = (np.roll(_video(1)[0], shift, 1) for shift in range(3))
    for frame, mode in [(a, "zero"), (b, "run"), (b, "run"), (b, "run"), (b, "zero"), (b, "zero"), (c, "run")]:
        result = segmenter.step(frame)
        _assert_same(result, *reference.step(frame, QUERIES, flow=mode), frame)
        assert result.flow_used == (mode == "run")
        assert result.decision is not None
        assert (result.decision.reason == "nothing moves") == (mode == "zero" and frame is b)


def test_a_flow_that_does_not_fit_the_budget_is_kept_then_zero(tiny: Path) -> None:
    """A graph that sleeps for 2 ms makes sure that no machine holds 1000 frames per second."""
    segmenter, reference = (_open(tiny, FlowOptions(hold_fps=1000, keep_flow=True)), Reference())
    aspp = segmenter._chain.graphs["aspp"]
    run = aspp.run
    aspp.run = lambda: (time.sleep(0.002), run())[1]  # type: ignore[method-assign]
    modes = ["zero", *["run"] * 4, *["keep"] * 4, "zero", "zero"]
    for frame, mode in zip(_video(11), modes, strict=True):
        result = segmenter.step(frame)
        _assert_same(result, *reference.step(frame, QUERIES, flow=mode), frame)
        assert result.decision is not None
        assert result.decision.action == mode
        assert ("flow_encode" in result.timings) == (result.index < 5)
    assert result.decision.late
    assert result.decision.reason == "too slow even without flow"


def test_flow_can_be_switched_off(tiny: Path) -> None:
    segmenter, reference = _open(tiny, FlowOptions(enabled=False, keep_flow=True)), Reference()
    for frame in _video(3):
        result = segmenter.step(frame)
        _assert_same(result, *reference.step(frame, QUERIES, flow="zero"), frame)
        assert list(result.timings) == ["preprocess", "backbone", "aspp", "gating", "postprocess"]


def test_a_bundle_without_flow(tmp_path: Path) -> None:
    segmenter, reference = _open(write_tiny_bundle(tmp_path, flow=False)), Reference()
    for frame in _video(2):
        result = segmenter.step(frame)
        np.testing.assert_allclose(result.margins, reference.step(frame, QUERIES, flow="zero")[0], atol=1e-4)
        assert result.flow is None
        assert not result.flow_used


def test_a_scene_cut_restarts_the_flow(tiny: Path) -> None:
    segmenter, reference = _open(tiny), Reference()
    a = _video(1)[0]
    other = np.ascontiguousarray(a[::-1])
    frames = [np.roll(image, shift, 1) for image in (a, other) for shift in (0, 1)]
    for frame, mode in zip(frames, ["zero", "run", "zero", "run"], strict=True):
        result = segmenter.step(frame)
        _assert_same(result, *reference.step(frame, QUERIES, flow=mode), frame)
        assert result.flow_used == (mode == "run")


def test_one_query_or_many_is_the_same(tiny: Path) -> None:
    together = _open(tiny)
    apart = [_open(tiny, queries=[query]) for query in QUERIES]
    for frame in _video(3):
        result = together.step(frame)
        for row, single in enumerate(apart):
            alone = single.step(frame)
            np.testing.assert_allclose(result.margins[row], alone.margins[0], atol=1e-6)
            assert result.scores[row] == pytest.approx(alone.scores[0])


def test_queries_change_mid_stream_without_losing_the_flow(tiny: Path) -> None:
    segmenter, reference = _open(tiny), Reference()
    questions = [QUERIES, ["a cat"], ["a cat"], [*QUERIES, "the big dog"], QUERIES]
    for frame, queries in zip(_video(5), questions, strict=True):
        segmenter.set_queries(queries)
        assert segmenter.queries == tuple(queries)
        _assert_same(segmenter.step(frame), *reference.step(frame, queries), frame)


def test_refused_queries_leave_the_old_ones(tiny: Path) -> None:
    segmenter = _open(tiny)
    with pytest.raises(UserError):
        segmenter.set_queries(["a dog", ""])
    assert segmenter.queries == tuple(QUERIES)
    assert len(segmenter.step(_video(1)[0]).masks) == 2


def test_the_size_may_change_mid_stream(tiny: Path) -> None:
    segmenter, reference = _open(tiny), Reference()
    frames = [*_video(3), *_video(3, (64, 96)), *_video(2, (33, 47))]
    modes = ["zero", "run", "run", "zero", "run", "run", "zero", "run"]
    for frame, mode in zip(frames, modes, strict=True):
        _assert_same(segmenter.step(frame), *reference.step(frame, QUERIES, flow=mode), frame)


def test_reset_forgets_the_video(tiny: Path) -> None:
    segmenter = _open(tiny)
    first = [segmenter.step(frame) for frame in _video(3)]
    segmenter.reset()
    again = [segmenter.step(frame) for frame in _video(3)]
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a.margins, b.margins)
        assert a.index == b.index


def test_results_outlive_the_next_frame(tiny: Path) -> None:
    segmenter = _open(tiny)
    results = [segmenter.step(frame) for frame in _video(3)]
    kept = [(result.margins.copy(), result.masks.copy()) for result in results[:2]]
    segmenter.step(_video(6)[5])
    for result, (margins, masks) in zip(results, kept, strict=False):
        np.testing.assert_array_equal(result.margins, margins)
        np.testing.assert_array_equal(result.masks, masks)
    assert not np.array_equal(results[1].margins, results[2].margins)


def test_a_view_of_a_larger_array_is_a_frame(tiny: Path) -> None:
    whole = np.ascontiguousarray(np.stack(_video(1))[0])
    for view in (whole[::-1, ::-1], whole[10:74, 20:116], whole[..., ::-1]):
        segmenter = _open(tiny)
        np.testing.assert_array_equal(segmenter.step(view).margins, _open(tiny).step(view.copy()).margins)


@pytest.mark.parametrize(
    "frame",
    [
        None,
        np.zeros((4, 4, 5), np.uint8),
        np.zeros((4, 4, 3), np.float32),
        np.zeros((0, 4, 3), np.uint8),
    ],
)
def test_a_refused_frame_leaves_the_state_of_the_video(tiny: Path, frame: Any) -> None:
    segmenter, reference = _open(tiny), Reference()
    a, b = _video(2)
    _assert_same(segmenter.step(a), *reference.step(a, QUERIES), a)
    with pytest.raises(UserError, match=r"uint8 array \[H,W,3\]"):
        segmenter.step(frame)
    result = segmenter.step(b)
    _assert_same(result, *reference.step(b, QUERIES), b)
    assert result.index == 1


def test_step_needs_queries(tiny: Path) -> None:
    with pytest.raises(UserError, match="set_queries"):
        rvos_edge.open(tiny, device="cpu").step(_video(1)[0])


def test_a_frame_that_fails_midway_restarts_the_video(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    segmenter = _open(tiny)
    frames = _video(3)
    expected = segmenter.step(frames[2]).margins
    gating = segmenter._chain.graphs["gating"]
    with monkeypatch.context() as patch:
        patch.setattr(gating, "run", lambda: (_ for _ in ()).throw(RuntimeError("out of memory")))
        with pytest.raises(RuntimeError, match="out of memory"):
            segmenter.step(frames[0])
    result = segmenter.step(frames[2])
    assert result.index == 0
    np.testing.assert_array_equal(result.margins, expected)


def test_timings_are_in_the_order_of_the_stages(tiny: Path) -> None:
    segmenter = _open(tiny)
    result = [segmenter.step(frame) for frame in _video(2)][1]
    stages = [
        "preprocess",
        "backbone",
        "aspp",
        "flow_encode",
        "flow_context",
        "flow_step",
        "flow_up",
        "gating",
        "postprocess",
    ]
    assert list(result.timings) == stages
    assert all(milliseconds >= 0 for milliseconds in result.timings.values())


@pytest.mark.parametrize("backend", ["onnxruntime", pytest.param("openvino", marks=pytest.mark.slow)])
def test_nothing_is_allocated_per_frame(tiny: Path, backend: str) -> None:
    pytest.importorskip(backend)
    segmenter, frames = _open(tiny, backend=backend), _video(4)
    board = segmenter._chain.board
    for frame in frames:
        segmenter.step(frame)
    addresses = {buffer.address for buffer in board.buffers()}
    bindings = [len(getattr(graph, "_bindings", ())) for graph in segmenter._chain.graphs.values()]
    tracemalloc.start()
    try:
        measured = []
        for _ in range(8):  # what other tests left running disturbs some of them
            for frame in frames * 15:
                segmenter.step(frame)
            gc.collect()  # empties CPython's lists of free tuples, which fill up to a bound
            measured.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    # Pools below us fill once, a leak grows in every round of 60 frames: even one float per frame is 1.4 KB.
    assert min(after - before for before, after in itertools.pairwise(measured)) < 1024
    assert {buffer.address for buffer in board.buffers()} == addresses
    assert [len(getattr(graph, "_bindings", ())) for graph in segmenter._chain.graphs.values()] == bindings


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").is_file(), reason="reads the memory of the process from /proc")
@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_memory_is_flat_over_thousands_of_frames(tiny: Path, backend: str) -> None:
    """Queries change, whose buffers and bindings come and go; in a process whose memory nothing else uses."""
    pytest.importorskip(backend)
    script = f"""
import resource
import numpy as np
import rvos_edge

segmenter = rvos_edge.open({str(tiny)!r}, device="cpu", backend={backend!r}, threads=1)
frames = np.random.default_rng(3).integers(0, 255, (4, 64, 96, 3), np.uint8)
for index in range(6_000):
    if index % 500 == 0:
        segmenter.set_queries(["a dog", "a cat", "the red ball"][: 1 + index // 500 % 3])
    segmenter.step(frames[index % 4])
    if index + 1 in (2_000, 6_000):
        print(int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize() / 2**20)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    early, late = map(float, done.stdout.split())
    assert late - early < 4  # MiB


def test_queries_may_change_from_another_thread(tiny: Path) -> None:
    segmenter, frame = _open(tiny), _video(1)[0]
    stop = threading.Event()

    def ask() -> None:
        while not stop.is_set():
            for queries in (["a dog"], QUERIES, ["a cat", "a dog", "the ball"]):
                segmenter.set_queries(queries)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        for _ in range(100):
            result = segmenter.step(frame)
            assert len(result.masks) == len(result.margins) == len(result.queries)
    finally:
        stop.set()
        thread.join()


def test_scores_and_masks_of_known_margins() -> None:
    margins = np.full((3, 4, 4), -3.0, np.float32)
    margins[0, :2] = np.log(3.0)  # probability 0.75
    margins[2] = 1000.0
    postprocess = Postprocessor()
    np.testing.assert_allclose(postprocess.scores(margins), [0.75, 0.0, 1.0], rtol=1e-6)
    masks = postprocess.masks(margins, (8, 8))
    assert masks.mean((1, 2)).tolist() == [0.5, 0.0, 1.0]
    assert Postprocessor(threshold=2.0).masks(margins, (8, 8)).mean((1, 2)).tolist() == [0.0, 0.0, 1.0]


@pytest.mark.parametrize("size", [(64, 96), (61, 97), (16, 24), (9, 11)])
def test_margins_are_upsampled_as_pytorch_does(size: tuple[int, int]) -> None:
    margin = np.random.default_rng(0).normal(size=(16, 24)).astype(np.float32)
    upsampled = _bilinear(margin, size)
    mask = Postprocessor().masks(margin[None], size)[0]
    decided = np.abs(upsampled) > 1e-4
    np.testing.assert_array_equal(mask[decided], upsampled[decided] > 0)


def test_the_runtime_loads_no_training_libraries(tiny: Path) -> None:
    program = (
        "import sys, numpy as np, rvos_edge\n"
        "light = [m for m in ('cv2', 'onnxruntime', 'tokenizers') if m in sys.modules]\n"
        "segmenter = rvos_edge.open(sys.argv[1], device='cpu')\n"
        "segmenter.set_queries(['a dog'])\n"
        "for _ in range(2): segmenter.step(np.zeros((40, 50, 3), np.uint8))\n"
        "heavy = [m for m in ('torch', 'torchvision', 'transformers', 'onnx') if m in sys.modules]\n"
        "print(light, heavy)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(tiny)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[] []"


def test_the_package_shows_its_names() -> None:
    assert {"open", "Segmenter", "Result", "UserError", "FlowOptions", "__version__"} <= set(dir(rvos_edge))
    with pytest.raises(AttributeError, match="nonsense"):
        _ = rvos_edge.nonsense
