"""What a training step minimises: the network, its sentences and its losses as one module, so that DDP can wrap it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

from rvos_edge.trainer.alignment import Alignment
from rvos_edge.trainer.global_batch import SharedDropout
from rvos_edge.trainer.losses import LossConfig, segmentation_loss
from rvos_edge.trainer.model.hinet import HINet
from rvos_edge.trainer.model.language import LanguageVectors, tokenize
from rvos_edge.trainer.naming import Naming

_SENTENCE_CACHE = 20_000
_AT_ONCE = 100


class Objective(nn.Module):
    """Batch -> loss.

    Args:
        model: The network.
        tokenizer: Of its sentences.
        loss: Terms and weights.
        queries: So many of each frame's pairs are decoded to masks; the spare ones after them are only aligned.
        frozen_text: BERT is not trained; its vectors are computed once per sentence.
        sentence_dropout: Dropout on the sentence vectors.
        naming: The teacher of ``loss.naming``; it needs the alignment.

    Attributes:
        warming: The head of the alignment loss learns alone, the network learns from the masks only.
    """

    names: Tensor | None

    def __init__(
        self,
        model: HINet,
        tokenizer: Tokenizer,
        *,
        loss: LossConfig,
        queries: int,
        frozen_text: bool,
        sentence_dropout: float = 0.0,
        naming: Naming | None = None,
    ) -> None:
        super().__init__()
        self.model, self.loss, self.queries = model, loss, queries
        self.sentences = SentenceCache(model, tokenizer, frozen=frozen_text, dropout=SharedDropout(sentence_dropout))
        self.alignment = Alignment(channels=model.config.aspp_channels) if loss.alignment else None
        self.naming = naming
        # What the text model says at the start: the classes' names are many, and it hardly changes.
        self.register_buffer("names", self.sentences.encode_all(naming.sentences) if naming else None, persistent=False)
        self.warming = False

    def extra(self) -> list[nn.Parameter]:
        """Weights beyond the network's; they are trained and then thrown away."""
        heads = [head for head in (self.alignment, self.naming) if head is not None]
        return [parameter for head in heads for parameter in head.parameters() if parameter.requires_grad]

    def forward(self, image: Tensor, flow: Tensor, masks: Tensor, expressions: Sequence[Sequence[str]]) -> Tensor:
        """Image [B,3,H,W] RGB 0..255, flow [B,2,.,.], masks uint8 [B,Q+S,H,W], B lists of Q+S strings -> scalar."""
        language = self.sentences(expressions)
        c2, c3, c4, c5 = self.model.encode(image)
        visions, motions = self.model.condition((c2, c3, c4, self.model.aspp(c5)), flow)
        decoded = tuple(level[:, : self.queries] for level in language)
        loss = segmentation_loss(
            self.model.answer(visions, motions, decoded), masks[:, : self.queries].contiguous(), self.loss
        )
        if self.alignment is None:
            return loss
        # The top level is the last one in every fusion.
        vision, spoken = self._learning(visions[-1], language[-1])
        loss = loss + self.loss.alignment * self.alignment(vision, spoken, masks, expressions)
        if self.naming is not None:
            vision, named = self._learning(visions[-1], self.model.language(self.names)[-1])
            loss = loss + self.loss.naming * self.naming(c5, vision, named.float() * self.alignment.weight)
        return loss

    def _learning(self, *features: Tensor) -> tuple[Tensor, ...]:
        return tuple(feature.detach() for feature in features) if self.warming else features


class SentenceCache:
    """Expressions of a batch -> l_1..l_4; sentence vectors of a frozen BERT are computed once."""

    def __init__(self, model: HINet, tokenizer: Tokenizer, *, frozen: bool, dropout: SharedDropout) -> None:
        self.model, self.tokenizer, self.frozen, self.dropout = model, tokenizer, frozen, dropout
        self._vectors: OrderedDict[str, Tensor] = OrderedDict()

    def __call__(self, expressions: Sequence[Sequence[str]]) -> LanguageVectors:
        """B lists of Q expressions -> l_i [B,Q,c_i]."""
        flat = [text for row in expressions for text in row]
        vectors = self._cached(flat) if self.frozen else self._encode(flat)
        shaped = self.dropout(vectors.unflatten(0, (len(expressions), -1)))  # type: ignore[no-untyped-call]
        levels: LanguageVectors = self.model.language(shaped)
        return levels

    def state(self) -> dict[str, Any]:
        """What is cached; plain values and tensors."""
        vectors = [vector.cpu() for vector in self._vectors.values()]
        return {"texts": list(self._vectors), "vectors": torch.stack(vectors) if vectors else None}

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue from ``state()``."""
        device = next(self.model.parameters()).device
        vectors = state["vectors"].to(device) if state["texts"] else ()
        self._vectors = OrderedDict(zip(state["texts"], vectors, strict=True))

    def _cached(self, flat: Sequence[str]) -> Tensor:
        new = list(dict.fromkeys(text for text in flat if text not in self._vectors))
        if new:
            # All at once: most sentences of a composed frame were never said before, and one by one they would cost
            # more than the decoder. Their last bits then depend on their company, which is why the state holds them.
            with torch.no_grad():
                self._vectors.update(zip(new, self._encode(new), strict=True))
        for text in flat:
            self._vectors.move_to_end(text)
        vectors = torch.stack([self._vectors[text] for text in flat])
        while len(self._vectors) > _SENTENCE_CACHE:
            self._vectors.popitem(last=False)
        return vectors

    @torch.no_grad()
    def encode_all(self, texts: Sequence[str]) -> Tensor:
        """Many texts -> their sentence vectors, float [N,c_s], without keeping them."""
        return torch.cat([self._encode(texts[start : start + _AT_ONCE]) for start in range(0, len(texts), _AT_ONCE)])

    def _encode(self, texts: Sequence[str]) -> Tensor:
        ids, mask = tokenize(self.tokenizer, texts, self.model.config.text.max_tokens)
        device = next(self.model.parameters()).device
        vectors: Tensor = self.model.sentence(ids.to(device), mask.to(device))
        return vectors
