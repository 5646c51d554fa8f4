"""Identities over time, and the zones and lines that they enter, leave and cross.

A query has one track: its presence with hysteresis says when it is there, and it has the same number when it returns.
Where a query names several objects, its mask falls into parts, and the package ``trackers`` follows each of them.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np

from rvos_edge.errors import UserError
from rvos_edge.result import Result

_SMALLEST = 0.001
"""Share of the frame below which a part of a mask is no object."""
_HIDDEN = 30
"""Frames for which an object of several may be hidden before it is gone; the tracker keeps it as long."""
_SETTLED = 3
"""Frames for which an object must be on the other side, so that one on the border counts once."""
_POINT = re.compile(r"(\d*\.?\d+),(\d*\.?\d+)")


class Track(NamedTuple):
    """An object on one frame: its number, its query, and its box (x0, y0, x1, y1) in pixels."""

    id: int
    query: str
    box: tuple[int, int, int, int]


class Zone(NamedTuple):
    """An area, or with two points a line, on every frame; points (x, y) in shares of its size."""

    name: str
    points: tuple[tuple[float, float], ...]


def parse_zone(written: str) -> Zone:
    """Read a zone written as ``NAME=X,Y X,Y X,Y ...`` in shares of the frame's size; two points are a line.

    Raises:
        UserError: It is written otherwise.

    Example:
        >>> parse_zone("gate=0,0.5 1,0.5")
        Zone(name='gate', points=((0.0, 0.5), (1.0, 0.5)))
    """
    name, _, rest = written.partition("=")
    found = [_POINT.fullmatch(point) for point in rest.split()]
    points = tuple((float(point[1]), float(point[2])) for point in found if point)
    if not name or len(points) < max(2, len(found)) or max(max(point) for point in points) > 1:
        raise UserError(
            f"--zone {written}: write NAME=X,Y X,Y ... with at least two points in shares of the frame, for example "
            "door=0.1,0.2 0.4,0.2 0.4,0.9; two points make a line."
        )
    return Zone(name.strip(), points)


class Tracks:
    """Follows the objects of the queries from frame to frame.

    Args:
        several: The parts of a mask are objects of their own; otherwise a query has one track.

    Attributes:
        there: The query of each track that is there, by its number; also of one that is hidden for a moment.

    Raises:
        UserError: ``trackers`` is needed and not installed.
    """

    def __init__(self, *, several: bool = False) -> None:
        self._several = several
        self._numbers: dict[tuple[str, int], int] = {}
        self._trackers: dict[str, Any] = defaultdict(_new_tracker)
        self._seen: dict[int, tuple[str, int]] = {}
        self._frame = 0
        self.there: dict[int, str] = {}
        if several:
            _new_tracker()

    def update(self, result: Result) -> list[Track]:
        """The objects on the next frame; of a present query without a mask there is none."""
        found: list[Track] = []
        rows = zip(result.queries, result.present, result.masks, result.boxes.tolist(), strict=True)
        for query, present, mask, box in rows:
            if self._several:
                found += self._parts(query, mask if present else np.zeros_like(mask))
            elif present and box[2]:
                found.append(self._track(query, 0, box))
        if not self._several:
            present = zip(result.queries, result.present, strict=True)
            self.there = {self._number(query, 0): query for query, is_there in present if is_there}
            return found
        self._frame += 1
        self._seen.update({track.id: (track.query, self._frame) for track in found})
        self._seen = {number: seen for number, seen in self._seen.items() if self._frame - seen[1] <= _HIDDEN}
        self.there = {number: query for number, (query, _) in self._seen.items()}
        return found

    def _parts(self, query: str, mask: Any) -> Iterator[Track]:
        import supervision

        count, _, stats, _ = cv2.connectedComponentsWithStats(mask.view(np.uint8), connectivity=8)
        large = [row for row in stats[1:count] if row[cv2.CC_STAT_AREA] >= _SMALLEST * mask.size]
        boxes = np.array([[x, y, x + width, y + height] for x, y, width, height, _ in large], np.float32)
        detections = supervision.Detections(xyxy=boxes.reshape(-1, 4))
        followed = self._trackers[query].update(detections)
        for box, number in zip(followed.xyxy.tolist(), followed.tracker_id, strict=True):
            if number >= 0:  # -1: seen for the first time, it may be noise
                yield self._track(query, int(number), box)

    def _track(self, query: str, number: int, box: Sequence[float]) -> Track:
        x0, y0, x1, y1 = (round(value) for value in box)
        return Track(self._number(query, number), query, (x0, y0, x1, y1))

    def _number(self, query: str, number: int) -> int:
        return self._numbers.setdefault((query, number), len(self._numbers) + 1)


class Zones:
    """Tells when tracks enter and leave zones and cross lines, by the middle of the lower edge of their boxes.

    Raises:
        UserError: ``supervision`` is needed and not installed.
    """

    def __init__(self, zones: Sequence[Zone]) -> None:
        self._zones = tuple(zones)
        self._size: tuple[int, int] | None = None
        # By zone and track: inside or not, and for how many frames on the other side.
        self._inside: dict[str, dict[int, tuple[bool, int]]] = {zone.name: {} for zone in zones}
        if zones:
            _supervision()

    def update(self, tracks: Sequence[Track], size: tuple[int, int]) -> Iterator[tuple[Track, dict[str, str]]]:
        """Changes on the next frame, which is of ``size`` (H,W): each with ``event`` ("entered", "left" and ``zone``,
        or "crossed", ``line`` and ``direction``, "in" or "out").
        """
        if not self._zones:
            return
        sv = _supervision()
        if size != self._size:
            self._size, self._shapes = size, [_shape(zone, size) for zone in self._zones]
        detections = sv.Detections(
            xyxy=np.array([track.box for track in tracks], np.float32).reshape(-1, 4),
            tracker_id=np.array([track.id for track in tracks], np.int64),
        )
        for zone, shape in zip(self._zones, self._shapes, strict=True):
            if len(zone.points) == 2:
                for crossed, direction in zip(shape.trigger(detections), ("in", "out"), strict=True):
                    for track, happened in zip(tracks, crossed, strict=True):
                        if happened:
                            yield track, {"event": "crossed", "line": zone.name, "direction": direction}
                continue
            state = self._inside[zone.name]
            for track, inside in zip(tracks, shape.trigger(detections).tolist(), strict=True):
                settled, frames = state.get(track.id, (False, 0))
                frames = frames + 1 if inside != settled else 0
                if frames == _SETTLED:
                    settled, frames = inside, 0
                    yield track, {"event": "entered" if inside else "left", "zone": zone.name}
                state[track.id] = settled, frames


def _shape(zone: Zone, size: tuple[int, int]) -> Any:
    sv = _supervision()
    points = np.rint(np.array(zone.points) * (size[1], size[0])).astype(np.int64)
    anchors = (sv.Position.BOTTOM_CENTER,)
    if len(points) == 2:
        start, end = (sv.Point(*point) for point in points.tolist())
        return sv.LineZone(start, end, triggering_anchors=anchors, minimum_crossing_threshold=_SETTLED)
    return sv.PolygonZone(points, triggering_anchors=anchors)


def _supervision() -> Any:
    try:
        import supervision
    except ModuleNotFoundError as error:
        raise UserError('--zone needs supervision; run: pip install "rvos-edge[tracks]"') from error
    return supervision


def _new_tracker() -> Any:
    try:
        from trackers import ByteTrackTracker
    except ModuleNotFoundError as error:
        raise UserError('--per-object needs trackers; run: pip install "rvos-edge[tracks]"') from error
    return ByteTrackTracker()
