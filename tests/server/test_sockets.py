"""WebSockets: pictures for viewers, status and edits for pages; neither slows the stream down."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import cv2
import numpy as np
import pytest
from support.served import Serve, Served, wait_until
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.frames import Frame, Opcode
from websockets.sync.client import ClientConnection, connect


def viewer(served: Served, **options: Any) -> ClientConnection:
    return connect(f"ws://127.0.0.1:{served.port}/api/frames", compression=None, max_size=None, **options)


def page(served: Served, **options: Any) -> ClientConnection:
    return connect(f"ws://127.0.0.1:{served.port}/api/live", compression=None, **options)


def ask(connection: ClientConnection, edit: dict[str, Any] | str) -> dict[str, Any]:
    """The answer to an edit, past whatever status comes first."""
    connection.send(edit if isinstance(edit, str) else json.dumps(edit))
    return next(told for told in iter(lambda: json.loads(connection.recv(10)), None) if told["type"] != "status")


def drain(connection: ClientConnection) -> None:
    """Read until the connection ends, which raises."""
    while True:
        connection.recv(10)


def stalled(served: Served, messages: bytes = b"") -> socket.socket:
    """Viewer that asks and never reads; its receive window is small and fills at once."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.connect(("127.0.0.1", served.port))
    connection.sendall(
        b"GET /api/frames HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n" + messages
    )
    return connection


def test_two_viewers_get_pictures_of_the_size_of_the_frame(dog: Served) -> None:
    with viewer(dog) as first, viewer(dog) as second:
        for connection in (first, second):
            for _ in range(4):
                data = connection.recv(10)
                assert isinstance(data, bytes)
                image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
                assert image is not None
                assert image.shape == (96, 128, 3)
                connection.send("next")
        assert dog.request("GET", "/api/status").json["viewers"] == 2
    wait_until(lambda: dog.live.hub.viewers == 0)


def test_pictures_come_only_when_asked_for(dog: Served) -> None:
    with viewer(dog) as connection:
        for _ in range(2):
            connection.recv(10)
        dog.after(10)
        with pytest.raises(TimeoutError):
            connection.recv(0.05)
        connection.send("next")
        connection.recv(10)


def test_a_viewer_of_a_paused_stream_sees_the_last_picture(serve: Serve) -> None:
    served = serve("the dog")
    with page(served) as controls:
        ask(controls, {"settings": {"paused": True}})
        wait_until(lambda: served.live.controls.shown.settings.paused)
        with viewer(served) as connection:
            assert connection.recv(10)


def test_viewers_that_stop_reading_hold_up_neither_the_loop_nor_the_others(serve: Serve) -> None:
    served = serve("the dog")
    asks = b"\x81\x80\0\0\0\0" * 100  # empty messages: "next"
    with viewer(served) as reader, ExitStack() as stack:
        for messages in (b"", b"", asks, asks):
            stack.enter_context(stalled(served, messages))
        wait_until(lambda: served.live.hub.viewers == 5)
        for _ in range(30):
            reader.recv(10)
            reader.send("next")
        served.after(30)


def test_viewers_that_leave_are_not_counted(dog: Served) -> None:
    for number in range(12):
        with viewer(dog) as connection:
            if number % 2:
                connection.socket.close()  # without a word
            else:
                connection.recv(10)
    wait_until(lambda: dog.live.hub.viewers == 0)
    dog.after(2)


def test_too_many_viewers_are_sent_away(dog: Served) -> None:
    with ExitStack() as stack:
        for _ in range(32):
            stack.enter_context(viewer(dog))
        wait_until(lambda: dog.live.hub.viewers == 32)
        with pytest.raises((InvalidStatus, ConnectionClosed)), viewer(dog) as one_more:
            one_more.recv(10)
        dog.after(2)


def test_status_and_edits(serve: Serve) -> None:
    served = serve("the dog")
    with page(served) as connection:
        status = json.loads(connection.recv(10))
        assert (status["type"], status["queries"][0]["text"]) == ("status", "the dog")
        told = ask(connection, {"id": 7, "queries": ["a red ball"], "settings": {"opacity": 0.25}})
        assert (told["type"], told["id"]) == ("taken", 7)
        assert served.settle(told["revision"]).queries == ("a red ball",)
        status = json.loads(connection.recv(10))
        assert (status["settings"]["opacity"], status["queries"][0]["text"]) == (0.25, "a red ball")


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        ({"queries": [""]}, "query 1 is empty"),
        ({"queries": ["a " * 100]}, "at most 16"),
        ({"settings": {"opacity": 2}}, "opacity"),
        ({"settings": [1]}, "settings"),
        ({"colour": 1}, "'colour' is not known"),
        ("{", "JSON"),
        ("[]", "the body"),
        ("[" * 10_000, "JSON"),
    ],
)
def test_bad_edits_are_refused_in_a_sentence(dog: Served, edit: Any, words: str) -> None:
    with page(dog) as connection:
        told = ask(connection, edit)
        assert told["type"] == "refused"
        assert words in told["error"]
        assert ask(connection, {"settings": {}})["type"] == "taken"  # the connection lives on
    assert dog.after(2).queries == ("the dog",)


