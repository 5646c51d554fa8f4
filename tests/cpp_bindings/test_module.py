"""The Python module of the C++ runtime against the Python runtime: the same masks and the same refusals."""

from __future__ import annotations

import shutil
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.tiny_bundle import read_manifest, write_tiny_bundle
from support.tiny_graphs import CHANNELS

import rvos_edge
from rvos_edge.bundle import Bundle
from rvos_edge.cli import main
from rvos_edge.segmenter import Segmenter
from rvos_edge.synthetic.camera import SyntheticCamera

pytest.importorskip("openvino")
cpp = pytest.importorskip("rvos_edge_cpp", reason="needs the C++ module: pip install ./cpp_bindings")

Pair = tuple[Segmenter, Segmenter]


def open_both(bundle: Path, **options: Any) -> Pair:
    """The Python and the C++ runtime with one backend, in float32 and with one setting of threads."""
    shared: dict[str, Any] = {"backend": "openvino", "threads": 2, **options}
    return rvos_edge.open(bundle, **shared), rvos_edge.open(bundle, runtime="cpp", **shared)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of a tiny network."""
    return write_tiny_bundle(tmp_path_factory.mktemp("bundles") / "tiny")


@pytest.fixture(scope="module")
def tiny_pair(tiny: Path) -> Pair:
    """Both runtimes on the tiny bundle."""
    return open_both(tiny)


def test_results_are_those_of_python(tiny_pair: Pair) -> None:
    """Masks of the shipped bundle are compared through the probe (``test_parity.py``)."""
    changes = {0: ("the red ball",), 4: ("the red ball", "a dog"), 8: ("a cat",)}
    for frame in SyntheticCamera(seed=2, size=(80, 120), frames=12):
        for segmenter in tiny_pair:
            if frame.index in changes:
                segmenter.set_queries(changes[frame.index])
        expected, found = (segmenter.step(frame.image) for segmenter in tiny_pair)
        assert (found.queries, found.index, found.flow_used) == (expected.queries, expected.index, expected.flow_used)
        assert found.decision == expected.decision
        assert list(found.timings) == list(expected.timings)
        for ours, theirs in ((found.masks, expected.masks), (found.scores, expected.scores)):
            assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape)
        np.testing.assert_allclose(found.margins, expected.margins, atol=1e-4)
        np.testing.assert_allclose(found.presence, expected.presence, atol=1e-4)
        np.testing.assert_array_equal(found.present, expected.present)
        assert np.mean(found.masks == expected.masks) > 0.999


def refused_by_both(call: Callable[[Segmenter], object], pair: Pair) -> None:
    for segmenter in pair:
        with pytest.raises(rvos_edge.UserError):
            call(segmenter)


@pytest.mark.parametrize(
    "frame",
    [
        None,
        [1, 2],
        np.zeros((3, 4)),
        np.zeros((3, 4, 5), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
        np.zeros((2, 2, 3), object),
        np.zeros((2, 2, 3), np.float32),
    ],
)
def test_the_same_frames_are_refused(tiny_pair: Pair, frame: Any) -> None:
    refused_by_both(lambda segmenter: segmenter.step(frame), tiny_pair)


def test_a_step_needs_queries(tiny: Path) -> None:
    refused_by_both(lambda segmenter: segmenter.step(np.zeros((64, 96, 3), np.uint8)), open_both(tiny))


QUERIES = [
    b"a dog" * 20,
    [],
    [""],
    ["a dog", " \t"],
    [1],
    ("a dog", None),
    ["x" * 101],
    ["a \ud800"],
    ["w " * 80],
]


@pytest.mark.parametrize("queries", QUERIES, ids=range(len(QUERIES)))
def test_the_same_queries_are_refused(tiny_pair: Pair, queries: Any) -> None:
    for segmenter in tiny_pair:
        segmenter.set_queries(["the red ball"])
    refused_by_both(lambda segmenter: segmenter.set_queries(queries), tiny_pair)
    refused_by_both(lambda segmenter: segmenter.check_queries(queries), tiny_pair)
    assert tiny_pair[1].queries == ("the red ball",)


def test_taught_queries(tiny: Path, tiny_pair: Pair, tmp_path: Path) -> None:
    vectors = {f"lang{i + 1}": np.full(c, 0.1 * (i + 1), np.float32) for i, c in enumerate(CHANNELS)}
    query = rvos_edge.TaughtQuery("a dog", vectors, read_manifest(tiny).identity, name="Rex")
    frame = np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)
    for segmenter in tiny_pair:
        segmenter.reset()
        assert segmenter.check_queries(["a cat", query]) == ("a cat", "Rex")
        segmenter.set_queries(["a cat", query])
    expected, found = (segmenter.step(frame) for segmenter in tiny_pair)
    assert found.queries == ("a cat", "Rex")
    np.testing.assert_allclose(found.margins, expected.margins, atol=1e-4)
    refused_by_both(lambda segmenter: segmenter.set_queries([replace(query, network="2" * 32)]), tiny_pair)
    query.save(tmp_path / "rex.query")
    alone = cpp.Segmenter(tiny, backend="openvino")
    alone.set_queries([f"@{tmp_path / 'rex.query'}"])
    assert alone.queries == ["Rex"]


@pytest.mark.parametrize("first", ["python", "cpp"])
def test_one_runtime_reads_what_the_other_compiled(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: str
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    frame = SyntheticCamera(seed=2, size=(80, 120)).render(0).image
    margins, kept = [], []
    for runtime in ("python", "cpp") if first == "python" else ("cpp", "python"):
        with rvos_edge.open(tiny, runtime=runtime, backend="openvino", threads=1) as segmenter:
            segmenter.set_queries(["a dog"])
            margins.append(segmenter.step(frame).margins)
        kept.append({file: file.stat().st_size for file in (tmp_path / "rvos-edge/openvino").iterdir()})
    assert kept[0] == kept[1]
    assert kept[0]
    np.testing.assert_allclose(margins[0], margins[1], atol=1e-5)


@pytest.mark.parametrize("sentence", ["@/etc/hostname", '{"format_version": 1}'])
def test_a_sentence_names_no_file(tiny_pair: Pair, sentence: str) -> None:
    """A query that a page sends opens nothing on the server."""
    with pytest.raises(rvos_edge.UserError, match="a sentence does not begin with"):
        tiny_pair[1].set_queries([sentence])


@pytest.mark.parametrize(
    "options", [{"backend": "magic"}, {"device": "tpu"}, {"device": "cuda"}, {"threads": 0}, {"size": (1, 2)}]
)
@pytest.mark.parametrize("runtime", ["python", "cpp"])
def test_the_same_options_are_refused(tiny: Path, runtime: str, options: dict[str, Any]) -> None:
    with pytest.raises(rvos_edge.UserError):
        rvos_edge.open(tiny, runtime=runtime, **{"backend": "openvino", **options})


@pytest.mark.parametrize("runtime", ["python", "cpp"])
def test_a_changed_byte_is_refused(tiny: Path, tmp_path: Path, runtime: str) -> None:
    damaged = shutil.copytree(tiny, tmp_path / "damaged")
    path = Bundle.open(damaged).graph_path("aspp")
    path.write_bytes(path.read_bytes()[:-1] + b"\0")
    for bundle in (damaged, tmp_path / "missing"):
        with pytest.raises(rvos_edge.UserError):
            rvos_edge.open(bundle, runtime=runtime)


def test_settings_change_between_frames(tiny: Path) -> None:
    pair = open_both(tiny)
    frames = [frame.image for frame in SyntheticCamera(seed=2, size=(80, 120), frames=3)]
    for segmenter in pair:
        segmenter.set_queries(["the red ball"])
        segmenter.step(frames[0])
        segmenter.set_iterations(7)
        segmenter.set_threshold(0.6)
        segmenter.set_keep_flow(True)
        segmenter.set_adapt("once")
    expected, found = (segmenter.step(frames[1]) for segmenter in pair)
    assert found.decision == expected.decision
    assert found.decision is not None
    assert found.decision.iterations == 7
    assert (pair[1].iterations, pair[1].threshold) == (7, 0.6)
    assert found.flow is not None
    assert found.adapted.tolist() == expected.adapted.tolist() == [False]
    np.testing.assert_array_equal(found.masks, expected.masks)
    refused_by_both(lambda segmenter: segmenter.set_threshold(float("nan")), pair)
    refused_by_both(lambda segmenter: segmenter.set_iterations(0), pair)


def test_frames_that_lie_otherwise(tiny_pair: Pair) -> None:
    image = np.random.default_rng(0).integers(0, 256, (90, 150, 3), np.uint8)
    frozen = image.copy()
    frozen.flags.writeable = False
    views = (
        image[:, ::-1],
        image[::-1],
        image[:, :, ::-1],
        image[::2, ::3],
        image[10:70, 20:100],
        image[:1],
        image[:, :1],
    )
    for view in (*views, frozen, np.asfortranarray(image)):
        for segmenter in tiny_pair:
            segmenter.reset()
            segmenter.set_queries(["the red ball"])
        expected, found = (segmenter.step(view) for segmenter in tiny_pair)
        np.testing.assert_allclose(found.margins, expected.margins, atol=1e-4)


def test_results_outlive_what_made_them(tiny: Path, tmp_path: Path) -> None:
    segmenter = rvos_edge.open(tiny, runtime="cpp", flow=rvos_edge.FlowOptions(keep_flow=True))
    segmenter.set_queries(["the red ball", "a dog"])
    frames = [frame.image for frame in SyntheticCamera(seed=2, size=(80, 120), frames=4)]
    results = [segmenter.step(frame) for frame in frames]
    copies = [result.margins.copy() for result in results]
    del segmenter
    for result, kept in zip(results, copies, strict=True):
        # The memory is the library's, and nobody else's: not a copy, and free to be changed.
        assert not result.masks.flags.owndata
        assert result.masks.flags.writeable
        np.testing.assert_array_equal(result.margins, kept)
        assert result.flow is not None
        assert result.flow.dtype == np.float32
        assert result.flow.shape == (2, 64, 96)
    assert not np.array_equal(copies[0], copies[1])


def test_step_leaves_the_lock_to_others(tiny: Path, tmp_path: Path) -> None:
    segmenter = rvos_edge.open(tiny, runtime="cpp")
    segmenter.set_queries(["the red ball"])
    frame = np.zeros((1080, 1920, 3), np.uint8)
    waiting, go, ran = threading.Event(), threading.Lock(), threading.Lock()
    go.acquire()
    ran.acquire()

    def other() -> None:
        waiting.set()
        go.acquire()
        ran.release()

    thread = threading.Thread(target=other, daemon=True)
    thread.start()
    waiting.wait()
    usual = sys.getswitchinterval()
    # Nobody takes the lock away from this thread: the other one runs if it is given, or not at all.
    sys.setswitchinterval(1000)
    try:
        go.release()
        done = False
        for _ in range(200):
            segmenter.step(frame)
            done = done or ran.acquire(blocking=False)
    finally:
        sys.setswitchinterval(usual)
    thread.join(10)
    assert done


def test_queries_change_under_way(tiny: Path, tmp_path: Path) -> None:
    segmenter = rvos_edge.open(tiny, runtime="cpp")
    segmenter.set_queries(["the red ball"])
    choices = (["the red ball"], ["a dog", "the red ball"], ["a cat", "a dog", "a bird"])
    stop = threading.Event()

    def ask() -> None:
        while not stop.is_set():
            for queries in choices:
                segmenter.set_queries(queries)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        for frame in SyntheticCamera(seed=2, size=(80, 120), frames=60):
            result = segmenter.step(frame.image)
            assert list(result.queries) in choices
            assert len(result.masks) == len(result.scores) == len(result.queries)
    finally:
        stop.set()
        thread.join()


def test_the_module_alone(tiny: Path, tmp_path: Path) -> None:
    segmenter = cpp.Segmenter(tiny, backend="openvino", flow=cpp.FlowOptions(enabled=False))
    segmenter.set_queries(["the red ball"])
    result = segmenter.step(np.zeros((64, 96, 3), np.uint8))
    assert (result.masks.shape, result.masks.dtype, result.flow, result.decision) == ((1, 64, 96), np.bool_, None, None)
    assert cpp.UserError is rvos_edge.UserError
    assert "openvino" in cpp.available_backends(tiny)


def test_command_line(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["run", "--source", "synthetic:2", "--query", "the red ball", "--frames", "3", "--runtime", "cpp"]
    output = tmp_path / "masks"
    monkeypatch.setattr(sys, "argv", ["rvos-edge", *words, "--bundle", str(tiny), "--masks", str(output)])
    with pytest.raises(SystemExit) as left:
        main()
    assert not left.value.code
    assert len(list(output.glob("*.png"))) == 3
    assert "C++, OpenVINO" in capsys.readouterr().err
