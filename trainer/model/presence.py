"""Presence head: the probability that the referred object is in the frame (beyond the paper).

A mask network that is trained to leave absent objects empty also leaves unknown words empty. So the mask selects the
best match, and this head, trained afterwards on the frozen network, decides whether it is one. It reads the product
V_4 * l_4 inside and outside of the mask, in which the alignment loss has taught sentences to match their regions, and
no sentence, as taught queries have none. A head on the backbone's C5 and all language vectors learnt its training
frames by heart (``docs/notes/experiments.md``, entry 21).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rvos_edge.trainer.model.motion import relative_magnitude

_WIDTH, _HIDDEN = 32, 32
_DROPOUT = 0.5
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
    """Margin, vision, motion and language of a query -> the logit that what it names is in the frame.

    Example:
        >>> head = Presence(channels=8).eval()
        >>> margin, vision, flow = torch.randn(1, 3, 16, 24), torch.randn(1, 8, 2, 3), torch.zeros(1, 2, 32, 48)
        >>> head(margin, vision, torch.ones(1, 3, 8), flow).shape
        torch.Size([1, 3])
    """

    def __init__(self, *, channels: int) -> None:
        super().__init__()
        self.inside, self.outside, self.facts = Standardise(channels), Standardise(channels), Standardise(_FACTS)
        self.match = nn.Linear(2 * channels, _WIDTH)
        self.decide = nn.Sequential(nn.Linear(_FACTS + _WIDTH, _HIDDEN), nn.ReLU(), nn.Linear(_HIDDEN, 1))
        self.dropout = nn.Dropout(_DROPOUT)

    def forward(self, margin: Tensor, vision: Tensor, language: Tensor, flow: Tensor | None) -> Tensor:
        """The logits of a batch, float32 [B,Q], of the decoder's margin [B,Q,h,w], V_4 [B,c,h4,w4], l_4 [B,Q,c] and the
        flow [B,2,.,.] in pixels, zeros where it was not computed.
        """
        return self.classify(*self.pool(margin, vision, language, flow))

    def pool(
        self, margin: Tensor, vision: Tensor, language: Tensor, flow: Tensor | None, camera: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Inputs of ``classify``: mean of V_4 * l_4 inside and outside of the masks, float32 [B,Q,c] each, and
        statistics of the masks, float32 [B,Q,8]; ``camera`` is as in ``motion_image``.
        """
        # Flat: as maps of Q channels OpenVINO lays them out for many channels, and takes ten times as long.
        flat = margin.float().flatten(2).clamp(-_LARGEST_LOGIT, _LARGEST_LOGIT)
        share = torch.sigmoid(flat)
        maps: Tensor = share.unflatten(2, margin.shape[2:])  # type: ignore[no-untyped-call]
        coarse = F.interpolate(maps, size=vision.shape[-2:], mode="area")
        places, spoken = vision.flatten(2).transpose(1, 2), language.float()
        inside, outside = (_mean(part, places).float() * spoken for part in (coarse, 1 - coarse))
        drawn = (flat > 0).float()
        area = drawn.mean(dim=2)
        sure = ((2 * share - 1) * drawn).mean(dim=2) / area.clamp(min=1e-4)
        motion = self._motion(share, flow, camera, size=margin.shape[2:])
        peak, mean = flat.amax(dim=2), flat.mean(dim=2)
        facts = (sure, area, torch.log(area + 1e-3), share.mean(dim=2), peak / 10, mean / 10, *motion)
        return inside, outside, torch.stack(facts, dim=-1)

    def classify(self, inside: Tensor, outside: Tensor, facts: Tensor) -> Tensor:
        """Outputs of ``pool`` -> logits, float32 [B,Q]."""
        dtype = self.match.weight.dtype
        products = torch.cat([self.inside(inside), self.outside(outside)], dim=-1).to(dtype)
        match = self.match(self.dropout(products))
        logit: Tensor = self.decide(torch.cat([self.facts(facts).to(dtype), match], dim=-1))
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
