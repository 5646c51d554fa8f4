from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from support.fake_stream import FakeSegmenter, FakeSource

from rvos_edge.errors import UserError
from rvos_edge.result import Result
from rvos_edge.streaming.loop import run_stream
from rvos_edge.streaming.pipeline import read_ahead, write_behind
from rvos_edge.streaming.sinks import JsonSink, Sink, VideoSink
from rvos_edge.streaming.sources import Frame

SECONDS = 30.0
"""For what comes at once, or never."""


class Endless:
    def __init__(self) -> None:
        self.handed_out = 0

    def __iter__(self) -> Iterator[int]:
        while True:
            self.handed_out += 1
            yield self.handed_out


def test_frames_are_read_two_ahead_and_no_more() -> None:
    numbers = Endless()
    with read_ahead(numbers) as taken:
        assert [next(taken) for _ in range(4)] == [1, 2, 3, 4]
    assert 4 <= numbers.handed_out <= 4 + 2


def test_error_of_the_source_comes_after_the_frames_before_it() -> None:
    def read() -> Iterator[int]:
        yield 1
        yield 2
        raise UserError("damaged")

    seen: list[int] = []
    with pytest.raises(UserError, match="damaged"), read_ahead(read()) as taken:
        seen.extend(taken)
    assert seen == [1, 2]


def test_calls_are_made_in_order_until_one_fails() -> None:
    done: list[int] = []

    def work(number: int) -> None:
        if number == 5:
            raise UserError("disk full")
        done.append(number)

    with pytest.raises(UserError, match="disk full"), write_behind() as do:  # noqa: PT012
        for number in range(100):
            do(partial(work, number))
    assert done == [0, 1, 2, 3, 4]


def test_reading_segmenting_and_writing_overlap() -> None:
    """The first frame is written once the second is segmented, which is once the third was read."""
    third_read, second_segmented = threading.Event(), threading.Event()

    class Reader(FakeSource):
        def __iter__(self) -> Iterator[Frame]:
            for frame in super().__iter__():
                if frame.index == 2:
                    third_read.set()
                yield frame

    class Waiting(FakeSegmenter):
        def step(self, frame: NDArray[np.uint8]) -> Result:
            result = super().step(frame)
            if result.index == 1:
                assert third_read.wait(SECONDS)
                second_segmented.set()
            return result

    class Writer(Sink):
        def write(self, frame: Frame, result: Result, overlay: NDArray[np.uint8] | None) -> None:
            assert second_segmented.wait(SECONDS)
            assert frame.index == result.index

    assert run_stream(Waiting(), Reader(), [Writer()], pipelined=True).frames == 5


def test_outputs_are_those_of_one_thread(tmp_path: Path) -> None:
    for name, pipelined in (("a", False), ("b", True)):
        sinks = [VideoSink(tmp_path / f"{name}.mp4", 25), JsonSink(tmp_path / f"{name}.jsonl")]
        run_stream(FakeSegmenter(), FakeSource(20), sinks, pipelined=pipelined)
    for suffix in ("mp4", "jsonl"):
        assert (tmp_path / f"a.{suffix}").read_bytes() == (tmp_path / f"b.{suffix}").read_bytes()


def test_failed_output_ends_the_stream_with_what_is_whole(tmp_path: Path) -> None:
    class Full(JsonSink):
        def write(self, frame: Frame, result: Result, overlay: NDArray[np.uint8] | None) -> None:
            if frame.index == 3:
                raise UserError("disk full")
            super().write(frame, result, overlay)

    source = FakeSource(50)
    with pytest.raises(UserError, match="disk full"):
        run_stream(FakeSegmenter(), source, [Full(tmp_path / "o.jsonl")], pipelined=True)
    assert len((tmp_path / "o.jsonl").read_text().splitlines()) == 3
    assert source.handed_out < 50
