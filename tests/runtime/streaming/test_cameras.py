"""Cameras that are played: on CSI through GStreamer, and the names of USB cameras."""

from __future__ import annotations

import stat
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from support.live_fakes import FakeCapture

from rvos_edge.errors import UserError
from rvos_edge.streaming.sources import cameras, open_source
from rvos_edge.streaming.sources.base import UnavailableError

GST_LAUNCH = f"""#!{sys.executable}
import pathlib, sys, time
folder = pathlib.Path(__file__).parent
with (folder / "arguments").open("a") as log:
    print(" ".join(sys.argv[1:]), file=log)
if (folder / "unplugged").exists():
    sys.exit("ERROR: no camera found")
for value in range(1, 4):
    sys.stdout.buffer.write(bytes([value]) * (64 * 48 * 3))
    sys.stdout.flush()
    time.sleep(0.01)
"""


@pytest.fixture
def gst_launch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a program gst-launch-1.0 that sends three frames of 64x48, and nothing else on the path."""
    folder = tmp_path / "bin"
    folder.mkdir()
    program = folder / "gst-launch-1.0"
    program.write_text(GST_LAUNCH)
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setattr(cv2.videoio_registry, "hasBackend", lambda backend: False)
    return folder


def test_csi_camera_without_gstreamer_in_opencv(gst_launch: Path) -> None:
    told: list[str] = []
    with open_source("csi://1?fps=60&flip=2", size=(48, 64), give_up=0, tell=told.append) as source:
        assert (source.name, source.fps, source.live) == ("CSI camera 1", 60.0, True)
        assert [int(frame.image[0, 0, 0]) for frame in source][-1] == 3
    (arguments,) = (gst_launch / "arguments").read_text().splitlines()
    assert arguments == (
        "-q nvarguscamerasrc sensor-id=1 ! video/x-raw(memory:NVMM),width=64,height=48,framerate=60/1,format=NV12 "
        "! nvvidconv flip-method=2 ! video/x-raw,format=BGRx,width=64,height=48 ! videoconvert "
        "! video/x-raw,format=BGR ! fdsink fd=1 sync=false"
    )
    assert told == []


def test_csi_camera_comes_back(gst_launch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    with open_source("csi://0", size=(48, 64), tell=told.append) as source:
        monkeypatch.setattr(source, "_backoff", (0.01, 0.01))
        for _ in source:
            if source.reconnects == 1:
                break
    assert told[0] == "CSI camera 0 is lost (no picture); trying to open it again"


def test_csi_camera_by_opencv(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[tuple[str, int]] = []

    def capture(pipeline: str, backend: int) -> FakeCapture:
        opened.append((pipeline, backend))
        return FakeCapture(1)  # never asked for its rate: the pipeline says it

    monkeypatch.setattr(cv2.videoio_registry, "hasBackend", lambda backend: True)
    monkeypatch.setattr(cv2, "VideoCapture", capture)
    with open_source("csi://0", give_up=0) as source:
        assert len(list(source)) == 1
    ((pipeline, backend),) = opened
    assert backend == cv2.CAP_GSTREAMER
    assert "width=1280,height=720,framerate=30/1" in pipeline
    assert pipeline.endswith("! appsink drop=true max-buffers=1 sync=false")


def test_csi_camera_that_is_not_there(gst_launch: Path) -> None:
    (gst_launch / "unplugged").touch()
    with pytest.raises(UserError, match=r"csi://0 gives no frame \(ERROR: no camera found\); check the cable"):
        open_source("csi://0")


def test_csi_camera_on_a_machine_without_gstreamer(gst_launch: Path) -> None:
    (gst_launch / "gst-launch-1.0").unlink()
    with pytest.raises(UserError, match="this OpenCV has no GStreamer and there is no gst-launch"):
        open_source("csi://0")


def test_csi_camera_of_a_width_that_gstreamer_pads() -> None:
    with pytest.raises(UserError, match="322 wide; choose a multiple of 4"):
        open_source("csi://0?width=322&height=240")


@pytest.mark.parametrize("spec", ["csi://x", "csi://0?width=", "csi://0?wide=3", "csi://0/1"])
def test_csi_camera_that_cannot_be_meant(spec: str) -> None:
    with pytest.raises(UserError, match="is no CSI camera; write for example"):
        open_source(spec)


class FakeDevices:
    """USB cameras in a folder of links like /dev/v4l/by-id; `plug` puts one at a number."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.cameras: dict[int, FakeCapture] = {}
        self.asked: list[int] = []
        (folder / "by-id").mkdir()
        monkeypatch.setattr(cameras, "_BY_ID", folder / "by-id")
        monkeypatch.setattr(cameras, "_open_device", self._open)

    def plug(self, number: int, camera: FakeCapture) -> None:
        link = self.folder / "by-id" / "usb-Maker_Model_123-video-index0"
        link.unlink(missing_ok=True)
        (self.folder / f"video{number}").touch()
        link.symlink_to(self.folder / f"video{number}")
        self.cameras = {number: camera}

    def _open(self, number: int, name: str, options: object) -> FakeCapture:
        self.asked.append(number)
        if number not in self.cameras:
            raise UnavailableError("in use", f"{name} cannot be opened")
        return self.cameras[number]


