"""`rvos_edge.stream(...)`: frames and results as a generator."""

from __future__ import annotations

import asyncio
import inspect
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import rvos_edge
from rvos_edge.errors import UserError
from rvos_edge.result import Result
from rvos_edge.streaming.iterate import ArraySource
from rvos_edge.streaming.sources import SyntheticSource

QUERIES = ["the red ball", "a black car"]


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    monkeypatch.setenv("RVOS_EDGE_CACHE", str(tmp_path_factory.mktemp("cache")))


def images(count: int = 4) -> list[NDArray[np.uint8]]:
    first = np.random.default_rng(3).integers(0, 255, (48, 80, 3), np.uint8)
    return [np.roll(first, shift, 1) for shift in range(count)]


def test_it_stays_a_function_when_the_package_of_streams_is_imported() -> None:
    import rvos_edge.streaming.loop

    assert rvos_edge.streaming.loop.run_stream  # type: ignore[attr-defined]
    assert list(inspect.signature(rvos_edge.stream).parameters)[:2] == ["source", "queries"]


def test_importing_the_package_stays_cheap() -> None:
    code = "import sys, rvos_edge; assert not {'cv2', 'numpy', 'onnxruntime'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_arrays_give_what_stepping_gives(tiny: Path) -> None:
    segmenter = rvos_edge.open(tiny, threads=1)
    segmenter.set_queries(QUERIES)
    expected = [segmenter.step(image).margins for image in images()]
    seen = list(rvos_edge.stream(images(), QUERIES, bundle=tiny, threads=1))
    assert [frame.name for frame, _ in seen] == ["00000", "00001", "00002", "00003"]
    assert all((result.margins == margin).all() for (_, result), margin in zip(seen, expected, strict=True))
    assert [result.flow_used for _, result in seen] == [False, True, True, True]


@pytest.mark.parametrize("as_path", [True, False])
def test_a_file(tiny: Path, tmp_path: Path, as_path: bool) -> None:
    import cv2

    path = tmp_path / "clip.png"
    cv2.imwrite(str(path), images(1)[0])
    ((frame, result),) = rvos_edge.stream(path if as_path else str(path), queries=QUERIES, bundle=tiny)
    assert (frame.image == images(1)[0]).all()
    assert result.masks.shape == (2, 48, 80)


def test_an_opened_segmenter_forgets_its_last_video_and_can_change_its_queries(tiny: Path) -> None:
    segmenter = rvos_edge.open(tiny)
    for _ in range(2):
        widths = []
        for frame, result in rvos_edge.stream(images(), QUERIES, bundle=segmenter):
            widths.append(len(result.queries))
            assert result.index == frame.index
            if frame.index == 1:
                segmenter.set_queries(["a dog"])
        assert widths == [2, 2, 1, 1]


