"""Cameras on USB and CSI."""

from __future__ import annotations

import glob
import os
import re
import shutil
import sys
from pathlib import Path
from typing import cast
from urllib.parse import parse_qs, urlsplit

import cv2
import numpy as np
from numpy.typing import NDArray

from rvos_edge.errors import UserError
from rvos_edge.streaming.program import Program
from rvos_edge.streaming.sources.base import (
    Source,
    SourceOptions,
    UnavailableError,
    natural_order,
    quiet_opencv,
    stated_fps,
)
from rvos_edge.streaming.sources.live import Capture, LiveCapture
from rvos_edge.streaming.sources.raw import ByteStream, read_picture
from rvos_edge.streaming.sources.raw_format import RawFormat

_BY_ID = Path("/dev/v4l/by-id")
_CSI_SIZE = (720, 1280)
_CSI_FPS = 30
_CSI_REMEDY = "check the cable, that nvargus-daemon runs and that no other program uses it"


def open_camera(spec: str, options: SourceOptions) -> Source | None:
    """Open a V4L2 or other system camera by number, by device file or by a link to one; None for other names.

    Links, such as those in /dev/v4l/by-id, are followed anew whenever the camera is opened again: plugged in again it
    may get another number. A number stands for its link in by-id, where it has one.
    """
    device = re.fullmatch(r"(?:/dev/video)?([0-9]{1,4})", spec)
    if not (device or _is_camera(Path(spec))):
        return None
    number = int(device[1]) if device else -1
    name = f"camera {number if device else spec}"
    link = None if device else Path(spec)

    def connect() -> Capture:
        nonlocal link
        link = link or _stable_link(number)
        path = link or Path(f"/dev/video{number}")
        _check_device(path, name)
        return _open_device(_number_now(path, number), name, options)

    return LiveCapture(connect, name=name, wait=options.wait, give_up=options.give_up, tell=options.tell)


def open_csi(spec: str, options: SourceOptions) -> Source | None:
    """Open a CSI camera of a Jetson: "csi://0", "csi://1?width=1920&height=1080&fps=60&flip=2"; None for other names.

    Read by OpenCV where it has GStreamer, through the program gst-launch-1.0 where it has not, as pip's.
    """
    url = urlsplit(spec)
    if url.scheme != "csi":
        return None
    sensor = url.netloc or "0"
    asked = {key: values[-1] for key, values in parse_qs(url.query, keep_blank_values=True).items()}
    wrong = [part for part in (sensor, *asked.values()) if not (part.isascii() and part.isdigit())]
    unknown = asked.keys() - {"width", "height", "fps", "flip"}
    if wrong or unknown or url.path:
        raise UserError(f"{spec!r} is no CSI camera; write for example 'csi://0?width=1280&height=720&fps=30&flip=2'")
    height, width = options.size or _CSI_SIZE
    numbers = {key: int(value) for key, value in asked.items()}
    layout = RawFormat(
        height=numbers.get("height", height),
        width=numbers.get("width", width),
        fps=float(numbers.get("fps", _CSI_FPS)),
        pixels="bgr24",
    )
    if layout.width % 4:  # GStreamer's rows are multiples of four bytes
        raise UserError(f"a CSI camera cannot give pictures {layout.width} wide; choose a multiple of 4")
    pipeline = csi_pipeline(int(sensor), layout, flip=numbers.get("flip", 0))
    name = f"CSI camera {sensor}"
    return LiveCapture(
        lambda: _open_pipeline(spec, pipeline, layout),
        name=name,
        wait=options.wait,
        give_up=options.give_up,
        tell=options.tell,
    )


def csi_pipeline(sensor: int, layout: RawFormat, *, flip: int = 0) -> str:
    """The GStreamer pipeline of a Jetson's camera up to BGR frames in the processor's memory, without its sink.

    Size, rate, rotation and the conversion from NV12 are the image hardware's work on NVMM buffers; only the last
    step, from four channels to three, is the processor's.
    """
    source = f"video/x-raw(memory:NVMM),width={layout.width},height={layout.height},framerate={layout.fps:.0f}/1"
    return (
        f"nvarguscamerasrc sensor-id={sensor} ! {source},format=NV12 ! nvvidconv flip-method={flip} "
        f"! video/x-raw,format=BGRx,width={layout.width},height={layout.height} ! videoconvert ! video/x-raw,format=BGR"
    )


