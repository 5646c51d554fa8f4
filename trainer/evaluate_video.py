"""Videos through a predictor: DAVIS-16 with its sentences, and held-out scenes of the synthetic camera."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from rich.progress import Progress

from rvos_edge.errors import UserError
from rvos_edge.stream.synthetic import SyntheticCamera
from rvos_edge.trainer.data import lexicon
from rvos_edge.trainer.data.davis import DavisDataset
from rvos_edge.trainer.data.synthetic import EVALUATION_SEEDS
from rvos_edge.trainer.metrics import boundary_accuracy, region_similarity, statistics

EMPTY_SHARE = 0.005
"""A mask below this share of the image counts as the answer "nothing"."""
_KINDS = ("colour", "shape", "size")
_ABSENT = 2
# As in the synthetic camera's own wording: smaller remains cannot be named.
_VISIBLE = 0.0006

Metrics = dict[str, Any]


class Predictor(Protocol):
    """What is judged: a checkpoint or a bundle behind the same three methods."""

    def reset(self) -> None:
        """Forget the video; the next frame is a first frame."""

    def set_queries(self, queries: Sequence[str]) -> None:
        """Say what to segment from the next frame on."""

    def masks(self, frame: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """uint8 [H,W,3] BGR -> bool [Q,H,W] at the frame's size."""


def evaluate_davis(
    predictor: Predictor,
    root: Path,
    *,
    split: str | Sequence[str] = "val",
    expressions: Path | None = None,
    every: int = 1,
    progress: Progress | None = None,
) -> Metrics:
    """J and F on DAVIS-16, every sentence of a video asked in one pass, masks scored at their own size.

    One sentence of the next video goes along in the same pass. A network that follows the text does not answer it
    with this video's object: its J (``shuffled_j``) and its share of the image (``absent_foreground``, where the
    sentence surely names nothing here) should be near zero.

    Args:
        predictor: What is judged.
        root: The folder with JPEGImages and Annotations.
        split: "val": the videos of ImageSets/480p/val.txt, or where there is none the development split; "dev" and
            "train": the development split; "all": every video with sentences; or names of videos.
        expressions: The sentences' JSON; ROOT/meta_expressions.json when None.
        every: Score every n-th frame; all frames are seen.
        progress: Where a bar is drawn.

    Returns:
        Means over the videos (``j``, ``f``, their recall and decay, ...) and ``videos``, the same for each.

    Raises:
        UserError: A folder, file, video or option does not fit.
    """
    if every < 1:
        raise UserError(f"every must be at least 1, not {every}: it scores every n-th frame.")
    data = open_davis(root, split=split, expressions=expressions)
    task = None
    if progress is not None:
        task = progress.add_task("davis16", total=sum(len(data.frames(video)) for video in data.videos))
    videos: dict[str, Metrics] = {}
    for video, following in zip(data.videos, (*data.videos[1:], data.videos[0]), strict=True):
        own = list(dict.fromkeys(data.sentences(video)))
        foreign = data.sentences(following)[0] if following != video else None
        predictor.reset()
        predictor.set_queries([*own, foreign] if foreign else own)
        rows: list[tuple[NDArray[np.float64], NDArray[np.float64], float]] = []
        for index in range(len(data.frames(video))):
            image, values = data.load(video, index)
            masks = predictor.masks(image)
            if index % every == 0:
                truth = np.broadcast_to(values > 0, masks.shape)
                boundary = boundary_accuracy(truth[: len(own)], masks[: len(own)])
                rows.append((region_similarity(truth, masks), boundary, float(masks[-1].mean())))
            if progress is not None and task is not None:
                progress.advance(task)
        videos[video] = _of_video(own, rows)
        if foreign:
            videos[video]["shuffled"] = {
                "sentence": foreign,
                "j": mean(row[0][-1] for row in rows),
                "foreground": mean(row[2] for row in rows),
                "absent": lexicon.surely_absent(foreign, data.categories(video), own),
            }
    names = ("j", "j_recall", "j_decay", "f", "f_recall", "f_decay")
    totals: Metrics = {name: mean(video[name] for video in videos.values()) for name in names}
    foreigners = [video["shuffled"] for video in videos.values() if "shuffled" in video]
    totals["shuffled_j"] = mean(entry["j"] for entry in foreigners)
    totals["shuffled_foreground"] = mean(entry["foreground"] for entry in foreigners)
    totals["absent_foreground"] = mean(entry["foreground"] for entry in foreigners if entry["absent"])
    named = split if isinstance(split, str) else ",".join(split)
    return totals | {"split": named, "every": every, "videos": videos}


