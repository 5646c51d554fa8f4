"""The stream as a tool: winding, photos, a browser's camera, results, MJPEG, addresses, other origins."""

from __future__ import annotations

import http.client
import io
import json
import os
import shutil
import tempfile
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from support.fake_results import make_frame, make_result
from support.served import Pictures, Serve, Served, picture, wait_until, write_clip
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from rvos_edge.errors import UserError
from rvos_edge.server import address
from rvos_edge.server.address import Address, ServerOptions, check_certificate, check_origin, qr_code
from rvos_edge.server.controls import ServerControls
from rvos_edge.server.player import Choice, Player
from rvos_edge.server.recorder import Recorder
from rvos_edge.server.telemetry import Telemetry
from rvos_edge.server.uploads import Library
from rvos_edge.streaming.sources import Frame, Source


class Wound(Source):
    """Source of 40 frames, a hundred a second, that can be wound."""

    def __init__(self) -> None:
        super().__init__(name="film.mp4", fps=100.0, length=40)
        self.seconds, self.index = 0.4, 0

    def __iter__(self) -> Iterator[Frame]:
        while self.index < 40:
            self.index += 1
            yield Frame(picture(self.index - 1), self.index - 1, (self.index - 1) / 100, "", time.perf_counter())

    def seek(self, seconds: float) -> None:
        self.index = round(seconds * 100)


def encoded(index: int = 3, suffix: str = ".png") -> bytes:
    return bytes(cv2.imencode(suffix, picture(index))[1])


def status(served: Served) -> Any:
    return served.request("GET", "/api/status").json


def test_a_file_is_wound_and_its_time_goes_on(open_tiny: Any) -> None:
    source, restarts = Wound(), []
    segmenter = open_tiny()
    segmenter.set_queries(["the dog"])
    player = Player(
        Choice("start", "film", Wound),
        source,
        ServerControls(segmenter),
        restarted=lambda: restarts.append(1),
        repeat=False,
    )
    frames, positions = [], []
    for number, frame in enumerate(player):
        frames.append(frame)
        positions.append(round(100 * player.position))
        if number == 2:
            player.seek(0.3)
        if number == 4:
            player.step(-25)
    assert positions[:8] == [0, 1, 2, 30, 31, 6, 7, 8]
    assert len(restarts) == 3  # at the start and after each jump: motion would be nonsense
    assert [round(100 * frame.timestamp) for frame in frames] == list(range(len(frames)))  # sinks write one video
    player.seconds = None
    with pytest.raises(UserError, match="cannot be wound"):
        player.seek(0.1)


def test_a_paused_clip_goes_frame_by_frame(serve: Serve, tmp_path: Path) -> None:
    served = serve("the dog")
    source = served.request("POST", "/api/clips?name=a.mp4", write_clip(tmp_path / "a.mp4", frames=20)).json["source"]
    served.request("PUT", "/api/source", {"source": source})
    wait_until(lambda: status(served)["seconds"] == 0.8)
    served.request("PUT", "/api/settings", {"paused": True})
    assert served.request("PUT", "/api/position", {"seconds": 0.4}).json["seconds"] == 0.8
    for step, position in ((0, 0.4), (1, 0.44), (1, 0.48), (-1, 0.44)):
        if step:
            served.request("PUT", "/api/position", {"step": step})
        wait_until(lambda position=position: status(served)["position"] == position)  # type: ignore[misc]
    assert served.request("PUT", "/api/position", {"step": 1, "seconds": 1}).status == 422
    served.request("PUT", "/api/source", {"source": "start"})
    wait_until(lambda: status(served)["seconds"] is None)
    refused = served.request("PUT", "/api/position", {"seconds": 1})
    assert (refused.status, "cannot be wound" in refused.error) == (422, True)


def test_a_photo_is_held_and_shows_edits(serve: Serve) -> None:
    served = serve("the dog")
    photo = picture(3)[::-1]  # upside down, as no frame of the camera that is shown until then
    upload = bytes(cv2.imencode(".png", photo)[1])
    source = served.request("POST", "/api/clips?name=photo.png", upload).json["source"]
    served.request("PUT", "/api/source", {"source": source})
    wait_until(lambda: status(served)["state"] == "photo")

    def image() -> np.ndarray:
        assert served.live.sink.shown is not None
        return served.live.sink.shown.frame.image

    wait_until(lambda: np.array_equal(image(), photo))
    held = image()
    served.request("PUT", "/api/queries", {"queries": ["a cat"]})
    wait_until(lambda: served.collector.results[-1].queries == ("a cat",))
    assert image() is held, "it is not read again"
    cut = served.request("POST", "/api/clips?name=cut.png", encoded()[:200])
    assert (cut.status, len(served.live.library.choices)) == (422, 4)


