"""The guard before the application, and the addresses it serves: tokens, hosts and origins."""

from __future__ import annotations

import pytest
from support.served import Serve, Served

from rvos_edge.errors import UserError
from rvos_edge.server import guard
from rvos_edge.server.address import Address, check_token, parse_address

JSON = {"content-type": "application/json"}


def test_requests_of_another_origin_change_nothing(serve: Serve) -> None:
    served = serve("the dog")
    body = {"queries": ["a cat"]}
    for origin in ("http://evil.example", "null", f"http://127.0.0.1:{served.port + 1}"):
        answer = served.request("PUT", "/api/queries", body, {"origin": origin})
        assert (answer.status, "another origin" in answer.error) == (403, True)
    own = f"http://127.0.0.1:{served.port}"
    assert served.request("PUT", "/api/queries", body, {"origin": own}).status == 200


def test_foreign_host_names_are_refused(dog: Served) -> None:
    for host in ("evil.example", f"evil.example:{dog.port}", "127.0.0.1.evil.example", ""):
        answer = dog.request("GET", "/api/status", headers={"host": host})
        assert (answer.status, "localhost" in answer.error) == (403, True)
    for host in ("localhost", "LOCALHOST:9", "127.0.0.1", "[::1]:8000"):
        assert dog.request("GET", "/api/status", headers={"host": host}).status == 200


def test_the_token_is_asked_for(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "GUESS_SECONDS", 0.0)
    token = "correct horse"
    served = serve(token=token)
    assert served.url == f"http://127.0.0.1:{served.port}/"
    for headers in ({}, {"authorization": "Bearer wrong horse"}, {"authorization": "Basic x"}, {"cookie": "a=b"}):
        answer = served.request("GET", "/api/status", headers=headers)
        assert (answer.status, "token" in answer.error) == (401, True)
    bearer = {"authorization": f"Bearer {token}", "host": "camera.example"}
    assert served.request("GET", "/api/status", headers=bearer).status == 200
    page = served.request("GET", "/")
    assert (page.status, b"<form" in page.body, b"main.js" in page.body) == (401, True, False)
    assert b"not the token" in served.request("GET", "/?token=wrong").body
    assert served.request("POST", "/session", b"token=" + b"x" * 9000).status == 401
    for shown in (
        served.request("GET", "/?token=correct+horse"),
        served.request("POST", "/session", b"token=correct+horse"),
    ):
        assert (shown.status, shown.headers["location"]) == (303, "./")
        cookie = shown.headers["set-cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=strict" in cookie
        assert token not in cookie
        assert served.request("GET", "/", headers={"cookie": cookie.partition(";")[0]}).status == 200


@pytest.mark.parametrize(
    ("written", "address"),
    [
        ("8080", Address("127.0.0.1", 8080)),
        (":8080", Address("127.0.0.1", 8080)),
        ("localhost", Address("localhost", 8000)),
        ("0.0.0.0:9000", Address("0.0.0.0", 9000)),
        ("[::1]:9000", Address("::1", 9000)),
    ],
)
def test_addresses(written: str, address: Address) -> None:
    assert parse_address(written) == address
    assert address.loopback == (address.host != "0.0.0.0")


@pytest.mark.parametrize("written", ["", "a b", "host:", "host:99999", "host:port", "::1", "http://host:80/"])
def test_invalid_addresses_are_refused(written: str) -> None:
    with pytest.raises(UserError, match="write it as HOST:PORT"):
        parse_address(written)


def test_beyond_loopback_only_with_a_token() -> None:
    for host in ("0.0.0.0", "::", "192.168.0.7", "camera.example"):
        with pytest.raises(UserError, match="add --token"):
            check_token(Address(host), None)
        check_token(Address(host), "long enough")
    check_token(Address("127.0.0.1"), None)
    with pytest.raises(UserError, match="at least 8"):
        check_token(Address("127.0.0.1"), "short")


def test_a_taken_port_is_refused(serve: Serve) -> None:
    served = serve()
    with pytest.raises(UserError, match="cannot be used"):
        serve(address=Address(port=served.port))
