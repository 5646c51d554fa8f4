"""Counts and times of a stream: the figures of the page, and the metrics for Prometheus."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import generate_latest

if TYPE_CHECKING:
    from rvos_edge.result import Result
    from rvos_edge.streaming.sources import Frame

_RECENT = 60
"""Frames that the page's figures cover."""
_SECONDS = (0.005, 0.01, 0.02, 0.033, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)


class Telemetry:
    """Counts frames; may be read from any thread.

    Attributes:
        objects: One row per query of the last frame: text, score (null where it is no number), area (share of the
            frame).
    """

    def __init__(self, viewers: Callable[[], int]) -> None:
        self.frames = 0
        self.objects: list[dict[str, Any]] = []
        self._lock = threading.Lock()
        self._times: deque[float] = deque(maxlen=_RECENT)
        self._latencies: deque[float] = deque(maxlen=_RECENT)
        self._stages: deque[dict[str, float]] = deque(maxlen=_RECENT)
        self._flow = "none"
        self._size = (0, 0)
        self._dropped = 0
        self._registry = registry = CollectorRegistry()
        self._frames = Counter("rvos_edge_frames", "Frames segmented.", registry=registry)
        self._drops = Counter("rvos_edge_dropped_frames", "Live frames overtaken by newer ones.", registry=registry)
        self._flows = Counter(
            "rvos_edge_flow_decisions", "Frames by what was done about their flow.", ["action"], registry=registry
        )
        self._latency = Histogram(
            "rvos_edge_latency_seconds", "From capture to mask.", buckets=_SECONDS, registry=registry
        )
        self._stage = Histogram(
            "rvos_edge_stage_seconds", "By stage of a frame.", ["stage"], buckets=_SECONDS, registry=registry
        )
        self.requests = Counter(
            "rvos_edge_http_requests", "Answered requests.", ["method", "route", "status"], registry=registry
        )
        Gauge("rvos_edge_viewers", "Connected viewers.", registry=registry).set_function(viewers)
        Gauge("rvos_edge_queries", "Queries of the last frame.", registry=registry).set_function(
            lambda: len(self.objects)
        )
        Gauge("rvos_edge_frames_per_second", "Over the last frames.", registry=registry).set_function(lambda: self.fps)

    def add(self, frame: Frame, result: Result, dropped: int) -> None:
        """Count a frame that was segmented just now."""
        now = time.perf_counter()
        latency = now - frame.captured
        areas = np.count_nonzero(result.masks, axis=(1, 2)) / max(1, result.masks[0].size if len(result.masks) else 1)
        objects = [
            {"text": text, "score": _number(score), "area": round(float(area), 5)}
            for text, score, area in zip(result.queries, result.scores, areas, strict=True)
        ]
        with self._lock:
            self.frames += 1
            self.objects = objects
            self._times.append(now)
            self._latencies.append(1e3 * latency)
            self._stages.append(result.timings)
            self._size = frame.image.shape[:2]
            self._flow = "none" if result.decision is None else result.decision.action
        self._frames.inc()
        self._drops.inc(max(0, dropped - self._dropped))
        self._dropped = dropped
        self._latency.observe(latency)
        if result.decision is not None:
            self._flows.labels(result.decision.action).inc()
        for stage, milliseconds in result.timings.items():
            self._stage.labels(stage).observe(milliseconds / 1e3)

    @property
    def fps(self) -> float:
        """Frames per second over the last frames; 0 where none came for a while."""
        with self._lock:
            if len(self._times) < 2:
                return 0.0
            span = self._times[-1] - self._times[0]
            usual = span / (len(self._times) - 1)
            if time.perf_counter() - self._times[-1] > max(2.0, 5 * usual):
                return 0.0
            return 1 / usual if usual > 0 else 0.0

    def summary(self) -> dict[str, Any]:
        """Figures of the page, as JSON: milliseconds, medians over the last frames."""
        fps = self.fps
        with self._lock:
            latencies = np.percentile(self._latencies, (50, 95)) if self._latencies else (0.0, 0.0)
            names = dict.fromkeys(name for stages in reversed(self._stages) for name in stages)
            # A stage that did not run on a frame took no time on it.
            stages = {name: median(stages.get(name, 0.0) for stages in self._stages) for name in names}
            return {
                "frames": self.frames,
                "fps": round(fps, 2),
                "dropped": self._dropped,
                "size": list(self._size),
                "flow": self._flow,
                "latency_ms": {"p50": round(float(latencies[0]), 2), "p95": round(float(latencies[1]), 2)},
                "stages_ms": {name: round(value, 2) for name, value in stages.items()},
            }

    def exposition(self) -> bytes:
        """Metrics in Prometheus' text format."""
        return generate_latest(self._registry)


def _number(score: Any) -> float | None:
    """The score for JSON, which has no NaN."""
    return round(float(score), 4) if np.isfinite(score) else None
