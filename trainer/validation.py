"""Validation during training: J and F, or IoU, of the weights that would be saved."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor

from rvos_edge.errors import UserError, about
from rvos_edge.trainer.card import card_facts
from rvos_edge.trainer.checkpoint import Checkpoint
from rvos_edge.trainer.config import ValidationConfig
from rvos_edge.trainer.data.datasets import DATASETS, open_clips
from rvos_edge.trainer.data.readers.base import AnnotatedClips
from rvos_edge.trainer.evaluate.video import Rules, evaluate_clips
from rvos_edge.trainer.model.hinet import HINet
from rvos_edge.trainer.model.presets import ModelConfig
from rvos_edge.trainer.predictor import TorchSegmenter

_SCORES = ("j", "f", "overall_iou", "mean_iou")


class Validation:
    """The clips of a run's validation, and the best score so far.

    The score is the mean of J and F, or the overall IoU.

    Attributes:
        best_at: Iteration of the best score.
        waited: Number of validations since then.
    """

    def __init__(self, config: ValidationConfig, clips: AnnotatedClips, card: Mapping[str, Any]) -> None:
        self.config, self.clips, self.best = config, clips, _total(card.get("validation", {}))
        self.best_at, self.waited = int(card.get("iterations", 0)), 0

    @classmethod
    def open(cls, config: ValidationConfig | None, output: Path, *, resume: bool) -> Validation | None:
        """The validation of a run; the best score of a resumed one is that of ``output/best``, if there is one.

        Raises:
            UserError: The data set or a file of it is missing.
        """
        if config is None:
            return None
        expressions = None if config.expressions is None else Path(config.expressions)
        with about("validation"):
            clips = open_clips(config.dataset, Path(config.root), config.split, expressions)
            if config.frames > 1 and DATASETS[config.dataset].measure == "overlap":
                raise UserError(f"frames is for J and F; {config.dataset} scores its annotated frames: leave it out.")
        return cls(config, clips, card_facts(output / "best") if resume else {})

    def score(
        self, model: ModelConfig, weights: Mapping[str, Tensor], tokenizer: Tokenizer, device: torch.device
    ) -> dict[str, float]:
        """The scores of weights: ``j`` and ``f``, or ``overall_iou`` and ``mean_iou``.

        The network is a copy: no state of the training is touched.
        """
        network = HINet(config=model)
        network.load_state_dict(dict(weights))
        predictor = TorchSegmenter(Checkpoint(network, tokenizer), device=str(device))
        metrics = evaluate_clips(predictor, self.clips, self.config.dataset, rules=Rules(every=self.config.frames))
        found: Mapping[str, Any] = metrics.get("binary", metrics)  # DAVIS-2017: each object for itself
        return {name: float(found[name]) for name in _SCORES if name in found}

    def is_best(self, scores: Mapping[str, float]) -> bool:
        """True if scores are better than all before, which they then are."""
        better = _total(scores) > self.best
        self.best = max(self.best, _total(scores))
        return better


def _total(scores: Mapping[str, float]) -> float:
    if not scores:
        return float("-inf")
    return scores["overall_iou"] if "overall_iou" in scores else (scores["j"] + scores["f"]) / 2
