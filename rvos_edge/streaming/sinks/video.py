"""Videos of overlays, masks and cut-outs, encoded by PyAV, with the sound of their source."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import av
import av.filter
import cv2
import numpy as np
from av.video.frame import PictureType
from numpy.typing import NDArray

from rvos_edge.atomic import PendingFile
from rvos_edge.errors import UserError
from rvos_edge.outputs import mark_file, names_path
from rvos_edge.result import Result
from rvos_edge.streaming.sinks.base import Look, Sink, draw_look, fit
from rvos_edge.streaming.sources import Frame, Sound, Tell, tell_stderr
from rvos_edge.streaming.sources.video import open_container

_KEY_SECONDS = 2
_RESERVE = 32 * 2**20
"""Bytes left free on the disk: the index of the video is written last, and without it nothing can be played."""
# While it grows the file is a series of fragments of a second, which can be played without what comes later: that is
# all a crash or a full disk can cost. When it is closed it becomes an ordinary file.
_FRAGMENTS = {"movflags": "+hybrid_fragmented", "frag_duration": "1000000", "flush_packets": "1"}
_CLUSTERS = {"cluster_time_limit": "1000", "flush_packets": "1"}
_GROWING = {".mp4": _FRAGMENTS, ".mov": _FRAGMENTS, ".mkv": _CLUSTERS, ".webm": _CLUSTERS}


class _Encoder(NamedTuple):
    """An encoder of FFmpeg, its pixel format and options, and the unit of its times, seconds."""

    name: str
    pixels: str
    options: dict[str, str]
    clock: Fraction = Fraction(1, 90_000)


_H264 = (
    # Without a look ahead: frames that an encoder holds are what a crash costs, many seconds of a slow camera.
    _Encoder("libx264", "yuv420p", {"preset": "superfast", "crf": "20", "tune": "zerolatency", "threads": "2"}),
    # Where PyAV's FFmpeg was built without GPL.
    _Encoder("libopenh264", "yuv420p", {}),
    _Encoder("mpeg4", "yuv420p", {"b": "6000000"}, Fraction(1, 60_000)),
)
_VP9 = {"deadline": "realtime", "cpu-used": "8", "row-mt": "1", "crf": "30", "b": "0", "lag-in-frames": "0"}
_ENCODERS: dict[str, tuple[_Encoder, ...]] = {
    ".mp4": _H264,
    ".mkv": _H264,
    ".mov": _H264,
    ".webm": (_Encoder("libvpx-vp9", "yuv420p", _VP9),),
    ".gif": (_Encoder("gif", "pal8", {}, Fraction(1, 100)),),
}
_WITH_ALPHA: dict[str, tuple[_Encoder, ...]] = {
    ".mov": (_Encoder("prores_ks", "yuva444p10le", {"profile": "4444"}),),
    ".webm": (_Encoder("libvpx-vp9", "yuva420p", _VP9),),
}
_FORMATS = {".mkv": "matroska"}
_PLAYED = frozenset({"aac", "ac3", "alac", "eac3", "flac", "mp3", "mp3float", "opus", "libopus"})
_SOUNDS: dict[str, tuple[frozenset[str], str]] = {
    ".mp4": (_PLAYED, "aac"),
    ".mov": (_PLAYED | {"pcm_s16le", "pcm_s24le"}, "aac"),
    ".mkv": (_PLAYED | {"pcm_s16le", "pcm_s24le", "vorbis"}, "aac"),
    ".webm": (frozenset({"opus", "libopus", "vorbis"}), "libopus"),
}
"""Sounds that are copied into a container because players know them there, and the encoder of others."""
VIDEO_SUFFIXES = frozenset(_ENCODERS)


class VideoSink(Sink):
    """Writes a video; the first frame fixes the size, others are fitted into it.

    The frames keep their times, counted from the first one: what a model took from a camera at 5 frames per second
    plays as long as it took. When the disk is nearly full the recording ends, whole, before it is too late for that.

    Args:
        path: Ends in .mp4, .mkv, .mov, .webm or .gif; cut-outs need .mov or .webm.
        sound: Sound of the source, which is copied, or encoded anew where the container cannot hold it, for as long
            as the video is; None for none.
    """

    def __init__(
        self,
        path: str | Path,
        fps: float,
        *,
        look: Look = Look.OVERLAY,
        sound: Sound | None = None,
        tell: Tell = tell_stderr,
    ) -> None:
        encoders = (_WITH_ALPHA if look is Look.CUTOUT else _ENCODERS).get(Path(path).suffix.lower())
        if encoders is None:
            kinds = ".mov, .webm, .png or a folder" if look is Look.CUTOUT else ", ".join(_ENCODERS)
            raise UserError(f"{path} must end in one of the kinds that are written: {kinds}")
        if not 0 < fps <= 1000:
            raise UserError(f"{fps:g} frames per second cannot be written to {path}; choose between 1 and 1000")
        self.wants_overlay = look is Look.OVERLAY
        self._look, self._sound, self._tell = look, sound, tell
        self._encoders = encoders
        self._file = PendingFile(path)
        if self._file.through:
            raise UserError(f"{path} is a pipe or a device, which holds no video; give a file, or - for raw frames")
        self._fps = fps
        self._film: _Film | None = None
        self._size = (0, 0)
        self._frames = 0
        self._begin = 0.0
        self.codec = ""
        if self._free() < _RESERVE:
            self._file.discard()
            raise UserError(f"{path} cannot be written: its disk has less than {_RESERVE >> 20} MiB left; make room")

    def write(self, frame: Frame, result: Result, overlay: NDArray[np.uint8] | None) -> None:
        picture = draw_look(self._look, frame, result, overlay)
        if self._film is None:
            self._size, self._begin = (picture.shape[0], picture.shape[1]), frame.timestamp
            self._film = self._open()
            self.codec = self._film.codec
        if self._free() < _RESERVE + 32 * self._frames:  # an index entry per frame
            raise UserError(f"{self._file.path} ends after {self._frames} frames: its disk is full; make room")
        try:
            self._film.write(fit(picture, self._size), frame.timestamp - self._begin)
        except OSError as error:
            raise UserError(
                f"{self._file.path} ends after {self._frames} frames: {error.strerror or error}; make room on its disk"
            ) from error
        self._frames += 1
        self._file.sync()

    def _free(self) -> int:
        with names_path(self._file.path):
            return shutil.disk_usage(self._file.partial.parent).free

    def _open(self) -> _Film:
        for encoder in self._encoders:
            with suppress(ValueError), names_path(self._file.path):
                film = _Film(self._file.partial, self._fps, self._size, encoder)
                if self._sound is not None:
                    self._add_sound(film, self._sound._replace(start=self._sound.start + self._begin))
                return film
        names = " or ".join(encoder.name for encoder in self._encoders)
        raise UserError(f"{self._file.path} cannot be written: this PyAV was built without {names}; install its wheel")

    def _add_sound(self, film: _Film, sound: Sound) -> None:
        try:
            film.add_sound(sound)
        except (av.FFmpegError, ValueError) as error:
            self._tell(f"{self._file.path}: the sound of the source is left out ({error})")

    def close(self) -> None:
        if self._film is None:
            self._file.discard()
            return
        film, self._film = self._film, None
        why = ""
        try:
            film.close()
            mark_file(self._file.partial)
        except OSError as error:
            why = error.strerror or str(error)
        if why and not _playable(self._file.partial):
            self._file.discard()
            raise UserError(f"{self._file.path} cannot be written: {why}; check the free space of its disk")
        self._file.commit()
        if why:
            raise UserError(f"{self._file.path} can be played but misses its end: {why}; make room on its disk")

    def abort(self) -> None:
        film, self._film = self._film, None
        if film is not None:
            with suppress(OSError):
                film.close()
        self._file.discard()


class _Film:
    """Encodes pictures with their own times, and copies the sound beside them.

    Raises:
        ValueError: PyAV's FFmpeg lacks the encoder.
        OSError: The file cannot be written.
    """

    def __init__(self, path: Path, fps: float, size: tuple[int, int], encoder: _Encoder) -> None:
        av.codec.Codec(encoder.name, "w")
        self.codec = encoder.name
        suffix = self._suffix = path.suffix.lower()
        self._clock = encoder.clock
        rate = Fraction(fps).limit_denominator(1001)
        self._step = max(1, round(1 / (rate * self._clock)))
        self._last: int | None = None
        self._last_key: int | None = None
        self._container = _open(path, _FORMATS.get(suffix, suffix[1:]), _GROWING.get(suffix, {}))
        self._stream = self._container.add_stream(encoder.name, rate=rate, options=encoder.options)
        # Colours are shared among pairs of pixels: an odd edge is repeated.
        self._odd = (size[0] % 2, size[1] % 2) if "420" in encoder.pixels else (0, 0)
        self._stream.height, self._stream.width = size[0] + self._odd[0], size[1] + self._odd[1]
        self._stream.pix_fmt = encoder.pixels
        context = self._stream.codec_context
        context.time_base = self._clock
        if encoder.pixels.startswith("yuv"):
            # What the conversion from BGR uses; without the mark players guess others for large pictures.
            context.colorspace = context.color_primaries = context.color_trc = 6  # SMPTE 170M
        self._palettes: av.filter.Graph | None = None
        self._sound: Iterator[Any] | None = None
        self._waiting: Any = None

    def add_sound(self, sound: Sound) -> None:
        """Take over a sound from now on.

        Raises:
            ValueError: This container has no sound, or PyAV's FFmpeg lacks an encoder.
            av.FFmpegError: The source cannot be read.
        """
        if self._suffix not in _SOUNDS:
            raise ValueError(f"a {self._suffix} has none")
        copied, encoder = _SOUNDS[self._suffix]
        source = open_container(sound.path)
        stream = source.streams.best("audio")
        start = round(sound.start / stream.time_base)
        if stream.codec_context.name in copied:
            self._sound = _moved(source, stream, self._container.add_stream_from_template(stream), start)
        else:
            layout = "mono" if stream.codec_context.channels == 1 else "stereo"
            target = self._container.add_stream(encoder, rate=48000, layout=layout)
            self._sound = _encoded(source, stream, target, start)

    def write(self, image: NDArray[np.uint8], seconds: float) -> None:
        if any(self._odd):
            image = np.pad(image, ((0, self._odd[0]), (0, self._odd[1]), (0, 0)), mode="edge")
        palette = self._stream.pix_fmt == "pal8"
        if self._stream.pix_fmt == "yuv420p":
            planes = np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2YUV_I420), np.uint8)  # a third of swscale's time
            frame = av.VideoFrame.from_ndarray(planes, format="yuv420p")
        else:
            # Without a copy where the encoder's colours are another picture anyway.
            make = av.VideoFrame.from_ndarray if palette else av.VideoFrame.from_numpy_buffer
            frame = make(np.ascontiguousarray(image), format="bgra" if image.shape[2] == 4 else "bgr24")
        now = round(seconds / self._clock)
        self._last = now if self._last is None else max(now, self._last + 1)
        frame.pts, frame.time_base = self._last, self._clock
        frame.duration = self._step
        # By time and not by number: of a camera's 30 frames per second a model may take two.
        if self._last_key is None or (self._last - self._last_key) * self._clock >= _KEY_SECONDS:
            frame.pict_type, self._last_key = PictureType.I, self._last
        if palette:
            frame = self._with_palette(frame)
        self._container.mux(self._stream.encode(frame))
        self._copy_sound(float(self._last * self._clock))

    def _with_palette(self, frame: av.VideoFrame) -> av.VideoFrame:
        """The frame in 256 colours of its own."""
        if self._palettes is None:
            graph = self._palettes = av.filter.Graph()
            source = graph.add_buffer(
                width=frame.width, height=frame.height, format=frame.format, time_base=self._clock
            )
            split, made = graph.add("split"), graph.add("palettegen", "stats_mode=single")
            used, sink = graph.add("paletteuse", "new=1"), graph.add("buffersink")
            source.link_to(split)
            split.link_to(made, 0, 0)
            split.link_to(used, 1, 0)
            made.link_to(used, 0, 1)
            used.link_to(sink)
            graph.configure()
        self._palettes.vpush(frame)
        return self._palettes.vpull()

    def _copy_sound(self, until: float) -> None:
        while self._sound is not None:
            packet = self._waiting or next(self._sound, None)
            self._waiting = None
            if packet is None:
                self._sound = None
            elif packet.pts * packet.time_base > until:
                self._waiting = packet
                return
            else:
                self._container.mux(packet)

    def close(self) -> None:
        try:
            if self._last is not None:
                self._container.mux(self._stream.encode(None))
                self._copy_sound(float((self._last + self._step) * self._clock))
        finally:
            self._container.close()


def _open(path: Path, kind: str, options: dict[str, str]) -> Any:
    return av.open(f"file:{path}", "w", format=kind, options=options)


def _moved(source: Any, stream: Any, copy: Any, start: int) -> Iterator[Any]:
    """Packets of a sound for another container, with times that begin where the video does."""
    with source, suppress(av.FFmpegError):  # a damaged end is silence
        for packet in source.demux(stream):
            if packet.dts is not None and packet.pts is not None and packet.pts >= start:
                packet.pts, packet.dts = packet.pts - start, packet.dts - start
                packet.stream = copy
                yield packet


def _encoded(source: Any, stream: Any, target: Any, start: int) -> Iterator[Any]:
    """Packets of a sound, decoded and encoded anew, with times that begin where the video does."""
    context = target.codec_context
    resampler = av.AudioResampler(context.format, context.layout, context.sample_rate, context.frame_size or 960)
    with source, suppress(av.FFmpegError):
        for frame in source.decode(stream):
            if frame.pts is not None and frame.pts >= start:
                frame.pts -= start
                for part in resampler.resample(frame):
                    yield from target.encode(part)
        for part in resampler.resample(None):
            yield from target.encode(part)
        yield from target.encode(None)


def _playable(path: Path) -> bool:
    with suppress(OSError, ValueError), av.open(f"file:{path}") as container:
        return next(container.decode(video=0), None) is not None
    return False
