"""The page behind a proxy: below a path, by the recipes in examples/deploy."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.served import Serve, Served, fetch, wait_until
from websockets.sync.client import connect

from rvos_edge.errors import UserError
from rvos_edge.server.address import Address, check_base_path

DEPLOY = Path(__file__).parents[2] / "examples" / "deploy"
TOKEN = {"authorization": "Bearer correct horse"}


def get(url: str) -> tuple[str, bytes]:
    return fetch(url, TOKEN)


def check_page(url: str, host: str) -> None:
    """Page, API, changes and both WebSockets at ``url``, which ends in a slash."""
    assert get(url.rstrip("/"))[0] == url, "the links of the page are relative"
    page = get(url)[1].decode()
    for link in re.findall(r'(?:href|src)="([^":]+)"', page):
        assert not link.startswith("/")
        assert get(url + link)[1]
    origin = f"http://{host}"
    change = urllib.request.Request(
        f"{url}api/queries", b'{"queries": ["a cat"]}', {**TOKEN, "origin": origin}, method="PUT"
    )
    with urllib.request.urlopen(change, timeout=20) as answer:
        assert [row["text"] for row in json.load(answer)["queries"]] == ["a cat"]
    socket_url = url.replace("http", "ws", 1)
    with connect(f"{socket_url}api/live", additional_headers=TOKEN, origin=origin, compression=None) as live:
        assert json.loads(live.recv(20))["type"] == "status"
    with connect(f"{socket_url}api/frames", additional_headers=TOKEN, origin=origin, compression=None) as frames:
        data = frames.recv(20)
        assert isinstance(data, bytes)
        assert data[:2] == b"\xff\xd8"
    assert json.loads(get(f"{url}api/openapi.json")[1])["servers"] == [{"url": "/cam1"}]


def test_a_prefix_may_be_taken_off_by_the_proxy_or_not(serve: Serve) -> None:
    served = serve("the dog", token="correct horse", base_path="/cam1")
    assert served.url.endswith("/cam1/")
    served.after(1)
    check_page(served.url, f"127.0.0.1:{served.port}")
    assert served.request("GET", "/api/health", headers=TOKEN).status == 200
    assert served.request("GET", "/cam10/api/health", headers=TOKEN).status == 404
    # Typed once, the token leads to the page and its cookie opens it.
    typed = served.request("POST", "/cam1/session", b"token=correct+horse")
    assert (typed.status, typed.headers["location"]) == (303, "./")
    cookie = {"cookie": typed.headers["set-cookie"].partition(";")[0]}
    assert served.request("GET", "/cam1/api/health", headers=cookie).status == 200


@pytest.mark.parametrize("path", ["cam1", "/cam 1", "/cam1?", "//x", "/../etc"])
def test_what_is_no_path_is_refused(path: str) -> None:
    with pytest.raises(UserError, match="write it as /cam1"):
        check_base_path(path)


def test_ipv6_is_served(serve: Serve) -> None:
    try:
        served = serve("the dog", address=Address("::1", 0))
    except UserError:
        pytest.skip("needs IPv6")
    assert served.url == f"http://[::1]:{served.port}/"
    assert json.loads(fetch(f"{served.url}api/health")[1])["status"] == "ok"


@contextmanager
def program(command: list[str], port: int) -> Iterator[None]:
    """A proxy, from when it listens until the end."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:

        def listens() -> bool:
            assert process.poll() is None, process.communicate()[0]
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", port)) == 0

        wait_until(listens)
        yield
    finally:
        process.terminate()
        process.communicate(timeout=20)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


def proxied(serve: Serve) -> Served:
    served = serve("the dog", token="correct horse", base_path="/cam1")
    served.after(1)
    return served


def test_the_recipe_for_nginx(serve: Serve, tmp_path: Path) -> None:
    nginx = shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")
    if nginx is None:
        pytest.skip("needs nginx: apt-get install nginx")
    served, port = proxied(serve), free_port()
    recipe = (DEPLOY / "nginx.conf").read_text()
    ours = ("http://127.0.0.1:8000;", f"http://127.0.0.1:{served.port};")
    for written, tried in (("listen 80;", f"listen 127.0.0.1:{port};"), ours):
        assert written in recipe
        recipe = recipe.replace(written, tried)
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    places = "".join(f"{kind}_temp_path {tmp_path / kind};\n" for kind in kinds)
    head = f"daemon off; master_process off; pid {tmp_path / 'pid'}; error_log stderr; events {{}}\n"
    (tmp_path / "nginx.conf").write_text(f"{head}http {{ access_log off;\n{places}{recipe}}}\n")
    with program([nginx, "-c", str(tmp_path / "nginx.conf"), "-e", "stderr"], port):
        check_page(f"http://127.0.0.1:{port}/cam1/", f"127.0.0.1:{port}")


def test_the_recipe_for_caddy(serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    caddy = shutil.which("caddy")
    if caddy is None:
        pytest.skip("needs Caddy: apt-get install caddy")
    served, port = proxied(serve), free_port()
    recipe = (DEPLOY / "Caddyfile").read_text()
    site = ("cameras.example.org {", f"http://127.0.0.1:{port} {{")
    for written, tried in (site, (":8000\n}", f":{served.port}\n}}")):
        assert written in recipe
        recipe = recipe.replace(written, tried)
    (tmp_path / "Caddyfile").write_text("{\n\tadmin off\n}\n" + recipe)
    for name in ("HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME"):
        monkeypatch.setenv(name, str(tmp_path))
    with program([caddy, "run", "--config", str(tmp_path / "Caddyfile"), "--adapter", "caddyfile"], port):
        check_page(f"http://127.0.0.1:{port}/cam1/", f"127.0.0.1:{port}")


def test_the_health_check_of_the_container(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    served = serve("the dog", token="correct horse")
    written = re.search(r"^HEALTHCHECK .*?CMD (\[.*\])$", (DEPLOY / "Dockerfile").read_text(), re.MULTILINE)
    assert written is not None
    python, *arguments = json.loads(written[1])
    assert python == "python"
    command = [sys.executable, *(part.replace("8000", str(served.port)) for part in arguments)]
    monkeypatch.setenv("RVOS_EDGE_TOKEN", "correct horse")
    assert subprocess.run(command, timeout=60).returncode == 0
    served.live.player.trouble = "the camera is lost."
    refused = subprocess.run(command, timeout=60, stdout=subprocess.PIPE, text=True)
    assert (refused.returncode, "the camera is lost." in refused.stdout) == (1, True)
