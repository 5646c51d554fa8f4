"""Training loss that aligns expressions with regions at the product of vision and language (beyond the paper)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rvos_edge.trainer.data.generate import vocabulary
from rvos_edge.trainer.data.sample import IGNORE
from rvos_edge.trainer.distributed.ranks import gathered, gathered_list


class Alignment(nn.Module):
    """Loss on the product V_4 * l_4, before any convolution.

    In most frames the decoder can predict good masks without the expression. Here a weighted sum of the product must
    (a) be high inside the referred region and low outside, and (b) rank the expression of every region of the batch
    above those of other objects, in its own frame and in others, over all ranks. The weights are discarded after
    training.
    """

    def __init__(self, *, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(channels).uniform_(-1, 1) / channels**0.5)
        self.bias = nn.Parameter(torch.zeros(()))

    def forward(self, vision: Tensor, language: Tensor, masks: Tensor, expressions: Sequence[Sequence[str]]) -> Tensor:
        """The loss of a batch, a scalar: V_4 [B,c,h,w], l_4 [B,Q,c], masks uint8 [B,Q,H,W] (255 ignore), B lists of Q
        strings.
        """
        with torch.autocast(vision.device.type, enabled=False):  # sums over a region leave the range of float16
            return self._loss(vision, language, masks, expressions)

    def _loss(self, vision: Tensor, language: Tensor, masks: Tensor, expressions: Sequence[Sequence[str]]) -> Tensor:
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
    """Masks uint8 [B,Q,H,W] -> share of object pixels and share of counted pixels, float [B,Q,h,w] each."""
    counted = F.adaptive_avg_pool2d((masks != IGNORE).float(), size)
    share = F.adaptive_avg_pool2d((masks == 1).float(), size) / counted.clamp(min=1e-6)
    return share, counted


def balanced(scores: Tensor, share: Tensor, counted: Tensor) -> Tensor:
    """Cross-entropy with equal weights for a region and its surroundings, whatever their sizes."""
    positive, negative = share * counted, (1 - share) * counted
    hit = (F.softplus(-scores) * positive).sum((2, 3)) / positive.sum((2, 3)).clamp(min=1.0)
    miss = (F.softplus(scores) * negative).sum((2, 3)) / negative.sum((2, 3)).clamp(min=1.0)
    return (hit + miss).mean()


def ranked(table: Tensor, others: Tensor, rows: Tensor) -> Tensor:
    """Cross-entropy of each row's diagonal entry against its rivals, the mean over the selected rows that have rivals.

    Args:
        table: Float [...,N,N].
        others: The rivals of each row, bool [...,N,N].
        rows: The rows that count, bool [...,N].
    """
    own = torch.eye(table.shape[-1], dtype=torch.bool, device=table.device)
    logits = table.masked_fill(~(others | own), -torch.inf)
    loss = torch.logsumexp(logits, dim=-1) - table.diagonal(dim1=-2, dim2=-1)
    valid = rows & others.any(-1)
    return (loss * valid).sum() / valid.sum().clamp(min=1)


def rivals(share: Tensor, expressions: Sequence[Sequence[str]]) -> Tensor:
    """True if expression j surely does not name region i: bool [N,N], N = B*Q."""
    flat = [text for row in expressions for text in row]
    queries = len(expressions[0])
    # Within a frame, expressions whose masks hardly overlap name different objects.
    different = apart(share).cpu()
    out = _unlike(flat)
    for b in range(len(expressions)):
        own = slice(b * queries, (b + 1) * queries)
        out[own, own] = different[b]
    return out


def apart(share: Tensor) -> Tensor:
    """True if two regions of a frame hardly overlap: shares [B,Q,h,w] -> bool [B,Q,Q]."""
    common = torch.einsum("bihw,bjhw->bij", share, share)
    size = share.sum((2, 3))
    smaller = torch.minimum(size.unsqueeze(1), size.unsqueeze(2)).clamp(min=1e-3)
    return common / smaller < 0.2


def _unlike(sentences: Sequence[str]) -> Tensor:
    """True if two expressions of different frames surely name different categories, by their words: bool [N,N]."""
    named = [vocabulary.concepts(sentence) for sentence in sentences]
    column = {category: index for index, category in enumerate(sorted(frozenset().union(*named)))}
    says, alike = (torch.zeros(len(sentences), len(column) + 1) for _ in range(2))
    for row, categories in enumerate(named):
        says[row, [column[c] for c in categories]] = 1
        alike[row, [column[c] for c in vocabulary.confusable(categories) if c in column]] = 1
    known = says.any(1)
    return known.unsqueeze(0) & known.unsqueeze(1) & (says @ alike.t() == 0)