def evaluate_synthetic(
    predictor: Predictor,
    *,
    seeds: Iterable[int] = range(20),
    frames: int = 16,
    size: tuple[int, int] = (288, 512),
    progress: Progress | None = None,
) -> Metrics:
    """J on scenes that no training run has seen, one lasting sentence (colour, shape, size) per object.

    Args:
        predictor: What is judged.
        seeds: Camera seeds, below 1000.
        frames: Frames per scene.
        size: Height and width of the frames.
        progress: Where a bar is drawn.

    Returns:
        ``j``: mean over visible objects and frames; ``objects``: how many such pairs; ``absent_empty``: share of
        answers to absent sentences that cover less than 0.5 % of the image; ``absent_foreground``: their mean share.

    Raises:
        UserError: A seed belongs to the training scenes.
    """
    seeds = list(seeds)
    for seed in seeds:
        if not EVALUATION_SEEDS[0] <= seed < EVALUATION_SEEDS[1]:
            raise UserError(f"seed {seed} is a training scene: evaluation takes seeds 0 to {EVALUATION_SEEDS[1] - 1}.")
    task = None if progress is None else progress.add_task("synthetic", total=len(seeds))
    present: list[float] = []
    absent: list[float] = []
    for seed in seeds:
        camera = SyntheticCamera(seed=seed, size=size)
        said = _lasting(camera, frames, np.random.default_rng([seed, 7]))
        foreign = camera.absent_expressions(np.random.default_rng([seed, 8]), _ABSENT, kinds=_KINDS)
        predictor.reset()
        predictor.set_queries([*said.values(), *foreign])
        for index in range(frames):
            frame = camera.render(index)
            masks = predictor.masks(frame.image)
            for number, mask in zip(said, masks, strict=False):
                truth = frame.masks[number]
                if np.count_nonzero(truth) >= max(9, _VISIBLE * truth.size):
                    present.append(float(region_similarity(truth, mask)))
            absent += [float(mask.mean()) for mask in masks[len(said) :]]
        if progress is not None and task is not None:
            progress.advance(task)
    return {
        "j": mean(present),
        "absent_empty": mean(share < EMPTY_SHARE for share in absent),
        "absent_foreground": mean(absent),
        "objects": len(present),
        "scenes": len(seeds),
        "frames": frames,
    }


def open_davis(root: Path, *, split: str | Sequence[str], expressions: Path | None = None) -> DavisDataset:
    """The videos of a split, as ``evaluate_davis`` names it, ready to be read at their own size.

    Raises:
        UserError: The folder or a video is missing.
    """
    videos: Sequence[str] | str | None = split
    listing = root / "ImageSets" / "480p" / "val.txt"
    if split == "val" and listing.is_file():
        lines = listing.read_text(encoding="utf-8").split("\n")
        # /JPEGImages/480p/VIDEO/NNNNN.jpg /Annotations/..., a line per frame; elsewhere the bare names of the videos.
        videos = list(dict.fromkeys(_video_of(line.split()[0]) for line in lines if line.strip()))
    elif split == "all":
        videos = None
    elif split == "dev":
        videos = "val"
    elif isinstance(split, str) and split not in ("train", "val"):
        videos = [name.strip() for name in split.split(",") if name.strip()]
    return DavisDataset(root, size=(32, 32), flow_size=(4, 4), expressions=expressions, videos=videos)


def mean(values: Iterable[float]) -> float | None:
    """The mean of what is a number; None (JSON has no NaN) where nothing is."""
    numbers = [float(value) for value in values if value is not None and not math.isnan(value)]
    return sum(numbers) / len(numbers) if numbers else None


def _video_of(entry: str) -> str:
    return Path(entry).parent.name if "/" in entry.strip("/") else entry.strip("/")


def _of_video(own: list[str], rows: list[tuple[NDArray[np.float64], NDArray[np.float64], float]]) -> Metrics:
    """Per sentence and over the sentences: mean, recall and decay of J and F."""
    each: dict[str, Metrics] = {}
    for number, sentence in enumerate(own):
        region = asdict(statistics([row[0][number] for row in rows]))
        boundary = asdict(statistics([row[1][number] for row in rows]))
        each[sentence] = {
            letter + ("" if name == "mean" else f"_{name}"): value
            for letter, summary in (("j", region), ("f", boundary))
            for name, value in summary.items()
        }
    names = next(iter(each.values()))
    total: Metrics = {name: mean(entry[name] for entry in each.values()) for name in names}
    return total | {"frames": len(rows), "expressions": each}


def _lasting(camera: SyntheticCamera, frames: int, rng: np.random.Generator) -> dict[int, str]:
    """For each object, by number, one sentence that names it alone in every frame in which it can be named."""
    common: dict[int, set[str]] = {}
    for index in range(frames):
        for number, sentences in enumerate(camera.expressions(index, kinds=_KINDS)):
            if sentences:
                common[number] = common[number] & set(sentences) if number in common else set(sentences)
    return {number: str(rng.choice(sorted(said))) for number, said in sorted(common.items()) if said}
