"""A training-only loss that ties sentences to regions where language meets vision (beyond the paper)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rvos_edge.trainer.data.generate import vocabulary
from rvos_edge.trainer.data.sample import IGNORE
from rvos_edge.trainer.distributed.ranks import gathered, gathered_list


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
        share, counted = shrink(masks, (vision.shape[-2], vision.shape[-1]))
        scores = torch.einsum("bchw,bqc->bqhw", vision, spoken) + self.bias
        where = balanced(scores, share, counted)

        # [B,Q,c]: the mean of V_4 over each region.
        inside = share * counted
        pooled = torch.einsum("bqhw,bchw->bqc", inside, vision) / inside.sum((2, 3)).clamp(min=1e-3).unsqueeze(-1)
        share, pooled, spoken = gathered(share), gathered(pooled), gathered(spoken)
        present = (share > 0.5).flatten(2).any(2).flatten()
        table = pooled.flatten(0, 1) @ spoken.flatten(0, 1).t()
        others = rivals(share, gathered_list(expressions)).to(table.device)
        return where + ranked(table, others, present) + ranked(table.t(), others.t() & present, present)


def shrink(masks: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """uint8 [B,Q,H,W] -> share of object and share of counted pixels, float [B,Q,h,w]."""
    counted = F.adaptive_avg_pool2d((masks != IGNORE).float(), size)
    share = F.adaptive_avg_pool2d((masks == 1).float(), size) / counted.clamp(min=1e-6)
    return share, counted


def balanced(scores: Tensor, share: Tensor, counted: Tensor) -> Tensor:
    """Cross-entropy with equal weight for the region and for what is around it, so that small objects count."""
    positive, negative = share * counted, (1 - share) * counted
    hit = (F.softplus(-scores) * positive).sum((2, 3)) / positive.sum((2, 3)).clamp(min=1.0)
    miss = (F.softplus(scores) * negative).sum((2, 3)) / negative.sum((2, 3)).clamp(min=1.0)
    return (hit + miss).mean()


def ranked(table: Tensor, others: Tensor, rows: Tensor) -> Tensor:
    """Cross-entropy of each row's diagonal entry against its rivals, over the rows that count and have any."""
    own = torch.eye(len(table), dtype=torch.bool, device=table.device)
    logits = table.masked_fill(~(others | own), -torch.inf)
    loss = torch.logsumexp(logits, dim=1) - table.diagonal()
    judged = rows & others.any(1)
    return (loss * judged).sum() / judged.sum().clamp(min=1)


def rivals(share: Tensor, expressions: Sequence[Sequence[str]]) -> Tensor:
    """bool [N,N]: whether sentence j surely does not name region i (N = B*Q)."""
    flat = [text for row in expressions for text in row]
    queries = len(expressions[0])
    common = torch.einsum("bihw,bjhw->bij", share, share)
    size = share.sum((2, 3))
    smaller = torch.minimum(size.unsqueeze(1), size.unsqueeze(2)).clamp(min=1e-3)
    # In one frame the masks tell: two sentences with hardly a pixel in common name different things.
    apart = (common / smaller < 0.2).cpu()
    out = _unlike(flat)
    for b in range(len(expressions)):
        own = slice(b * queries, (b + 1) * queries)
        out[own, own] = apart[b]
    return out


def _unlike(sentences: Sequence[str]) -> Tensor:
    """bool [N,N]: whether two sentences of different frames surely name different kinds of things, judged by words."""
    named = [vocabulary.concepts(sentence) for sentence in sentences]
    column = {category: index for index, category in enumerate(sorted(frozenset().union(*named)))}
    says, alike = (torch.zeros(len(sentences), len(column) + 1) for _ in range(2))
    for row, categories in enumerate(named):
        says[row, [column[c] for c in categories]] = 1
        alike[row, [column[c] for c in vocabulary.confusable(categories) if c in column]] = 1
    known = says.any(1)
    return known.unsqueeze(0) & known.unsqueeze(1) & (says @ alike.t() == 0)
