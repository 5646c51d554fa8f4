"""Guided filter after the decoder, so that masks follow the image's edges (beyond the paper).

The decoder answers at a quarter of the image's resolution. Within a window, an object's probability is taken to be a
linear function of colour, fitted to what the decoder says there and then read at twice its resolution (He et al.,
"Guided image filtering", 2010, and "Fast guided filter", 2015). Unlike there, a fit counts by the share of the
variance that it explains; for the rest the decoder's answer stays, or masks would shrink wherever colour says nothing.
There is nothing to train: what small networks learnt in this place they learnt by heart
(docs/notes/experiments.md, 13).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rvos_edge.trainer.model.layers import for_each_query

_RADIUS = 2
"""Radius of the windows, in pixels of the decoder's output, of half and of a quarter of its resolution."""
_LEVELS = 3
"""Number of window sizes; larger objects get larger windows."""
_SMALLEST, _RATIO = 0.0067, 2.75
"""Masks below the share ``_SMALLEST`` of the image are not filtered, as averaging would erase them. The smallest window
applies at ``_RATIO`` times that share, the next at ``_RATIO`` times that one; in between two windows are blended."""
_EPSILON = 1e-4
"""Regularisation of the fit, in squared colour (0..1)."""
_SOFTNESS = 2.0
"""Divisor of margins before the sigmoid, so that uncertain objects are not averaged away."""
_SUREST = 0.99
"""Upper bound of probabilities, which a linear function may exceed."""
_LEAST_VARIANCE = 1e-3
"""Added to the variance of probabilities in a window, so that nearly constant windows count as unexplained."""

# A symmetric 3x3 matrix is stored as six numbers: xx, xy, xz, yy, yz, zz.
_ROW_OF, _COLUMN_OF = (0, 0, 0, 1, 1, 2), (0, 1, 2, 1, 2, 2)
_COLUMNS = ((0, 1, 2), (1, 3, 4), (2, 4, 5))
# Each number of its adjugate is the product of the first two numbers less the product of the other two.
_MINORS = ((3, 2, 1, 0, 1, 0), (5, 4, 4, 5, 2, 3), (4, 1, 2, 2, 0, 1), (4, 5, 3, 2, 4, 1))


class GuidedFilter(nn.Module):
    """Logits at the decoder's resolution -> logits at twice that resolution.

    It computes in float32 whatever the input: variances are differences of similar numbers.

    Example:
        >>> guide, logits = torch.rand(1, 3, 32, 48), torch.randn(1, 2, 2, 16, 24)
        >>> GuidedFilter()(guide, logits).shape
        torch.Size([1, 2, 2, 32, 48])
    """

    def forward(self, guide: Tensor, logits: Tensor) -> Tensor:
        """Colours 0..1 [B,3,2h,2w] and logits [B,Q,2,h,w] -> float32 [B,Q,2,2h,2w].

        Raises:
            ValueError: The guide is not twice the size of the logits.
        """
        queries, (height, width) = logits.shape[1], logits.shape[-2:]
        if guide.shape[-2:] != (2 * height, 2 * width):
            raise ValueError(
                f"the guide must be twice the size of the logits, {height, width}, got {tuple(guide.shape[-2:])}"
            )
        fine = guide.float()
        margin = (logits[:, :, 1] - logits[:, :, 0]).float().flatten(0, 1).unsqueeze(1)
        coefficients = _coefficients(F.avg_pool2d(fine, 2), margin, queries)
        coefficients = F.interpolate(coefficients, scale_factor=2, mode="bilinear", align_corners=False)
        slope, offset = coefficients[:, :3], coefficients[:, 3:]
        probability = (slope * for_each_query(fine, queries)).sum(1, keepdim=True) + offset
        sure = probability.clamp(1 - _SUREST, _SUREST)
        refined = _SOFTNESS * (torch.log(sure) - torch.log(1 - sure))
        both: Tensor = torch.cat([-0.5 * refined, 0.5 * refined], dim=1).unflatten(0, (-1, queries))  # type: ignore[no-untyped-call]
        return both


