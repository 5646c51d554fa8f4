"""Overlay videos: H.264 by PyAV where it is installed, else by an encoder of OpenCV."""

from __future__ import annotations

import shutil
from contextlib import suppress
from fractions import Fraction
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from rvos_edge.atomic import PendingFile
from rvos_edge.errors import UserError
from rvos_edge.outputs import mark_video, names_path
from rvos_edge.streaming.sinks.base import fit
from rvos_edge.streaming.sources import Frame, quiet_opencv

if TYPE_CHECKING:
    from rvos_edge.result import Result

_FOURCCS = ("avc1", "mp4v")  # H.264 plays everywhere, but pip's OpenCV can seldom write it
_CLOCK = Fraction(1, 90_000)
_KEY_SECONDS = 2
_FRAGMENTS = {"movflags": "+hybrid_fragmented", "frag_duration": "1000000"}
_LONGEST_REPEAT = 10.0
"""Seconds for which OpenCV's encoder, which knows no times, repeats a picture while nothing comes."""
_RESERVE = 32 * 2**20
"""Bytes left free on the disk: the index of the video is written last, and without it nothing can be played."""


class VideoSink:
    """Writes the overlays as an mp4; the first frame fixes the size, others are fitted into it.

    The frames keep their times: what a model took from a camera at 5 frames per second plays as long as it took.
    When the disk is nearly full the recording ends, whole, before it is too late for that.

    Args:
        path: Ends in .mp4.
        fps: Frames per second that the source states.

    Raises:
        UserError: The path cannot be written, or its disk is full.

    Attributes:
        codec: Encoder in use ("libx264", or a FourCC of OpenCV), empty before the first frame.
    """

    wants_overlay = True

    def __init__(self, path: str | Path, fps: float) -> None:
        if Path(path).suffix.lower() != ".mp4":
            raise UserError(f"{path} must end in .mp4, the one kind of video that is written")
        if not 0 < fps <= 1000:
            raise UserError(f"{fps:g} frames per second cannot be written to {path}; choose between 1 and 1000")
        self._file = PendingFile(path)
        if self._file.through:
            raise UserError(f"{path} is a pipe or a device, which holds no mp4; give a file, or - for raw frames")
        self._fps = fps
        self._encoder: _Encoder | None = None
        self._size = (0, 0)
        self._frames = 0
        self.codec = ""
        if self._free() < _RESERVE:
            self._file.discard()
            raise UserError(f"{path} cannot be written: its disk has less than {_RESERVE >> 20} MiB left; make room")

    def write(self, frame: Frame, result: Result, overlay: NDArray[np.uint8] | None) -> None:
        if overlay is None:
            raise ValueError("a VideoSink needs the overlay")
        if self._encoder is None:
            self._size = (overlay.shape[0], overlay.shape[1])
            self._encoder = self._open_encoder()
            self.codec = self._encoder.codec
        if self._free() < _RESERVE + 32 * self._frames:  # an index entry per frame
            raise UserError(f"{self._file.path} ends after {self._frames} frames: its disk is full; make room")
        try:
            self._encoder.write(fit(overlay, self._size), frame.timestamp)
        except OSError as error:
            raise UserError(
                f"{self._file.path} ends after {self._frames} frames: {error.strerror or error}; make room on its disk"
            ) from error
        self._frames += 1

    def _free(self) -> int:
        with names_path(self._file.path):
            return shutil.disk_usage(self._file.partial.parent).free

    def _open_encoder(self) -> _Encoder:
        # Without PyAV, or with one that was built without this encoder.
        with suppress(ImportError, ValueError), names_path(self._file.path):
            return _AvEncoder(self._file.partial, self._fps, self._size)
        for fourcc in _FOURCCS:
            with quiet_opencv():
                code = cv2.VideoWriter.fourcc(*fourcc)
                writer = cv2.VideoWriter(str(self._file.partial), code, self._fps, self._size[::-1])
            if writer.isOpened():
                return _OpenCVEncoder(writer, fourcc, self._fps)
            writer.release()
        height, width = self._size
        raise UserError(f"{self._file.path} cannot be written: this OpenCV encodes no {width}x{height} mp4 video")

    def close(self) -> None:
        if self._encoder is None:
            self._file.discard()
            return
        encoder, self._encoder = self._encoder, None
        why = ""
        try:
            encoder.close()
            mark_video(self._file.partial)
        except OSError as error:
            why = error.strerror or str(error)
        if not _playable(self._file.partial):  # OpenCV does not tell what goes wrong
            self._file.discard()
            raise UserError(
                f"{self._file.path} cannot be written{why and ': ' + why}; check the free space of its disk"
            )
        self._file.commit()
        if why:
            raise UserError(f"{self._file.path} can be played but misses its end: {why}; make room on its disk")

    def abort(self) -> None:
        encoder, self._encoder = self._encoder, None
        if encoder is not None:
            with suppress(OSError):
                encoder.close()
        self._file.discard()


