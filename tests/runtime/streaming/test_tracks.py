"""Objects keep their numbers, and zones and lines count them once."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from support.fake_results import make_result

from rvos_edge.errors import UserError
from rvos_edge.result import Result
from rvos_edge.streaming.tracks import Tracks, Zone, Zones, parse_zone

pytest.importorskip("supervision", reason="needs the extra 'tracks'")
SIZE = (40, 60)


def result(*boxes: tuple[int, int, int, int], present: bool = True) -> Result:
    """One query whose mask is some boxes (x0, y0, x1, y1)."""
    masks = np.zeros((1, *SIZE), np.bool_)
    for x0, y0, x1, y1 in boxes:
        masks[0, y0:y1, x0:x1] = True
    made = make_result(masks)
    return replace(made, queries=("a dog",), scores=made.scores[:1], present=np.array([present]), presence=np.ones(1))


def test_a_query_has_one_track_that_returns() -> None:
    tracks = Tracks()
    two = replace(result((0, 0, 10, 10)), queries=("a cat",))
    assert [track.id for track in tracks.update(result((5, 5, 10, 10)))] == [1]
    assert tracks.update(result((5, 5, 10, 10), present=False)) == []
    assert [(track.id, track.query) for track in tracks.update(two)] == [(2, "a cat")]
    assert [(track.id, track.box) for track in tracks.update(result((7, 5, 12, 10)))] == [(1, (7, 5, 12, 10))]
    assert tracks.update(result()) == []  # present, but without a mask


def test_several_objects_of_one_query_are_told_apart() -> None:
    pytest.importorskip("trackers", reason="needs the extra 'tracks'")
    tracks = Tracks(several=True)
    seen = []
    for index in range(8):
        left, right = (index, 5, index + 12, 25), (45 - index, 5, 57 - index, 25)
        speck = (30, 38, 31, 39)
        seen.append({track.id: track.box for track in tracks.update(result(left, right, speck))})
    assert seen[0] == {}  # a first sight may be noise
    assert len(seen[-1]) == 2
    assert set(seen[-1]) == set(seen[1])
    first = min(seen[1], key=lambda number: seen[1][number][0])
    assert seen[-1][first][0] == pytest.approx(7, abs=1)


def test_zones_and_lines_count_an_object_once() -> None:
    door, gate = parse_zone("door=0.5,0 1,0 1,1 0.5,1"), parse_zone("gate=0.5,0 0.5,1")
    tracks, zones = Tracks(), Zones([door, gate])

    def events(*columns: int) -> list[tuple[int, str]]:
        """Events while the middle of the object is in these columns."""
        return [
            (index, f"{more['event']} {more.get('zone', more.get('direction'))}")
            for index, column in enumerate(columns)
            for _, more in zones.update(tracks.update(result((column - 4, 10, column + 4, 30))), SIZE)
        ]

    assert events(10, 12, 14, 16, 18) == []
    assert events(29, 32, 29, 32, 29, 32) == []  # on the border
    assert sorted(what for _, what in events(36, 40, 44, 48)) == ["crossed in", "entered door"]
    assert sorted(what for _, what in events(20, 16, 12, 10)) == ["crossed out", "left door"]


@pytest.mark.parametrize(
    "written", ["", "door", "door=", "door=0,0", "door=0,0 1", "=0,0 1,1", "door=0,0 1,2", "a=x,y z"]
)
def test_a_zone_that_is_written_otherwise_is_refused(written: str) -> None:
    with pytest.raises(UserError, match=r"--zone .*write NAME=X,Y"):
        parse_zone(written)
    assert parse_zone("a = .5,0 1,1").points == ((0.5, 0.0), (1.0, 1.0))


def test_without_supervision_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(UserError, match=r"rvos-edge\[tracks\]"):
        Zones([Zone("a", ((0.0, 0.0), (1.0, 1.0)))])
    Zones([])
