"""Training loss that preserves the response to words which the training data do not contain (beyond the paper).

Fine-tuning on a hundred categories weakens the response to all other words. Here the network before training is the
teacher: on every frame the trained network must reproduce its masks for a few random words (Hinton et al., "Distilling
the knowledge in a neural network", 2015; learning without forgetting, Li and Hoiem, ECCV 2016).
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy

import torch
from torch import Tensor
from torch.nn import functional as F

from rvos_edge.trainer.data.generate import vocabulary
from rvos_edge.trainer.distributed.ranks import part, parts
from rvos_edge.trainer.model.backbone import imagenet_names
from rvos_edge.trainer.model.hinet import HINet
from rvos_edge.trainer.model.language import LanguageVectors

_KINDS = (
    *("an animal", "a pet", "a bird", "an insect", "a fish", "a reptile", "a wild animal", "a farm animal", "a mammal"),
    *("a vehicle", "a car", "a boat", "an aircraft", "a machine", "a tool", "a toy", "a piece of furniture", "food"),
    *("a plant", "clothing", "a person", "somebody", "a musical instrument", "a piece of sports equipment"),
    *("the moving object", "something moving", "the main object", "the thing in the middle", "what moves"),
)


class Distillation:
    """Divergence between the masks of a network before and during training.

    The backbone is shared: it must not be trained.

    Args:
        words: Sentences, of which some are queried on every frame; ImageNet's names and their kinds by default.

    Example:
        >>> from rvos_edge.trainer.model.presets import model_config
        >>> model = HINet(config=model_config("test")).eval()
        >>> image, flow, sentence = torch.zeros(1, 3, 64, 96), torch.zeros(1, 2, 64, 96), torch.ones(1, 2, 32)
        >>> answer = model.answer(*model.condition(model.encode_image(image), flow), model.language(sentence))
        >>> loss = Distillation(model)(answer, model.features(image), flow, sentence)
        >>> abs(float(loss)) < 1e-6  # the network is still what it was
        True
    """

    def __init__(self, model: HINet, words: Sequence[str] | None = None) -> None:
        self.words = tuple(words) if words is not None else default_words()
        # Backbone, text model and flow are not copied: they stay as they are.
        shared = (model.backbone, model.sentence, model.flow)
        memo = {id(module): module for module in shared if module is not None}
        self.teacher: HINet = deepcopy(model, memo).eval().requires_grad_(False)

    def state(self) -> dict[str, Tensor]:
        """Weights of the teacher that are not shared with the trained network."""
        shared = ("backbone.", "sentence.", "flow.")
        return {key: value for key, value in self.teacher.state_dict().items() if not key.startswith(shared)}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Continue from ``state()``."""
        self.teacher.load_state_dict(state, strict=False)

    def draw(self, frames: int, count: int) -> list[list[str]]:
        """``count`` words for each of ``frames`` frames of this part of the batch, by torch's generator."""
        drawn = torch.randint(len(self.words), (frames * parts(), count))[part()].tolist()
        return [[self.words[index] for index in row] for row in drawn]

    def __call__(
        self,
        logits: Tensor,
        features: Sequence[Tensor],
        flow: Tensor | None,
        sentence: Tensor,
        camera: Tensor | None = None,
    ) -> Tensor:
        """The loss of a batch, a scalar: the mean divergence over pixels and words, zero where both networks agree.

        ``logits`` [B,K,2,h,w] are the trained network's, ``features`` C2..C5, ``sentence`` [B,K,c_s] the words'
        vectors, ``camera`` as in ``HINet.condition``.
        """
        with torch.no_grad():
            levels = (*features[:3], self.teacher.aspp(features[3]))
            language: LanguageVectors = self.teacher.language(sentence)
            target = _margin(self.teacher.answer(*self.teacher.condition(levels, flow, camera), language))
        answer, truth = _margin(logits), torch.sigmoid(target)
        least = F.binary_cross_entropy_with_logits(target, truth)
        return F.binary_cross_entropy_with_logits(answer, truth) - least


def default_words() -> tuple[str, ...]:
    """ImageNet's thousand names with their articles, and kinds of things."""
    return (*(vocabulary.article(name) for name in imagenet_names()), *_KINDS)


def _margin(logits: Tensor) -> Tensor:
    return (logits[:, :, 1] - logits[:, :, 0]).float()
