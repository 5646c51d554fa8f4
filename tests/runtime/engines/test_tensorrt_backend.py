"""Engines on a CUDA device, with a driver and a TensorRT that are played by ``fake_cuda`` and ``fake_tensorrt``."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from support.fake_cuda import FakeCuda
from support.fake_tensorrt import FakeCache, FakeConfig, FakeContext, FakeEngine
from support.tiny_reference import write_reference
from typer.testing import CliRunner

import rvos_edge
from rvos_edge import FlowOptions
from rvos_edge.bundle import Bundle
from rvos_edge.cli import app
from rvos_edge.engines import registry
from rvos_edge.engines.onnxruntime import OnnxRuntimeBackend
from rvos_edge.engines.tensorrt.backend import TensorRtBackend
from rvos_edge.errors import UserError
from rvos_edge.segmenter import Segmenter
from rvos_edge.synthetic.camera import SyntheticCamera

Open = Callable[..., tuple[Segmenter, FakeCuda]]
QUERIES = ["a dog", "the red ball", "a cat on the left"]
FRAMES = [frame.image for _, frame in zip(range(14), SyntheticCamera(seed=2, size=(64, 96)), strict=False)]


def _reference(bundle: Bundle, flow: FlowOptions | None = None) -> Segmenter:
    segmenter = Segmenter(bundle=bundle, backend=OnnxRuntimeBackend(device="cpu", threads=1), flow=flow)
    segmenter.set_queries(QUERIES[:2])
    return segmenter


@pytest.mark.parametrize("eager", [True, False], ids=["streams ahead", "streams behind"])
@pytest.mark.parametrize("record", [False, True], ids=["plain", "recorded"])
def test_masks_are_those_of_the_host(bundle: Bundle, opened: Open, record: bool, eager: bool) -> None:
    flow = FlowOptions(every=2, keep_flow=True)
    ours, cuda = opened(flow=flow, record=record, eager=eager)
    theirs = _reference(bundle, flow)
    queries = {4: QUERIES[:1], 8: QUERIES}
    for index, frame in enumerate(FRAMES * 2):
        if index in queries:
            ours.set_queries(queries[index])
            theirs.set_queries(queries[index])
        got, expected = ours.step(frame), theirs.step(frame)
        np.testing.assert_array_equal(got.margins, expected.margins)
        np.testing.assert_array_equal(got.masks, expected.masks)
        np.testing.assert_array_equal(got.flow, expected.flow)
        assert got.flow_used == expected.flow_used
    assert ("launch" in cuda.names()) == record
    assert ours.backend_reason == "tensorrt was asked for"


@pytest.mark.parametrize("record", [False, True], ids=["plain", "recorded"])
def test_another_gpu_is_used_and_the_callers_stays_current(
    bundle: Bundle, machine: Callable[..., FakeCuda], record: bool
) -> None:
    cuda = machine(index=1)
    backend = registry.open_backend("tensorrt", device="cuda:1", bundle=bundle, record=record)
    segmenter, reference = Segmenter(bundle=bundle, backend=backend), _reference(bundle)
    segmenter.set_queries(QUERIES[:2])
    for frame in FRAMES[:8]:
        np.testing.assert_array_equal(segmenter.step(frame).margins, reference.step(frame).margins)
        assert cuda.selected == 0
    assert ("launch" in cuda.names()) == record
    cuda.trt.engines["aspp"].broken = True  # type: ignore[attr-defined]
    with pytest.raises(UserError):
        backend.load(bundle.graph_path("aspp"), bundle.manifest.graphs["aspp"].model_copy(update={"flops": 1}))
    assert cuda.selected == 0


def test_one_stream_carries_everything(opened: Open) -> None:
    segmenter, cuda = opened(record=False)
    start = len(cuda.calls)
    for frame in FRAMES[:4]:
        segmenter.step(frame)
    streams = {call[-1] for call in cuda.calls[start:] if call[0] in ("execute", "upload", "copy", "fill", "download")}
    assert len(streams) == 1
    assert cuda.names().count("create_stream") == 1


def test_a_frame_is_captured_after_it_ran_and_then_replayed(opened: Open) -> None:
    # Without flow every frame is the same work on the same buffers.
    segmenter, cuda = opened(flow=FlowOptions(enabled=False))
    found = []
    for frame in FRAMES[:5]:
        start = len(cuda.calls)
        found.append((segmenter.step(frame), cuda.names(start)))
    # In the first frame scratch memory still grows: it does not count.
    _, (first, plain), (second, captured), *replayed = found
    assert "begin_capture" not in (*found[0][1], *plain)
    # It has run to its end, apart from the result's being read.
    assert "synchronize" in plain[plain.index("execute") : plain.index("download")]
    order = [name for name in captured if name in ("begin_capture", "execute", "end_capture", "instantiate", "launch")]
    assert order == ["begin_capture", *["execute"] * 3, "end_capture", "instantiate", "launch"]
    assert list(first.timings) == ["preprocess", "backbone", "aspp", "gating", "postprocess"]
    assert list(second.timings) == ["preprocess", "graph", "postprocess"]
    frame_calls = ["synchronize_event", "upload", "record"]  # the frame waits in pinned memory
    launch = ["record", "launch", "record"]
    results = ["synchronize", "elapsed", "download", "synchronize"]
    for result, names in replayed:
        assert names == [*frame_calls, *launch, *results]
        assert result.timings["graph"] > 0


def test_nothing_is_allocated_in_steady_state(opened: Open) -> None:
    segmenter, cuda = opened()
    for frame in FRAMES * 2:
        segmenter.step(frame)
    start, held = len(cuda.calls), cuda.held
    contexts = {name: engine.contexts for name, engine in cuda.trt.engines.items()}  # type: ignore[attr-defined]
    for frame in FRAMES * 2:
        segmenter.step(frame)
    made = {name for name in cuda.names(start) if name.startswith(("malloc", "free", "create", "destroy", "begin"))}
    assert not made
    assert cuda.held == held
    assert cuda.names(start).count("launch") == 2 * len(FRAMES)
    # One context per combination of buffers, however many graphs were captured.
    assert contexts == {name: engine.contexts for name, engine in cuda.trt.engines.items()}  # type: ignore[attr-defined]
    assert contexts["backbone"] == contexts["gating"] == 1
    assert contexts["flow_step"] == contexts["flow_encode"] == 2


def test_another_number_of_queries_is_captured_again(bundle: Bundle, opened: Open) -> None:
    flow = FlowOptions(enabled=False)
    segmenter, cuda = opened(flow=flow)
    reference = _reference(bundle, flow)
    captures, held = [], []
    for count in (2, 3, 2, 3, 1):
        for each in (segmenter, reference):
            each.set_queries(QUERIES[:count])
        start = len(cuda.calls)
        for frame in FRAMES[:5]:
            np.testing.assert_array_equal(segmenter.step(frame).margins, reference.step(frame).margins)
        captures.append(cuda.names(start).count("begin_capture"))
        held.append(cuda.held)
    assert captures == [1] * 5
    # What served the earlier number is given back.
    assert len(set(held)) == 1


def test_new_words_for_as_many_queries_need_no_capture(bundle: Bundle, opened: Open) -> None:
    flow = FlowOptions(enabled=False)
    segmenter, cuda = opened(flow=flow)
    reference = _reference(bundle, flow)
    for frame in FRAMES[:3]:
        segmenter.step(frame)
    start = len(cuda.calls)
    for each in (segmenter, reference):
        each.set_queries(QUERIES[1:])
    np.testing.assert_array_equal(segmenter.step(FRAMES[3]).margins, reference.step(FRAMES[3]).margins)
    assert "launch" in cuda.names(start)
    assert "begin_capture" not in cuda.names(start)


def test_a_replay_leaves_the_slots_as_the_swaps_would(opened: Open) -> None:
    flow = FlowOptions(every=2)
    segmenters = [opened(flow=flow, record=record)[0] for record in (True, False)]
    # Buffers by where they lay at the start, so that the two can be compared.
    homes = [
        {buffer: slot for slot, buffer in segmenter._chain.board.arrangement().items()} for segmenter in segmenters
    ]
    arrangements = set()
    for frame in FRAMES * 2:
        found = []
        for segmenter, home in zip(segmenters, homes, strict=True):
            segmenter.step(frame)
            found.append(tuple((slot, home[b]) for slot, b in segmenter._chain.board.arrangement().items()))
        assert found[0] == found[1]
        arrangements.add(found[0])
    assert len(arrangements) == 4  # the features of two frames, times the coordinates after an odd number of steps


@pytest.mark.parametrize("call", ["begin_capture", "end_capture", "instantiate", "launch"])
def test_a_failed_capture_falls_back_for_good(bundle: Bundle, opened: Open, call: str) -> None:
    segmenter, cuda = opened()
    cuda.fail = {call: f"CUDA: {call} failed."}
    reference = _reference(bundle)
    for frame in FRAMES:
        np.testing.assert_array_equal(segmenter.step(frame).margins, reference.step(frame).margins)
    assert cuda.names().count("begin_capture") == 1
    assert segmenter.backend_reason == f"tensorrt was asked for, without CUDA graphs (CUDA: {call} failed)"
    assert "gating" in segmenter.step(FRAMES[0]).timings


def test_an_engine_that_cannot_be_captured_is_run_plainly(bundle: Bundle, opened: Open) -> None:
    segmenter, cuda = opened()
    cuda.trt.engines["gating"].capturable = False  # type: ignore[attr-defined]
    reference = _reference(bundle)
    for frame in FRAMES[:8]:
        np.testing.assert_array_equal(segmenter.step(frame).margins, reference.step(frame).margins)
    assert "gating.engine cannot be part of a CUDA graph" in segmenter.backend_reason
    assert "begin_capture" not in cuda.names()


def test_an_engine_that_does_not_tell_its_scratch_memory_is_refused(opened: Open) -> None:
    segmenter, cuda = opened()
    cuda.trt.engines["gating"].silent = True  # type: ignore[attr-defined]
    with pytest.raises(UserError, match=r"gating\.engine does not tell its scratch memory \(gating: the shapes"):
        segmenter.step(FRAMES[0])


def test_engines_of_tensorrt_rtx_do_not_allocate_and_are_captured(
    bundle: Bundle, machine: Callable[..., FakeCuda]
) -> None:
    cuda = machine(rtx=True)
    backend = TensorRtBackend(bundle=bundle, flavour="tensorrt-rtx")
    segmenter = Segmenter(bundle=bundle, backend=backend, flow=FlowOptions(enabled=False))
    segmenter.set_queries(QUERIES[:2])
    for frame in FRAMES[:5]:
        segmenter.step(frame)
    assert "launch" in cuda.names()
    assert "without CUDA graphs" not in segmenter.backend_reason


def test_errors_become_sentences_and_the_next_video_works(bundle: Bundle, opened: Open) -> None:
    segmenter, cuda = opened()
    expected = _reference(bundle).step(FRAMES[0]).margins
    engines = cuda.trt.engines  # type: ignore[attr-defined]
    engines["aspp"].broken = True
    with pytest.raises(UserError, match=r"aspp\.engine cannot be run \(aspp: a tensor has no .*\); start again"):
        segmenter.step(FRAMES[0])
    engines["aspp"].broken = False
    cuda.fail = {"synchronize": "CUDA: cudaStreamSynchronize failed with cudaErrorIllegalAddress; start again."}
    with pytest.raises(UserError, match="cudaErrorIllegalAddress"):
        segmenter.step(FRAMES[0])
    cuda.fail = {}
    np.testing.assert_array_equal(segmenter.step(FRAMES[0]).margins, expected)


def test_all_resources_are_released(opened: Open) -> None:
    segmenter, cuda = opened()
    for frame in FRAMES:
        segmenter.step(frame)
    assert cuda.held > 50
    del segmenter
    assert cuda.held == 0


def test_the_state_of_a_video_survives_more_frames_than_are_kept(bundle: Bundle, opened: Open) -> None:
    flow = FlowOptions(every=5, iterations=2)
    segmenter, cuda = opened(flow=flow)
    reference = _reference(bundle, flow)
    for frame in FRAMES * 3:
        np.testing.assert_array_equal(segmenter.step(frame).margins, reference.step(frame).margins)
    live = sum(kind == "executable" for kind, _ in cuda.alive)
    assert 0 < live <= 16


def test_a_slot_is_not_touched_by_the_host_within_a_frame(bundle: Bundle, machine: Callable[..., FakeCuda]) -> None:
    machine()
    backend = TensorRtBackend(bundle=bundle, flavour="tensorrt")
    backend.load(bundle.graph_path("aspp"), bundle.manifest.graphs["aspp"])
    board = backend.board
    with pytest.raises(RuntimeError, match="a slot was read within the work of a frame"):
        backend.frame("read", lambda lap: print(board.read("v4")))
    with pytest.raises(RuntimeError, match="a slot was written within the work of a frame"):
        backend.frame("write", lambda lap: board.write("v4", np.zeros(board.shape("v4"), np.float32)))


@pytest.mark.parametrize("hold_fps", [None, 1000.0])
def test_a_frame_rate_is_held_by_times_of_stages_that_a_replay_does_not_have(
    bundle: Bundle, machine: Callable[..., FakeCuda], hold_fps: float | None
) -> None:
    machine()
    segmenter = rvos_edge.open(bundle.path, backend="tensorrt", flow=FlowOptions(hold_fps=hold_fps))
    segmenter.set_queries(QUERIES[:1])
    timings = [segmenter.step(frame).timings for frame in FRAMES[:12]][-1]
    assert ("graph" in timings) is (hold_fps is None)
    assert ("backbone" in timings) is (hold_fps is not None)


def test_the_engines_pass_the_verification(bundle: Bundle, machine: Callable[..., FakeCuda]) -> None:
    """Graph by graph outside of frames, then the chain: the command that a GPU's first owner will run."""
    machine()
    write_reference(bundle.path)
    done = CliRunner().invoke(app, ["verify", str(bundle.path), "--backend", "tensorrt", "--device", "cuda"])
    assert done.exit_code == 0, done.output
    proof = Bundle.open(bundle.path).manifest.proofs["tensorrt"]
    assert (proof.backend, proof.mask_iou) == ("TensorRT 10.3.0 (NVIDIA Orin)", 1.0)
    assert set(proof.graphs) == set(bundle.manifest.graphs)
    assert max(parity.relative_l2 for parity in proof.graphs.values()) < 1e-5


def test_the_fake_has_nothing_that_tensorrt_rtx_lacks() -> None:
    trt = pytest.importorskip("tensorrt_rtx")
    played = {
        FakeContext: trt.IExecutionContext,
        FakeEngine: trt.ICudaEngine,
        FakeConfig: trt.IRuntimeConfig,
        FakeCache: trt.IRuntimeCache,
    }
    for fake, real in played.items():
        names = {name for name in vars(fake) if not name.startswith("_")}
        assert names
        assert not [name for name in names if not hasattr(real, name)]
    assert hasattr(trt.IRuntimeConfig, "dynamic_shapes_kernel_specialization_strategy")
    assert hasattr(trt.DynamicShapesKernelSpecializationStrategy, "EAGER")
    assert hasattr(trt.ExecutionContextAllocationStrategy, "USER_MANAGED")
