"""Evaluation on held-out scenes of the synthetic camera."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from rich.progress import Progress

from rvos_edge.errors import UserError
from rvos_edge.synthetic.camera import SyntheticCamera
from rvos_edge.trainer.data.generate.synthetic import EVALUATION_SEEDS
from rvos_edge.trainer.evaluate.model import Predictor
from rvos_edge.trainer.evaluate.scorers import Metrics, mean
from rvos_edge.trainer.metrics import region_similarity

EMPTY_SHARE = 0.005
"""Masks below this share of the image count as empty."""
_KINDS = ("colour", "shape", "size")
_ABSENT = 2
# Smallest visible share of an object that the synthetic camera names.
_VISIBLE = 0.0006


def evaluate_synthetic(
    predictor: Predictor,
    *,
    seeds: Iterable[int] = range(20),
    frames: int = 16,
    size: tuple[int, int] = (288, 512),
    progress: Progress | None = None,
) -> Metrics:
    """J on scenes that are never trained on, with one expression per object that holds in all frames.

    Raises:
        UserError: A seed belongs to the training scenes.
    """
    seeds = list(seeds)
    for seed in seeds:
        if not EVALUATION_SEEDS[0] <= seed < EVALUATION_SEEDS[1]:
            raise UserError(f"seed {seed} is a training scene: evaluation takes seeds 0 to {EVALUATION_SEEDS[1] - 1}.")
    present: list[float] = []
    absent: list[float] = []
    for seed in (progress or Progress(disable=True)).track(seeds, description="synthetic"):
        camera = SyntheticCamera(seed=seed, size=size)
        said = _lasting_expressions(camera, frames, np.random.default_rng([seed, 7]))
        nothing = camera.absent_expressions(np.random.default_rng([seed, 8]), _ABSENT, kinds=_KINDS)
        predictor.reset()
        predictor.set_queries([*said.values(), *nothing])
        for index in range(frames):
            frame = camera.render(index)
            masks = predictor.masks(frame.image)
            for number, mask in zip(said, masks, strict=False):
                truth = frame.masks[number]
                if np.count_nonzero(truth) >= max(9, _VISIBLE * truth.size):
                    present.append(float(region_similarity(truth, mask)))
            absent += [float(mask.mean()) for mask in masks[len(said) :]]
    return {
        "j": mean(present),
        "absent_empty": mean(share < EMPTY_SHARE for share in absent),
        "absent_foreground": mean(absent),
        "objects": len(present),
        "scenes": len(seeds),
        "frames": frames,
    }


def _lasting_expressions(camera: SyntheticCamera, frames: int, rng: np.random.Generator) -> dict[int, str]:
    """One expression per object, by number, that names it alone in every frame in which it can be named."""
    common: dict[int, set[str]] = {}
    for index in range(frames):
        for number, sentences in enumerate(camera.expressions(index, kinds=_KINDS)):
            if sentences:
                common[number] = common[number] & set(sentences) if number in common else set(sentences)
    return {number: str(rng.choice(sorted(said))) for number, said in sorted(common.items()) if said}
