"""Counts and times of a stream: the figures of the page, and the metrics for Prometheus."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from statistics import median
from typing import Any

import numpy as np
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from rvos_edge.result import Result
from rvos_edge.streaming.sources import Frame, Source

_RECENT = 60
"""Frames that the page's figures cover."""
_PATIENCE = 15.0
"""Seconds without a frame, where frames are not rare, until a stream counts as in trouble."""
_PERCENTILES = (50, 95, 99)
_SECONDS = (0.005, 0.01, 0.02, 0.033, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)


class Telemetry:
    """Counts frames; may be read from any thread.

    Attributes:
        objects: One row per query of the last frame, as in ``Result.to_dict``, and ``found``: present, with a mask.
    """

    def __init__(self, viewers: Callable[[], int]) -> None:
        self.frames = 0
        self.objects: list[dict[str, Any]] = []
        self._lock = threading.Lock()
        self._times: deque[float] = deque(maxlen=_RECENT)
        self._latencies: deque[float] = deque(maxlen=_RECENT)
        self._stages: deque[dict[str, float]] = deque(maxlen=_RECENT)
        self._setup: object = None
        self._flow = "none"
        self._size = (0, 0)
        self._dropped = self._reconnects = 0
        self._started = time.perf_counter()
        self._registry = registry = CollectorRegistry()
        self._frames = Counter("rvos_edge_frames", "Frames segmented.", registry=registry)
        self._drops = Counter("rvos_edge_dropped_frames", "Live frames overtaken by newer ones.", registry=registry)
        self._returns = Counter("rvos_edge_reconnects", "Times the source was lost and came back.", registry=registry)
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
        Gauge("rvos_edge_silent_seconds", "Since the last frame.", registry=registry).set_function(lambda: self.silence)
        registry.register(_Recent(self))
        Gauge("rvos_edge_queries", "Queries of the last frame.", registry=registry).set_function(
            lambda: len(self.objects)
        )
        Gauge("rvos_edge_frames_per_second", "Over the last frames.", registry=registry).set_function(lambda: self.fps)

    def add(self, frame: Frame, result: Result, source: Source, *, setup: object = None) -> None:
        """Count a frame of a source that was segmented just now; ``setup`` is what its times depend on, and with
        another one the page's figures begin anew.
        """
        now = time.perf_counter()
        latency = now - frame.captured
        rows: list[dict[str, Any]] = result.to_dict()["queries"]
        objects = [{**row, "found": row["present"] and row["area"] > 0} for row in rows]
        with self._lock:
            if setup != self._setup:
                self._setup = setup
                for window in (self._times, self._latencies, self._stages):
                    window.clear()
            self.frames += 1
            self.objects = objects
            self._times.append(now)
            self._latencies.append(1e3 * latency)
            self._stages.append(result.timings)
            self._size = frame.image.shape[:2]
            self._flow = "none" if result.decision is None else result.decision.action
        self._frames.inc()
        self._drops.inc(max(0, source.dropped - self._dropped))
        self._returns.inc(max(0, source.reconnects - self._reconnects))
        self._dropped, self._reconnects = source.dropped, source.reconnects
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
            usual = self._interval
            if time.perf_counter() - self._times[-1] > max(2.0, 5 * usual):
                return 0.0
            return 1 / usual if usual > 0 else 0.0

    @property
    def silence(self) -> float:
        """Seconds since the last frame, before the first one since the start."""
        with self._lock:
            return time.perf_counter() - (self._times[-1] if self._times else self._started)

    @property
    def patience(self) -> float:
        """Seconds without a frame that are no trouble yet: longer where frames are rare."""
        with self._lock:
            return max(_PATIENCE, 3 * self._interval)

    @property
    def _interval(self) -> float:
        """Mean seconds between the last frames; 0 before the second."""
        return (self._times[-1] - self._times[0]) / (len(self._times) - 1) if len(self._times) > 1 else 0.0

    def summary(self) -> dict[str, Any]:
        """Figures of the page, as JSON: milliseconds, medians over the last frames."""
        fps = self.fps
        with self._lock:
            latencies = np.percentile(self._latencies or (0.0,), _PERCENTILES)
            names = dict.fromkeys(name for stages in reversed(self._stages) for name in stages)
            # A stage that did not run on a frame took no time on it.
            stages = {name: median(stages.get(name, 0.0) for stages in self._stages) for name in names}
            return {
                "frames": self.frames,
                "fps": round(fps, 2),
                "dropped": self._dropped,
                "size": list(self._size),
                "flow": self._flow,
                "latency_ms": {f"p{q}": round(float(ms), 2) for q, ms in zip(_PERCENTILES, latencies, strict=True)},
                "stages_ms": {name: round(value, 2) for name, value in stages.items()},
            }

    def exposition(self) -> bytes:
        """Metrics in Prometheus' text format."""
        return generate_latest(self._registry)

    def collect(self) -> Iterable[Metric]:
        """Metrics, to be joined with those of other streams."""
        return self._registry.collect()


class _Recent(Collector):
    """Collector of what has labels that change with the queries, and of percentiles, as they are at the moment."""

    def __init__(self, telemetry: Telemetry) -> None:
        self._telemetry = telemetry

    def collect(self) -> Iterator[Metric]:
        latency = GaugeMetricFamily(
            "rvos_edge_recent_latency_seconds", "Percentiles over the last frames.", labels=["quantile"]
        )
        for name, milliseconds in self._telemetry.summary()["latency_ms"].items():
            latency.add_metric([f"{int(name[1:]) / 100:g}"], milliseconds / 1e3)
        yield latency
        presence = GaugeMetricFamily("rvos_edge_presence", "Probability of each query's object.", labels=["query"])
        for row in self._telemetry.objects:
            presence.add_metric([row["text"]], float("nan") if row["presence"] is None else row["presence"])
        yield presence
