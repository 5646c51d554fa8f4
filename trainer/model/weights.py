"""Initial weights of a network: ImageNet, BERT and RAFT, each optional (design section 3: "all else random")."""

from __future__ import annotations

from pathlib import Path

from tokenizers import Tokenizer

from rvos_edge.errors import UserError
from rvos_edge.trainer.model.backbone import load_backbone_weights
from rvos_edge.trainer.model.flow import load_raft_weights
from rvos_edge.trainer.model.hinet import HINet
from rvos_edge.trainer.model.language import load_text_weights, load_tokenizer, small_tokenizer, text_weights_file
from rvos_edge.trainer.model.presets import StrictModel


class InitialWeights(StrictModel):
    """Where a new network's weights come from; ``None`` leaves them random."""

    backbone: str | None = None
    """Path of an official checkpoint, or ``package`` for EfficientNet-Lite0."""
    text: str | None = None
    """Folder of a Hugging Face BERT or MiniLM, or ``package`` for MiniLM-L6."""
    raft: str | None = None
    """Path of an official RAFT checkpoint."""


def initialise(model: HINet, weights: InitialWeights, *, random_text: bool = False) -> Tokenizer:
    """Load the named weights into a new network, and return the tokenizer that belongs to its text encoder.

    Args:
        model: Changed in place.
        weights: Which.
        random_text: Allow a real text model without weights, which no training can do without.

    Raises:
        UserError: A source is missing or does not fit. RAFT weights are left alone by a network without flow.
    """
    if weights.backbone is not None:
        load_backbone_weights(model.backbone, weights.backbone)
    if weights.raft is not None and model.flow is not None:
        load_raft_weights(model.flow, Path(weights.raft))
    if weights.text is not None:
        return load_text_weights(model.sentence, weights.text)
    if model.config.text.vocab_size > 5000:
        if not random_text:
            raise UserError(
                f"Preset '{model.config.preset}' needs a text model: set weights.text to a folder with tokenizer.json."
            )
        # The vocabulary of every uncased BERT.
        return load_tokenizer(text_weights_file("package").with_name("tokenizer.json"))
    return small_tokenizer(model.config.text.vocab_size)
