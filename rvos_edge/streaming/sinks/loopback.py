"""A virtual camera that other programs can open: a device of the kernel module v4l2loopback."""

from __future__ import annotations

import os
import re
import struct
import sys
from contextlib import suppress
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from rvos_edge.errors import UserError
from rvos_edge.outputs import names_path
from rvos_edge.result import Result
from rvos_edge.streaming.sinks.base import Sink, fit
from rvos_edge.streaming.sources import Frame

DEVICE = re.compile(r"^/dev/video[0-9]+$")
# linux/videodev2.h: struct v4l2_capability has 104 bytes; v4l2_format a number and, aligned for pointers, 200 bytes.
_ALIGN = struct.calcsize("P")
_QUERYCAP = 0x80685600
_S_FMT = 0xC0005605 | (_ALIGN + 200) << 16
_CAP_VIDEO_OUTPUT = 0x2
_CAP_DEVICE_CAPS = 0x80000000
_BUF_TYPE_VIDEO_OUTPUT = 2
_FIELD_NONE = 1
_COLORSPACE_SMPTE170M = 1
_YUV420 = int.from_bytes(b"YU12", "little")


class LoopbackSink(Sink):
    """Shows the overlays as a camera; the first fixes the size, others are fitted into it.

    Args:
        path: Such as /dev/video10, made by `modprobe v4l2loopback video_nr=10 exclusive_caps=1`.

    Raises:
        UserError: It is not there, no device to write to, or busy.
    """

    wants_overlay = True

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path)
        self._file: int | None = None
        self._size = (0, 0)
        self._begun = False
        if not sys.platform.startswith("linux"):
            raise UserError(f"{path} is a video device of Linux; write a file instead, or an RTSP stream")
        if not self._path.exists():
            raise UserError(
                f"{path} does not exist; make it with: sudo modprobe v4l2loopback "
                f"video_nr={self._path.name.removeprefix('video')} exclusive_caps=1"
            )
        with names_path(path):
            self._file = os.open(self._path, os.O_RDWR)
        if not self._takes_frames():
            self.close()
            raise UserError(f"{path} is no device that frames can be written to, as v4l2loopback makes; choose another")

    def _takes_frames(self) -> bool:
        capability = bytearray(104)
        try:
            self._control(_QUERYCAP, capability)
        except OSError:
            return False
        whole, device = struct.unpack_from("=II", capability, 84)
        return bool((device if whole & _CAP_DEVICE_CAPS else whole) & _CAP_VIDEO_OUTPUT)

    def _control(self, request: int, content: bytearray) -> None:
        import fcntl

        assert self._file is not None
        fcntl.ioctl(self._file, request, content)

    def write(self, frame: Frame, result: Result, overlay: NDArray[np.uint8] | None) -> None:
        assert overlay is not None
        if not self._begun:
            self._begin(overlay.shape[0], overlay.shape[1])
        picture = cv2.cvtColor(fit(overlay, self._size), cv2.COLOR_BGR2YUV_I420)
        with names_path(self._path):
            assert self._file is not None
            os.write(self._file, np.ascontiguousarray(picture).data)

    def _begin(self, height: int, width: int) -> None:
        # Colours are shared by squares of four pixels: an odd edge goes.
        self._size = height, width = max(2, height // 2 * 2), max(2, width // 2 * 2)
        wanted = bytearray(_ALIGN + 200)
        struct.pack_into("=I", wanted, 0, _BUF_TYPE_VIDEO_OUTPUT)
        size = height * width * 3 // 2
        struct.pack_into("=7I", wanted, _ALIGN, width, height, _YUV420, _FIELD_NONE, width, size, _COLORSPACE_SMPTE170M)
        with names_path(self._path):
            self._control(_S_FMT, wanted)
        taken = struct.unpack_from("=3I", wanted, _ALIGN)
        if taken != (width, height, _YUV420):
            raise UserError(
                f"{self._path} does not take {width}x{height} pictures (it offers {taken[0]}x{taken[1]}); "
                "close the programs that read it, or load v4l2loopback again"
            )
        self._begun = True

    def close(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            with suppress(OSError):
                os.close(file)
