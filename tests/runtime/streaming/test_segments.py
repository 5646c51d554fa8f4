"""Recordings that are cut into segments, and those that a killed run left."""

from __future__ import annotations

import json
import os
import time
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
from support.fake_results import files, make_frame, make_result

from rvos_edge.atomic import PendingFile
from rvos_edge.errors import UserError
from rvos_edge.streaming.sinks import EventSink, JsonSink, VideoSink
from rvos_edge.streaming.sinks.events import QueryEvents
from rvos_edge.streaming.sinks.rescue import rescue
from rvos_edge.streaming.sinks.segments import SegmentedSink
from rvos_edge.streaming.sources import SourceEvent, VideoFile

GREY = np.full((16, 24, 3), 128, np.uint8)
NOON = 1_700_000_000 // 86400 * 86400 + 43200


@pytest.fixture(autouse=True)
def noon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rvos_edge.streaming.sinks.segments.time.time", lambda: NOON + 1.0)


def test_a_recording_is_cut_at_every_ten_minutes_of_the_clock(tmp_path: Path) -> None:
    sink = SegmentedSink(tmp_path / "door.mp4", lambda path: VideoSink(path, 1.0), seconds=600)
    for index in range(0, 1300, 100):
        sink.write(replace(make_frame(index, fps=1.0), time=NOON + 1.0 + index), make_result(), GREY)
    sink.close()
    names = [f"door-20231114T12{minute}Z.mp4" for minute in ("0001", "1001", "2001")]
    assert files(tmp_path) == names
    with VideoFile(str(tmp_path / names[1])) as video:
        assert [frame.timestamp for frame in video] == pytest.approx([0, 100, 200, 300, 400, 500])


def test_lines_keep_the_time_of_the_stream(tmp_path: Path) -> None:
    sink = SegmentedSink(tmp_path / "out.jsonl", JsonSink, seconds=60)
    for index in (0, 30, 90):  # of a file, which has no clock of its own
        sink.write(make_frame(index, fps=1.0), make_result(), None)
    sink.close()
    lines = [json.loads(line) for line in (tmp_path / "out-20231114T120131Z.jsonl").read_text().splitlines()]
    assert [(line["timestamp"], line["time"]) for line in lines] == [(90.0, None)]


def test_a_segment_does_not_say_again_what_is_there(tmp_path: Path) -> None:
    queries = QueryEvents()
    sink = SegmentedSink(tmp_path / "e.jsonl", lambda path: EventSink(path, queries=queries), seconds=60)
    for index in range(0, 200, 10):
        sink.write(make_frame(index, fps=1.0), make_result(), None)
        if index == 130:
            sink.write_source(SourceEvent("lost", "camera 0 is lost"))
    sink.close()
    events = {path.name: path.read_text().count("\n") for path in tmp_path.iterdir()}
    assert events == {"e-20231114T120001Z.jsonl": 2, "e-20231114T120201Z.jsonl": 1}, "and none for an empty minute"


def test_old_segments_go_and_nothing_else(tmp_path: Path) -> None:
    for name in ("door-20231101T000000Z.jsonl", "door-20231113T120002Z.jsonl", "other-20231101T000000Z.jsonl"):
        sink = JsonSink(tmp_path / name)
        sink.write(make_frame(), make_result(), None)
        sink.close()
        os.utime(tmp_path / name, (NOON - 9 * 86400,) * 2 if "1101" in name else (NOON,) * 2)
    (tmp_path / "door-20231102T000000Z.jsonl").write_text("somebody's\n")
    os.utime(tmp_path / "door-20231102T000000Z.jsonl", (0, 0))
    SegmentedSink(tmp_path / "door.jsonl", JsonSink, seconds=600, keep=7 * 86400).close()
    kept = ["door-20231102T000000Z.jsonl", "door-20231113T120002Z.jsonl", "other-20231101T000000Z.jsonl"]
    assert files(tmp_path) == kept


def test_what_a_killed_run_recorded_gets_a_name_and_no_restart_takes_it(tmp_path: Path) -> None:
    line = json.dumps({"frame": 0, "timestamp": 0, "source": "0", "queries": [], "timings_ms": {}}) + "\n"
    for name, content in (
        (".door.part-1-0123abcd.jsonl", line + '{"frame": 1, "ti'),
        (".door-20231114T120000Z.part-1-0123abcd.jsonl", line),
        (".door.part-2-0123abcd.jsonl", ""),
        (".doors.part-1-0123abcd.jsonl", line),
    ):
        (tmp_path / name).write_text(content)
        os.utime(tmp_path / name, (NOON, NOON))
    named = rescue(tmp_path / "door.jsonl")
    stamped = {"door-20231114T120000Z.jsonl", "door-20231114T120000Z-2.jsonl"}  # the time of a change, and of a name
    assert {path.name for path in named} == stamped
    assert all(path.read_text() == line for path in named), "without the half line"
    PendingFile(tmp_path / "door.jsonl").discard()
    assert files(tmp_path) == sorted([".doors.part-1-0123abcd.jsonl", *(path.name for path in named)])


def test_a_film_is_cut_after_its_last_whole_fragment(tmp_path: Path) -> None:
    path = tmp_path / ".door.part-1-0123abcd.mp4"
    sink = VideoSink(tmp_path / "whole.mp4", 5.0)
    noise = np.random.default_rng(0).integers(0, 255, (40, *GREY.shape), np.uint8)
    for index, picture in enumerate(noise):
        sink.write(make_frame(index, fps=5.0), make_result(), picture)
    (growing,) = tmp_path.glob(".whole.part-*.mp4")
    content = growing.read_bytes()
    sink.abort()
    last, counts = content.rindex(b"moof") - 4, []
    for kept in (len(content), last + 20, last - 30):
        path.write_bytes(content[:kept])
        (found,) = rescue(tmp_path / "door.mp4")
        with av.open(str(found)) as film:
            counts.append(len(list(film.decode(video=0))))
        found.unlink()
    assert counts == sorted(set(counts), reverse=True), "a fragment less each time"
    path.write_bytes(content[:100])
    assert rescue(tmp_path / "door.mp4") == [], "nothing that could be played"
    assert files(tmp_path) == []


def test_a_recording_that_goes_on_is_not_rescued_by_another_run(tmp_path: Path) -> None:
    sink = JsonSink(tmp_path / "door.jsonl")
    with pytest.raises(UserError, match="being written by another run"):
        rescue(tmp_path / "door.jsonl")
    sink.abort()


def test_what_is_written_reaches_the_disk_from_a_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", synced.append)
    monkeypatch.setattr("rvos_edge.atomic._SYNC_SECONDS", 0.0)
    sink = JsonSink(tmp_path / "out.jsonl")
    deadline = time.monotonic() + 10
    while not synced and time.monotonic() < deadline:
        sink.write(make_frame(), make_result(), None)
    sink.close()
    assert synced
