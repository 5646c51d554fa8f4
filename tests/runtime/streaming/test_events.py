"""Events of queries and cameras, in files, as webhooks and by MQTT."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.fake_results import make_frame, make_result
from support.live_fakes import wait_until

from rvos_edge.errors import UserError
from rvos_edge.streaming.sinks import EventSink
from rvos_edge.streaming.sinks.events import QueryEvents, Webhook
from rvos_edge.streaming.sources import SourceEvent
from rvos_edge.streaming.tracks import parse_zone

LOST = SourceEvent("lost", "camera 0 is lost", "timed out", time=1.5)


def see(sink: EventSink, present: tuple[bool, bool], index: int = 0) -> None:
    result = replace(make_result(), present=np.array(present), presence=np.full(2, 0.5, np.float32))
    sink.write(replace(make_frame(index), time=60.0), result, None)


def test_a_camera_that_is_lost_is_a_line_among_those_of_the_queries(tmp_path: Path) -> None:
    sink = EventSink(tmp_path / "events.jsonl", camera="door")
    see(sink, (True, False))
    sink.write_source(LOST)
    sink.close()
    sink.write_source(LOST)  # the thread of a camera may be late
    first, second = map(json.loads, (tmp_path / "events.jsonl").read_text(encoding="utf-8").splitlines())
    assert first | {"event": "appeared", "camera": "door", "time": "1970-01-01T00:01:00.000Z"} == first
    assert second == {
        "event": "camera lost",
        "camera": "door",
        "time": "1970-01-01T00:00:01.500Z",
        "message": "camera 0 is lost",
        "cause": "timed out",
    }
    EventSink(tmp_path / "events.jsonl").abort()  # known as ours


class Receiver(BaseHTTPRequestHandler):
    """Takes events, after it has answered with `answers`."""

    answers: list[int]
    taken: list[Any]
    headers_seen: list[Any]

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        status = self.answers.pop(0) if self.answers else 204
        if status == 204:
            self.taken.append(body)
            self.headers_seen.append(self.headers)
        self.send_response(status)
        self.end_headers()

    def log_message(self, *_: object) -> None: ...


@contextmanager
def receiver(*answers: int) -> Iterator[tuple[str, list[Any], list[Any]]]:
    """Address of a server that answers with these states first, what it takes, and the headers."""
    taken: list[Any] = []
    seen: list[Any] = []
    handler = type("R", (Receiver,), {"answers": list(answers), "taken": taken, "headers_seen": seen})
    with HTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=[0.01])
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_port}/hook", taken, seen
        finally:
            server.shutdown()
            thread.join()


def test_a_webhook_gets_every_event_in_order_though_it_fails_at_times() -> None:
    told: list[str] = []
    with receiver(500, 503) as (address, taken, headers):
        hook = Webhook(f"http://me:secret@{address}", tell=told.append, pause=0.01)
        hook.send([{"event": "appeared"}, {"event": "gone"}])
        wait_until(lambda: len(taken) == 2)
        hook.close()
    assert [event["event"] for event in taken] == ["appeared", "gone"]
    assert headers[0]["authorization"] == "Basic bWU6c2VjcmV0"
    assert told == [f"http://{address} takes no events (status 500)"]  # once, and without the password


def test_an_event_that_a_webhook_refuses_does_not_hold_up_the_next_one() -> None:
    with receiver(404) as (address, taken, _):
        sink = EventSink(f"http://{address}", tell=lambda told: None)
        see(sink, (True, True))
        sink.close()
        assert [event["query"] for event in taken] == ["der große Ball"]


def test_a_webhook_that_is_away_ends_with_the_stream() -> None:
    told: list[str] = []
    hook = Webhook("http://127.0.0.1:9/", tell=told.append, pause=60)
    hook.send([{"event": "gone"}])
    wait_until(lambda: told)
    hook.close()
    assert told[1] == "http://127.0.0.1:9/ did not take the last 1 events"


def test_a_port_that_does_not_speak_http_is_told_and_tried_again() -> None:
    told: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        hook = Webhook(f"http://127.0.0.1:{server.getsockname()[1]}/", tell=told.append, pause=0.01)
        hook.send([{"event": "gone"}])
        for _ in range(2):
            with server.accept()[0] as connection:
                connection.recv(4096)
                connection.sendall(b"\x15\x03\x03\x00\x02\x02\x16\n\n")  # what TLS says to plain text
        hook.close()
    assert "takes no events" in told[0]


@pytest.mark.parametrize("target", ["http:///hook", "mqtt://broker", "mqtt://broker/a/#"])
def test_bad_targets_are_refused(target: str) -> None:
    pytest.importorskip("paho.mqtt.client")
    with pytest.raises(UserError, match="write it as"):
        EventSink(target)


def test_a_broker_gets_events_that_came_before_it_was_there(tmp_path: Path) -> None:
    mqtt: Any = pytest.importorskip("paho.mqtt.client")
    broker = shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin:/usr/bin")
    if broker is None:
        pytest.skip("needs a broker: apt-get install mosquitto")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    told: list[str] = []
    sink = EventSink(f"mqtt://127.0.0.1:{port}/cameras/door", camera="door", tell=told.append)
    see(sink, (True, False))
    wait_until(lambda: told)
    assert "takes no events (Connection refused)" in told[0]
    (tmp_path / "conf").write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\n")
    process = subprocess.Popen([broker, "-c", str(tmp_path / "conf")], stderr=subprocess.DEVNULL)
    try:
        got: list[Any] = []
        listener = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2)
        listener.on_message = lambda _client, _data, message: got.append(json.loads(message.payload))
        listener.on_connect = lambda client, *_: client.subscribe("cameras/#", qos=1)
        listener.reconnect_delay_set(1, 1)
        listener.connect_async("127.0.0.1", port)
        subscribed = threading.Event()
        listener.on_subscribe = lambda *_: subscribed.set()
        listener.loop_start()
        assert subscribed.wait(60)
        sink.write_source(LOST)
        wait_until(lambda: any(event["event"] == "camera lost" for event in got), seconds=60)
        sink.close()
        listener.disconnect()
        listener.loop_stop()
    finally:
        process.terminate()
        process.wait()
    assert told[1:] == []


def test_a_query_that_returns_has_its_number_and_zones_are_told(tmp_path: Path) -> None:
    pytest.importorskip("supervision", reason="needs the extra 'tracks'")
    queries = QueryEvents([parse_zone("all=0,0 1,0 1,1 0,1")])
    sink = EventSink(tmp_path / "events.jsonl", camera="door", queries=queries)
    for index, present in enumerate([True] * 4 + [False, True]):
        see(sink, (present, False), index)
    sink.close()
    told = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [(line["event"], line["track"], line["frame"], line.get("zone")) for line in told] == [
        ("appeared", 1, 0, None),
        ("entered", 1, 2, "all"),
        ("gone", 1, 4, None),
        ("returned", 1, 5, None),
    ]
    assert told[1] | {"camera": "door", "query": "a dog", "bbox": [4, 2, 12, 10]} == told[1]
