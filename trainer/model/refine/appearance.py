"""Appearance and motion of the predicted object in the present frame, as a term of the margin (beyond the paper).

Features inside and outside of the decoder's mask are two classes, and Fisher's linear discriminant tells to which of
them a pixel belongs. It completes objects that the decoder finds in part. A second discriminant on the speed against
the camera separates a moving object from a parked one of the same kind. Where the classes do not differ the term is
near zero. It has no weights and is not part of training.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from rvos_edge.trainer.model.motion import relative_magnitude

_FURTHEST = 2.0
"""Bound of each discriminant, in standard deviations from the middle between the two classes."""
_UNSURE, _SURE = 1.5, 3.5
"""Confidences of the decoder between which the term's weight falls from ``_MOST`` to ``_LEAST``."""
_MOST, _LEAST = 1.5, 0.5
"""Weights of a standard deviation, in units of the decoder's margin."""
_SHARED = 0.1
"""Share of the channels' mean variance that is added to each channel's, so that no constant channel dominates."""
_STEADY = 0.3
"""Standard deviation of the flow's noise, in log pixels."""


def discriminant(features: Tensor, inside: Tensor, *, floor: float = 0.0) -> Tensor:
    """Fisher's linear discriminant between inside and outside, with a diagonal covariance.

    Args:
        floor: Standard deviation of noise in each channel.

    Returns:
        Float32 [B,Q,h,w], positive where a pixel resembles the inside; in standard deviations of a class where the
        classes are far apart, and towards zero where they are alike.

    Example:
        >>> half = torch.cat([torch.ones(1, 1, 2, 2), torch.zeros(1, 1, 2, 2)], dim=3)
        >>> (discriminant(half, 0.9 * half, floor=0.1) > 0).int()[0, 0, 0].tolist()
        [1, 1, 0, 0]
    """
    # Centred and scaled to order 1: half precision loses small squares and differences of similar numbers.
    seen = features.float().flatten(2).unsqueeze(1)
    seen = seen - seen.mean(dim=-1, keepdim=True)
    scale = seen.abs().mean(dim=(-2, -1), keepdim=True).clamp(min=max(floor, 1e-3))
    seen = seen / scale
    weight = inside.float().flatten(2)
    share = weight.mean(dim=-1, keepdim=True).clamp(1e-4, 1 - 1e-4)
    # Sums of products instead of matmul: TensorRT has no float32 matmul for Turing.
    moment = ((weight - share).unsqueeze(2) * seen).mean(dim=-1)
    own, other = moment / share, -moment / (1 - share)
    variance = seen.square().mean(dim=-1) - share * own.square() - (1 - share) * other.square()
    variance = variance.clamp(min=0)
    variance = variance + _SHARED * variance.mean(dim=-1, keepdim=True) + (floor / scale.squeeze(-1)).square() + 1e-4
    direction = (own - other) / variance
    apart = ((own - other) * direction).sum(dim=-1, keepdim=True)
    middle = ((own + other) * direction).sum(dim=-1, keepdim=True) / 2
    scores: Tensor = ((direction.unsqueeze(-1) * seen).sum(dim=2) - middle) / torch.sqrt(1 + apart)
    return scores.unflatten(-1, features.shape[-2:])  # type: ignore[no-any-return,no-untyped-call]


def confidence(margin: Tensor) -> Tensor:
    """Mean of the positive margins: margins [...,h,w] -> [...,1,1], zero where none is positive.

    Example:
        >>> confidence(torch.tensor([[5.2, 5.2, 1.0, -3.0]]))
        tensor([[3.8000]])
    """
    inside = (margin > 0).to(margin.dtype)
    share = inside.mean(dim=(-2, -1), keepdim=True).clamp(min=1e-6)
    return (margin * inside).mean(dim=(-2, -1), keepdim=True) / share


def confidence_weight(sure: Tensor, *, ends: tuple[float, float], weights: tuple[float, float]) -> Tensor:
    """Weight of a term beside the decoder's margin: linear between two ends of the confidence, constant outside.

    Example:
        >>> confidence_weight(torch.tensor([0.0, 2.0, 9.0]), ends=(1.5, 2.5), weights=(1.0, 0.5))
        tensor([1.0000, 0.7500, 0.5000])
    """
    (unsure, certain), (most, least) = ends, weights
    return most + (least - most) * ((sure - unsure) / (certain - unsure)).clamp(0, 1)


def fisher_logits(guess: Tensor, levels: Sequence[Tensor], flow: Tensor | None) -> Tensor:
    """The term that is added to the margin, float32 [B,Q,h,w].

    Args:
        guess: The decoder's margin, [B,Q,h,w].
        levels: Features of the image, each [B,c,.,.]; their discriminants are averaged.
        flow: Flow [B,2,.,.] in pixels, zeros where it was not computed; None without flow.
    """
    size = (guess.shape[-2], guess.shape[-1])
    inside = torch.sigmoid(guess)
    looks = []
    for level in levels:
        scores = discriminant(level, _resized(inside, (level.shape[-2], level.shape[-1])))
        looks.append(_resized(scores.clamp(-_FURTHEST, _FURTHEST), size))
    total = torch.stack(looks).mean(dim=0)
    if flow is not None:
        speed = torch.log1p(relative_magnitude(flow))
        if speed.shape[-2:] == (2 * size[0], 2 * size[1]):
            speed = F.avg_pool2d(speed, 2)  # the same as bilinear, and what the presence head reads
        speed = _resized(speed, size)
        total = total + discriminant(speed, inside, floor=_STEADY).clamp(-_FURTHEST, _FURTHEST)
    return confidence_weight(confidence(guess), ends=(_UNSURE, _SURE), weights=(_MOST, _LEAST)) * total


def _resized(maps: Tensor, size: tuple[int, int]) -> Tensor:
    return maps if maps.shape[-2:] == size else F.interpolate(maps, size=size, mode="bilinear", align_corners=False)
