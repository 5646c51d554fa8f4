"""Make the clip of ``rvos-edge demo``: a camera that moves over two photographs.

    pip install scikit-image && python docs/demo_clip.py rvos_edge/demo.mp4

Both photographs come with scikit-image and may be used by anyone for anything: the astronaut Eileen Collins (NASA,
public domain, https://flic.kr/p/r9qvLn) and Chelsea the cat (CC0 by its photographer, Stefan van der Walt).
"""

from __future__ import annotations

import sys
from pathlib import Path

import av
import cv2
import numpy as np
import skimage.data
from numpy.typing import NDArray

SIZE = (640, 360)
FPS, FRAMES = 25, 90
MARGIN, SWAY = 40, 8
"""Pixels of the wall around a photograph, and by which the hand moves."""
PAINT = (226, 222, 214)
"""Colour of the wall, RGB."""
REACH = 0.75
"""Share of the way to the other end that the camera goes."""
CRF = "27"


def wall() -> NDArray[np.uint8]:
    """The photographs on a wall, the cat looking at the astronaut: uint8 [H,W,3] RGB."""
    astronaut, cat = skimage.data.astronaut(), skimage.data.chelsea()[:, ::-1]
    height = astronaut.shape[0]
    width = round(cat.shape[1] * height / cat.shape[0])
    cat = cv2.resize(cat, (width, height), interpolation=cv2.INTER_CUBIC)
    hung = [cv2.copyMakeBorder(photo, *[MARGIN] * 4, cv2.BORDER_CONSTANT, value=PAINT) for photo in (astronaut, cat)]
    return np.hstack(hung)


def view(picture: NDArray[np.uint8], time: float) -> NDArray[np.uint8]:
    """View of the camera at a time from 0 to 1: it moves to the right and back, and is held by hand."""
    ease = REACH * (1 - np.cos(2 * np.pi * time)) / 2
    height = picture.shape[0] - 2 * SWAY
    width = height * SIZE[0] / SIZE[1]
    left = SWAY + ease * (picture.shape[1] - width - 2 * SWAY) + SWAY * np.sin(9 * time) / 2
    top = SWAY + SWAY * np.sin(13 * time) / 2
    scale = SIZE[0] / width
    moved = np.array([[scale, 0, -left * scale], [0, scale, -top * scale]])
    return cv2.warpAffine(picture, moved, SIZE, flags=cv2.INTER_AREA, borderMode=cv2.BORDER_REPLICATE)


def main(path: Path) -> None:
    picture = wall()
    with av.open(str(path), "w", options={"movflags": "+faststart"}) as container:
        stream = container.add_stream("libx264", rate=FPS, options={"crf": CRF, "preset": "veryslow"})
        stream.width, stream.height = SIZE
        stream.pix_fmt = "yuv420p"
        for index in range(FRAMES):
            frame = av.VideoFrame.from_ndarray(view(picture, index / (FRAMES - 1)), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
