"""Cameras on USB and CSI, and network streams."""

from __future__ import annotations

import glob
import re
import shutil
from pathlib import Path
from typing import cast
from urllib.parse import parse_qs, urlsplit

import cv2
import numpy as np
from numpy.typing import NDArray

from rvos_edge.errors import UserError
from rvos_edge.secrets import hide_secrets
from rvos_edge.streaming.program import Program
from rvos_edge.streaming.sources.base import Source, SourceOptions, natural_order, quiet_opencv, stated_fps
from rvos_edge.streaming.sources.live import Capture, LiveCapture
from rvos_edge.streaming.sources.raw import ByteStream, read_picture
from rvos_edge.streaming.sources.raw_format import RawFormat
from rvos_edge.streaming.sources.video import VideoFile

_URL = re.compile(r"^(rtsps?|rtmps?|https?|udp|tcp|srt)://", re.IGNORECASE)
_OPEN_TIMEOUT_MS = 10_000
_READ_TIMEOUT_MS = 5_000
_BY_ID = Path("/dev/v4l/by-id")
_CSI_SIZE = (720, 1280)
_CSI_FPS = 30


def open_camera(spec: str, options: SourceOptions) -> Source | None:
    """Open a V4L2 or other system camera by number or device file; None for other names."""
    device = re.fullmatch(r"(?:/dev/video)?([0-9]{1,4})", spec)
    if not device:
        return None
    number = int(device[1])
    capture = _open_device(number, options)
    if capture is None:
        found = ", ".join(sorted(glob.glob("/dev/video*"), key=natural_order)) or "none"
        raise UserError(f"camera {number} cannot be opened; check that it is plugged in and free (devices: {found})")
    # Plugged in again, a camera may get another number; its link in by-id stays.
    link = _stable_link(number)
    return LiveCapture(
        cast(Capture, capture),
        name=f"camera {number}",
        fps=stated_fps(capture),
        reopen=lambda: cast("Capture | None", _open_device(_number_now(link, number), options)),
        give_up=options.give_up,
        tell=options.tell,
    )


def open_url(spec: str, options: SourceOptions) -> Source | None:
    """Open a stream on the network; None for other names. A file behind HTTP is a file: no frame of it is dropped."""
    if not _URL.match(spec):
        return None
    name = hide_secrets(spec)
    capture = _connect(spec)
    if capture is None:
        raise UserError(f"{name} cannot be opened; check the address, the password and that the stream is running")
    if spec.lower().startswith("http") and capture.get(cv2.CAP_PROP_FRAME_COUNT) > 0:
        capture.release()
        return VideoFile(spec, name=name, tell=options.tell)
    return LiveCapture(
        cast(Capture, capture),
        name=name,
        fps=stated_fps(capture),
        reopen=lambda: cast("Capture | None", _connect(spec)),
        give_up=options.give_up,
        tell=options.tell,
    )


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
    capture = _open_pipeline(pipeline, layout)
    if capture is None:
        raise UserError(
            f"{spec} cannot be opened: this OpenCV has no GStreamer and there is no gst-launch-1.0; on a Jetson "
            "install gstreamer1.0-tools, elsewhere use a USB camera or a URL"
        )
    try:
        return LiveCapture(
            capture,
            name=f"CSI camera {sensor}",
            fps=layout.fps,
            reopen=lambda: _open_pipeline(pipeline, layout),
            give_up=options.give_up,
            tell=options.tell,
        )
    except UserError as error:
        why = f" ({capture.said()})" if isinstance(capture, PipeCapture) and capture.said() else ""
        raise UserError(
            f"{spec} gives no frame{why}; check the cable, that nvargus-daemon runs and that no other program uses it"
        ) from error


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
    """Raw frames that a program writes to its stdout."""

    def __init__(self, command: list[str], layout: RawFormat) -> None:
        self._layout = layout
        self._program = Program(command, writes=True)

    def read(self) -> tuple[bool, NDArray[np.generic] | None]:
        image = read_picture(cast(ByteStream, self._program.stdout), self._layout)
        return image is not None, image

    def release(self) -> None:
        self._program.end()

    def said(self) -> str:
        """The last line on the program's stderr."""
        return self._program.said()


def _open_device(number: int, options: SourceOptions) -> cv2.VideoCapture | None:
    with quiet_opencv():
        capture = cv2.VideoCapture(number)
        if options.size:
            capture.set(cv2.CAP_PROP_FRAME_HEIGHT, options.size[0])
            capture.set(cv2.CAP_PROP_FRAME_WIDTH, options.size[1])
        capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)
    return capture if capture.isOpened() else None


def _stable_link(number: int) -> Path | None:
    """The link in /dev/v4l/by-id that leads to a camera."""
    links = sorted(_BY_ID.iterdir()) if _BY_ID.is_dir() else []
    return next((link for link in links if link.resolve().name == f"video{number}"), None)


def _number_now(link: Path | None, number: int) -> int:
    target = re.fullmatch(r"video([0-9]+)", link.resolve().name) if link is not None and link.exists() else None
    return int(target[1]) if target else number


def _connect(url: str) -> cv2.VideoCapture | None:
    timeouts = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, _OPEN_TIMEOUT_MS, cv2.CAP_PROP_READ_TIMEOUT_MSEC, _READ_TIMEOUT_MS]
    with quiet_opencv():
        capture = cv2.VideoCapture(url, cv2.CAP_FFMPEG, timeouts)
    return capture if capture.isOpened() else None


def _open_pipeline(pipeline: str, layout: RawFormat) -> Capture | None:
    if cv2.videoio_registry.hasBackend(cv2.CAP_GSTREAMER):
        with quiet_opencv():
            opened = cv2.VideoCapture(f"{pipeline} ! appsink drop=true max-buffers=1 sync=false", cv2.CAP_GSTREAMER)
        return cast(Capture, opened)
    program = shutil.which("gst-launch-1.0")
    if program is None:
        return None
    return PipeCapture([program, "-q", *pipeline.split(), "!", "fdsink", "fd=1", "sync=false"], layout)
