"""The drawn camera as a data set: exact masks, exact flow, true sentences, no downloads."""

from __future__ import annotations

import cv2
import numpy as np

from rvos_edge.errors import UserError
from rvos_edge.synthetic.camera import SyntheticCamera
from rvos_edge.trainer.data.generate.labelled_frame import to_rgb
from rvos_edge.trainer.data.sample import Sample
from rvos_edge.trainer.data.transforms import Augmentation, photometric

TRAIN_SEEDS = (1000, 1_000_000)
EVALUATION_SEEDS = (0, 1000)
_FRAMES = 60


class SyntheticDataset:
    """Frames of `SyntheticCamera` at random seeds; seeds below 1000 are kept for evaluation.

    Args:
        seeds: the range of camera seeds, from (inclusive) to (exclusive).
        augmentation: only its colours, blur, noise and JPEG are used: the geometry is random already.
        still: probability of a first frame, whose flow is unknown (zero).
    """

    def __init__(
        self,
        *,
        size: tuple[int, int],
        flow_size: tuple[int, int],
        seeds: tuple[int, int] = TRAIN_SEEDS,
        augmentation: Augmentation | None = None,
        still: float = 0.05,
    ) -> None:
        if seeds[1] <= seeds[0]:
            raise UserError(f"the seeds {seeds} are an empty range: give (first, last + 1)")
        self.size, self.flow_size, self.seeds, self.still = size, flow_size, seeds, still
        self.augmentation = augmentation or Augmentation()

    def draw(self, rng: np.random.Generator) -> Sample:
        """One frame of one camera with all its sentences and six absent ones."""
        camera = SyntheticCamera(seed=int(rng.integers(*self.seeds)), size=self.size)
        index = 0 if rng.random() < self.still else int(rng.integers(1, _FRAMES))
        frame = camera.render(index)
        pairs = [
            (sentence, mask)
            for mask, sentences in zip(frame.masks, camera.expressions(index), strict=True)
            for sentence in sentences
        ]
        pairs = [pairs[i] for i in rng.permutation(len(pairs))[:8]]
        empty = np.zeros(self.size, np.bool_)
        pairs += [(sentence, empty) for sentence in camera.absent_expressions(rng, 6)]
        flow = np.zeros((*self.flow_size, 2), np.float32)
        if index > 0:
            planes = np.ascontiguousarray(np.moveaxis(frame.flow, 0, -1))
            flow = np.asarray(cv2.resize(planes, self.flow_size[::-1], interpolation=cv2.INTER_AREA), np.float32)
        return Sample(
            image=np.ascontiguousarray(photometric(to_rgb(frame.image), rng, self.augmentation)),
            flow=flow,
            masks=np.stack([mask for _, mask in pairs]),
            expressions=tuple(sentence for sentence, _ in pairs),
        )
