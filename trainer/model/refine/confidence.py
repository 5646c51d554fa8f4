"""Where the line between object and background is drawn, by how sure the network is of its object (beyond the paper).

At zero an object of which the network is sure comes out too large, with its mirror image and its like beside it; one
of which it is unsure comes out in pieces. So the line moves with the mean margin inside of it. There is nothing to
train, and training does without.
"""

from __future__ import annotations

from torch import Tensor

_USUAL = 2.4
"""Sureness at which the line stays at zero."""
_SHARE = 0.6
"""Of what it has more or less than that, the line moves by this ..."""
_LOWEST, _HIGHEST = -1.0, 2.0
"""... but no further than here."""


def confidence(margin: Tensor) -> Tensor:
    """Margins [...,h,w] -> the mean over what is above zero, [...,1,1]; zero where nothing is.

    Example:
        >>> import torch
        >>> confidence(torch.tensor([[5.2, 5.2, 1.0, -3.0]]))
        tensor([[3.8000]])
    """
    inside = (margin > 0).to(margin.dtype)
    share = inside.mean(dim=(-2, -1), keepdim=True).clamp(min=1e-6)
    return (margin * inside).mean(dim=(-2, -1), keepdim=True) / share


def confidence_weight(sure: Tensor, *, ends: tuple[float, float], weights: tuple[float, float]) -> Tensor:
    """Sureness -> what something else counts beside the decoder: it goes from one weight to the other between the ends.

    Example:
        >>> import torch
        >>> less_the_surer(torch.tensor([0.0, 2.0, 9.0]), ends=(1.5, 2.5), weights=(1.0, 0.5))
        tensor([1.0000, 0.7500, 0.5000])
    """
    (unsure, certain), (most, least) = ends, weights
    return most + (least - most) * ((sure - unsure) / (certain - unsure)).clamp(0, 1)


def shift_threshold(margin: Tensor) -> Tensor:
    """Margins [...,h,w] -> the same less the place of the line, so that an object is again what is above zero.

    Where nothing was above zero, nothing will be.

    Example:
        >>> import torch
        >>> shift_threshold(torch.tensor([[5.4, 5.4, 1.2, -3.0]]))
        tensor([[ 4.4400,  4.4400,  0.2400, -3.9600]])
    """
    sure = confidence(margin)
    line = (_SHARE * (sure - _USUAL)).clamp(_LOWEST, _HIGHEST)
    return margin - line * (sure > 0).to(margin.dtype)
