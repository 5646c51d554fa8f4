"""The training objective: network, text cache and losses as one module, which DDP can wrap."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

from rvos_edge.trainer.distributed.global_batch import SharedDropout
from rvos_edge.trainer.losses.alignment import Alignment
from rvos_edge.trainer.losses.contrast import contrast
from rvos_edge.trainer.losses.distillation import Distillation
from rvos_edge.trainer.losses.segmentation import LossConfig, segmentation_terms, weighted
from rvos_edge.trainer.model.hinet import HINet
from rvos_edge.trainer.model.language import LanguageVectors, tokenize

_SENTENCE_CACHE = 20_000


class Objective(nn.Module):
    """Loss of a batch.

    Args:
        queries: Number of pairs per frame that are decoded to masks; further ones are only used by the alignment loss.
    """

    def __init__(
        self,
        model: HINet,
        tokenizer: Tokenizer,
        *,
        loss: LossConfig,
        queries: int,
        frozen_text: bool,
        sentence_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.model, self.loss, self.queries = model, loss, queries
        self.sentences = SentenceCache(model, tokenizer, frozen=frozen_text, dropout=SharedDropout(sentence_dropout))
        self.alignment = Alignment(channels=model.config.aspp_channels) if loss.alignment else None
        self.terms: dict[str, Tensor] = {}
        """Terms of the last loss by name, before their weights and without gradient."""
        # Not a submodule: its weights are neither trained nor saved.
        self.distillation = Distillation(model) if loss.distillation else None

    def extra(self) -> list[nn.Parameter]:
        """Parameters of the losses, which are discarded after training."""
        return list(self.alignment.parameters()) if self.alignment is not None else []

    def forward(
        self,
        image: Tensor,
        flow: Tensor,
        masks: Tensor,
        expressions: Sequence[Sequence[str]],
        camera: Tensor | None = None,
    ) -> Tensor:
        """Image [B,3,H,W] RGB 0..255, flow [B,2,.,.], masks uint8 [B,Q+S,H,W], B lists of Q+S strings and ``camera`` as
        in ``HINet.condition`` -> scalar.
        """
        language = self.sentences(expressions)
        features = self.model.features(image)
        visions, motions = self.model.condition((*features[:3], self.model.aspp(features[3])), flow, camera)
        decoded = tuple(level[:, : self.queries] for level in language)
        spoken = None
        if self.distillation is not None:
            words = self.distillation.draw(len(image), self.loss.distilled_words)
            spoken = self.sentences.vectors(words)
            pairs = zip(decoded, self.model.language(spoken), strict=True)
            decoded = tuple(torch.cat(pair, dim=1) for pair in pairs)
        logits = self.model.answer(visions, motions, decoded)
        asked, wanted = logits[:, : self.queries], masks[:, : self.queries].contiguous()
        terms = segmentation_terms(asked, wanted, self.loss)
        if self.loss.contrast:
            terms["contrast"] = contrast(asked, wanted)
        if self.distillation is not None and spoken is not None:
            terms["distillation"] = self.distillation(logits[:, self.queries :], features, flow, spoken, camera)
        if self.alignment is not None:
            # With every kind of fusion, the last feature map of vision is the one at the top level.
            terms["alignment"] = self.alignment(visions[-1], language[3], masks, expressions)
        self.terms = {name: term.detach() for name, term in terms.items()}
        return weighted(terms, self.loss)


class SentenceCache:
    """Expressions of a batch -> l_1..l_4; sentence vectors of a frozen BERT are computed once."""

    def __init__(self, model: HINet, tokenizer: Tokenizer, *, frozen: bool, dropout: SharedDropout) -> None:
        self.model, self.tokenizer, self.frozen, self.dropout = model, tokenizer, frozen, dropout
        self._vectors: OrderedDict[str, Tensor] = OrderedDict()

    def __call__(self, expressions: Sequence[Sequence[str]]) -> LanguageVectors:
        """B lists of Q expressions -> l_i [B,Q,c_i]."""
        levels: LanguageVectors = self.model.language(self.dropout(self.vectors(expressions)))
        return levels

    def vectors(self, expressions: Sequence[Sequence[str]]) -> Tensor:
        """B lists of Q expressions -> sentence vectors [B,Q,c_s]."""
        flat = [text for row in expressions for text in row]
        vectors = self._cached(flat) if self.frozen else self._encode(flat)
        shaped: Tensor = vectors.unflatten(0, (len(expressions), -1))  # type: ignore[no-untyped-call]
        return shaped

    def state(self) -> dict[str, Any]:
        """Content of the cache; plain values and tensors."""
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

    def _encode(self, texts: Sequence[str]) -> Tensor:
        ids, mask = tokenize(self.tokenizer, texts, self.model.config.text.max_tokens)
        device = next(self.model.parameters()).device
        vectors: Tensor = self.model.sentence(ids.to(device), mask.to(device))
        return vectors
