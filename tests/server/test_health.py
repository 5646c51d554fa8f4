"""Health and metrics: they tell when no frame comes, and why."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from prometheus_client.parser import text_string_to_metric_families
from support.served import Pictures, Serve, wait_until

from rvos_edge.streaming.sources import Frame, SourceEvent


class Camera(Pictures):
    """Pictures that can be held up; counts as live."""

    live = True

    def __init__(self) -> None:
        super().__init__()
        self.flows = threading.Event()
        self.flows.set()

    def __iter__(self) -> Iterator[Frame]:
        for frame in super().__iter__():
            yield frame
            self.flows.wait()

    def close(self) -> None:
        super().close()
        self.flows.set()


def test_health_is_503_while_no_frame_comes_and_ok_again_after(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    camera = Camera()
    served = serve("the dog", source=lambda: camera)
    served.after(3)
    well = served.request("GET", "/api/health")
    assert (well.status, well.json["status"], well.json["trouble"]) == (200, "ok", "")
    assert well.json["model"] | {"bundle": "tiny", "trouble": ""} == well.json["model"]
    assert well.json["disk"]["free_bytes"] > 0
    monkeypatch.setattr("rvos_edge.server.telemetry._PATIENCE", 0.2)
    camera.flows.clear()
    wait_until(lambda: served.live.telemetry.silence > served.live.telemetry.patience)
    silent = served.request("GET", "/api/health")
    assert (silent.status, silent.json["status"]) == (503, "trouble")
    assert silent.json["trouble"].startswith("no frame came for ")
    camera.trouble, camera.state = "the camera is lost: connection refused.", "lost"
    lost = served.request("GET", "/api/health")
    assert (lost.status, lost.json["trouble"], lost.json["state"]) == (503, camera.trouble, "waiting")
    assert lost.json["camera"]["trouble"] == served.request("GET", "/api/status").json["trouble"] == camera.trouble
    camera.trouble, camera.state = "", "playing"
    monkeypatch.setattr("rvos_edge.server.telemetry._PATIENCE", 15.0)
    camera.flows.set()
    served.after(1)
    assert served.request("GET", "/api/health").status == 200


def test_health_tells_of_outputs_that_ended_and_of_a_full_disk(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    served = serve("the dog")
    served.live.meter.failures.append("door.mp4 ends after 3 frames: its disk is full.")
    told = served.request("GET", "/api/health")
    assert (told.status, told.json["recorder"]["trouble"]) == (503, "door.mp4 ends after 3 frames: its disk is full.")
    monkeypatch.setattr("rvos_edge.server.health.SPARE", 2**60)
    assert "MiB are free" in served.request("GET", "/api/health").json["disk"]["trouble"]


def test_health_tells_of_a_model_that_hangs(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    served = serve("the dog")
    monkeypatch.setattr(type(served.live.meter), "busy_seconds", property(lambda meter: 60.0))
    assert "a frame takes longer" in served.request("GET", "/api/health").json["model"]["trouble"]


def test_metrics_tell_percentiles_presence_and_returns(serve: Serve) -> None:
    camera = Camera()
    served = serve("the dog", "a cat", source=lambda: camera)
    camera.reconnects, camera.dropped = 2, 5
    served.after(2)
    text = served.request("GET", "/metrics").body.decode()
    samples = {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    assert samples["rvos_edge_reconnects_total",] == 2
    assert samples["rvos_edge_dropped_frames_total",] == 5
    latencies = [samples["rvos_edge_recent_latency_seconds", quantile] for quantile in ("0.5", "0.95", "0.99")]
    assert 0 < latencies[0] <= latencies[1] <= latencies[2]
    assert 0 <= samples["rvos_edge_presence", "the dog"] <= 1
    assert ("rvos_edge_presence", "a cat") in samples
    served.live.controls.edit(["the dog"])
    served.after(2)
    assert '{query="a cat"}' not in served.request("GET", "/metrics").body.decode()


def test_events_of_the_camera_that_is_played_go_on_to_the_listener(serve: Serve) -> None:
    camera = Camera()
    served = serve("the dog", source=lambda: camera)
    heard: list[SourceEvent] = []
    served.live.player.on_event = heard.append
    served.after(1)
    event = SourceEvent("lost", "the camera is lost")
    assert camera.on_event is not None
    camera.on_event(event)
    assert heard == [event]
