"""Video files made from pictures, by any codec and with any tags."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

RATE = 25


def write_clip(
    path: Path,
    pictures: Sequence[np.ndarray],
    *,
    codec: str = "libx264",
    pixels: str = "yuv420p",
    matrix: int = 5,
    full_range: bool = False,
    stated: bool = True,
    aspect: Fraction | None = None,
    sound: str = "",
    muxer: dict[str, str] | None = None,
    **options: str,
) -> Path:
    """Write pictures, uint8 [H,W,3] BGR, at 25 per second.

    Args:
        path: The suffix names the container.
        pictures: All of one size.
        codec: FFmpeg's name of the encoder.
        pixels: Its pixel format.
        matrix: AVColorSpace of the pixels: 1 for BT.709, 5 for BT.601, 9 for BT.2020.
        full_range: Luma goes from 0 to 255.
        stated: The file says so.
        aspect: Width of a pixel divided by its height.
        sound: Encoder of a sound of the same length, a tone; none if empty.
        muxer: Options of the container.
        options: Options of the encoder.
    """
    with av.open(f"file:{path}", "w", options=muxer or {}) as container:
        stream: Any = container.add_stream(codec, rate=RATE, options=options)
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt = pixels
        context = stream.codec_context
        if aspect is not None:
            context.sample_aspect_ratio = aspect
        if stated:
            context.colorspace, context.color_range = matrix, 1 + full_range
        tone: Any = container.add_stream(sound, rate=16000, layout="mono") if sound else None
        for picture in pictures:
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="bgr24")
            if "yuv" in pixels:
                frame = frame.reformat(format=pixels, dst_colorspace=matrix, dst_color_range=1 + full_range)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if tone is not None:
            wave = np.sin(np.arange(16000 * len(pictures) // RATE) / 6).astype(np.float32)
            heard = av.AudioFrame.from_ndarray(wave[None], format="fltp", layout="mono")
            heard.sample_rate = 16000
            resampler = av.AudioResampler(
                tone.codec_context.format, "mono", 16000, tone.codec_context.frame_size or 320
            )
            for part in [*resampler.resample(heard), *resampler.resample(None)]:
                container.mux(tone.encode(part))
            container.mux(tone.encode(None))
    return path


def turn(path: Path, matrix: tuple[int, int, int, int]) -> None:
    """State a display matrix a, b, c, d in an mp4: a pixel is shown at x' = ax + cy, y' = bx + dy."""
    a, b, c, d = (value << 16 for value in matrix)
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 44
    data[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)


def trim(path: Path, start: float, seconds: float) -> None:
    """Cut an mp4 by its edit list, as telephones do: every frame stays in the file, and some are not shown."""
    with av.open(str(path)) as container:
        clock = container.streams.video[0].time_base
    assert clock is not None
    data = bytearray(path.read_bytes())
    at = data.index(b"elst") + 12
    (first,) = struct.unpack(">i", data[at + 4 : at + 8])
    data[at : at + 8] = struct.pack(">Ii", round(seconds * 1000), first + round(start / clock))
    path.write_bytes(data)