def test_what_was_opened_here_is_closed_here_and_nothing_else(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[str] = []
    monkeypatch.setattr(SyntheticSource, "close", lambda self: closed.append(self.name))
    for _ in rvos_edge.stream("synthetic:7", QUERIES, bundle=tiny):
        break
    assert closed == ["synthetic:7"]
    own = SyntheticSource(seed=1)
    assert len(list(rvos_edge.stream(own, QUERIES, bundle=tiny, frames=2))) == 2
    assert closed == ["synthetic:7"]


def test_frames_takes_no_more_than_it_needs(tiny: Path) -> None:
    taken: list[int] = []

    def arrays() -> Iterator[NDArray[np.uint8]]:
        for index, image in enumerate(images()):
            taken.append(index)
            yield image

    assert len(list(rvos_edge.stream(arrays(), QUERIES, bundle=tiny, frames=2))) == 2
    assert taken == [0, 1]


def test_array_source_says_what_it_knows() -> None:
    assert ArraySource(images(3)).length == 3
    assert ArraySource(np.stack(images(3))).length == 3
    assert ArraySource(iter(images(3))).length is None
    assert [frame.timestamp for frame in ArraySource(images(3), fps=10)] == [0, 0.1, 0.2]


def test_bad_input(tiny: Path) -> None:
    def first(*arguments: object, **options: object) -> None:
        next(iter(rvos_edge.stream(*arguments, **options)))  # type: ignore[arg-type]

    with pytest.raises(UserError, match="at least 1"):
        first("synthetic", QUERIES, bundle=tiny, frames=0)
    with pytest.raises(UserError, match="does not exist"):
        first("nowhere.mp4", QUERIES, bundle=tiny)
    with pytest.raises(UserError, match="not a bundle"):
        first("synthetic", QUERIES, bundle="nowhere")
    with pytest.raises(UserError, match="threads belongs to rvos_edge"):
        first("synthetic", QUERIES, bundle=rvos_edge.open(tiny), threads=1)
    with pytest.raises(UserError, match="uint8"):
        first([np.zeros((4, 4, 3), np.float32)], QUERIES, bundle=tiny)


def test_a_capture_and_a_single_query(tiny: Path, tmp_path: Path) -> None:
    import cv2

    writer = cv2.VideoWriter(str(tmp_path / "clip.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 10.0, (80, 48))
    for image in images(3):
        writer.write(image)
    writer.release()
    capture = cv2.VideoCapture(str(tmp_path / "clip.mp4"))
    seen = list(rvos_edge.stream(capture, "the red ball", bundle=tiny, threads=1))
    assert [frame.timestamp for frame, _ in seen] == pytest.approx([0, 0.1, 0.2])
    assert [result.queries for _, result in seen] == [("the red ball",)] * 3


def test_a_number_is_a_camera(tiny: Path) -> None:
    with pytest.raises(UserError, match="camera 99 cannot be opened"):
        next(rvos_edge.stream(99, "a dog", bundle=tiny))


def test_async_for_gives_the_same(tiny: Path) -> None:
    async def collect() -> list[Result]:
        return [result async for _, result in rvos_edge.stream(images(), QUERIES, bundle=tiny, threads=1)]

    expected = [result for _, result in rvos_edge.stream(images(), QUERIES, bundle=tiny, threads=1)]
    assert asyncio.run(collect()) == expected


def test_with_closes_at_its_end(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[str] = []
    monkeypatch.setattr(SyntheticSource, "close", lambda self: closed.append(self.name))
    with rvos_edge.stream("synthetic:7", QUERIES, bundle=tiny) as pairs:
        next(pairs)
        assert closed == []
    assert closed == ["synthetic:7"]


def test_queries_in_arrays_and_generators(tiny: Path) -> None:
    segmenter = rvos_edge.open(tiny, threads=1)
    for queries in (np.array(QUERIES), np.array(QUERIES, object), (query for query in QUERIES), map(str, QUERIES)):
        segmenter.set_queries(queries)
        assert segmenter.queries == tuple(QUERIES)
    segmenter.set_queries(np.array("a dog"))
    assert segmenter.queries == ("a dog",)
    pairs = rvos_edge.stream(images(1), (query for query in QUERIES), bundle=tiny, threads=1)
    assert [result.queries for _, result in pairs] == [tuple(QUERIES)]


def test_an_opened_segmenter_keeps_its_queries_if_none_are_given(tiny: Path) -> None:
    segmenter = rvos_edge.open(tiny, threads=1)
    with pytest.raises(UserError, match=r"there are no queries; say what to segment, as in rvos_edge.stream\(0, "):
        next(rvos_edge.stream(images(1), bundle=segmenter))
    segmenter.set_queries(QUERIES)
    assert [result.queries for _, result in rvos_edge.stream(images(1), bundle=segmenter)] == [tuple(QUERIES)]


@pytest.mark.parametrize("number", [np.int64(99), np.uint8(99), "99"])
def test_a_number_of_numpy_is_a_camera_too(tiny: Path, number: object) -> None:
    with pytest.raises(UserError, match="camera 99 cannot be opened"):
        next(rvos_edge.stream(number, "a dog", bundle=tiny))  # type: ignore[arg-type]


def test_an_array_is_a_picture_or_many(tiny: Path) -> None:
    segmenter = rvos_edge.open(tiny, threads=1)
    shapes = {"one": images(1)[0], "many": np.stack(images(2)), "grey": images(1)[0][..., 0]}
    counts = {
        name: [result.masks.shape for _, result in rvos_edge.stream(source, "a dog", bundle=segmenter)]
        for name, source in shapes.items()
    }
    assert counts == {"one": [(1, 48, 80)], "many": [(1, 48, 80)] * 2, "grey": [(1, 48, 80)]}