class PipeCapture:
    """Raw frames that a program writes to its stdout; `name` is for its errors."""

    def __init__(self, command: list[str], layout: RawFormat, *, name: str = "the camera") -> None:
        self._layout = layout
        self._name = name
        self.fps: float | None = layout.fps
        self._program = Program(command, writes=True)

    def read(self) -> tuple[bool, NDArray[np.generic] | None]:
        image = read_picture(cast(ByteStream, self._program.stdout), self._layout)
        if image is None:
            why = f" ({said})" if (said := self._program.said()) else ""
            raise UnavailableError("no picture", f"{self._name} gives no frame{why}; {_CSI_REMEDY}")
        return True, image

    def release(self) -> None:
        self._program.end()


class DeviceCapture:
    """A device that OpenCV reads."""

    def __init__(self, capture: cv2.VideoCapture, *, fps: float | None = None) -> None:
        self._capture = capture
        self.fps = fps or stated_fps(capture)

    def read(self) -> tuple[bool, NDArray[np.generic] | None]:
        with quiet_opencv():
            return self._capture.read()

    def release(self) -> None:
        self._capture.release()


def _is_camera(path: Path) -> bool:
    """True for a link to a camera, and for something in /dev that is not there."""
    if path.exists():
        return re.fullmatch(r"video[0-9]+", path.resolve().name) is not None and path.is_char_device()
    return path.parts[:2] == ("/", "dev") and path.parts[2:3] != ("shm",)


def _check_device(path: Path, name: str) -> None:
    if not sys.platform.startswith("linux"):
        return
    if not path.exists():
        found = ", ".join(sorted(glob.glob("/dev/video*"), key=natural_order)) or "none"
        raise UnavailableError(
            "not plugged in", f"{name} cannot be opened: it is not plugged in; check the cable (devices: {found})"
        )
    if not os.access(path, os.R_OK | os.W_OK):
        raise UnavailableError(
            "no permission", f"{name} may not be opened by this user; add it to the group of {path.resolve()}"
        )


def _open_device(number: int, name: str, options: SourceOptions) -> Capture:
    with quiet_opencv():
        capture = cv2.VideoCapture(number)
        if options.size:
            capture.set(cv2.CAP_PROP_FRAME_HEIGHT, options.size[0])
            capture.set(cv2.CAP_PROP_FRAME_WIDTH, options.size[1])
        capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)
    if not capture.isOpened():
        raise UnavailableError("in use", f"{name} cannot be opened; check that it is a camera and free")
    return DeviceCapture(capture)


def _stable_link(number: int) -> Path | None:
    """The link in /dev/v4l/by-id that leads to a camera."""
    links = sorted(_BY_ID.iterdir()) if _BY_ID.is_dir() else []
    return next((link for link in links if link.resolve().name == f"video{number}"), None)


def _number_now(path: Path, number: int) -> int:
    target = re.fullmatch(r"video([0-9]+)", path.resolve().name)
    return int(target[1]) if target else number


def _open_pipeline(spec: str, pipeline: str, layout: RawFormat) -> Capture:
    if cv2.videoio_registry.hasBackend(cv2.CAP_GSTREAMER):
        with quiet_opencv():
            opened = cv2.VideoCapture(f"{pipeline} ! appsink drop=true max-buffers=1 sync=false", cv2.CAP_GSTREAMER)
        return DeviceCapture(opened, fps=layout.fps)
    program = shutil.which("gst-launch-1.0")
    if program is None:
        raise UserError(
            f"{spec} cannot be opened: this OpenCV has no GStreamer and there is no gst-launch-1.0; on a Jetson "
            "install gstreamer1.0-tools, elsewhere use a USB camera or a URL"
        )
    command = [program, "-q", *pipeline.split(), "!", "fdsink", "fd=1", "sync=false"]
    return PipeCapture(command, layout, name=spec)