def test_a_browsers_camera_is_played_until_it_ends(serve: Serve) -> None:
    served = serve("the dog")
    with connect(f"ws://127.0.0.1:{served.port}/api/camera", max_size=None) as camera:
        for _ in range(3):
            assert camera.recv(10) == "next"
            camera.send(encoded(5, ".jpg"))
        wait_until(lambda: status(served)["source"] == "camera")
        shown = cv2.imdecode(np.frombuffer(encoded(5, ".jpg"), np.uint8), cv2.IMREAD_COLOR)
        wait_until(lambda: np.array_equal(served.live.sink.shown.frame.image, shown))  # type: ignore[union-attr]
        assert {"id": "camera", "name": "Camera of a browser", "uploaded": False} in status(served)["sources"]
    wait_until(lambda: "turned off" in status(served)["trouble"])
    with connect(f"ws://127.0.0.1:{served.port}/api/camera") as camera:
        camera.recv(10)
        camera.send(b"no picture")
        with pytest.raises(ConnectionClosed, match="JPEG"):
            camera.recv(10)
    served.request("PUT", "/api/source", {"source": "start"})
    served.after(1)


def test_queries_are_hidden_and_renamed_in_pictures_and_results(serve: Serve) -> None:
    served = serve("the dog", "a cat")
    body = {"hidden": ["a cat", "gone"], "labels": {"the dog": "Rex"}, "threshold": 0.01}
    served.settle(served.request("PUT", "/api/settings", body).json["revision"])
    served.after(1)
    assert status(served)["settings"]["hidden"] == ["a cat"]
    assert [row["label"] for row in status(served)["queries"]] == ["Rex", ""]
    assert [row["text"] for row in served.request("GET", "/api/result").json["objects"]] == ["Rex", "a cat"]
    shown = served.live.sink.shown
    assert shown is not None
    assert shown.result.queries == ("the dog", "a cat")
    drawn = shown.draw()
    only_second = shown.result.masks[1] & ~cv2.dilate(shown.result.masks[0].view(np.uint8), np.ones((9, 9))).view(bool)
    only_second[:40] = False  # where the name is
    assert (drawn[only_second] == shown.frame.image[only_second]).all()
    served.settle(served.request("PUT", "/api/queries", {"queries": ["the dog"]}).json["revision"])
    assert status(served)["settings"]["hidden"] == []
    assert served.request("PUT", "/api/settings", {"labels": {"the dog": ""}}).status == 422


def test_results_and_mjpeg_by_api(dog: Served) -> None:
    found = dog.request("GET", "/api/result").json
    assert found["size"] == [96, 128]
    (row,) = found["objects"]
    assert (row["text"], row["segmentation"]["size"]) == ("the dog", [96, 128])
    connection = http.client.HTTPConnection("127.0.0.1", dog.port, timeout=20)
    connection.request("GET", "/api/mjpeg")
    answer = connection.getresponse()
    assert answer.headers["content-type"] == "multipart/x-mixed-replace; boundary=frame"
    for _ in range(2):
        assert answer.readline() == b"--frame\r\n"
        head = dict(line.decode().strip().split(": ") for line in iter(answer.readline, b"\r\n"))
        data = answer.read(int(head["content-length"]))
        assert cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR).shape == (96, 128, 3)
        assert answer.readline() == b"\r\n"
    answer.close()
    connection.close()
    wait_until(lambda: dog.live.hub.viewers == 0)


def test_figures_begin_anew_when_the_queries_change(dog: Served) -> None:
    telemetry, result, source = Telemetry(lambda: 0), dog.after(1), Pictures()
    for seconds, setup in ((5.0, "the dog"), (0.0, "the dog"), (0.0, "a cat")):
        telemetry.add(Frame(picture(0), 0, 0.0, "", time.perf_counter() - seconds), result, source, setup=setup)
        assert (telemetry.summary()["latency_ms"]["p95"] > 4000) == (setup == "the dog")


def test_a_recording_with_annotations_is_a_data_set(serve: Serve) -> None:
    served = serve("the dog")
    served.request("PUT", "/api/settings", {"labels": {"the dog": "Rex"}, "threshold": 0.01})
    served.after(2)
    name = served.request("POST", "/api/recording?dataset=true").json["recording"]
    served.after(8)
    clock = status(served)["recording"]["seconds"]
    served.request("DELETE", "/api/recording")
    stem = name.removesuffix(".mp4")
    assert status(served)["recording"]["files"] == [name, f"{stem}.zip"]
    answer = served.request("GET", f"/api/recordings/{stem}.zip")
    assert answer.headers["content-type"] == "application/zip"
    with zipfile.ZipFile(io.BytesIO(answer.body)) as archive:
        coco = json.loads(archive.read(f"{stem}/instances.json"))
        pictures = [name for name in archive.namelist() if name.endswith(".jpg")]
    assert coco["categories"] == [{"id": 1, "name": "Rex"}]
    assert len(pictures) == len(coco["images"]) >= 7
    assert coco["annotations"][0]["segmentation"]["size"] == [96, 128]
    seconds = cv2.VideoCapture(str(served.live.recorder.path(name)))
    assert clock <= round(seconds.get(cv2.CAP_PROP_FRAME_COUNT) / seconds.get(cv2.CAP_PROP_FPS), 1) + 0.1


