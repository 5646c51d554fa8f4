"""Guided filter after the decoder, so that masks follow the image's edges (beyond the paper).

The decoder answers at a quarter of the image's resolution. Within a window, an object's probability is taken to be a
linear function of colour, fitted at half of the decoder's resolution or less and then read at twice of it (He et al.,
"Guided image filtering", 2010, and "Fast guided filter", 2015). Unlike there, a fit counts by the share of the
variance that it explains; for the rest the decoder's answer stays, or masks would shrink wherever colour says nothing.
There is nothing to train: what small networks learnt in this place they learnt by heart
(docs/notes/experiments.md, 13).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rvos_edge.trainer.model.layers import for_each_query

_RADIUS = 2
"""Radius of the windows, in pixels of half and of a quarter of the decoder's resolution; of the smallest windows, which
have the variances of the decoder's own pixels, half of it. Larger objects get larger windows."""
_LEVELS = 3
"""Number of window sizes."""
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

Average = Callable[[Tensor], Tensor]
"""Means over windows."""

# A symmetric 3x3 matrix is stored as six numbers: xx, xy, xz, yy, yz, zz.
_ROW_OF, _COLUMN_OF = (0, 0, 0, 1, 1, 2), (0, 1, 2, 1, 2, 2)
_WHOLE = (0, 1, 2, 1, 3, 4, 2, 4, 5)
"""The matrix's nine elements among the six."""
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
        margin = (logits[:, :, 1] - logits[:, :, 0]).float().flatten(0, 1).unsqueeze(1)
        fine = F.pad(F.pixel_unshuffle(guide.float(), 2), (0, 0, 0, 0, 0, 4), value=1.0)
        refined = self.margin(fine, margin, queries)
        return torch.cat([-0.5 * refined, 0.5 * refined], dim=1).unflatten(0, (-1, queries))  # type: ignore[no-any-return, no-untyped-call]

    def margin(self, fine: Tensor, margin: Tensor, queries: int) -> Tensor:
        """Margins, object minus background: N = B * Q of them, [N,1,h,w] -> [N,1,2h,2w].

        ``fine`` has the colours of the four pixels under each pixel and then four ones, [B,16,h,w], in the order of
        ``pixel_unshuffle``.
        """
        four = torch.eye(4, device=fine.device)
        guide = F.conv2d(fine, four[:3].repeat_interleave(4, dim=1)[..., None, None] / 4)
        fitted = _enlarge(_coefficients(guide, margin, queries))
        # By convolution, which runtimes compute faster than sums of slices.
        sure = F.conv2d(fitted * for_each_query(fine, queries), four.repeat(1, 4)[..., None, None])
        return F.pixel_shuffle(-_SOFTNESS * torch.log(1 / sure.clamp(1 - _SUREST, _SUREST) - 1), 2)


def _enlarge(values: Tensor) -> Tensor:
    """Bilinear interpolation [N,4,h,w] -> [N,4,2h,2w] as [N,16,h,w], in the order of ``pixel_unshuffle``."""
    near = torch.tensor([[0.25, 0.75, 0.0], [0.0, 0.75, 0.25]], device=values.device)
    kernel = torch.einsum("ai,bj->abij", near, near).reshape(4, 1, 3, 3).repeat(4, 1, 1, 1)
    return F.conv2d(F.pad(values, (1, 1, 1, 1), mode="replicate"), kernel, groups=4)


