"""Words for what the image encoder can tell apart already: a coarse map of where a sentence's kind of thing is.

Beyond the paper. The encoder came with a classifier of a thousand kinds of things, learnt from a million pictures; the
data sets here name a hundred, in a thousand pictures. So its last hidden layer is kept, at every place instead of over
the whole picture (as class activation maps do, Zhou et al., CVPR 2016), and a linear map takes the sentence vector to
its weights. That map alone is trained (``trainer.naming``); layers that were taught in other places would be learnt by
heart. What it says is a prior: it moves the margin, and the more so the less sure the decoder is of its object.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rvos_edge.trainer.model.refine.confidence import confidence_weight

CLASSIFIER_CHANNELS = 1280
"""Of the hidden layer of every EfficientNet-Lite's classifier."""
_FURTHEST = 4.0
"""The map's distance from neutral is cut here: it is a score, sure of itself far beyond its worth."""
_UNSURE, _SURE = 0.5, 2.5
"""Of the decoder (``confidence``): from the one to the other ..."""
_MOST, _LEAST = 1.6, 0.15
"""... what the map counts beside the decoder's margin falls from this to that."""


class ClassifierPrior(nn.Module):
    """C5 and what a sentence asks of it -> how much each place is what is named.

    Args:
        in_channels: Of C5.
        sentence_channels: Of the sentence vector.
    """

    def __init__(self, *, in_channels: int, sentence_channels: int) -> None:
        super().__init__()
        self.hidden = nn.Sequential(
            nn.Conv2d(in_channels, CLASSIFIER_CHANNELS, 1, bias=False),
            nn.BatchNorm2d(CLASSIFIER_CHANNELS, eps=1e-3, momentum=0.01),
            nn.ReLU6(),
        )
        self.words = nn.Linear(sentence_channels, CLASSIFIER_CHANNELS)

    def encode_text(self, sentence: Tensor) -> Tensor:
        """s [...,c_s] -> l_5 [...,1280]; of the sentence vector the direction alone counts."""
        words: Tensor = self.words(F.normalize(sentence, dim=-1))
        return words

    def forward(self, features: Tensor, words: Tensor) -> Tensor:
        """C5 [B,c,h,w] and l_5 [B,Q,1280] -> scores [B,Q,h,w], in which only differences count."""
        seen = self.hidden(features).flatten(2)
        scores: Tensor = torch.matmul(words.to(seen.dtype), seen).unflatten(-1, features.shape[-2:])  # type: ignore[no-untyped-call]
        return scores

    def prior(self, scores: Tensor, sure: Tensor) -> Tensor:
        """What is added to the margin, float32 [B,Q,h,w], within +-6.4.

        Neutral is half way between the mean over the picture and the score at which a place would have just its share
        of the softmax over all places. By the first alone half of every picture would count as named, by the second
        alone nothing but the place that is surest.

        Args:
            scores: [B,Q,h,w].
            sure: The decoder's ``confidence``, [B,Q,1,1].
        """
        scores = scores.float()
        flat = scores.flatten(2)
        mean = flat.mean(dim=-1)
        share = torch.logsumexp(flat, dim=-1) - math.log(flat.shape[-1])
        neutral = ((mean + share) / 2).unsqueeze(-1).unsqueeze(-1)
        weight = confidence_weight(sure.float(), ends=(_UNSURE, _SURE), weights=(_MOST, _LEAST))
        return weight * (scores - neutral).clamp(-_FURTHEST, _FURTHEST)