class _Encoder(Protocol):
    codec: str

    def write(self, image: NDArray[np.uint8], seconds: float) -> None: ...

    def close(self) -> None: ...


class _AvEncoder:
    """H.264 with the frames' own times.

    While it grows the file is a series of fragments of a second, which can be played without what comes later: that is
    all a crash or a full disk can cost. When it is closed it becomes an ordinary mp4.
    """

    codec = "libx264"

    def __init__(self, path: Path, fps: float, size: tuple[int, int]) -> None:
        av: Any = import_module("av")  # optional
        av.codec.Codec(self.codec, "w")
        self._av = av
        rate = Fraction(fps).limit_denominator(1001)
        self._step = round(1 / (rate * _CLOCK))
        self._last: int | None = None
        self._last_key: int | None = None
        self._container = av.open(str(path), "w", format="mp4", options=_FRAGMENTS)
        options = {"preset": "veryfast", "crf": "20", "rc-lookahead": "10", "threads": "2"}
        self._stream: Any = self._container.add_stream(self.codec, rate=rate, options=options)
        # H.264 shares colours among pairs of pixels: an odd edge is repeated.
        self._odd = size[0] % 2, size[1] % 2
        self._stream.height, self._stream.width = size[0] + self._odd[0], size[1] + self._odd[1]
        self._stream.pix_fmt = "yuv420p"
        context = self._stream.codec_context
        context.time_base = _CLOCK
        # What OpenCV and swscale use for BGR, said aloud: players guess otherwise for large pictures.
        context.colorspace = context.color_primaries = context.color_trc = 6  # SMPTE 170M

    def write(self, image: NDArray[np.uint8], seconds: float) -> None:
        if any(self._odd):
            image = np.pad(image, ((0, self._odd[0]), (0, self._odd[1]), (0, 0)), mode="edge")
        frame = self._av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="bgr24")
        now = round(seconds / _CLOCK)
        self._last = now if self._last is None else max(now, self._last + 1)
        frame.pts, frame.time_base, frame.duration = self._last, _CLOCK, self._step
        # By time and not by number: of a camera's 30 frames per second a model may take two.
        if self._last_key is None or (self._last - self._last_key) * _CLOCK >= _KEY_SECONDS:
            frame.pict_type, self._last_key = self._av.video.frame.PictureType.I, self._last
        self._container.mux(self._stream.encode(frame))

    def close(self) -> None:
        try:
            if self._last is not None:
                self._container.mux(self._stream.encode(None))
        finally:
            self._container.close()


class _OpenCVEncoder:
    """Encodes a constant frame rate with OpenCV: a picture is repeated until the next one is due."""

    def __init__(self, writer: cv2.VideoWriter, codec: str, fps: float) -> None:
        self.codec = codec
        self._writer = writer
        self._fps = fps
        self._written = 0
        self._skipped = 0.0
        self._start: float | None = None
        self._last: NDArray[np.uint8] | None = None

    def write(self, image: NDArray[np.uint8], seconds: float) -> None:
        self._start = seconds if self._start is None else self._start
        due = (seconds - self._start - self._skipped) * self._fps - self._written
        if due > _LONGEST_REPEAT * self._fps:
            self._skipped += due / self._fps - _LONGEST_REPEAT
            due = _LONGEST_REPEAT * self._fps
        for _ in range(round(due) if self._last is not None else 0):
            self._put(self._last)
        self._put(image)
        self._last = image

    def _put(self, image: NDArray[np.uint8] | None) -> None:
        if image is not None:
            with quiet_opencv():
                self._writer.write(image)
            self._written += 1

    def close(self) -> None:
        self._writer.release()


def _playable(path: Path) -> bool:
    with quiet_opencv():
        capture = cv2.VideoCapture(str(path))
        ok, _ = capture.read()
    capture.release()
    return bool(ok)