def test_usb_camera_is_found_under_its_new_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    devices, told = FakeDevices(tmp_path, monkeypatch), list[str]()
    first = FakeCapture(2)
    devices.plug(0, first)
    values: list[int] = []
    with open_source("/dev/video0", tell=told.append) as source:
        monkeypatch.setattr(source, "_backoff", (0.001, 0.001))
        frames = iter(source)
        values.append(int(next(frames).image[0, 0, 0]))
        devices.plug(2, FakeCapture(200, free=True))  # the kernel gave the old number away
        first.go.release()
        for frame in frames:
            values.append(int(frame.image[0, 0, 0]))
            if source.reconnects:
                break
    assert devices.asked[0] == 0
    assert devices.asked[-1] == 2
    assert told[0] == "camera 0 is lost (no picture); trying to open it again"


def test_camera_without_a_link_keeps_its_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cameras, "_BY_ID", tmp_path / "nothing")
    assert cameras._stable_link(3) is None
    assert cameras._number_now(Path("/dev/video3"), 3) == 3


def test_link_to_a_camera_is_a_camera(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    devices = FakeDevices(tmp_path, monkeypatch)
    devices.plug(4, FakeCapture(3, free=True))
    monkeypatch.setattr(Path, "is_char_device", lambda path: True)
    link = next((tmp_path / "by-id").iterdir())
    with open_source(str(link), give_up=0) as source:
        assert (source.name, source.live) == (f"camera {link}", True)
        assert len(list(source)) >= 1
    assert devices.asked == [4]


def test_a_link_that_leads_nowhere_is_waited_for() -> None:
    link, told = "/dev/v4l/by-id/usb-none", list[str]()
    with open_source(link, wait=True, give_up=0.001, tell=told.append) as source:
        assert source.state == "waiting"
        with pytest.raises(UnavailableError, match=r"by-id/usb-none cannot be opened: it is not plugged in"):
            next(iter(source))
    assert told[0] == f"camera {link} is not there (not plugged in); trying again"
    with pytest.raises(UnavailableError, match=r"by-id/usb-none cannot be opened: it is not plugged in"):
        open_source(link)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="devices are files on Linux")
def test_a_camera_that_one_may_not_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cameras.os, "access", lambda path, mode: False)
    with pytest.raises(
        UnavailableError, match="camera 1 may not be opened by this user; add it to the group"
    ) as caught:
        cameras._check_device(tmp_path, "camera 1")
    assert caught.value.cause == "no permission"


def test_pipe_that_hangs_is_ended(tmp_path: Path) -> None:
    layout = cameras.RawFormat(4, 4)
    capture = cameras.PipeCapture([sys.executable, "-c", "import time; time.sleep(600)"], layout)
    started = time.monotonic()
    capture.release()
    capture.release()
    assert time.monotonic() - started < 60


def test_frames_of_a_pipe_are_arrays_of_their_own(gst_launch: Path) -> None:
    capture = cameras.PipeCapture([str(gst_launch / "gst-launch-1.0")], cameras.RawFormat(48, 64))
    images = [capture.read()[1] for _ in range(3)]
    capture.release()
    assert [np.unique(image).tolist() for image in images] == [[1], [2], [3]]