def _coefficients(guide: Tensor, margin: Tensor, queries: int) -> Tensor:
    """Colours [B,3,h,w] and margins [N,1,h,w], N = B * Q -> slopes and offset of each pixel, [N,4,h,w]."""
    probability = torch.sigmoid(margin / _SOFTNESS)
    share = (margin > 0).float().mean(dim=(2, 3), keepdim=True)
    level = torch.log(share.clamp(min=1e-6) / _SMALLEST).div(math.log(_RATIO)).clamp(0, _LEVELS)
    half = _halve(guide), _halve(probability)
    quarter = _halve(half[0]), _halve(half[1])
    small = _narrow(_fit(guide, probability, queries, lambda one: _narrow(_halve(one))) * _hat(level - 1))
    middle, large = (_wide(_fit(*images, queries, _wide) * _hat(level - n)) for n, images in ((2, half), (3, quarter)))
    total = _resize(small + middle + _resize(large, half[0]), guide)
    slope, offset, weight = _take(total, (0, 1, 2)), _take(total, (3,)), _take(total, (4,))
    # The hats add up to 1 with that of the unfiltered probability, which fills what was not explained.
    return torch.cat([slope, offset + (1 - weight) * probability], dim=1)


def _halve(values: Tensor) -> Tensor:
    return F.avg_pool2d(values, 2, ceil_mode=True)


def _resize(values: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(values, size=like.shape[-2:], mode="bilinear", align_corners=False)


def _fit(guide: Tensor, probability: Tensor, queries: int, average: Average) -> Tensor:
    """Least squares in the window around each pixel: slopes, offset and 1, times the explained share of the variance.

    Colours [B,3,h,w], probability [B*Q,1,h,w] -> [B*Q,5,h',w'], of the size that ``average`` gives.
    """
    mean, inverse = (for_each_query(part, queries) for part in _colours(guide, average))
    # Averaged together: colours times probability, probability, and its square.
    products = [for_each_query(guide, queries) * probability, probability, probability * probability]
    averaged = average(torch.cat(products, dim=1))
    level = _take(averaged, (3,))
    covariance = _take(averaged, (0, 1, 2)) - mean * level
    slope = (inverse * covariance.unsqueeze(1)).sum(2)
    variance = (_take(averaged, (4,)) - level * level).clamp(min=0) + _LEAST_VARIANCE
    explained = ((slope * covariance).sum(1, keepdim=True) / variance).clamp(0, 1)
    offset = level - (slope * mean).sum(1, keepdim=True)
    return torch.cat([slope, offset, torch.ones_like(offset)], dim=1) * explained


def _colours(guide: Tensor, average: Average) -> tuple[Tensor, Tensor]:
    """Mean [B,3,h,w] and inverse covariance [B,3,3,h,w] of the colours in each window."""
    pairs = _take(guide, _ROW_OF) * _take(guide, _COLUMN_OF)
    averaged = average(torch.cat([guide, pairs], dim=1))
    mean, pairs = _take(averaged, (0, 1, 2)), _take(averaged, (3, 4, 5, 6, 7, 8))
    ridge = guide.new_tensor([float(row == column) for row, column in zip(_ROW_OF, _COLUMN_OF, strict=True)])
    covariance = pairs - _take(mean, _ROW_OF) * _take(mean, _COLUMN_OF) + _EPSILON * ridge.view(1, 6, 1, 1)
    one, two, three, four = (_take(covariance, minor) for minor in _MINORS)
    adjugate = one * two - three * four
    determinant = (_take(covariance, (0, 1, 2)) * _take(adjugate, (0, 1, 2))).sum(1, keepdim=True)
    return mean, _take(adjugate / determinant, _WHOLE).unflatten(1, (3, 3))  # type: ignore[no-untyped-call]


def _take(values: Tensor, channels: tuple[int, ...]) -> Tensor:
    # index_select: the exporter adds transpositions for indexing by brackets.
    return values.index_select(1, torch.tensor(channels, device=values.device))


def _wide(values: Tensor) -> Tensor:
    """Mean over the window around each pixel, without pixels outside of the image."""
    return F.avg_pool2d(values, 2 * _RADIUS + 1, 1, _RADIUS, count_include_pad=False)


def _narrow(values: Tensor) -> Tensor:
    """The same with half the radius."""
    return F.avg_pool2d(values, _RADIUS + 1, 1, _RADIUS // 2, count_include_pad=False)


def _hat(distance: Tensor) -> Tensor:
    """Hat function: 1 at 0, linear to 0 at -1 and 1."""
    return (1 - distance.abs()).clamp(min=0)
