"""A training-only loss that ties sentences to regions where language meets vision (beyond the paper)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rvos_edge.trainer.data import lexicon
from rvos_edge.trainer.data.sample import IGNORE
from rvos_edge.trainer.distributed import gathered, gathered_list


class Alignment(nn.Module):
    """Judge the product V_4 * l_4 itself, before any convolution can fall back on what merely looks like an object.

    The decoder is rewarded for good masks, which in most frames it can draw without reading. Here a single weighted
    sum of the product must (a) be high inside the named region and low outside, and (b) rank, for every region of the
    batch, its own sentence above those of other objects, in this frame and in the other ones. Several ranks compare
    with each other's frames too. The head is thrown away after training.

    Args:
        channels: c_4.
    """

    def __init__(self, *, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(channels).uniform_(-1, 1) / channels**0.5)
        self.bias = nn.Parameter(torch.zeros(()))

    def forward(self, vision: Tensor, language: Tensor, masks: Tensor, expressions: Sequence[Sequence[str]]) -> Tensor:
        """The loss of a batch, a scalar.

        Args:
            vision: V_4, float [B,c,h,w].
            language: l_4, float [B,Q,c].
            masks: uint8 [B,Q,H,W]: 0 background, 1 object, 255 ignore.
            expressions: B lists of Q strings.
        """
        vision, spoken = vision.float(), language.float() * self.weight
        share, counted = _shrink(masks, vision.shape[-2:])
        scores = torch.einsum("bchw,bqc->bqhw", vision, spoken) + self.bias
        where = _balanced(scores, share, counted)

        # [B,Q,c]: the mean of V_4 over each region.
        inside = share * counted
        pooled = torch.einsum("bqhw,bchw->bqc", inside, vision) / inside.sum((2, 3)).clamp(min=1e-3).unsqueeze(-1)
        share, pooled, spoken = gathered(share), gathered(pooled), gathered(spoken)
        present = (share > 0.5).flatten(2).any(2).flatten()
        table = pooled.flatten(0, 1) @ spoken.flatten(0, 1).t()
        rivals = _rivals(share, gathered_list(expressions)).to(table.device)
        return where + _ranked(table, rivals, present) + _ranked(table.t(), rivals.t() & present, present)


def _shrink(masks: Tensor, size: Sequence[int]) -> tuple[Tensor, Tensor]:
    """uint8 [B,Q,H,W] -> share of object and share of counted pixels, float [B,Q,h,w]."""
    height, width = size
    counted = F.adaptive_avg_pool2d((masks != IGNORE).float(), (height, width))
    share = F.adaptive_avg_pool2d((masks == 1).float(), (height, width)) / counted.clamp(min=1e-6)
    return share, counted


def _balanced(scores: Tensor, share: Tensor, counted: Tensor) -> Tensor:
    """Cross-entropy with equal weight for the region and for what is around it, so that small objects count."""
    positive, negative = share * counted, (1 - share) * counted
    hit = (F.softplus(-scores) * positive).sum((2, 3)) / positive.sum((2, 3)).clamp(min=1.0)
    miss = (F.softplus(scores) * negative).sum((2, 3)) / negative.sum((2, 3)).clamp(min=1.0)
    return (hit + miss).mean()


def _ranked(table: Tensor, rivals: Tensor, rows: Tensor) -> Tensor:
    """Cross-entropy of each row's diagonal entry against its rivals, over the rows that count and have any."""
    own = torch.eye(len(table), dtype=torch.bool, device=table.device)
    logits = table.masked_fill(~(rivals | own), -torch.inf)
    loss = torch.logsumexp(logits, dim=1) - table.diagonal()
    judged = rows & rivals.any(1)
    return (loss * judged).sum() / judged.sum().clamp(min=1)


def _rivals(share: Tensor, expressions: Sequence[Sequence[str]]) -> Tensor:
    """bool [N,N]: whether sentence j surely does not name region i (N = B*Q)."""
    flat = [text for row in expressions for text in row]
    queries = len(expressions[0])
    common = torch.einsum("bihw,bjhw->bij", share, share)
    size = share.sum((2, 3))
    smaller = torch.minimum(size.unsqueeze(1), size.unsqueeze(2)).clamp(min=1e-3)
    # In one frame the masks tell: two sentences with hardly a pixel in common name different things.
    apart = (common / smaller < 0.2).cpu()
    out = torch.zeros(len(flat), len(flat), dtype=torch.bool)
    for i, one in enumerate(flat):
        for j, other in enumerate(flat):
            b = i // queries
            out[i, j] = bool(apart[b, i % queries, j % queries]) if b == j // queries else _unlike(one, other)
    return out


@lru_cache(maxsize=1 << 18)
def _unlike(one: str, other: str) -> bool:
    """Whether two sentences of different pictures name things of different kinds, as far as words tell."""
    a, b = lexicon.concepts(one), lexicon.concepts(other)
    return bool(a and b) and not lexicon.confusable(a) & b
