"""The HTTP API of a running stream."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import cv2
import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families
from support.served import Pictures, Serve, Served, picture, wait_until

from rvos_edge.rle import encode_rle
from rvos_edge.segmenter import Segmenter
from rvos_edge.server import single_image
from rvos_edge.server.single_image import decode_picture, picture_size

JSON = {"content-type": "application/json"}


def encoded(index: int = 3, suffix: str = ".png") -> bytes:
    return cv2.imencode(suffix, picture(index))[1].tobytes()


def test_queries_are_read_and_replaced_while_the_stream_runs(serve: Serve) -> None:
    served = serve("the dog")
    before = served.after(1)
    answer = served.request("PUT", "/api/queries", {"queries": ["  a red   ball ", "the dog"]})
    assert answer.status == 200
    assert [row["text"] for row in answer.json["queries"]] == ["a red ball", "the dog"]
    assert [row["colour"] for row in answer.json["queries"]] == ["#e69f00", "#56b4e9"]
    after = served.settle(answer.json["revision"])
    assert before.queries == ("the dog",)
    assert after.queries == ("a red ball", "the dog")
    assert not np.array_equal(after.margins[0], after.margins[1])
    assert after.index > before.index  # the video went on
    told = served.request("GET", "/api/queries").json["queries"]
    assert [row["text"] for row in told] == ["a red ball", "the dog"]
    assert all(0 <= row["score"] <= 1 and 0 <= row["area"] <= 1 for row in told)


def test_queries_in_another_language_are_taken_with_a_doubt(serve: Serve) -> None:
    rows = serve("the dog").request("PUT", "/api/queries", {"queries": ["the dog", "красная машина"]}).json["queries"]
    assert [row["text"] for row in rows] == ["the dog", "красная машина"]
    assert rows[0]["doubt"] == ""
    assert "does not look like English" in rows[1]["doubt"]


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({"queries": ["the dog", "  "]}, 422, "query 2 is empty"),
        ({"queries": ["the dog " * 40]}, 422, "tokens and this bundle takes at most 16"),
        ({"queries": ["x" * 101]}, 422, "a word of 101 characters"),
        ({"queries": ["a dog"] * 17}, 422, "at most 16"),
        ({"queries": "the dog"}, 422, "queries: input should be a valid"),
        ({"queries": [3]}, 422, "queries.0: input should be a valid string"),
        ({"query": ["a dog"]}, 422, "queries: field required"),
        ({"queries": ["a dog"], "color": 1}, 422, "'color' is not known"),
        (b"{not json", 400, "not JSON"),
        (b"[" * 60_000, 400, "not JSON"),
        (b"", 422, "the body: field required"),
        (b'{"queries": ["\\ud800"]}', 422, "not valid Unicode"),
        ({"queries": ["q" * 100_000]}, 413, "at most 65,536 bytes"),
        ({"queries": ["\N{DOG FACE}" * 100_000]}, 413, "at most 65,536 bytes"),
    ],
)
def test_bad_queries_leave_the_old_ones(dog: Served, body: Any, status: int, words: str) -> None:
    answer = dog.request("PUT", "/api/queries", body, JSON)
    assert answer.status == status
    assert words in answer.error
    assert dog.after(2).queries == ("the dog",)
    assert dog.request("GET", "/api/queries").json["queries"][0]["text"] == "the dog"


def test_a_body_without_a_length_is_cut_off_at_the_limit(dog: Served) -> None:
    chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
    head = b"PUT /api/queries HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    with socket.create_connection(("127.0.0.1", dog.port), timeout=10) as connection:
        connection.sendall(head + chunk + chunk)  # and never the end
        told = connection.recv(4096)
    assert told.startswith(b"HTTP/1.1 413")
    assert dog.after(1).queries == ("the dog",)


def test_settings_reach_the_next_frame(serve: Serve) -> None:
    served = serve("the dog", "a red ball")
    told = served.request("GET", "/api/settings").json
    assert (told["threshold"], told["opacity"], told["iterations"], told["flow"]) == (0.5, 0.5, 3, False)
    low = served.after(1)
    answer = served.request("PUT", "/api/settings", {"threshold": 0.6, "iterations": 7, "flow": True})
    assert answer.status == 200
    assert answer.json["opacity"] == 0.5
    high = served.settle(answer.json["revision"])
    assert high.masks.sum() < low.masks.sum()
    assert high.decision is not None
    assert high.decision.iterations == 7
    assert low.flow is None
    assert high.flow is not None


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"threshold": 11}, "threshold: input should be less than 1"),
        ({"threshold": "high"}, "threshold: input should be a valid number"),
        ({"iterations": 0}, "iterations: input should be greater than or equal to 1"),
        ({"iterations": 33}, "iterations: "),
        ({"iterations": None}, "iterations cannot be null"),
        ({"opacity": -0.1}, "opacity: "),
        ({"paused": 1}, "paused: "),
        ({"gamma": 2}, "'gamma' is not known here"),
        (b'{"\\ud800": 2}', "the body: input should be a valid string"),
        ([], "the body: "),
    ],
)
def test_bad_settings_change_nothing(dog: Served, body: Any, words: str) -> None:
    before = dog.request("GET", "/api/settings").json
    answer = dog.request("PUT", "/api/settings", body)
    assert answer.status == 422
    assert words in answer.error
    assert dog.request("GET", "/api/settings").json == before


def test_not_a_number_is_refused(dog: Served) -> None:
    answer = dog.request("PUT", "/api/settings", b'{"threshold": NaN}')
    assert answer.status in (400, 422)
    assert answer.error


def test_flow_cannot_be_asked_of_a_stream_without(serve: Serve) -> None:
    served = serve(enabled=False)
    assert served.request("GET", "/api/settings").json["iterations"] is None
    for body in ({"iterations": 3}, {"flow": True}):
        answer = served.request("PUT", "/api/settings", body)
        assert (answer.status, "computes no flow" in answer.error) == (422, True)
    assert served.request("PUT", "/api/settings", {"opacity": 1}).status == 200


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_a_posted_frame_comes_back_as_masks(serve: Serve, open_tiny: Callable[..., Segmenter], suffix: str) -> None:
    data = encoded(suffix=suffix)
    queries = ["a red ball", "the dog"]
    alone = open_tiny(enabled=False)
    alone.set_queries(queries)
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert image is not None
    expected = alone.step(np.asarray(image, np.uint8)).masks
    served = serve("the cat")
    asked = "query=a+red+ball&query=the+dog"
    answer = served.request("POST", f"/api/frame?{asked}", data)
    assert (answer.status, answer.headers["content-type"]) == (200, "image/png")
    # The index of a pixel is the last query whose mask it is in; OpenCV reads the palette's colours.
    labels = cv2.imdecode(np.frombuffer(answer.body, np.uint8), cv2.IMREAD_COLOR)
    assert labels is not None
    assert np.array_equal(labels[..., 1] > 0, expected[1])
    assert np.array_equal(labels[..., 2] > 0, expected[0] & ~expected[1])
    answer = served.request("POST", f"/api/frame?{asked}&format=coco", data)
    for found, mask in zip(answer.json["objects"], expected, strict=True):
        assert found["segmentation"] == {"size": [96, 128], "counts": encode_rle(mask)}
        assert found["area"] == mask.sum()
    strict = served.request("POST", f"/api/frame?{asked}&format=coco&threshold=0.7", data)
    assert strict.json["objects"][0]["area"] < answer.json["objects"][0]["area"]
    assert answer.json["doubts"] == [""] * len(answer.json["objects"])
    own = served.request("POST", "/api/frame?format=coco", data)
    assert [found["text"] for found in own.json["objects"]] == ["the cat"]


def test_posted_frames_do_not_disturb_the_video(serve: Serve, open_tiny: Callable[..., Segmenter]) -> None:
    alone = open_tiny()
    alone.set_queries(["the dog"])
    expected = [alone.step(picture(index % 40)).margins for index in range(80)]
    served = serve("the dog", source=lambda: Pictures(80), repeat=False, keep=80)
    while served.live.telemetry.frames < 80:
        assert served.request("POST", "/api/frame?query=a+cat", encoded(11)).status == 200
    wait_until(lambda: len(served.collector.results) == 80)
    for result, margins in zip(served.collector.results, expected, strict=True):
        assert np.array_equal(result.margins, margins)


@pytest.mark.parametrize(
    ("path", "body", "status", "words"),
    [
        ("/api/frame", b"no picture", 422, "not a JPEG or PNG"),
        ("/api/frame", b"", 422, "not a JPEG or PNG"),
        ("/api/frame", encoded()[:200], 422, "damaged"),
        ("/api/frame", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\x80\0\0\0\x80\0\x08\2\0\0\0", 422, "32768 x 32768"),
        ("/api/frame?query=", encoded(), 422, "query 1 is empty"),
        ("/api/frame?threshold=high", encoded(), 422, "threshold"),
        ("/api/frame?threshold=nan", encoded(), 422, "threshold"),
        ("/api/frame?format=bmp", encoded(), 422, "'png' or 'coco'"),
    ],
)
def test_bad_frames(dog: Served, path: str, body: bytes, status: int, words: str) -> None:
    answer = dog.request("POST", path, body)
    assert answer.status == status
    assert words in answer.error
    dog.after(1)


def test_pictures_are_decoded_one_at_a_time(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    served = serve()
    decoding = threading.Semaphore(1)

    def decode(data: bytes) -> Any:
        assert decoding.acquire(blocking=False)
        try:
            time.sleep(0.1)  # the others come meanwhile
            return decode_picture(data)
        finally:
            decoding.release()

    monkeypatch.setattr(single_image, "decode_picture", decode)
    with ThreadPoolExecutor(12) as pool:
        statuses = list(pool.map(lambda _: served.request("POST", "/api/frame", encoded()).status, range(12)))
    assert set(statuses) <= {200, 503}
    assert 200 in statuses


def test_pictures_that_are_being_received_are_limited_together(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    served = serve()
    monkeypatch.setattr(single_image, "_MOST_RECEIVED", 1000)
    head = b"POST /api/frame HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2000\r\n\r\n"
    with socket.create_connection(("127.0.0.1", served.port), timeout=10) as connection:
        connection.sendall(head + bytes(900))
        wait_until(lambda: served.live.single_images._received == 900)
        answer = served.request("POST", "/api/frame", bytes(101))
        assert (answer.status, "waiting already" in answer.error) == (503, True)
    wait_until(lambda: served.live.single_images._received == 0)
    assert "not a JPEG" in served.request("POST", "/api/frame", bytes(101)).error


def test_a_frame_that_is_too_long_is_refused_by_its_stated_length(dog: Served) -> None:
    head = b"POST /api/frame HTTP/1.1\r\nHost: localhost\r\nContent-Length: 17000000\r\n\r\n"
    with socket.create_connection(("127.0.0.1", dog.port), timeout=10) as connection:
        connection.sendall(head)  # nothing of the body
        told = connection.recv(4096)
    assert told.startswith(b"HTTP/1.1 413")


def test_health_status_snapshot_and_missing_routes(dog: Served) -> None:
    dog.after(2)
    health = dog.request("GET", "/api/health").json
    assert (health["status"], health["state"], health["model"]["bundle"]) == ("ok", "playing", "tiny")
    status = dog.request("GET", "/api/status").json
    assert set(status["stages_ms"]) >= {"backbone", "gating"}
    snapshot = cv2.imdecode(np.frombuffer(dog.request("GET", "/api/snapshot").body, np.uint8), cv2.IMREAD_COLOR)
    assert snapshot is not None
    assert snapshot.shape == (96, 128, 3)
    assert "there is nothing here" in dog.request("GET", "/api/nothing").error
    assert dog.request("GET", "/page/../live.py").status == 404
    assert dog.request("GET", "/page/%2e%2e/live.py").status == 404
    wrong = dog.request("DELETE", "/api/queries")
    assert (wrong.status, "DELETE is not possible" in wrong.error) == (405, True)
    assert dog.request("GET", "/api/recordings/nothing.mp4").status == 404


def test_metrics_are_in_prometheus_form(dog: Served) -> None:
    dog.after(3)
    dog.request("GET", "/api/health")
    families = {
        family.name: family for family in text_string_to_metric_families(dog.request("GET", "/metrics").body.decode())
    }
    assert families["rvos_edge_frames"].samples[0].value >= 3
    stages = {sample.labels["stage"] for sample in families["rvos_edge_stage_seconds"].samples}
    assert {"backbone", "gating", "flow_step"} <= stages
    counted = {tuple(sample.labels.values()) for sample in families["rvos_edge_http_requests"].samples}
    assert ("GET", "/api/health", "200") in counted
    assert families["rvos_edge_queries"].samples[0].value == 1


def test_openapi_describes_every_route(dog: Served) -> None:
    dog.after(1)
    document = dog.request("GET", "/api/openapi.json").json
    assert document["openapi"] == "3.1.0"
    described = {(method.upper(), path) for path, methods in document["paths"].items() for method in methods}
    assert {("PUT", "/api/queries"), ("POST", "/api/frame"), ("GET", "/metrics")} <= described
    for method, path in described:
        if method == "GET" and "{" not in path and path != "/api/mjpeg":  # which does not end
            assert dog.request(method, path).status == 200, path
    text = json.dumps(document)
    for reference in [part.split('"')[0] for part in text.split('"#/components/schemas/')[1:]]:
        assert reference in document["components"]["schemas"]
    assert set(document["paths"]["/api/frame"]["post"]["responses"]) == {"200", "default"}
    for path in ("/docs", "/redoc"):  # their pages would load scripts from elsewhere
        assert dog.request("GET", path).status == 404
    assert b"//" not in dog.request("GET", "/").body


def test_sizes_of_pictures() -> None:
    assert picture_size(encoded(suffix=".png")) == (96, 128)
    assert picture_size(encoded(suffix=".jpg")) == (96, 128)
    assert picture_size(b"\xff\xd8\xff\xff\xff\xff") is None
    assert picture_size(b"\xff\xd8\xff\xe0\0\0\0\0\0\0\0\0") is None
