"""Recordings of runs: the results of an evaluation, with masks and motion of every scored frame, kept on disk."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from rvos_edge import __version__
from rvos_edge.atomic import new_file
from rvos_edge.errors import UserError
from rvos_edge.progress import progress_bar
from rvos_edge.streaming.ledger import Ledger
from rvos_edge.trainer.data.readers.base import AnnotatedClips, ReferringClips, image_paths
from rvos_edge.trainer.evaluate.model import Predictor, model_hash, open_predictor
from rvos_edge.trainer.evaluate.scorers import Metrics
from rvos_edge.trainer.evaluate.video import Rules, evaluate_clips
from rvos_edge.trainer.metrics import region_similarity
from rvos_edge.trainer.model.motion import motion_image
from rvos_edge.trainer.predictor import TorchSegmenter
from rvos_edge.trainer.report.runs import ReportRun

_ROW = "row"
"""Key of a video's scores in its file."""


class VideoRecording:
    """The recorded frames of a video, read from its file when they are asked for.

    Attributes:
        frames: Indices of the scored frames, ascending.
        row: The video's scores (``Scorer.row``).
        queries: Number of its queries.
        has_motion: True if the run computes flow and tells of it, as checkpoints do and bundles do not.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with np.load(path) as file:
            self.frames: list[int] = file["frames"].tolist()
            self.row: Metrics = json.loads(file[_ROW].tobytes())
            self._j, self._motion = file["j"], file["motion"]
        self.queries = self._j.shape[1]
        self.has_motion = not np.isnan(self._motion).all()

    def j(self, index: int, query: int) -> float:
        """J of a query's mask on a scored frame; NaN where it was not scored."""
        return float(self._j[self.frames.index(index), query])

    def mean_j(self, query: int) -> float:
        """Mean J of a query over the scored frames."""
        values = self._j[:, query]
        return float(np.nanmean(values)) if not np.isnan(values).all() else math.nan

    def motion(self, index: int, query: int) -> float:
        """Mean motion inside the object after the camera's, in pixels of the network's input per frame; NaN on a first
        frame, where the object is not visible, and for runs without flow.
        """
        return float(self._motion[self.frames.index(index), query])

    def mask(self, index: int, query: int) -> NDArray[np.bool_]:
        """Mask of a query on a scored frame, bool [H,W]."""
        return self._picture(f"{index}-{query}") > 0

    def motion_image(self, index: int) -> NDArray[np.uint8] | None:
        """The network's motion image of a scored frame, uint8 [h,w], 255 where it is 1; None without flow."""
        with np.load(self._path) as file:
            return self._picture(f"flow-{index}") if f"flow-{index}" in file else None

    def _picture(self, key: str) -> NDArray[np.uint8]:
        with np.load(self._path) as file:
            return np.asarray(cv2.imdecode(file[key], cv2.IMREAD_GRAYSCALE), np.uint8)


@dataclass(frozen=True)
class Recording:
    """A run over the videos of a split: its results, as ``evaluate_clips`` returns them, and the recorded videos."""

    run: ReportRun
    results: Metrics
    videos: Mapping[str, VideoRecording]


class _Recorder(Ledger):
    """Rows of an evaluation with masks and motion beside them, a file per video; a recorded video is not run again."""

    def __init__(self, folder: Path, predictor: Predictor) -> None:
        super().__init__(None, {})
        self._folder, self._predictor = folder, predictor
        self._kept: dict[str, NDArray[Any]] = {}
        self._values: dict[int, dict[int, tuple[float, float]]] = {}

    def file(self, video: str) -> Path:
        """File of a video."""
        return self._folder / f"{video.replace('/', '-')}.npz"

    def watch(
        self, video: str, index: int, queries: Sequence[int], truth: NDArray[np.bool_], masks: NDArray[np.bool_]
    ) -> None:
        """Keep a scored frame, as ``evaluate_clips`` shows it."""
        flow, moved = getattr(self._predictor, "flow", None), np.full(len(queries), math.nan)
        if index > 0 and flow is not None and isinstance(self._predictor, TorchSegmenter):
            self._kept[f"flow-{index}"] = _png(np.rint(motion_image(flow)[0, 0].cpu().numpy() * 255).astype(np.uint8))
            moved = object_motion(flow[0].cpu().numpy(), truth)
        scores = region_similarity(truth, masks)
        for query, mask, score, motion in zip(queries, masks, scores, moved, strict=True):
            self._kept[f"{index}-{query}"] = _png(mask.astype(np.uint8) * 255)
            self._values.setdefault(index, {})[query] = (float(score), float(motion))

    def get(self, part: str, name: str) -> dict[str, Any] | None:
        """The row of a recorded video, else None."""
        return VideoRecording(self.file(name)).row if self.file(name).is_file() else None

    def put(self, part: str, name: str, row: Mapping[str, Any]) -> dict[str, Any]:
        """Write a video's file."""
        frames = sorted(self._values)
        count = 1 + max((query for values in self._values.values() for query in values), default=-1)
        empty = (math.nan, math.nan)
        values = [[self._values[index].get(query, empty) for query in range(count)] for index in frames]
        table = np.array(values, np.float64).reshape(len(frames), count, 2)
        text = np.frombuffer(json.dumps(row).encode(), np.uint8)
        savez: Any = np.savez  # its types take every name of an array for an option
        arrays = {"frames": np.array(frames, np.int64), _ROW: text, "j": table[..., 0], "motion": table[..., 1]}
        with new_file(self.file(name)) as temporary, temporary.open("wb") as file:
            savez(file, **arrays, **self._kept)
        self._kept, self._values = {}, {}
        return super().put(part, name, row)


