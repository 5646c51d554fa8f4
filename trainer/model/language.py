"""The text encoder: BERT, RoBERTa or CLIP of transformers, one vector per expression, projected once per level."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import BertConfig, BertModel, CLIPTextConfig, CLIPTextModel, RobertaConfig, RobertaModel

from rvos_edge.errors import UserError
from rvos_edge.trainer.model.packaged import packaged_text
from rvos_edge.trainer.model.presets import TextConfig, parse_config
from rvos_edge.trainer.model.state_file import load_state_file

_SMALL_WORDS = """
the a an on in of to with and left right top bottom middle moving object that does not move large small biggest smallest
red orange yellow green blue purple pink brown white black gray ball circle square box triangle star ring heart cross
diamond ellipse dog cat person man woman car bus horse bird boat train bear
"""

_HUB = "hub:"
_KINDS = {"bert": "bert", "roberta": "roberta", "clip": "clip", "clip_text_model": "clip"}

LanguageVectors = tuple[Tensor, ...]
"""l_1..l_4, each [...,c_i]."""


class SentenceEncoder(nn.Module):
    """A text model of transformers and pooling: token ids -> sentence vector s (supplement, section 1).

    Attributes:
        bert: The text model, of whatever kind.
    """

    def __init__(self, *, config: TextConfig) -> None:
        super().__init__()
        self.pooling = config.pooling
        self.bert: Any = _build(config)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Token ids and attention mask, int64 [N,L] each -> s [N,c_s]."""
        hidden: Tensor = self.bert(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        if self.pooling == "cls":
            return hidden[:, 0]
        weights = attention_mask.unsqueeze(-1).to(hidden.dtype)
        if self.pooling == "last":
            # A sum and no gathering: the weight is 1 where no token follows.
            weights = weights * (1 - F.pad(weights, (0, 0, 0, 1))[:, 1:])
        return (hidden * weights).sum(dim=1) / weights.sum(dim=1)


def _build(config: TextConfig) -> nn.Module:
    facts: dict[str, Any] = {
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "intermediate_size": config.intermediate_size,
        "hidden_act": config.activation,
        "layer_norm_eps": config.layer_norm_eps,
        "attn_implementation": "sdpa",
    }
    if config.kind == "clip":
        last = config.vocab_size - 1
        clip: Any = CLIPTextModel(
            CLIPTextConfig(max_position_embeddings=config.positions, bos_token_id=last - 1, eos_token_id=last, **facts)
        )
        return cast("nn.Module", getattr(clip, "text_model", clip))  # transformers 4 wraps it
    if config.kind == "roberta":
        # Its positions count from the padding's id, 1.
        return RobertaModel(
            RobertaConfig(max_position_embeddings=config.positions + 2, type_vocab_size=1, **facts),
            add_pooling_layer=False,
        )
    return BertModel(BertConfig(max_position_embeddings=config.positions, **facts), add_pooling_layer=False)


def read_text_config(source: str, changes: Mapping[str, Any]) -> TextConfig:
    """The text model in a source as of ``load_text_weights``, by its config.json; ``changes`` are further fields.

    Raises:
        UserError: The folder or file is missing, or the model is neither BERT, RoBERTa nor CLIP.
    """
    file = text_folder(source) / "config.json"
    try:
        facts = json.loads(file.read_text(encoding="utf-8"))
        kind = _KINDS.get(facts.get("model_type", ""))
        facts = facts.get("text_config", facts) if kind == "clip" else facts
        if kind is None:
            raise UserError(
                f"{file} is of a '{facts.get('model_type')}', which is not known here; give a BERT, RoBERTa or CLIP."
            )
        document = {
            "kind": kind,
            "vocab_size": facts["vocab_size"],
            "hidden_size": facts["hidden_size"],
            "layers": facts["num_hidden_layers"],
            "heads": facts["num_attention_heads"],
            "intermediate_size": facts["intermediate_size"],
            "activation": facts["hidden_act"],
            "layer_norm_eps": facts["layer_norm_eps"],
            "positions": facts["max_position_embeddings"] - (2 if kind == "roberta" else 0),
            "pooling": "last" if kind == "clip" else "cls",
        }
    except OSError as error:
        raise UserError(f"{file} does not exist; give a folder in the format of Hugging Face, or hub:NAME.") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{file} is no configuration of a text model ({error}); download it again.") from error
    document["max_tokens"] = min(64, document["positions"])
    return parse_config(TextConfig, document | dict(changes), f"model.text of {source}")


class LanguageProjections(nn.Module):
    """Projections s -> l_1..l_4, part of the text graph: the runtime caches their outputs alone."""

    def __init__(self, *, in_channels: int, channels: Sequence[int], hidden: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(in_channels)
        self.hidden = nn.Sequential(nn.Linear(in_channels, hidden), nn.ReLU(inplace=True)) if hidden else None
        self.levels = nn.ModuleList(nn.Linear(hidden or in_channels, out) for out in channels)
        for level in self.levels:
            # l = 1 leaves vision unchanged: a neutral start of the interaction (our reading).
            assert isinstance(level, nn.Linear)
            nn.init.ones_(level.bias)

    def forward(self, sentence: Tensor) -> LanguageVectors:
        """s [...,c_s] -> l_i [...,c_i]."""
        sentence = self.norm(sentence)
        if self.hidden is not None:
            sentence = self.hidden(sentence)
        return tuple(level(sentence) for level in self.levels)


def load_text_weights(encoder: SentenceEncoder, source: str) -> Tokenizer:
    """Load a text model in Hugging Face's format, or the one of a package, into an encoder; returns the tokenizer.

    ``source``: a folder with model.safetensors (or pytorch_model.bin) and tokenizer.json, ``hub:NAME`` for a model of
    the Hugging Face hub (its cache, or a download), or ``package`` for MiniLM-L6.

    Raises:
        UserError: The folder or package is missing, or holds another network.
    """
    file = text_weights_file(source)
    own = encoder.bert.state_dict()
    state = {}
    for key, value in load_state_file(file).items():
        # Checkpoints with heads prefix the body; the oldest ones name LayerNorm's weight and bias gamma and beta.
        for prefix in ("bert.", "roberta.", "text_model."):
            key = key.removeprefix(prefix)
        name = key.replace("LayerNorm.gamma", "LayerNorm.weight")
        state[name.replace("LayerNorm.beta", "LayerNorm.bias")] = value
    missing = [key for key in own if key not in state]
    # Without this check a deeper BERT of the same width would load without its last layers.
    deeper = [key for key in state if key.startswith(("encoder.layer.", "encoder.layers.")) and key not in own]
    wrong = [key for key in own if key in state and own[key].shape != state[key].shape]
    if missing or wrong or deeper:
        first = (missing + wrong + deeper)[0]
        raise UserError(f"{file} is not the text model of this network: '{first}' does not fit; set model.text to it.")
    encoder.bert.load_state_dict({key: state[key] for key in own}, strict=True)
    return load_tokenizer(file.with_name("tokenizer.json"))


def text_weights_file(source: str) -> Path:
    """The weights file of a source as in ``load_text_weights``.

    Raises:
        UserError: The folder or package is missing.
    """
    folder = text_folder(source)
    for name in ("model.safetensors", "pytorch_model.bin"):
        if (folder / name).is_file():
            return folder / name
    raise UserError(f"Text weights folder {folder} has no model.safetensors; download the model as a folder.")


def text_folder(source: str) -> Path:
    """The folder of a source as in ``load_text_weights``.

    Raises:
        UserError: The package is missing, or the hub does not give the model.
    """
    if source == "package":
        return packaged_text().parent
    if not source.startswith(_HUB):
        return Path(source)
    import huggingface_hub

    name = source.removeprefix(_HUB)
    try:
        return Path(huggingface_hub.snapshot_download(name, allow_patterns=["*.json", "model.safetensors"]))
    except Exception as error:  # the library raises its own, those of its network library, and ValueError
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{source}: the hub does not give it ({reason}); check the name, or give a folder.") from error


def load_tokenizer(path: Path) -> Tokenizer:
    """A Tokenizer from tokenizer.json, without padding and truncation.

    vocab.txt is not enough: from it alone transformers 5 maps every word to [UNK].

    Raises:
        UserError: The file is missing or damaged.
    """
    if not path.is_file():
        raise UserError(f"Tokenizer {path} does not exist; it comes with the text model's folder.")
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises no class of its own
        raise UserError(f"{path} is not a readable tokenizer; restore it from the text model's folder.") from error
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def tokenize(tokenizer: Tokenizer, expressions: Sequence[str], max_tokens: int) -> tuple[Tensor, Tensor]:
    """Expressions -> input_ids and attention_mask, int64 [N,L] each, padded to the longest expression.

    An expression longer than ``max_tokens`` is truncated before its [SEP].
    """
    rows = [tokenizer.encode(text).ids for text in expressions]
    rows = [row if len(row) <= max_tokens else [*row[: max_tokens - 1], row[-1]] for row in rows]
    length = max(len(row) for row in rows)
    ids = torch.zeros(len(rows), length, dtype=torch.int64)
    mask = torch.zeros(len(rows), length, dtype=torch.int64)
    for index, row in enumerate(rows):
        ids[index, : len(row)] = torch.tensor(row)
        mask[index, : len(row)] = 1
    return ids, mask


def small_tokenizer(vocab_size: int) -> Tokenizer:
    """A WordPiece tokenizer of letters and common words for the ``test`` preset, which has no real text model.

    Raises:
        ValueError: ``vocab_size`` is too small.
    """
    from tokenizers import models, normalizers, pre_tokenizers, processors

    words = _SMALL_WORDS.split()
    letters = "abcdefghijklmnopqrstuvwxyz0123456789"
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]
    tokens += [token for letter in letters for token in (letter, f"##{letter}") if token not in tokens]
    if len(tokens) > vocab_size:
        raise ValueError(f"vocab_size must be at least {len(tokens)}, got {vocab_size}")
    vocab = {token: index for index, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.WordPiece(vocab, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", vocab["[SEP]"]), ("[CLS]", vocab["[CLS]"]))
    return tokenizer
