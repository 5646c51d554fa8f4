"""Several cameras in one process: one model, one page."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families
from support.served import Collector, Pictures, Served, fetch, picture, wait_until
from typer.testing import CliRunner, Result

from rvos_edge.cli import app
from rvos_edge.cli.cameras import InTurn, _Stream
from rvos_edge.segmenter import Segmenter
from rvos_edge.server.address import Address, ServerOptions
from rvos_edge.server.app import LiveServer
from rvos_edge.server.live import Live
from rvos_edge.streaming.sinks import JsonSink
from rvos_edge.streaming.sources import Frame


def run(folder: Path, tiny: Path, cameras: dict[str, Any], **shared: Any) -> Result:
    file = folder / "cameras.yaml"
    options = {"bundle": str(tiny), "backend": "onnxruntime", "threads": 1, "serve": "127.0.0.1:0", **shared}
    file.write_text(yaml.safe_dump({**options, "cameras": cameras}))
    return CliRunner().invoke(app, ["run", "--config", str(file)])


def test_each_camera_has_its_own_queries_and_outputs(tiny: Path, tmp_path: Path) -> None:
    cameras = {
        "door": {"source": "synthetic:1", "json": str(tmp_path / "door.jsonl"), "frames": 4},
        "yard": {
            "source": "synthetic:2",
            "json": str(tmp_path / "yard.jsonl"),
            "frames": 3,
            "query": ["a cat", "a dog"],
        },
    }
    result = run(tmp_path, tiny, cameras, query=["the dog"])
    assert result.exit_code == 0, result.output
    lines = {name: [json.loads(line) for line in (tmp_path / f"{name}.jsonl").open()] for name in cameras}
    assert {name: len(found) for name, found in lines.items()} == {"door": 4, "yard": 3}
    assert [query["text"] for query in lines["door"][0]["queries"]] == ["the dog"]
    assert [query["text"] for query in lines["yard"][0]["queries"]] == ["a cat", "a dog"]
    assert "The page is at http://127.0.0.1:" in result.stderr


def test_a_signal_waits_for_slow_outputs(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write, close, end = JsonSink.write, JsonSink.close, _Stream.end
    ended: list[bool] = []

    def interrupting(sink: JsonSink, frame: Frame, *rest: Any) -> None:
        write(sink, frame, *rest)
        if frame.index == 1:
            signal.raise_signal(signal.SIGINT)

    def slow(sink: JsonSink) -> None:
        time.sleep(0.1)
        close(sink)

    def ending(stream: _Stream) -> None:
        end(stream)
        ended.append(stream.summary is not None)

    monkeypatch.setattr(_Stream, "end", ending)
    monkeypatch.setattr(JsonSink, "write", interrupting)
    monkeypatch.setattr(JsonSink, "close", slow)
    cameras = {"door": {"source": "synthetic:1", "json": str(tmp_path / "door.jsonl")}, "yard": {"source": "synthetic"}}
    result = run(tmp_path, tiny, cameras, query=["the dog"], segment="9999d")
    assert result.exit_code == 0, result.output
    assert ended == [True, True]
    assert len(list(tmp_path.glob("door-*.jsonl"))) == 1, "and the camera without outputs takes no segments amiss"


@pytest.mark.parametrize(
    ("cameras", "words"),
    [
        ({}, "names none"),
        ({"api": {"source": "0"}}, "needs another name"),
        ({"a b": {"source": "0"}}, "needs another name"),
        ({"door": {"source": "synthetic", "backend": "openvino"}}, "is for all cameras"),
        ({"door": {"source": "synthetic", "certificate": "a.pem"}}, "certificate is for all cameras"),
        ({"door": {"source": "synthetic", "window": True}}, "--window"),
        ({"door": {"sauce": "synthetic"}}, "there is no option 'cameras.door.sauce'"),
        ({"door": {"query": ["a dog"]}}, "door: there is no source"),
        ({"a": {"source": "synthetic", "json": "o"}, "b": {"source": "synthetic", "json": "o"}}, "of a and of b"),
    ],
)
def test_bad_files_are_refused(tiny: Path, tmp_path: Path, cameras: dict[str, Any], words: str) -> None:
    result = run(tmp_path, tiny, cameras)
    assert result.exit_code == 2, result.output
    assert words in result.stderr


def test_siblings_share_the_graphs_and_nothing_else(open_tiny: Callable[..., Segmenter]) -> None:
    alone, first = open_tiny(), open_tiny()
    second = first.sibling()
    assert second is not None
    assert second._chain.graphs["gating"]._session is first._chain.graphs["gating"]._session  # type: ignore[attr-defined]
    for segmenter, query in ((alone, "the dog"), (first, "the dog"), (second, "a red cat")):
        segmenter.set_queries([query])
    for index in range(3):  # two videos in turn are what each is alone
        expected, got = alone.step(picture(index)), first.step(picture(index))
        other = second.step(picture(7 * index))
        np.testing.assert_array_equal(got.margins, expected.margins)
        assert (got.queries, other.queries) == (("the dog",), ("a red cat",))


@pytest.fixture
def two(open_tiny: Callable[..., Segmenter]) -> Iterator[tuple[LiveServer, dict[str, Live]]]:
    """Two served streams of which nothing plays yet."""
    lives = {}
    for name in ("door", "yard"):
        segmenter = open_tiny()
        segmenter.set_queries(["the dog"])
        lives[name] = Live(segmenter, Pictures(name=name), reopen=Pictures, stills=open_tiny)
    with LiveServer(lives, ServerOptions(Address(port=0), base_path="/home")) as server:
        yield server, lives


def test_the_page_of_a_camera_asks_for_the_token_too(open_tiny: Callable[..., Segmenter]) -> None:
    segmenter = open_tiny()
    live = Live(segmenter, Pictures(), reopen=Pictures, stills=open_tiny)
    with LiveServer({"door": live}, ServerOptions(Address(port=0), "correct horse")) as server:
        served = Served(live, server, Collector(1))
        page = served.request("GET", "/door/")
        assert (page.status, b'action="session"' in page.body) == (401, True)
        assert served.request("GET", "/door/page/style.css").status == 200
        assert served.request("GET", "/door/page/main.js").status == 401
        typed = served.request("POST", "/door/session", b"token=correct+horse")
        assert (typed.status, typed.headers["location"]) == (303, "./")
        cookie = {"cookie": typed.headers["set-cookie"].partition(";")[0]}
        for path in ("/", "/door/", "/door/api/status"):
            assert served.request("GET", path, headers=cookie).status == 200


def test_one_page_leads_to_all_cameras(two: tuple[LiveServer, dict[str, Live]]) -> None:
    server, lives = two
    lives["yard"].player.trouble = "the camera is lost."
    cameras = json.loads(fetch(f"{server.url}api/cameras")[1])["cameras"]
    assert [(camera["name"], camera["trouble"]) for camera in cameras] == [
        ("door", ""),
        ("yard", "the camera is lost."),
    ]
    with pytest.raises(OSError, match="503"):
        fetch(f"{server.url}api/health")
    assert b"cameras.js" in fetch(server.url)[1]
    assert fetch(f"{server.url}door")[0] == f"{server.url}door/"
    assert b"main.js" in fetch(f"{server.url}door/")[1]
    assert fetch(f"{server.url}door/page/main.js")[1]
    assert json.loads(fetch(f"{server.url}door/api/status")[1])["state"] == "starting"
    families = text_string_to_metric_families(fetch(f"{server.url}metrics")[1].decode())
    frames = next(family for family in families if family.name == "rvos_edge_frames")
    totals = {sample.labels["camera"] for sample in frames.samples if sample.name.endswith("_total")}
    assert totals == {"door", "yard"}


def test_the_model_serves_all_in_the_order_in_which_they_ask() -> None:
    served: list[str] = []
    free = threading.Event()

    class Stepper:
        queries = ()

        def __init__(self, name: str) -> None:
            self.name = name

        def step(self, frame: Any) -> None:
            free.wait(20)
            served.append(self.name)

    with ThreadPoolExecutor(1) as model:
        threads = [threading.Thread(target=InTurn(Stepper(name), model).step, args=[None]) for name in "caba"]  # type: ignore
        for waiting, thread in enumerate(threads):
            thread.start()
            wait_until(lambda waiting=waiting: model._work_queue.qsize() == waiting)  # one is being served
        free.set()
        for thread in threads:
            thread.join()
    assert served == list("caba")