def record_run(
    run: ReportRun, clips: AnnotatedClips, dataset: str, *, every: int, cache: Path, console: Console
) -> Recording:
    """Evaluate a run and record it; videos that are recorded in ``cache`` already are not run again.

    Raises:
        UserError: A file is missing or damaged, or the recordings cannot be written.
    """
    checkpoint, bundle = (None, run.path) if run.is_bundle else (run.path, None)
    folder = cache / f"{dataset}-{_key(model_hash(checkpoint, bundle), clips, dataset, every)}"
    with open_predictor(checkpoint, bundle, backend="onnxruntime") as predictor:
        recorder = _Recorder(folder, predictor)
        videos = [video for video in clips.videos if clips.queries(video)]
        done = sum(recorder.file(video).is_file() for video in videos)
        console.print(f"{run.name}: {done} of {len(videos)} videos are recorded in {folder}", highlight=False)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with progress_bar(console) as progress:
                results = evaluate_clips(
                    predictor,
                    clips,
                    dataset,
                    rules=Rules(every),
                    ledger=recorder,
                    progress=progress,
                    watch=recorder.watch,
                )
        except OSError as error:
            raise UserError(f"Cannot record in {folder} ({error.strerror}); choose another --cache.") from error
    return Recording(run, results, {video: VideoRecording(recorder.file(video)) for video in videos})


def object_motion(flow: NDArray[np.float32], objects: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Mean motion of objects after the camera's, float64 [N], in the pixels of the flow; NaN for an empty object.

    The camera's motion is an affine field, fitted by least squares to the flow outside all objects, and again to the
    better half of it, so that what else moves there counts less.

    Args:
        flow: [2,h,w].
        objects: [N,H,W], of any size.
    """
    height, width = flow.shape[1:]
    small = np.stack([cv2.resize(mask.astype(np.uint8), (width, height)) > 0 for mask in objects])
    y, x = np.mgrid[:height, :width]
    terms = np.stack([np.ones(x.size), x.ravel() / width, y.ravel() / height], axis=1)
    values = flow.reshape(2, -1).T.astype(np.float64)
    chosen = ~small.any(axis=0).ravel()
    rest = values
    for _ in range(2):
        if chosen.sum() > terms.shape[1]:
            rest = values - terms @ np.linalg.lstsq(terms[chosen], values[chosen], rcond=None)[0]
            size = np.linalg.norm(rest, axis=1)
            chosen &= size <= np.median(size[chosen])
    size = np.linalg.norm(rest, axis=1).reshape(height, width)
    return np.array([size[mask].mean() if mask.any() else math.nan for mask in small])


def _key(model: str, clips: ReferringClips, dataset: str, every: int) -> str:
    """Hash of all that a recording depends on."""
    digest = hashlib.sha256(repr((__version__, model, dataset, every, str(clips.root.resolve()))).encode())
    for video in clips.videos:
        changed = max((path.stat().st_mtime_ns for path in image_paths(clips, video) if path.is_file()), default=0)
        digest.update(repr((video, clips.queries(video), len(clips.frames(video)), changed)).encode())
    return digest.hexdigest()[:16]


def _png(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.asarray(cv2.imencode(".png", picture)[1], np.uint8)
