"""Initial weights: ImageNet for the backbone, BERT, RAFT; all else is random (supplement, section 1)."""

from __future__ import annotations

from pathlib import Path

from tokenizers import Tokenizer

from rvos_edge.bundle import shipped_bundle
from rvos_edge.errors import UserError, about
from rvos_edge.strict import StrictModel
from rvos_edge.trainer.model.backbone import load_backbone_weights
from rvos_edge.trainer.model.flow import load_raft_weights
from rvos_edge.trainer.model.hinet import HINet
from rvos_edge.trainer.model.language import load_text_weights, load_tokenizer, small_tokenizer


class InitialWeights(StrictModel):
    """Sources of a new network's weights; ``None`` leaves a part random."""

    backbone: str | None = None
    """Path of an official checkpoint of the backbone, or ``package`` for EfficientNet-Lite0."""
    text: str | None = None
    """Folder of a text model in Hugging Face's format, ``hub:NAME``, or ``package`` for MiniLM-L6."""
    raft: str | None = None
    """Path of an official RAFT checkpoint."""


def initialise(
    model: HINet, weights: InitialWeights, *, random_text: bool = False, tokenizer: Tokenizer | None = None
) -> Tokenizer:
    """Load initial weights into a new network; returns the tokenizer of the text encoder.

    RAFT weights are ignored by a network without flow; ``random_text`` accepts a text model with random weights;
    ``tokenizer`` is that of a text model whose weights come from elsewhere.

    Raises:
        UserError: A source is missing or does not fit.
    """
    if weights.backbone is not None:
        with about("weights.backbone"):
            load_backbone_weights(model.backbone, weights.backbone)
    if weights.raft is not None and model.flow is not None:
        with about("weights.raft"):
            load_raft_weights(model.flow, Path(weights.raft))
    if tokenizer is not None:
        return tokenizer
    if weights.text is not None:
        with about("weights.text"):
            return load_text_weights(model.sentence, weights.text)
    is_bert = model.config.text.kind == "bert"
    if model.config.text.vocab_size > 5000 or not is_bert:
        if not (random_text and is_bert):
            raise UserError(
                f"Preset '{model.config.preset}' needs a text model: set weights.text to a folder with tokenizer.json."
            )
        # All uncased BERTs share this vocabulary.
        return load_tokenizer(shipped_bundle() / "tokenizer.json")
    return small_tokenizer(model.config.text.vocab_size)
