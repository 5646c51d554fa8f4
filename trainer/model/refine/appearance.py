"""What looks and moves like the object in this very frame, rather than like what is around it (beyond the paper).

The decoder answers each place from what it has learnt, and half of a horse that it knows comes out while the other half
does not. But what it has found says what this object looks like, here and now: the encoder's features inside of the
first guess and outside of it are two classes, and Fisher's linear discriminant tells which of them a place belongs to.
The same of how fast things move against the camera: what parks beside a scooter that drives, and looks like it, does
not move like it. Where the two sides do not differ nothing is said, so a still frame, water or a resting object is left
as it was. There is nothing to train, and training does without.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from rvos_edge.trainer.model.motion import relative_magnitude

_FURTHEST = 2.0
"""Standard deviations from the middle between the two classes, at which each discriminant is cut."""
_UNSURE, _SURE = 1.5, 3.5
"""Of the decoder (``confidence``): from the one to the other ..."""
_MOST, _LEAST = 1.5, 0.5
"""... what a standard deviation counts beside the decoder's margin falls from this to that."""
_SHARED = 0.1
"""Of the channels' mean variance, added to each one's: none may decide alone because it hardly varies."""
_STEADY = 0.3
"""Standard deviation, in log pixels, below which differences in motion are the flow's noise."""


def discriminant(features: Tensor, inside: Tensor, *, floor: float = 0.0) -> Tensor:
    """Fisher's linear discriminant between inside and outside, with channels taken as independent.

    Args:
        features: Float [B,c,h,w].
        inside: How much of each place is object, 0..1, float [B,Q,h,w].
        floor: Standard deviation of each channel that is expected of noise.

    Returns:
        Float32 [B,Q,h,w], positive where a place is like the inside: in standard deviations of a class where the two
        are far apart, and less, down to nothing, where they are alike.

    Example:
        >>> half = torch.cat([torch.ones(1, 1, 2, 2), torch.zeros(1, 1, 2, 2)], dim=3)
        >>> (discriminant(half, 0.9 * half, floor=0.1) > 0).int()[0, 0, 0].tolist()
        [1, 1, 0, 0]
    """
    # About their mean and of order 1: half types lose small squares and differences of near numbers.
    seen = features.float().flatten(2).unsqueeze(1)
    seen = seen - seen.mean(dim=-1, keepdim=True)
    scale = seen.abs().mean(dim=(-2, -1), keepdim=True).clamp(min=max(floor, 1e-3))
    seen = seen / scale
    weight = inside.float().flatten(2)
    share = weight.mean(dim=-1, keepdim=True).clamp(1e-4, 1 - 1e-4)
    # Products and sums, no matrices: TensorRT multiplies none of float32 for Turing.
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
    """Margins [...,h,w] -> the mean over what is above zero, [...,1,1]; zero where nothing is.

    Example:
        >>> confidence(torch.tensor([[5.2, 5.2, 1.0, -3.0]]))
        tensor([[3.8000]])
    """
    inside = (margin > 0).to(margin.dtype)
    share = inside.mean(dim=(-2, -1), keepdim=True).clamp(min=1e-6)
    return (margin * inside).mean(dim=(-2, -1), keepdim=True) / share


def confidence_weight(sure: Tensor, *, ends: tuple[float, float], weights: tuple[float, float]) -> Tensor:
    """What something else counts beside the decoder: from one weight to the other between the ends of its confidence.

    Example:
        >>> confidence_weight(torch.tensor([0.0, 2.0, 9.0]), ends=(1.5, 2.5), weights=(1.0, 0.5))
        tensor([1.0000, 0.7500, 0.5000])
    """
    (unsure, certain), (most, least) = ends, weights
    return most + (least - most) * ((sure - unsure) / (certain - unsure)).clamp(0, 1)


def fisher_logits(guess: Tensor, levels: Sequence[Tensor], flow: Tensor | None) -> Tensor:
    """What is added to the margin, float32 [B,Q,h,w].

    Args:
        guess: The margin as it is, [B,Q,h,w].
        levels: Features of the image, each [B,c,.,.]; their mean counts.
        flow: [B,2,.,.] in pixels, zeros where it was not computed; None without flow.
    """
    size = (guess.shape[-2], guess.shape[-1])
    inside = torch.sigmoid(guess)
    looks = []
    for level in levels:
        scores = discriminant(level, _resized(inside, (level.shape[-2], level.shape[-1])))
        looks.append(_resized(scores.clamp(-_FURTHEST, _FURTHEST), size))
    total = torch.stack(looks).mean(dim=0)
    if flow is not None:
        speed = _resized(torch.log1p(relative_magnitude(flow)), size)
        total = total + discriminant(speed, inside, floor=_STEADY).clamp(-_FURTHEST, _FURTHEST)
    return confidence_weight(confidence(guess), ends=(_UNSURE, _SURE), weights=(_MOST, _LEAST)) * total


def _resized(maps: Tensor, size: tuple[int, int]) -> Tensor:
    return maps if maps.shape[-2:] == size else F.interpolate(maps, size=size, mode="bilinear", align_corners=False)
