"""Presence head: the probability that the referred object is in the frame (beyond the paper).

A mask network that is trained to leave absent objects empty also leaves unknown words empty. So the mask selects the
best match, and this head, trained afterwards on the frozen network, decides whether it is one. The head reads the
language vectors l_1..l_4 and no sentence, as taught queries have none. It is narrow, as wider heads overfitted the
training frames (``trainer.tasks.presence``).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rvos_edge.trainer.model.motion import relative_magnitude

_WIDTH, _HIDDEN = 32, 32
_DROPOUT = 0.3
_FACTS = 8
_LARGEST_LOGIT = 20.0
"""Bound of margins and scores, which keeps products in the range of float16."""


class Standardise(nn.Module):
    """Standardisation of features by the mean and deviation of the training data, in float32."""

    mean: Tensor
    scale: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("scale", torch.ones(channels))

    def set(self, features: Tensor) -> None:
        """Take mean and deviation from features [N,c]."""
        self.mean.copy_(features.float().mean(0))
        self.scale.copy_(1 / (features.float().std(0) + 1e-3))

    def forward(self, features: Tensor) -> Tensor:
        """Features [...,c] -> float32 [...,c]."""
        return (features.float() - self.mean.float()) * self.scale.float()


class Presence(nn.Module):
    """Margin, features, motion and language of a query -> the logit that what it names is in the frame.

    Example:
        >>> head = Presence(in_channels=8, language_channels=(2, 2)).eval()
        >>> language = (torch.ones(1, 3, 2), torch.ones(1, 3, 2))
        >>> head(torch.randn(1, 3, 16, 24), torch.randn(1, 8, 2, 3), torch.zeros(1, 2, 32, 48), language).shape
        torch.Size([1, 3])
    """

    def __init__(self, *, in_channels: int, language_channels: Sequence[int]) -> None:
        super().__init__()
        self.inside, self.outside = Standardise(in_channels), Standardise(in_channels)
        self.language, self.facts = Standardise(sum(language_channels)), Standardise(_FACTS)
        self.seen = nn.Linear(in_channels, _WIDTH)
        self.words = nn.Linear(sum(language_channels), _WIDTH)
        self.decide = nn.Sequential(nn.Linear(_FACTS + 2 + _WIDTH, _HIDDEN), nn.ReLU(), nn.Linear(_HIDDEN, 1))
        self.dropout = nn.Dropout(_DROPOUT)

    def forward(self, margin: Tensor, features: Tensor, flow: Tensor | None, language: Sequence[Tensor]) -> Tensor:
        """The logits of a batch, float32 [B,Q], of the decoder's margin [B,Q,h,w], C5 [B,c,h5,w5], l_1..l_4 [B,Q,c_i]
        and the flow [B,2,.,.] in pixels, zeros where it was not computed.
        """
        return self.classify(*self.pool(margin, features, flow), torch.cat(tuple(language), dim=-1))

    def pool(
        self, margin: Tensor, features: Tensor, flow: Tensor | None, camera: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Pooled inputs of the head: C5 inside and outside of the masks, [B,Q,c] each, and statistics of the masks,
        float32 [B,Q,8]; ``camera`` is as in ``motion_image``.
        """
        # Flat: as maps of Q channels OpenVINO lays them out for many channels, and takes ten times as long.
        flat = margin.float().flatten(2).clamp(-_LARGEST_LOGIT, _LARGEST_LOGIT)
        share = torch.sigmoid(flat)
        maps: Tensor = share.unflatten(2, margin.shape[2:])  # type: ignore[no-untyped-call]
        coarse = F.interpolate(maps, size=features.shape[-2:], mode="area")
        places = features.flatten(2).transpose(1, 2)
        inside, outside = _mean(coarse, places), _mean(1 - coarse, places)
        drawn = (flat > 0).float()
        area = drawn.mean(dim=2)
        sure = ((2 * share - 1) * drawn).mean(dim=2) / area.clamp(min=1e-4)
        motion = self._motion(share, flow, camera, size=margin.shape[2:])
        peak, mean = flat.amax(dim=2), flat.mean(dim=2)
        facts = (sure, area, torch.log(area + 1e-3), share.mean(dim=2), peak / 10, mean / 10, *motion)
        return inside, outside, torch.stack(facts, dim=-1)

    def classify(self, inside: Tensor, outside: Tensor, facts: Tensor, language: Tensor) -> Tensor:
        """Outputs of ``pool`` and language vectors [B,Q,c_1+..+c_4] -> logits, float32 [B,Q]."""
        drop, dtype = self.dropout, inside.dtype
        words = self.words(drop(self.language(language).to(dtype)))
        here = torch.relu(self.seen(drop(self.inside(inside).to(dtype)))) * words
        there = torch.relu(self.seen(drop(self.outside(outside).to(dtype)))) * words
        known = [self.facts(facts).to(dtype), here.mean(-1, keepdim=True), there.mean(-1, keepdim=True)]
        logit: Tensor = self.decide(torch.cat([*known, drop(here - there)], dim=-1))
        return logit.squeeze(-1).float()

    @staticmethod
    def _motion(
        share: Tensor, flow: Tensor | None, camera: Tensor | None, *, size: Sequence[int]
    ) -> tuple[Tensor, Tensor]:
        """Mean log speed against the camera inside and outside of masks [B,Q,h*w] of a ``size``, each float32 [B,Q]."""
        if flow is None:
            nothing = torch.zeros_like(share[:, :, 0])
            return nothing, nothing
        speed = F.interpolate(torch.log1p(relative_magnitude(flow, camera)), size=list(size), mode="area").flatten(2)
        own, rest = share.mean(dim=2).clamp(min=1e-4), (1 - share).mean(dim=2).clamp(min=1e-4)
        return (share * speed).mean(dim=2) / own, ((1 - share) * speed).mean(dim=2) / rest


def _mean(weights: Tensor, places: Tensor) -> Tensor:
    """Weights [B,Q,h,w] and features [B,h*w,c] -> weighted means [B,Q,c]."""
    flat = weights.flatten(2)
    flat = flat / flat.sum(dim=-1, keepdim=True).clamp(min=1e-2)
    return torch.matmul(flat.to(places.dtype), places)