def test_a_message_of_100_000_characters_ends_its_connection_alone(serve: Serve) -> None:
    served = serve("the dog")
    with page(served) as other, page(served) as connection:
        connection.send(json.dumps({"queries": ["x" * 100_000]}))
        with pytest.raises(ConnectionClosed) as closed:
            drain(connection)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1009  # message too big
        assert ask(other, {"queries": ["a cat"]})["type"] == "taken"


def test_an_edit_with_a_bad_half_changes_nothing(dog: Served) -> None:
    with page(dog) as connection:
        told = ask(connection, {"id": 4, "queries": ["a cat"], "settings": {"opacity": 7}})
    assert (told["type"], told["id"]) == ("refused", 4)
    assert dog.after(2).queries == ("the dog",)


@pytest.mark.parametrize("open_socket", [viewer, page])
@pytest.mark.parametrize(
    ("frame", "code"), [(Frame(Opcode.BINARY, b"next"), 1003), (Frame(Opcode.TEXT, b"\xff\xfe"), 1007)]
)
def test_messages_that_are_no_text_close_their_socket_quietly(
    dog: Served, caplog: pytest.LogCaptureFixture, open_socket: Callable[..., ClientConnection], frame: Frame, code: int
) -> None:
    with open_socket(dog) as connection:
        connection.recv(10)
        connection.socket.sendall(frame.serialize(mask=True))
        with pytest.raises(ConnectionClosed) as closed:
            drain(connection)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == code
    assert caplog.records == []


def test_200_edits_are_taken_and_only_the_newest_is_done(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    from rvos_edge.text import TextEncoder

    served = serve("the dog")
    encoded: list[str] = []
    run = TextEncoder._run

    def counted(self: TextEncoder, query: str) -> Any:
        encoded.append(query)
        time.sleep(0.02)  # as long as a real text model takes
        return run(self, query)

    monkeypatch.setattr(TextEncoder, "_run", counted)
    frames = served.live.telemetry.frames
    with page(served) as connection:
        start = time.perf_counter()
        for number in range(200):
            connection.send(json.dumps({"id": number, "queries": [f"the dog {number}"]}))
        taken = [ask(connection, {"id": 200, "queries": ["a red ball"]})]
        while taken[-1]["id"] != 200:
            told = json.loads(connection.recv(10))
            if told["type"] != "status":
                taken.append(told)
        seconds = time.perf_counter() - start
    assert all(told["type"] == "taken" for told in taken)
    assert served.settle(taken[-1]["revision"]).queries == ("a red ball",)
    done = served.live.telemetry.frames - frames
    assert len(encoded) <= done + 1  # one at most per frame, whatever was typed in between
    assert len(encoded) < 150, f"{len(encoded)} of 201 were encoded in {seconds:.1f} s and {done} frames"


def test_queries_in_any_script_are_kept(serve: Serve) -> None:
    served = serve("the dog")
    queries = [
        "الكلب الأحمر على اليسار",
        "הכלב הגדול",
        "左边的红色小狗",
        "der große Hund",
        "a \N{DOG FACE} \N{ZERO WIDTH JOINER}",
    ]
    with page(served) as connection:
        told = ask(connection, {"queries": queries})
        assert served.settle(told["revision"]).queries == tuple(queries)
    rows = served.request("GET", "/api/queries").json["queries"]
    assert [row["text"] for row in rows] == queries
    served.request("PUT", "/api/settings", {"flow": True})
    assert served.request("GET", "/api/snapshot").status == 200  # drawn, in whatever letters there are


def test_sockets_need_token_and_origin(serve: Serve) -> None:
    served = serve(token="correct horse")
    for open_socket in (viewer, page):
        with pytest.raises(InvalidStatus, match="401"), open_socket(served):
            pass
        bearer = {"Authorization": "Bearer correct horse"}
        evil = {"additional_headers": bearer, "origin": "http://evil.example"}
        with pytest.raises(InvalidStatus, match="403"), open_socket(served, **evil):
            pass
        with open_socket(served, additional_headers=bearer) as connection:
            assert connection.recv(10)
