"""Clients that are slow, silent or many do not keep the server from the others."""

from __future__ import annotations

import socket
from contextlib import ExitStack, closing

import numpy as np
import pytest
from support.served import Serve, Served, wait_until
from websockets.sync.client import connect

from rvos_edge.server import connections, guard
from rvos_edge.server.address import network_of
from rvos_edge.server.broadcast import Shown

GET = b"GET /api/health HTTP/1.1\r\nHost: localhost\r\n\r\n"


def opened(served: Served, sent: bytes = b"") -> closing[socket.socket]:
    connection = socket.create_connection(("127.0.0.1", served.port), timeout=20)
    connection.sendall(sent)
    return closing(connection)


def ended(connection: socket.socket) -> bytes:
    """Everything until the server ends the connection."""
    told = b""
    try:
        while data := connection.recv(4096):
            told += data
    except ConnectionResetError:
        pass
    return told


def test_silent_connections_do_not_shut_out_others(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "MOST_PER_ADDRESS", 6)
    monkeypatch.setattr(connections, "HEAD_SECONDS", 1e6)
    served = serve()
    with ExitStack() as stack:
        silent = [stack.enter_context(opened(served, sent)) for sent in (b"", b"GET / HTTP/1.1\r\n") * 6]
        for _ in range(8):
            assert served.request("GET", "/api/health").status == 200
        assert ended(silent[0]) == b""


def test_an_address_has_its_own_limit(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "MOST_PER_ADDRESS", 3)
    served = serve()
    with ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(connect(f"ws://127.0.0.1:{served.port}/api/frames", compression=None)).recv(20)
        answer = served.request("GET", "/api/health")
        assert (answer.status, "too many connections" in answer.error) == (503, True)
        assert served.request("GET", "/api/health", sender="127.0.0.2").status == 200
    wait_until(lambda: served.live.hub.viewers == 0)
    assert served.request("GET", "/api/health").status == 200


def test_networks_count_as_one_address() -> None:
    assert network_of(("2001:db8::1", 1)) == network_of(("2001:db8::2", 2)) != network_of(("2001:db8:0:1::1", 1))
    assert network_of(("::ffff:203.0.113.7", 1)) == network_of(("203.0.113.7", 1)) == "203.0.113.7"
    assert network_of(None) == ""


@pytest.mark.parametrize("sent", [b"", b"GET / HTTP/1.1\r\nHost: loc", GET + b"GET"])
def test_a_head_that_does_not_come_ends_the_connection(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    monkeypatch.setattr(connections, "HEAD_SECONDS", 0.1)
    served = serve()
    with opened(served, sent) as connection:
        assert ended(connection).startswith(b"HTTP/1.1 200") == sent.startswith(GET)


def test_a_body_that_does_not_come_is_not_waited_for(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "BODY_SECONDS", 0.1)
    monkeypatch.setattr(connections, "HEAD_SECONDS", 0.1)
    served = serve("the dog")
    for route in (b"PUT /api/queries", b"POST /api/frame", b"POST /api/clips"):
        head = route + b" HTTP/1.1\r\nHost: localhost\r\nContent-Length: 50\r\n\r\n"
        with opened(served, head + b'{"queries": [') as connection:
            told = ended(connection)
        assert told.startswith(b"HTTP/1.1 408"), told
        assert b"too slowly" in told
    assert served.after(1).queries == ("the dog",)
    assert list(served.live.library.folder.iterdir()) == []


def test_an_answer_that_is_not_read_ends_the_connection(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "STALL_SECONDS", 0.1)
    noise = np.random.default_rng(0).integers(0, 255, (1500, 2000, 3), np.uint8)
    served = serve()
    served.after(1)
    monkeypatch.setattr(Shown, "draw", lambda self, legend=False: noise)
    with opened(served, GET.replace(b"health", b"snapshot")) as connection:
        state = served.page_server._server.server_state
        wait_until(lambda: state.connections)
        wait_until(lambda: not state.connections)  # it left although the client is still there
        assert len(ended(connection)) < noise.size


def test_wrong_tokens_are_slowed_down(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "GUESS_SECONDS", 60.0)
    served = serve(token="correct horse")
    right, wrong = ({"authorization": f"Bearer {word} horse"} for word in ("correct", "wrong"))
    cookie = {"cookie": served.request("GET", "/?token=correct+horse").headers["set-cookie"].partition(";")[0]}
    assert served.request("GET", "/api/health", headers=wrong).status == 401
    for headers in (wrong, right):  # nobody learns whether it is right
        answer = served.request("GET", "/api/health", headers=headers)
        assert (answer.status, "too many wrong tokens" in answer.error) == (429, True)
    assert served.request("GET", "/api/health", headers=cookie).status == 200
    assert served.request("GET", "/api/health", headers=right, sender="127.0.0.2").status == 200
