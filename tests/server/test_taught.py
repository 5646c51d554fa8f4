"""Queries that are taught while a stream runs: shown, learned, corrected, taken back, downloaded and uploaded."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any
from urllib.parse import quote

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from support.served import SIZE, Serve, Served, Square, picture, wait_until

from rvos_edge import TaughtQuery
from rvos_edge.server import taught as module
from rvos_edge.server.taught import TaughtQueries

JSON = {"content-type": "application/json"}


def png(mask: NDArray[np.bool_]) -> bytes:
    return cv2.imencode(".png", 255 * mask.view(np.uint8))[1].tobytes()


def keep(served: Served) -> Any:
    """Keep a frame, once there is one."""
    served.after(1)
    return served.request("POST", "/api/shown").json


def answers(served: Served, queries: tuple[str, ...]) -> None:
    """Wait until the frames are answered for these queries."""
    wait_until(lambda: served.after(1).queries == queries)


def show(served: Served, mask: NDArray[np.bool_] | None = None, name: str = "my mug", like: str = "the dog") -> Any:
    """Show the bright part of the newest frame, or a mask, and wait until it is learned."""
    kept = keep(served)
    if mask is None:
        data = served.request("GET", f"/api/shown/{kept['frame']}").body
        mask = np.asarray(cv2.imdecode(np.frombuffer(data, np.uint8), 0)) > 140
    path = f"/api/learn?frame={kept['frame']}&name={quote(name)}&like={quote(like)}"
    answer = served.request("POST", path, png(mask))
    wait_until(lambda: not served.live.taught.learning)
    return answer


def rows(served: Served) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = served.request("GET", "/api/taught").json["taught"]
    return found


def texts(served: Served) -> list[str]:
    return [row["text"] for row in served.request("GET", "/api/queries").json["queries"]]


def test_what_is_shown_is_learned_and_asked_in_place_of_its_sentence(serve: Serve) -> None:
    served = serve("the dog", "a red ball")
    before = served.after(1)
    answer = show(served)
    assert (answer.status, answer.json) == (202, {"learning": "my mug"})
    assert texts(served) == ["@my mug", "a red ball"]
    answers(served, ("my mug", "a red ball"))
    after = served.after(1)
    assert after.index > before.index  # the video went on
    (row,) = rows(served)
    assert (row["name"], row["sentence"], row["shots"]) == ("my mug", "the dog", 1)
    assert row["j"] >= row["sentence_j"]


def test_the_stream_runs_while_it_learns_and_one_learns_at_a_time(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    go = threading.Event()
    real = TaughtQueries._teach

    def slow(*arguments: Any) -> TaughtQuery:
        assert go.wait(20)
        return real(*arguments)

    monkeypatch.setattr(TaughtQueries, "_teach", slow)
    served = serve("the dog")
    frame = keep(served)["frame"]
    mask = png(picture(0)[..., 0] > 140)
    assert served.request("POST", f"/api/learn?frame={frame}&name=one", mask).status == 202
    assert served.request("GET", "/api/status").json["learning"] == "one"
    served.after(3)
    again = served.request("POST", f"/api/learn?frame={frame}&name=two", mask)
    assert (again.status, again.error) == (409, "'one' is being learned; wait a moment.")
    go.set()
    wait_until(lambda: not served.live.taught.learning)
    assert texts(served) == ["the dog", "@one"]  # it took the place of nothing


def test_corrections_add_up_and_are_taken_back(serve: Serve) -> None:
    served = serve("the dog")
    show(served)
    first = served.request("GET", "/api/taught/my%20mug").body
    show(served)
    assert [row["shots"] for row in rows(served)] == [2]
    undone = served.request("POST", "/api/taught/my%20mug/undo")
    assert [row["shots"] for row in undone.json["taught"]] == [1]
    assert served.request("GET", "/api/taught/my%20mug").body == first
    assert texts(served) == ["@my mug"]
    assert served.request("POST", "/api/taught/my%20mug/undo").json["taught"] == []
    assert texts(served) == ["the dog"]
    answers(served, ("the dog",))
    assert served.request("POST", "/api/taught/my%20mug/undo").status == 404


def test_a_file_is_downloaded_and_uploaded_elsewhere(serve: Serve, tmp_path: Path) -> None:
    served = serve("the dog")
    show(served)
    answer = served.request("GET", "/api/taught/my%20mug")
    assert answer.headers["content-disposition"].endswith("my%20mug.query")
    (tmp_path / "mug.query").write_bytes(answer.body)
    assert TaughtQuery.load(tmp_path / "mug.query").shots == 1
    other = serve("a red ball")
    told = other.request("POST", "/api/taught?name=%40the%20cup", answer.body)
    assert told.json == {"name": "the cup"}
    assert texts(other) == ["a red ball", "@the cup"]
    assert other.request("PUT", "/api/taught/the%20cup", {"name": "Tasse"}).json == {"name": "Tasse"}
    assert texts(other) == ["a red ball", "@Tasse"]
    assert other.request("PUT", "/api/taught/Tasse", {"name": "Tasse "}).json == {"name": "Tasse"}
    assert texts(other) == ["a red ball", "@Tasse"], "its own name takes nothing away"
    answers(other, ("a red ball", "Tasse"))
    posted = other.request("POST", "/api/frame?query=@Tasse&format=coco", png(picture(0)[..., 0] > 9))
    assert posted.json["objects"][0]["text"] == "Tasse"


def test_a_stream_begins_with_taught_queries(serve: Serve) -> None:
    served = serve("the dog")
    show(served)
    query = TaughtQuery.from_json(served.request("GET", "/api/taught/my%20mug").body)
    other = serve("a red ball", query)
    assert texts(other) == ["a red ball", "@my mug"]
    assert other.request("PUT", "/api/queries", {"queries": ["@my mug"]}).status == 200
    answers(other, ("my mug",))


def test_a_box_a_point_and_a_query_give_a_mask(serve: Serve) -> None:
    served = serve("the dog", source=Square)
    kept = keep(served)
    assert kept["size"] == list(SIZE)
    expected = served.live.taught.frame(kept["frame"])
    square = expected.image[..., 1] > 100
    x, y, width, height = cv2.boundingRect(square.view(np.uint8))
    for body, truth in (
        ({"box": [x - 8, y - 8, width + 16, height + 16]}, square),
        ({"point": [x + width // 2, y + height // 2]}, square),
        ({"query": "the dog"}, expected.masks[0]),
    ):
        answer = served.request("POST", f"/api/shown/{kept['frame']}/mask", body, JSON)
        mask = np.asarray(cv2.imdecode(np.frombuffer(answer.body, np.uint8), cv2.IMREAD_UNCHANGED))
        assert (mask.shape, set(np.unique(mask)) <= {0, 255}) == (SIZE, True)
        assert np.mean((mask > 0) == truth) > 0.99, body


@pytest.mark.parametrize(
    ("path", "body", "status", "said"),
    [
        ("/api/shown/{frame}/mask", {"box": [0, 0, 500, 5]}, 422, "is not inside the frame"),
        ("/api/shown/{frame}/mask", {}, 422, "give a box, a point or a query"),
        ("/api/shown/{frame}/mask", {"query": "a cat"}, 404, "there is no query of that name"),
        ("/api/shown/none/mask", {"point": [1, 1]}, 404, "there is no kept frame of that name"),
        ("/api/learn?frame={frame}&name=x", b"no picture", 422, "not a JPEG or PNG"),
        ("/api/learn?frame={frame}&name=x", png(np.zeros(SIZE, np.bool_)), 422, "nothing is shown yet"),
        ("/api/learn?frame={frame}&name=x", png(np.ones((5, 5), np.bool_)), 422, "the mask is 5 x 5"),
        ("/api/learn?frame={frame}&name=@", png(np.ones(SIZE, np.bool_)), 422, "has no name"),
        ("/api/learn?frame=none&name=x", png(np.ones(SIZE, np.bool_)), 404, "there is no kept frame"),
        ("/api/learn?frame={frame}&name=x", b"x" * (1 << 21), 413, "at most 1,048,576 bytes"),
        ("/api/taught", b"[" * 4000, 422, "not a taught query"),
        ("/api/taught", b"x" * 5000, 413, "at most 4,096 bytes"),
    ],
)
def test_bad_requests_are_one_sentence(dog: Served, path: str, body: Any, status: int, said: str) -> None:
    frame = keep(dog)["frame"]
    answer = dog.request("POST", path.format(frame=frame), body, JSON)
    assert answer.status == status
    assert said in answer.error
    assert rows(dog) == []


def test_a_page_names_no_file_of_the_server(dog: Served) -> None:
    answer = dog.request("PUT", "/api/queries", {"queries": ["@/etc/hostname"]})
    assert answer.status == 422
    assert "there is no taught query" in answer.error


def test_frames_are_forgotten_in_their_turn(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST_SHOWN", 1)
    served = serve("the dog")
    first = keep(served)["frame"]
    for _ in range(module._MOST_KEPT):
        served.request("POST", "/api/shown")
    assert served.request("GET", f"/api/shown/{first}").status == 404
    assert show(served).status == 202
    assert "remove a query" in show(served).error


def test_what_cannot_be_learned_is_told_and_the_stream_goes_on(serve: Serve) -> None:
    served = serve("the dog")
    assert "there is no taught query 'his cup'" in show(served, like="@his cup").error
    assert show(served, like="dog " * 30).status == 202
    assert "at most 16" in served.request("GET", "/api/status").json["trouble"]
    served.after(2)
    assert texts(served) == ["the dog"]
