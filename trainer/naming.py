"""A training-only loss that gives words to what the image encoder can tell apart already (beyond the paper)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rvos_edge.trainer.data import lexicon

_SHARPNESS = 0.5
"""Of the scores at the start; it is learnt."""


class Naming(nn.Module):
    """Distil the encoder's ImageNet classifier, place by place, into the product V_4 * l_4.

    The data name a hundred kinds of things, the classifier a thousand, with a million pictures behind them. Asked for
    "a <class>" of every class at once, the weighted sum of the product that ``Alignment`` judges shall rank them
    at each place as the classifier does there. What the text model knows of words carries that over to other
    sentences. The classifier is the teacher only; nothing of it is kept.

    Args:
        classifier: C5 [B,c,h,w] -> logits [B,N,h,w]; frozen (``Backbone.classifier``).
        names: Of its N classes.
    """

    def __init__(self, classifier: nn.Module, names: Sequence[str]) -> None:
        super().__init__()
        self.classifier = classifier.requires_grad_(False).eval()
        self.sentences = [lexicon.article(name) for name in names]
        self.sharpness = nn.Parameter(torch.tensor(_SHARPNESS).log())

    def train(self, mode: bool = True) -> Naming:
        """The teacher's batch statistics are its own."""
        super().train(mode)
        self.classifier.eval()
        return self

    def forward(self, features: Tensor, vision: Tensor, language: Tensor) -> Tensor:
        """The loss of a batch, a scalar.

        Args:
            features: C5, float [B,c5,h,w]; no gradient flows into it.
            vision: V_4, float [B,c,h,w].
            language: l_4 of the N sentences times the weights of the alignment's head, float [N,c].
        """
        with torch.no_grad():
            taught = self.classifier(features).float().softmax(dim=1)
            # Where the classifier is unsure there is little to learn.
            sure = taught.amax(dim=1)
        scores = torch.einsum("bchw,nc->bnhw", vision.float(), language) * self.sharpness.exp()
        wrong = -(taught * F.log_softmax(scores, dim=1)).sum(dim=1)
        return (wrong * sure).sum() / sure.sum()
