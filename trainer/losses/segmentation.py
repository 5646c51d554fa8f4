"""Class-balanced cross-entropy over the hardest pixels (supplement, section 1), and an optional Dice term."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from rvos_edge.strict import StrictModel
from rvos_edge.trainer.data.sample import IGNORE
from rvos_edge.trainer.distributed.ranks import per_rank


class LossConfig(StrictModel):
    """Loss terms and weights; the defaults are the paper's for fine-tuning (supplement, section 1).

    ``hardest: 1`` with equal class weights is the paper's loss for pre-training.
    """

    background: float = Field(default=0.9, gt=0)
    object: float = Field(default=1.1, gt=0)
    hardest: float = Field(default=0.15, gt=0, le=1)
    """Share of the pixels of each (frame, expression) pair that counts, those with the largest loss; ignored pixels do
    not count."""
    dice: float = Field(default=0.0, ge=0)
    """Weight of the Dice term (beyond the paper)."""
    alignment: float = Field(default=0.0, ge=0)
    """Weight of the alignment loss (beyond the paper; see ``alignment``)."""
    contrast: float = Field(default=0.0, ge=0)
    """Weight of the loss that compares the masks of a frame's expressions (beyond the paper; see ``contrast``)."""
    distillation: float = Field(default=0.0, ge=0)
    """Weight of the distillation loss (beyond the paper; see ``distillation``)."""
    distilled_words: int = Field(default=3, ge=1)
    """Number of random words per frame in the distillation loss."""


def segmentation_loss(logits: Tensor, masks: Tensor, config: LossConfig) -> Tensor:
    """The segmentation loss of a batch, a scalar; arguments as in ``segmentation_terms``."""
    return weighted(segmentation_terms(logits, masks, config), config)


def weighted(terms: Mapping[str, Tensor], config: LossConfig) -> Tensor:
    """Sum of loss terms by name, ``cross_entropy`` and others, each times its weight in the configuration."""
    loss = terms["cross_entropy"]
    for name in ("dice", "distillation", "alignment", "contrast"):
        if name in terms:
            loss = loss + getattr(config, name) * terms[name]
    return loss


def segmentation_terms(logits: Tensor, masks: Tensor, config: LossConfig) -> dict[str, Tensor]:
    """Terms of the loss of a batch, scalars: ``cross_entropy``, and ``dice`` where it has a weight.

    The hardest pixels are chosen per pair, so that every pair contributes (our reading). The mean is over the chosen
    pixels of all ranks (see ``distributed``).

    Args:
        logits: Float [B,Q,2,h,w]; upsampled bilinearly to the masks.
        masks: uint8 [B,Q,H,W]: 0 background, 1 object, 255 ignore.
    """
    if logits.shape[:2] != masks.shape[:2]:
        raise ValueError(f"logits and masks differ in batch or queries: {tuple(logits.shape)}, {tuple(masks.shape)}")
    target = masks.flatten(0, 1)
    # Cross-entropy of two classes is a softplus of the margin, which is cheaper than a softmax.
    coarse = (logits[:, :, 1].float() - logits[:, :, 0].float()).flatten(0, 1).unsqueeze(1)
    margin = F.interpolate(coarse, size=target.shape[-2:], mode="bilinear", align_corners=False)[:, 0]
    is_object = target == 1
    counted = target != IGNORE
    weight = torch.where(is_object, config.object, config.background) * counted
    loss = weight * F.softplus(torch.where(is_object, -margin, margin))
    terms = {"cross_entropy": _hardest(loss.flatten(1), counted.flatten(1).sum(1), config.hardest)}
    if config.dice > 0:
        terms["dice"] = _dice(margin, is_object, counted)
    return terms


def _hardest(loss: Tensor, counted: Tensor, share: float) -> Tensor:
    """Mean of the hardest share of each row's counted pixels: loss [N,P], zero where ignored, counted [N]."""
    pixels = loss.shape[1]
    if share >= 1:
        return loss.sum() / per_rank(counted.sum())
    # float64: as Python rounds.
    chosen = (share * counted.double()).round().long().clamp(min=1).minimum(counted)
    ragged = bool((counted < pixels).any())
    # Order matters only where rows differ in their number of chosen pixels.
    largest = torch.topk(loss, max(1, round(share * pixels)), dim=1, sorted=ragged).values
    if ragged:
        largest = largest * (torch.arange(largest.shape[1], device=loss.device) < chosen.unsqueeze(1))
    return largest.sum() / per_rank(chosen.sum())


def _dice(margin: Tensor, is_object: Tensor, counted: Tensor) -> Tensor:
    probability = torch.sigmoid(margin) * counted
    truth = (is_object & counted).to(probability.dtype)
    overlap = (probability * truth).flatten(1).sum(1)
    size = probability.flatten(1).sum(1) + truth.flatten(1).sum(1)
    present = truth.flatten(1).any(1)
    # Pairs with absent objects have no Dice term.
    dice = 1 - (2 * overlap + 1) / (size + 1)
    return (dice * present).sum() / per_rank(present.sum())