def test_the_clock_of_a_recording_is_that_of_its_file(serve: Serve) -> None:
    """The pictures come faster than their own time passes: 25 of them are a second."""
    served = serve("the dog", source=lambda: Pictures(None, name="fast"))
    recorder = served.live.recorder
    served.request("PUT", "/api/settings", {"paused": True})
    wait_until(lambda: served.live.controls.shown.settings.paused)
    recorder.start(25.0)
    result = served.collector.results[-1]
    for index in range(50):
        recorder.write(Frame(picture(index), index, 3 + index / 25, "", 0.0), result, picture(index))
    assert recorder.state.seconds == pytest.approx(2.0)
    name = recorder.stop()
    video = cv2.VideoCapture(str(recorder.path(name)))
    assert video.get(cv2.CAP_PROP_FRAME_COUNT) / video.get(cv2.CAP_PROP_FPS) == pytest.approx(2.0, abs=0.05)


def test_what_a_killed_server_had_recorded_is_listed_by_the_next_one_of_its_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    libraries: list[Library] = []

    def recorder(source: str) -> Recorder:
        libraries.append(Library(Choice("start", source, Pictures)))
        return Recorder(libraries[-1].folder)

    running = recorder("camera 0")
    name = running.start(25.0)
    for index in range(60):
        running.write(make_frame(index, fps=25.0), make_result(), picture(index))
    folder = libraries[0].folder
    killed = folder.with_name(f"{folder.name.rpartition('-')[0]}-killed")
    shutil.copytree(folder, killed)  # what a killed process leaves is locked by none
    empty = Path(shutil.copytree(killed, killed.with_name(f"{killed.name}2")))
    for path in empty.iterdir():
        path.unlink()
    os.utime(empty, (0, 0))
    assert recorder("camera 1").state.files == ()
    found = recorder("camera 0")
    assert found.state.files == (name,)
    assert cv2.VideoCapture(str(found.path(name))).get(cv2.CAP_PROP_FRAME_COUNT) >= 20
    assert sorted(tmp_path.iterdir()) == sorted(library.folder for library in libraries), "the one that runs is left"
    assert running.stop() == name
    for library in libraries:
        library.close()
    assert list(tmp_path.iterdir()) == []


def test_the_address_for_a_phone(dog: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    assert dog.request("GET", "/api/phone").json == {"address": None, "qr": None}
    assert ServerOptions(Address("192.168.1.9", 8000), "correct horse").url_for_phones == "http://192.168.1.9:8000/"

    class Card:
        """Network card of 10.0.0.7."""

        def __init__(self, *_: object) -> None: ...

        def __enter__(self) -> Card:
            return self

        def __exit__(self, *_: object) -> None: ...

        def connect(self, where: object) -> None: ...

        def getsockname(self) -> tuple[str, int]:
            return "10.0.0.7", 1

    monkeypatch.setattr(address.socket, "socket", Card)
    assert (
        ServerOptions(Address("0.0.0.0", 9000), "correct horse", "/door").url_for_phones == "http://10.0.0.7:9000/door/"
    )


def test_a_qr_code_says_the_address() -> None:
    url = "http://192.168.100.200:8000/?token=correct-horse"
    path = qr_code(url).partition('<path d="')[2]
    dark = [tuple(map(int, part.split("h")[0].split())) for part in path.partition('"')[0].split("M")[1:]]
    image = np.full((60, 60), 255, np.uint8)
    for x, y in dark:
        image[y + 4, x + 4] = 0
    large = cv2.resize(image, None, fx=6, fy=6, interpolation=cv2.INTER_NEAREST)
    assert cv2.QRCodeDetector().detectAndDecode(large)[0] == url


def test_pages_of_an_allowed_origin_use_the_api(serve: Serve) -> None:
    served = serve("the dog", origins=("https://app.example",))
    asked = {"origin": "https://app.example", "access-control-request-method": "PUT"}
    before = served.request("OPTIONS", "/api/queries", headers=asked)
    assert (before.status, before.headers["access-control-allow-origin"]) == (200, "https://app.example")
    answer = served.request("PUT", "/api/queries", {"queries": ["a cat"]}, {"origin": "https://app.example"})
    assert (answer.status, answer.headers["access-control-allow-origin"]) == (200, "https://app.example")
    other = served.request("PUT", "/api/queries", {"queries": ["a cat"]}, {"origin": "https://evil.example"})
    assert (other.status, "access-control-allow-origin" in other.headers) == (403, False)
    with connect(f"ws://127.0.0.1:{served.port}/api/live", additional_headers={"Origin": "https://app.example"}):
        pass


@pytest.mark.parametrize("origin", ["app.example", "https://app.example/page", "*", "null"])
def test_origins_are_checked(origin: str) -> None:
    with pytest.raises(UserError, match="is no origin"):
        check_origin(origin)


def test_a_certificate_is_read_before_anything_else(tmp_path: Path) -> None:
    for path in (tmp_path / "none.pem", tmp_path / "bad.pem"):
        (tmp_path / "bad.pem").write_text("-----BEGIN CERTIFICATE-----\n")
        with pytest.raises(UserError, match=r"none|bad\.pem is no PEM file"):
            check_certificate(path)
