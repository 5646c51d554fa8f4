"""Recording of a run over videos: J, F, masks and motion per frame, compressed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from rvos_edge.errors import UserError
from rvos_edge.trainer.data.readers.base import ReferringClips
from rvos_edge.trainer.evaluate.model import Predictor
from rvos_edge.trainer.metrics import boundary_accuracy, region_similarity
from rvos_edge.trainer.model.motion import motion_image, relative_magnitude
from rvos_edge.trainer.predictor import TorchSegmenter
from rvos_edge.trainer.report.runs import ReportRun


@dataclass(frozen=True)
class RecordedMotion:
    """Motion of a frame.

    Attributes:
        inside: Mean motion relative to the camera inside each query's object, float64 [Q], in pixels of the network's
            input; NaN where the object is not visible.
        outside: Mean motion in the rest of the frame, float64 [Q].
    """

    packed: bytes
    inside: NDArray[np.float64]
    outside: NDArray[np.float64]

    def image(self) -> NDArray[np.uint8]:
        """The motion image, uint8 [h,w], 255 where it is 1."""
        return np.asarray(cv2.imdecode(np.frombuffer(self.packed, np.uint8), cv2.IMREAD_GRAYSCALE), np.uint8)


@dataclass(frozen=True)
class Scored:
    """A scored frame.

    Attributes:
        packed: Masks of all queries, one below the other, as PNG; about 1 kB per mask at 480p.
        motion: Motion; None on first frames and for runs without flow.
    """

    j: NDArray[np.float64]
    f: NDArray[np.float64]
    packed: bytes
    motion: RecordedMotion | None

    def masks(self) -> NDArray[np.bool_]:
        """Masks of all queries, bool [Q,H,W]."""
        sheet = np.asarray(cv2.imdecode(np.frombuffer(self.packed, np.uint8), cv2.IMREAD_GRAYSCALE), np.uint8)
        return (sheet > 0).reshape(len(self.j), -1, sheet.shape[1])


@dataclass(frozen=True)
class Recording:
    """Scored frames of a run, by video and index."""

    run: ReportRun
    videos: dict[str, dict[int, Scored]]

    def j(self, video: str | None = None) -> float:
        """Mean J of a video over its queries and frames, or over all videos."""
        return self._mean(lambda frame: frame.j, video)

    def f(self, video: str | None = None) -> float:
        """Mean F of a video over its queries and frames, or over all videos."""
        return self._mean(lambda frame: frame.f, video)

    def of_query(self, video: str, query: int) -> float:
        """Mean J of one query over a video."""
        return _mean(float(frame.j[query]) for frame in self.videos[video].values())

    def _mean(self, measure: Callable[[Scored], NDArray[np.float64]], video: str | None) -> float:
        if video is None:
            return _mean(self._mean(measure, name) for name in self.videos)
        return _mean(float(measure(frame).mean()) for frame in self.videos[video].values())


def record(
    run: ReportRun,
    predictor: Predictor,
    clips: ReferringClips,
    *,
    every: int = 1,
    on_frame: Callable[[], None] = lambda: None,
) -> Recording:
    """Run every frame of every video, as flow needs the previous one, and record every n-th annotated frame.

    Raises:
        UserError: A video has no frames, no queries or no annotation, or a file is damaged.
    """
    videos: dict[str, dict[int, Scored]] = {}
    for video in clips.videos:
        queries = [query.expression for query in clips.queries(video)]
        if not queries or not clips.frames(video):
            raise UserError(
                f"The video '{video}' has no {'frames' if queries else 'queries'}; leave it out of --videos."
            )
        predictor.reset()
        predictor.set_queries(queries)
        scored: dict[int, Scored] = {}
        annotated = 0
        for index in range(len(clips.frames(video))):
            image, truth = clips.image(video, index), clips.masks(video, index)
            predicted = predictor.masks(image)
            if truth is not None:
                if annotated % every == 0:
                    flow = predictor.flow if index > 0 and isinstance(predictor, TorchSegmenter) else None
                    scored[index] = _score(truth, predicted, flow)
                annotated += 1
            on_frame()
        if not scored:
            raise UserError(f"No frame of the video '{video}' is annotated; leave it out of --videos.")
        videos[video] = scored
    return Recording(run, videos)


def _score(truth: NDArray[np.bool_], predicted: NDArray[np.bool_], flow: Tensor | None) -> Scored:
    return Scored(
        j=np.asarray(region_similarity(truth, predicted), np.float64),
        f=boundary_accuracy(truth, predicted),
        packed=_pack(predicted.reshape(-1, predicted.shape[2]).astype(np.uint8) * 255),
        motion=None if flow is None else _motion(flow, truth),
    )


def _motion(flow: Tensor, truth: NDArray[np.bool_]) -> RecordedMotion:
    magnitude = relative_magnitude(flow)[0, 0].cpu().numpy()
    height, width = magnitude.shape
    inside: list[float] = []
    outside: list[float] = []
    for mask in truth:
        small = cv2.resize(mask.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST) > 0
        inside.append(float(magnitude[small].mean()) if small.any() else math.nan)
        outside.append(float(magnitude[~small].mean()) if not small.all() else math.nan)
    picture = np.rint(motion_image(flow)[0, 0].cpu().numpy() * 255).astype(np.uint8)
    return RecordedMotion(_pack(picture), np.array(inside), np.array(outside))


def _pack(picture: NDArray[np.uint8]) -> bytes:
    done, data = cv2.imencode(".png", picture)
    assert done
    return data.tobytes()


def _mean(values: Iterable[float]) -> float:
    numbers = [value for value in values if not math.isnan(value)]
    return sum(numbers) / len(numbers) if numbers else math.nan