def _coefficients(guide: Tensor, margin: Tensor, queries: int) -> Tensor:
    """Colours [B,3,h,w] and margins [N,1,h,w], N = B * Q -> slopes and offset of each pixel, [N,4,h,w]."""
    probability = torch.sigmoid(margin / _SOFTNESS)
    unchanged = torch.cat([torch.zeros_like(for_each_query(guide, queries) * probability), probability], dim=1)
    share = (margin > 0).float().mean(dim=(2, 3), keepdim=True)
    level = torch.log(share.clamp(min=1e-6) / _SMALLEST).div(math.log(_RATIO)).clamp(0, _LEVELS)
    total = unchanged * _hat(level)
    colours, wanted = guide, probability
    for number in range(1, _LEVELS + 1):
        if number > 1:
            # Windows of the same number of pixels, on an image of half the size.
            colours, wanted = (F.avg_pool2d(one, 2, ceil_mode=True) for one in (colours, wanted))
        fitted = _box(_fit(colours, wanted, queries))
        if number > 1:
            fitted = F.interpolate(fitted, size=margin.shape[-2:], mode="bilinear", align_corners=False)
        total = total + (fitted[:, :4] + (1 - fitted[:, 4:]) * unchanged) * _hat(level - number)
    return total


def _fit(guide: Tensor, probability: Tensor, queries: int) -> Tensor:
    """Least squares in the window around each pixel: slopes, offset and 1, times the explained share of the variance.

    Colours [B,3,h,w], probability [B*Q,1,h,w] -> [B*Q,5,h,w].
    """
    mean, inverse = (for_each_query(part, queries) for part in _colours(guide))
    # Averaged together: colours times probability, probability, and its square.
    products = [for_each_query(guide, queries) * probability, probability, probability.square()]
    averaged = _box(torch.cat(products, dim=1))
    level, square = averaged[:, 3:4], averaged[:, 4:]
    covariance = averaged[:, :3] - mean * level
    x, y, z = covariance.chunk(3, dim=1)
    first, second, third = (_take(inverse, column) for column in _COLUMNS)
    slope = first * x + second * y + third * z
    variance = (square - level * level).clamp(min=0) + _LEAST_VARIANCE
    explained = ((slope * covariance).sum(1, keepdim=True) / variance).clamp(0, 1)
    offset = level - (slope * mean).sum(1, keepdim=True)
    return torch.cat([slope, offset, torch.ones_like(offset)], dim=1) * explained


def _colours(guide: Tensor) -> tuple[Tensor, Tensor]:
    """Mean [B,3,h,w] and inverse covariance [B,6,h,w] of the colours in each window."""
    pairs = _take(guide, _ROW_OF) * _take(guide, _COLUMN_OF)
    averaged = _box(torch.cat([guide, pairs], dim=1))
    mean, pairs = averaged[:, :3], averaged[:, 3:]
    ridge = guide.new_tensor([float(row == column) for row, column in zip(_ROW_OF, _COLUMN_OF, strict=True)])
    covariance = pairs - _take(mean, _ROW_OF) * _take(mean, _COLUMN_OF) + _EPSILON * ridge.view(1, 6, 1, 1)
    one, two, three, four = (_take(covariance, minor) for minor in _MINORS)
    adjugate = one * two - three * four
    determinant = (covariance[:, :3] * adjugate[:, :3]).sum(1, keepdim=True)
    return mean, adjugate / determinant


def _take(values: Tensor, channels: tuple[int, ...]) -> Tensor:
    # index_select: the exporter adds transpositions for indexing by brackets.
    return values.index_select(1, torch.tensor(channels, device=values.device))


def _box(values: Tensor) -> Tensor:
    """Mean over the window around each pixel, without pixels outside of the image."""
    size = 2 * _RADIUS + 1
    rows = F.avg_pool2d(values, (size, 1), 1, (_RADIUS, 0), count_include_pad=False)
    return F.avg_pool2d(rows, (1, size), 1, (0, _RADIUS), count_include_pad=False)


def _hat(distance: Tensor) -> Tensor:
    """Hat function: 1 at 0, linear to 0 at -1 and 1."""
    return (1 - distance.abs()).clamp(min=0)
